//! What a recipe means for formats of other programs, and what of it only `.gq` files have.

use super::{CodeFamily, Recipe, calibration_name};
use crate::failure::{Exit, Failure};
use crate::options::decision::Calibrate;
use crate::units;
use gq_tensor::RotationKind;
use std::path::PathBuf;

/// A format of other programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// A GGUF in block types.
    Gguf,
    /// A checkpoint directory in integer codes.
    CompressedTensors,
}

impl Foreign {
    /// What asks for it.
    pub fn option(self) -> &'static str {
        match self {
            Foreign::Gguf => "--format gguf",
            Foreign::CompressedTensors => "--format compressed-tensors",
        }
    }

    /// Mean bits per weight unless something is asked for: about what llama.cpp's Q4_K_M takes, and 4 bits in groups of 32.
    fn bits(self) -> f64 {
        match self {
            Foreign::Gguf => 5.0,
            Foreign::CompressedTensors => 4.5,
        }
    }

    /// What names of outputs end with.
    fn end(self) -> &'static str {
        match self {
            Foreign::Gguf => ".gguf",
            Foreign::CompressedTensors => "-compressed-tensors",
        }
    }
}

/// What a mix of types may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MixBudget {
    /// Bytes of the whole file, or of all files with weights.
    File(u64),
    /// Mean bits per weight of all matrices that have a choice.
    Bits(f64),
}

impl MixBudget {
    /// The failure of a budget of which matrices get `limit` bytes where the smallest types take `least`, of `weights`
    /// weights, and everything else takes `around`: it names the nearest that works.
    pub fn too_small(self, limit: u64, least: u64, weights: u64, around: u64) -> Failure {
        let (option, asked, nearest) = match self {
            MixBudget::File(bytes) => {
                let nearest = (least + around).next_multiple_of(100_000);
                ("--size", units::asked_bytes(bytes), units::asked_bytes(nearest))
            }
            MixBudget::Bits(bits) => {
                let nearest = (800.0 * least as f64 / weights.max(1) as f64).ceil() / 100.0;
                ("--bpw", format!("{bits}"), format!("{nearest}"))
            }
        };
        let message = format!(
            "{option} {asked} is below the smallest mix of types that this model's widths allow, which takes {} and {} \
             for everything else: {option} {nearest} works",
            units::bytes(least),
            units::bytes(around),
        );
        let failure = Failure::new(Exit::Usage, "plan.budget", message).at(option).limit(limit).actual(least);
        failure.advise(format!("allow more bytes: {option} {nearest}"))
    }

    /// Bytes that matrices of so many weights get, where everything else takes `around`.
    pub fn for_matrices(self, weights: u64, around: u64) -> u64 {
        match self {
            MixBudget::File(bytes) => bytes.saturating_sub(around),
            MixBudget::Bits(bits) => (bits * weights as f64 / 8.0) as u64,
        }
    }
}

impl Recipe {
    /// The budget of a file in another program's format.
    ///
    /// # Errors
    /// When options are given that only mean something for a `.gq` file; the first is named.
    pub fn mix_budget(&self, format: Foreign) -> Result<MixBudget, Failure> {
        let own = "codes of .gq files, which nothing else has";
        let rotated = "weights are rotated in .gq files alone";
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
            (self.keep_towers, "--keep-towers", "the language model alone is written"),
            (self.fit.is_some(), "--fit", "the memory that gq takes to run a .gq file"),
            (self.target_kld.is_some(), "--target-kld", "a search over .gq files"),
        ];
        if let Some((_, option, why)) = given.into_iter().find(|(given, ..)| *given) {
            let message = format!(
                "{option} is not for {} ({why}): --size or --bpw says how large the file is",
                format.option()
            );
            let failure = Failure::new(Exit::Usage, "convert.format_option", message).at(option);
            return Err(failure.limit("--size or --bpw").actual(option));
        }
        Ok(match (self.size, self.bpw) {
            (Some(bytes), _) => MixBudget::File(bytes),
            (None, bits) => MixBudget::Bits(bits.unwrap_or(format.bits())),
        })
    }

    /// What a file in another program's format is called, unless told otherwise; `more` says what else was asked for, with a
    /// hyphen in front, or what was in the place of a budget.
    pub fn mix_name(&self, source: &str, format: Foreign, more: &str, calibrate: &Calibrate) -> PathBuf {
        let figure = match (self.size, self.bpw) {
            _ if !more.is_empty() && !more.starts_with('-') => String::new(),
            (Some(bytes), _) => units::asked_bytes(bytes),
            (None, bits) => format!("{}bpw", bits.unwrap_or(format.bits())),
        };
        let loras: String = self.loras.names().map(|lora| format!("-{lora}")).collect();
        let uncorrected = if self.no_corrections { "-uncorrected" } else { "" };
        let calibration = calibration_name(calibrate);
        let (source, end) = (source.strip_suffix(".gguf").unwrap_or(source), format.end());
        PathBuf::from(format!("{source}-{figure}{more}{loras}{uncorrected}{calibration}{end}"))
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
            for format in [Foreign::Gguf, Foreign::CompressedTensors] {
                let said = recipe(args).mix_budget(format).unwrap_err().sentence();
                let option = args.split(' ').next().unwrap();
                assert!(said.contains(option) && said.contains(format.option()), "{args}: {said}");
            }
        }
        let budget = |args: &str, format| recipe(args).mix_budget(format).unwrap();
        let (gguf, compressed) = (Foreign::Gguf, Foreign::CompressedTensors);
        assert_eq!(budget("--size 90MB", gguf), MixBudget::File(90_000_000));
        assert_eq!(budget("--bpw 4.6", gguf), MixBudget::Bits(4.6));
        assert_eq!((budget("", gguf), budget("", compressed)), (MixBudget::Bits(5.0), MixBudget::Bits(4.5)));
        let name = |format, more| recipe("--size 90MB").mix_name("m", format, more, &Calibrate::Measured);
        assert_eq!(name(gguf, ""), PathBuf::from("m-90MB.gguf"));
        assert_eq!(name(gguf, "Q4_K_M"), PathBuf::from("m-Q4_K_M.gguf"));
        assert_eq!(name(compressed, "-g128"), PathBuf::from("m-90MB-g128-compressed-tensors"));
    }
}
