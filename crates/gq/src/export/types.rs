//! Types of the matrices of a GGUF: what is asked for, or what is nearest in size to what is stored.

use super::Weights;
use gq_checkpoint::gguf::{GgmlType, is_encodable};
use gq_checkpoint::gguf_model::ExportOptions;
use std::collections::BTreeMap;

/// What is asked for by `--type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// For each tensor the type nearest in size.
    Nearest,
    /// One type for all.
    Type(GgmlType),
}

/// Reads the name of a type, or `nearest`.
pub fn wanted(name: &str) -> Result<Wanted, String> {
    if name.eq_ignore_ascii_case("nearest") {
        return Ok(Wanted::Nearest);
    }
    let writable =
        || GgmlType::all().filter(|kind| is_encodable(*kind)).map(GgmlType::name).collect::<Vec<_>>();
    let found = GgmlType::from_name(name).filter(|kind| is_encodable(*kind));
    found.map(Wanted::Type).ok_or_else(|| {
        let expected = format!("expected nearest, {}", writable().join(", "));
        match of_mix(name).filter(|kind| is_encodable(*kind)) {
            Some(kind) => format!(
                "it is one of llama-quantize's mixes of types, of which {} takes the most; {expected}",
                kind.name()
            ),
            None => expected,
        }
    })
}

/// The type that most of a mix of llama-quantize is in: `Q4_K` of `Q4_K_M`.
fn of_mix(name: &str) -> Option<GgmlType> {
    let name = name.to_ascii_uppercase();
    let stem = ["_S", "_M", "_L", "_XL"].into_iter().find_map(|end| name.strip_suffix(end))?;
    GgmlType::from_name(stem.strip_prefix("UD-").unwrap_or(stem))
}

/// What to write, by what is asked for: from a `.gq` file the nearest types unless said otherwise, else F16, and what is
/// stored in MXFP4 as it is.
pub fn options(asked: Option<Wanted>, weights: &Weights, name: &str) -> ExportOptions {
    let default = if weights.is_container() { Wanted::Nearest } else { Wanted::Type(GgmlType::F16) };
    let mut options = ExportOptions::new(GgmlType::F16, name);
    match asked.unwrap_or(default) {
        Wanted::Type(kind) => options.kind = kind,
        Wanted::Nearest => {
            let matrices = weights.tensors.iter().filter(|tensor| tensor.shape.len() > 1);
            let kinds =
                matrices.map(|t| (t.name.clone(), nearest(t.bits, t.shape.last().copied().unwrap_or(1))));
            options.overrides = kinds.collect();
            options.kind = most(&options.overrides, |name| weights.elements(name)).unwrap_or(GgmlType::F16);
        }
    }
    if asked.is_none() {
        // As they are, without loss.
        let coded = weights.tensors.iter().filter(|tensor| tensor.mxfp4);
        options.overrides.extend(coded.map(|tensor| (tensor.name.clone(), GgmlType::MXFP4)));
    }
    options
}

/// The standard type nearest in size; of equal ones that of larger blocks.
fn nearest(bits: f64, cols: usize) -> GgmlType {
    let fits = |kind: &GgmlType| is_encodable(*kind) && cols.is_multiple_of(kind.block_len());
    let distance = |kind: &GgmlType| (kind.bits() - bits).abs();
    let mut best = GgmlType::F16;
    for kind in GgmlType::all().filter(fits) {
        let (new, old) = (distance(&kind), distance(&best));
        if new < old || new == old && kind.block_len() > best.block_len() {
            best = kind;
        }
    }
    best
}

/// The type of most weights, of tensors that have so many elements.
pub fn most(kinds: &BTreeMap<String, GgmlType>, elements: impl Fn(&str) -> u64) -> Option<GgmlType> {
    let mut sums: BTreeMap<u32, u64> = BTreeMap::new();
    for (name, kind) in kinds {
        *sums.entry(kind.code()).or_default() += elements(name);
    }
    sums.into_iter().max_by_key(|&(_, weights)| weights).and_then(|(code, _)| GgmlType::from_code(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixes_lead_to_their_types() {
        for (mix, kind) in [("Q4_K_M", "Q4_K"), ("q5_k_s", "Q5_K"), ("UD-Q4_K_XL", "Q4_K")] {
            let told = wanted(mix).unwrap_err();
            assert!(told.contains(&format!("of which {kind} takes the most")), "{mix}: {told}");
        }
        assert!(!wanted("nonsense").unwrap_err().contains("llama-quantize"));
        assert!(wanted("q4_k").is_ok());
    }

    #[test]
    fn nearest_types() {
        assert_eq!(nearest(4.02, 512), GgmlType::Q4_K);
        assert_eq!(nearest(4.02, 576), GgmlType::Q4_0);
        assert_eq!(nearest(6.5, 256), GgmlType::Q6_K);
        assert_eq!(nearest(8.03, 576), GgmlType::Q8_0);
        assert_eq!(nearest(16.0, 576), GgmlType::F16);
        assert_eq!(nearest(16.0, 7), GgmlType::F16);
    }
}
