//! What a recipe means for a GGUF, and what of it only `.gq` files have.

use super::{CodeFamily, Recipe, calibration_name};
use crate::failure::{Exit, Failure};
use crate::options::decision::Calibrate;
use crate::units;
use gq_tensor::RotationKind;
use std::path::PathBuf;

/// Mean bits per weight unless something is asked for: about what llama.cpp's Q4_K_M takes.
const DEFAULT_BITS: f64 = 5.0;

/// What a GGUF may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GgufBudget {
    /// Bytes of the whole file.
    File(u64),
    /// Mean bits per weight of all matrices, embedding and head among them.
    Bits(f64),
}

impl GgufBudget {
    /// Bytes of the file, where they are what is asked for.
    pub fn bytes(self) -> Option<u64> {
        match self {
            GgufBudget::File(bytes) => Some(bytes),
            GgufBudget::Bits(_) => None,
        }
    }
}

impl Recipe {
    /// The budget of a GGUF.
    ///
    /// # Errors
    /// When options are given that only mean something for a `.gq` file; the first is named.
    pub fn gguf_budget(&self) -> Result<GgufBudget, Failure> {
        let own = "codes of .gq files, which no GGUF has";
        let rotated = "weights of a GGUF are not rotated";
        let given = [
            (self.bits.is_some(), "--bits", own),
            (self.encoding.is_some(), "--encoding", own),
            (self.embedding.is_some(), "--embedding", own),
            (self.head.is_some(), "--head", own),
            (self.per_layer_table.is_some(), "--per-layer-table", own),
            (self.per_layer_projection.is_some(), "--per-layer-projection", own),
            (!self.overrides.is_empty(), "--override", own),
            (self.codes != CodeFamily::Trellis, "--codes", own),
            (self.no_grid, "--no-grid", "grids are kept without loss in .gq files alone"),
            (self.rotation != RotationKind::Hadamard, "--rotation", rotated),
            (self.seed != 0, "--seed", rotated),
            (self.keep_towers, "--keep-towers", "towers have files of their own in llama.cpp"),
            (self.fit.is_some(), "--fit", "the memory that gq takes to run a .gq file"),
            (self.target_kld.is_some(), "--target-kld", "a search over .gq files"),
        ];
        if let Some((_, option, why)) = given.into_iter().find(|(given, ..)| *given) {
            let message = format!(
                "{option} is not for --format gguf ({why}): --size or --bpw says how large the file is"
            );
            let failure = Failure::new(Exit::Usage, "gguf.option", message).at(option);
            return Err(failure.limit("--size or --bpw").actual(option));
        }
        Ok(match (self.size, self.bpw) {
            (Some(bytes), _) => GgufBudget::File(bytes),
            (None, bits) => GgufBudget::Bits(bits.unwrap_or(DEFAULT_BITS)),
        })
    }

    /// What a GGUF made by these options is called, unless told otherwise.
    pub fn gguf_name(&self, source: &str, calibrate: &Calibrate) -> PathBuf {
        let figure = match (self.size, self.bpw) {
            (Some(bytes), _) => units::asked_bytes(bytes),
            (None, bits) => format!("{}bpw", bits.unwrap_or(DEFAULT_BITS)),
        };
        let loras: String = self.loras.names().map(|lora| format!("-{lora}")).collect();
        let uncorrected = if self.no_corrections { "-uncorrected" } else { "" };
        let calibration = calibration_name(calibrate);
        let source = source.strip_suffix(".gguf").unwrap_or(source);
        PathBuf::from(format!("{source}-{figure}{loras}{uncorrected}{calibration}.gguf"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        recipe: Recipe,
    }

    fn recipe(args: &str) -> Recipe {
        Line::try_parse_from(["gq"].into_iter().chain(args.split_whitespace())).unwrap().recipe
    }

    #[test]
    fn what_only_gq_files_have_is_refused_by_name() {
        for args in [
            "--bits 4",
            "--encoding tt4",
            "--embedding tq8",
            "--head tq8",
            "--per-layer-table tq8",
            "--per-layer-projection tq8",
            "--override down=tq6",
            "--codes scalar",
            "--no-grid",
            "--rotation none",
            "--seed 3",
            "--keep-towers",
            "--fit 4GiB",
            "--target-kld 0.1",
        ] {
            let failure = recipe(args).gguf_budget().unwrap_err();
            let option = args.split(' ').next().unwrap();
            assert!(failure.sentence().contains(option), "{args}: {}", failure.sentence());
        }
        assert_eq!(recipe("--size 90MB").gguf_budget().unwrap(), GgufBudget::File(90_000_000));
        assert_eq!(recipe("--bpw 4.6").gguf_budget().unwrap(), GgufBudget::Bits(4.6));
        assert_eq!(recipe("").gguf_budget().unwrap(), GgufBudget::Bits(DEFAULT_BITS));
        let name = recipe("--size 90MB").gguf_name("m", &Calibrate::Measured);
        assert_eq!(name, PathBuf::from("m-90MB.gguf"));
    }
}
