//! The types that llama-quantize gives the tensors of a model, by the name of its mix.
//!
//! As of llama.cpp's `src/llama-quant.cpp`, for the mixes of types that are rounded to here; `scripts/check_like.py` compares
//! them with llama-quantize's own files.

use gq_checkpoint::gguf::GgmlType;
use gq_checkpoint::gguf_model::ExportTensor;
use gq_checkpoint::{Family, ModelSpec};
use std::collections::BTreeMap;

/// Name, number in `general.file_type`, type of most tensors.
const MIXES: [(&str, u32, GgmlType); 18] = [
    ("Q4_0", 2, GgmlType::Q4_0),
    ("Q4_1", 3, GgmlType::Q4_1),
    ("Q8_0", 7, GgmlType::Q8_0),
    ("Q5_0", 8, GgmlType::Q5_0),
    ("Q5_1", 9, GgmlType::Q5_1),
    ("Q2_K", 10, GgmlType::Q2_K),
    ("Q3_K_S", 11, GgmlType::Q3_K),
    ("Q3_K_M", 12, GgmlType::Q3_K),
    ("Q3_K_L", 13, GgmlType::Q3_K),
    ("Q4_K_S", 14, GgmlType::Q4_K),
    ("Q4_K_M", 15, GgmlType::Q4_K),
    ("Q5_K_S", 16, GgmlType::Q5_K),
    ("Q5_K_M", 17, GgmlType::Q5_K),
    ("Q6_K", 18, GgmlType::Q6_K),
    ("Q2_K_S", 21, GgmlType::Q2_K),
    ("IQ4_NL", 25, GgmlType::IQ4_NL),
    ("IQ4_XS", 30, GgmlType::IQ4_XS),
    ("F16", 1, GgmlType::F16),
];

/// Short names of llama-quantize.
const SHORT: [(&str, &str); 3] = [("Q3_K", "Q3_K_M"), ("Q4_K", "Q4_K_M"), ("Q5_K", "Q5_K_M")];

/// A mix of llama-quantize.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Like {
    /// As llama-quantize calls it.
    pub name: &'static str,
    /// Its number in `general.file_type`.
    pub file_type: u32,
    main: GgmlType,
}

/// Reads the name of a mix.
pub fn like(name: &str) -> Result<Like, String> {
    let asked = name.to_ascii_uppercase();
    let asked = SHORT.iter().find(|(short, _)| *short == asked).map_or(asked.as_str(), |(_, long)| long);
    let found = MIXES.iter().find(|(name, ..)| *name == asked);
    found.map(|&(name, file_type, main)| Like { name, file_type, main }).ok_or_else(|| {
        let known: Vec<&str> = MIXES.iter().map(|(name, ..)| *name).collect();
        format!("expected one of {}", known.join(", "))
    })
}

/// Whether llama-quantize gives a layer more bits: the first and the last eighth, and every third between.
fn more_bits(layer: usize, layers: usize) -> bool {
    layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2
}

impl Like {
    /// Types by canonical name, of `tensors` in the order of a file; `importance` says whether llama-quantize would have an
    /// importance matrix.
    pub fn kinds(
        self,
        spec: &ModelSpec,
        tensors: &[&ExportTensor],
        importance: bool,
    ) -> BTreeMap<String, GgmlType> {
        let layers = spec.layers.len();
        let values = tensors.iter().filter(|tensor| has_values(&tensor.new.name)).count();
        let tied = tensors.iter().all(|tensor| tensor.new.name != "output.weight");
        let mut layer_of_value = 0;
        let mut ordered: Vec<&&ExportTensor> = tensors.iter().collect();
        ordered.sort_by_key(|tensor| layer(&tensor.new.name));
        let mut kinds = BTreeMap::new();
        for tensor in ordered {
            let Some(source) = tensor.source.clone() else { continue };
            let place = Place {
                name: &tensor.new.name,
                cols: tensor.new.shape.last().copied().unwrap_or(1),
                layer: layer(&tensor.new.name).unwrap_or(0),
                layers,
                value: (layer_of_value, values),
                is_head: tensor.new.name == "output.weight"
                    || tied
                        && ["token_embd.weight", "per_layer_token_embd.weight"].contains(&&*tensor.new.name),
                importance,
            };
            layer_of_value += usize::from(has_values(place.name));
            kinds.insert(source, fallback(self.kind(spec, &place), place.cols));
        }
        kinds
    }

    fn kind(self, spec: &ModelSpec, place: &Place<'_>) -> GgmlType {
        let heads = spec.layers.first().map(|layer| &layer.attention);
        let shared = heads.is_some_and(|heads| heads.heads / heads.kv_heads.max(1) >= 4);
        let eight = spec.layers.iter().any(|layer| layer.moe.is_some_and(|moe| moe.experts == 8));
        let (layer, layers) = (place.layer, place.layers);
        let (value, values) = place.value;
        // llama-quantize leaves what makes inputs of layers' tables as it is.
        if self.main == GgmlType::F16 || place.is("per_layer_model_proj") {
            return GgmlType::F16;
        }
        if place.is_head {
            let divided = place.cols.is_multiple_of(self.main.block_len());
            return if !divided || self.main == GgmlType::Q8_0 { GgmlType::Q8_0 } else { GgmlType::Q6_K };
        }
        if has_values(place.name) {
            let kind = match self.name {
                "Q2_K" => {
                    if shared {
                        GgmlType::Q4_K
                    } else {
                        GgmlType::Q3_K
                    }
                }
                "Q2_K_S" if shared => GgmlType::Q4_K,
                "Q3_K_M" => {
                    if value < 2 {
                        GgmlType::Q5_K
                    } else {
                        GgmlType::Q4_K
                    }
                }
                "Q3_K_L" => GgmlType::Q5_K,
                "IQ4_NL" | "IQ4_XS" if shared => GgmlType::Q5_K,
                "Q4_K_M" | "Q5_K_M" if more_bits(value, values) => GgmlType::Q6_K,
                "Q4_K_S" if value < 4 => GgmlType::Q5_K,
                _ => self.main,
            };
            return match kind {
                _ if eight => GgmlType::Q8_0,
                // Eight heads share values in its models of 70 billion weights: more bits cost little.
                GgmlType::Q3_K | GgmlType::Q4_K if is_70b(spec) => GgmlType::Q5_K,
                kind => kind,
            };
        }
        if place.is("attn_k") && eight {
            return GgmlType::Q8_0;
        }
        if place.name.contains("ffn_down") {
            return match self.name {
                "Q2_K" => GgmlType::Q3_K,
                "Q2_K_S" if layer < layers / 8 => GgmlType::Q4_K,
                "Q3_K_M" => {
                    if layer < layers / 16 {
                        GgmlType::Q5_K
                    } else {
                        GgmlType::Q4_K
                    }
                }
                "Q3_K_L" => GgmlType::Q5_K,
                "Q4_K_M" | "Q5_K_M" if more_bits(layer, layers) => GgmlType::Q6_K,
                "IQ4_NL" | "IQ4_XS" if layer < layers / 8 && !place.importance => GgmlType::Q5_K,
                "Q4_K_S" if layer < layers / 8 => GgmlType::Q5_K,
                "Q4_0" if place.importance && layer < layers / 8 => GgmlType::Q4_1,
                "Q5_0" if place.importance && layer < layers / 8 => GgmlType::Q5_1,
                _ => self.main,
            };
        }
        if place.is("attn_output") {
            return match self.name {
                "Q2_K" | "Q3_K_S" | "Q3_K_M" | "IQ4_NL" | "Q4_K_S" | "Q4_K_M" | "IQ4_XS" if eight => {
                    GgmlType::Q5_K
                }
                _ if eight => self.main,
                "Q2_K" => GgmlType::Q3_K,
                "Q3_K_M" => GgmlType::Q4_K,
                "Q3_K_L" => GgmlType::Q5_K,
                _ => self.main,
            };
        }
        self.main
    }
}

/// What the choice for a tensor depends on.
struct Place<'a> {
    /// Name in the file.
    name: &'a str,
    cols: usize,
    layer: usize,
    layers: usize,
    /// The number of a value projection among those that there are, and how many.
    value: (usize, usize),
    is_head: bool,
    importance: bool,
}

impl Place<'_> {
    fn is(&self, part: &str) -> bool {
        self.name.strip_suffix(".weight").is_some_and(|name| name.ends_with(part))
    }
}

/// Whether a tensor is of values in llama-quantize's view, as one that queries, keys and values stand in together is.
fn has_values(name: &str) -> bool {
    ["attn_v.weight", "attn_qkv.weight"].iter().any(|end| name.ends_with(end))
}

/// Whether llama.cpp takes a model for one of 70 billion weights: of Llama's those of 80 layers that share keys and values.
fn is_70b(spec: &ModelSpec) -> bool {
    let shares = spec.layers.first().is_some_and(|layer| layer.attention.heads != layer.attention.kv_heads);
    spec.layers.len() == 80 && (spec.family == Family::Qwen2 || spec.family == Family::Llama && shares)
}

/// The layer that a name in a file is of.
fn layer(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

/// What llama-quantize takes where blocks do not divide a width.
fn fallback(kind: GgmlType, cols: usize) -> GgmlType {
    let divided = |kind: GgmlType| cols.is_multiple_of(kind.block_len());
    let other = match kind {
        kind if divided(kind) => return kind,
        GgmlType::IQ4_XS => GgmlType::IQ4_NL,
        GgmlType::Q2_K | GgmlType::Q3_K => GgmlType::Q4_0,
        GgmlType::Q4_K => GgmlType::Q5_0,
        GgmlType::Q5_K => GgmlType::Q5_1,
        GgmlType::Q6_K => GgmlType::Q8_0,
        _ => GgmlType::F16,
    };
    if divided(other) { other } else { GgmlType::F16 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gq_checkpoint::Checkpoint;

    fn spec(name: &str) -> ModelSpec {
        let path = format!("{}/../../testdata/tiny/{name}", env!("CARGO_MANIFEST_DIR"));
        Checkpoint::open(path).unwrap().spec().clone()
    }

    /// The type of a tensor in the first of `layers` layers, without an importance matrix.
    fn kind(mix: &str, spec: &ModelSpec, name: &str) -> GgmlType {
        let layers = spec.layers.len();
        let place = Place {
            name,
            cols: 256,
            layer: 0,
            layers,
            value: (0, layers),
            is_head: false,
            importance: false,
        };
        like(mix).unwrap().kind(spec, &place)
    }

    #[test]
    fn what_llama_quantize_does_otherwise_in_some_models() {
        let gemma = spec("gemma4-e2b");
        assert_eq!(kind("Q4_K_M", &gemma, "per_layer_model_proj.weight"), GgmlType::F16);
        assert_eq!(kind("Q4_K_M", &gemma, "blk.0.inp_gate.weight"), GgmlType::Q4_K);
        // Queries, keys and values in one tensor are values.
        let mut phi = spec("phi3");
        let layer = phi.layers[0].clone();
        phi.layers.resize(16, layer);
        assert_eq!(kind("Q4_K_M", &phi, "blk.0.attn_qkv.weight"), GgmlType::Q6_K);
        assert_eq!(kind("Q3_K_M", &phi, "blk.0.attn_qkv.weight"), GgmlType::Q5_K);
        // Eight experts.
        let mut eight = spec("qwen3-moe");
        let output = "blk.0.attn_output.weight";
        assert_eq!(kind("Q3_K_L", &eight, output), GgmlType::Q5_K);
        for layer in &mut eight.layers {
            layer.moe.as_mut().unwrap().experts = 8;
        }
        assert_eq!(kind("Q3_K_L", &eight, output), GgmlType::Q3_K);
        assert_eq!(kind("Q4_K_M", &eight, output), GgmlType::Q5_K);
        // 80 layers, with keys and values shared and without.
        let mut llama = spec("llama");
        let layer = llama.layers[0].clone();
        llama.layers.resize(80, layer);
        for (kv_heads, expected) in [(1, GgmlType::Q5_K), (8, GgmlType::Q3_K)] {
            for layer in &mut llama.layers {
                (layer.attention.heads, layer.attention.kv_heads) = (8, kv_heads);
            }
            assert_eq!(kind("Q3_K_S", &llama, "blk.0.attn_v.weight"), expected);
        }
    }

    #[test]
    fn names_of_mixes() {
        assert_eq!(like("q4_k").unwrap().name, "Q4_K_M");
        assert_eq!(like("IQ4_XS").unwrap().file_type, 30);
        let told = like("IQ2_M").unwrap_err();
        assert!(told.contains("Q2_K") && told.contains("IQ4_XS"), "{told}");
        assert_eq!(
            (fallback(GgmlType::Q4_K, 576), fallback(GgmlType::Q4_K, 512)),
            (GgmlType::Q5_0, GgmlType::Q4_K)
        );
        assert_eq!(
            (fallback(GgmlType::IQ4_XS, 576), fallback(GgmlType::Q6_K, 100)),
            (GgmlType::IQ4_NL, GgmlType::F16)
        );
        let more: Vec<usize> = (0..16).filter(|layer| more_bits(*layer, 16)).collect();
        assert_eq!(more, [0, 1, 4, 7, 10, 13, 14, 15]);
    }
}
