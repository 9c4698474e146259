//! What decides a conversion's bytes, as options: the same for `gq convert` and `gq plan`.

mod mix;

pub use mix::{Foreign, MixBudget};

use crate::adapters::Adapters;
use crate::failure::Failure;
use crate::options::budget::Asked;
use crate::options::decision::Calibrate;
use crate::options::kinds::Kv;
use crate::{encodings, units};
use gq_calibrate::{Measurements, MeasurementsDir};
use gq_checkpoint::{Checkpoint, Role};
use gq_convert::{Budget, Calibration, Choice, Codes, Override, Policy};
use gq_tensor::{Encoding, RotationKind, ScaleGroup};
use sha2::{Digest, Sha256};
use std::path::PathBuf;

/// What decides the output's bytes, and the memory to make them in.
#[derive(clap::Args, Clone, Debug)]
pub struct Recipe {
    /// Bits per weight of the body, 1 to 8; short for --encoding tqB: quick, nothing is measured unless --calibration asks
    /// for it [default: no fixed encodings but a budget of 4.25 bits per weight of the body and 6.5 of embedding and head,
    /// spent over all codes].
    #[arg(short, long, value_name = "B", value_parser = encodings::bits, conflicts_with = "encoding")]
    bits: Option<u8>,
    /// Encoding of the body: projections of attention and MLP; quick, as --bits is.
    #[arg(short, long, value_name = "ENC", value_parser = encodings::choice)]
    encoding: Option<Choice>,
    /// Encoding of the token embedding [default: what the budget gives it; tq8 with --bits, --encoding and --bpw].
    #[arg(long, value_name = "ENC", value_parser = encodings::choice)]
    embedding: Option<Choice>,
    /// Encoding of the output head, where it is not the embedding [default: what the budget gives it; tq8 with --bits, --encoding and --bpw].
    #[arg(long, value_name = "ENC", value_parser = encodings::choice)]
    head: Option<Choice>,
    /// Encoding of the per-layer embedding table (Gemma 4 E models) [default: what the budget gives it; tq8 with --bits, --encoding and --bpw].
    #[arg(long, value_name = "ENC", value_parser = encodings::choice)]
    per_layer_table: Option<Choice>,
    /// Encoding of the per-layer gates and projections (Gemma 4 E models) [default: what the budget gives it; tq8 with --bits, --encoding].
    #[arg(long, value_name = "ENC", value_parser = encodings::choice)]
    per_layer_projection: Option<Choice>,
    /// Encoding of the tensors whose names match; repeatable, the last match wins.
    #[arg(long = "override", value_name = "REGEX=ENC", value_parser = override_rule)]
    overrides: Vec<Override>,
    /// Carry the tensors of vision and audio towers along, byte for byte; without this they are left out.
    #[arg(long)]
    keep_towers: bool,
    #[command(flatten)]
    pub loras: Adapters,
    /// Quantize a source that is quantized already, such as a Q4_K GGUF; its types are recorded in the file.
    #[arg(long)]
    pub allow_requantize: bool,
    /// Round weights that sit on a grid already like any others, even where the grid would lose nothing.
    #[arg(long)]
    no_grid: bool,
    /// Transform of the rows before coding: hadamard, haar (dense, slow) or none.
    #[arg(long, value_name = "KIND", default_value = "hadamard", value_parser = rotation)]
    rotation: RotationKind,
    /// Seed of the rotation.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Refuse to start when more memory would be needed, such as 4GiB; smaller blocks are tried first.
    #[arg(long, value_name = "SIZE", value_parser = units::parse_bytes)]
    pub max_memory: Option<u64>,
    /// Measurements made by `gq calibrate` on the same checkpoint, in place of --calibration.
    #[arg(long, value_name = "DIR")]
    pub measurements: Option<PathBuf>,
    /// Spend by predicted divergence alone, without the corrections that trials measured.
    #[arg(long)]
    no_corrections: bool,
    /// Most bytes of the whole file, such as 80MB, spent where the measured divergence is most sensitive; without
    /// calibration, by sensitivities that are typical of each role.
    #[arg(long, value_name = "SIZE", value_parser = units::parse_bytes, conflicts_with_all = ["bits", "encoding"])]
    size: Option<u64>,
    /// Mean bits per weight of the body, scales included, spent in the same way.
    #[arg(long, value_name = "B", conflicts_with_all = ["bits", "encoding", "size"], value_parser = positive)]
    bpw: Option<f64>,
    /// Codes that budgets choose among.
    #[arg(long, value_name = "FAMILY", default_value = "trellis")]
    codes: CodeFamily,
    /// Memory that weights, keys and values of --ctx tokens, and buffers are to fit in together, such as 16GiB.
    #[arg(long, value_name = "SIZE", value_parser = units::parse_bytes, conflicts_with_all = ["bits", "encoding", "size", "bpw"], group = "room")]
    fit: Option<u64>,
    /// Tokens of context that --fit leaves room for, such as 32k.
    #[arg(long, value_name = "N", default_value = "8192", requires = "room", value_parser = units::parse_tokens)]
    ctx: usize,
    /// Keys and values that --fit leaves room for; run the file with the same.
    #[arg(long, value_name = "KIND", default_value = "f16", requires = "room")]
    kv: Kv,
    /// Smallest file whose KL divergence from the original, in nats per token, is at most this. `gq convert` makes files
    /// until one measures just below it on held-out calibration text; `gq plan` prints what is expected.
    #[arg(long, value_name = "X", conflicts_with_all = ["bits", "encoding", "size", "bpw", "fit"], value_parser = positive)]
    pub target_kld: Option<f64>,
}

/// Families of codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum CodeFamily {
    /// tq2 to tq8: the fastest to run.
    Scalar,
    /// tt2 to tt6, tq7 and tq8: closer at the same bytes.
    Trellis,
    /// The trellises with 2^12 states: a little closer, slower to make.
    TrellisS12,
    /// With 2^14 states: closer by a little again, four times slower to make.
    TrellisS14,
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|x: &f64| x.is_finite() && *x > 0.0);
    number.ok_or_else(|| "expected a number above 0".to_owned())
}

fn override_rule(rule: &str) -> Result<Override, String> {
    let (pattern, encoding) = rule.rsplit_once('=').ok_or("expected REGEX=ENC, such as 'down_proj=tq6'")?;
    Ok(Override { pattern: pattern.to_owned(), encoding: encodings::choice(encoding)? })
}

fn rotation(name: &str) -> Result<RotationKind, String> {
    let found = RotationKind::ALL.into_iter().find(|kind| kind.name() == name);
    found.ok_or_else(|| "expected hadamard, haar or none".to_owned())
}

impl Recipe {
    /// The measurements these options name, of whatever checkpoint.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn open_measurements(&self) -> Result<Option<MeasurementsDir>, Failure> {
        Ok(self.measurements.as_deref().map(MeasurementsDir::open).transpose()?)
    }

    /// The measurements these options name.
    ///
    /// # Errors
    /// When they cannot be read, were made on another checkpoint, or a budget comes without any.
    pub fn measurements(
        &self,
        checkpoint: &Checkpoint,
        measured: Option<MeasurementsDir>,
    ) -> Result<Option<MeasurementsDir>, Failure> {
        let measurements = match (&self.measurements, measured) {
            (Some(_), None) => self.open_measurements()?,
            (_, measured) => measured,
        };
        if let Some(measurements) = &measurements {
            measurements.check_source(&gq_calibrate::source_files(checkpoint))?;
        }
        Ok(if self.no_corrections {
            measurements.map(MeasurementsDir::without_corrections)
        } else {
            measurements
        })
    }

    /// Whether an encoding is asked for by name: quick, without calibration unless that is asked for too.
    pub fn names_an_encoding(&self) -> bool {
        self.bits.is_some() || self.encoding.is_some()
    }

    /// The same with so many bits per weight of the body to spend.
    pub fn at_bits(&self, bits: f64) -> Recipe {
        Recipe { bpw: Some(bits), size: None, fit: None, target_kld: None, ..self.clone() }
    }

    /// The budget as it was asked for.
    pub fn asked(&self) -> Asked {
        Asked { size: self.size, bpw: self.bpw, fit: self.fit, ctx: self.ctx, kv: self.kv.into() }
    }

    /// What is to be spent; `None`: encodings are asked for by name.
    fn budget(&self, checkpoint: &Checkpoint) -> Option<Budget> {
        let (cache, work) = self.asked().around(checkpoint.spec());
        let fit = self.fit.map(|bytes| bytes.saturating_sub(cache + work));
        let bytes = self.size.or(fit).map(Budget::FileBytes);
        let budget = bytes.or(self.bpw.map(Budget::BodyBits)).or(self.target_kld.map(Budget::Divergence));
        budget.or((!self.names_an_encoding()).then_some(Budget::DEFAULT))
    }

    /// The policy these options ask for, with measurements where there are some.
    pub fn policy(&self, checkpoint: &Checkpoint, measurements: Option<&Measurements>) -> Policy {
        let bits = Choice::Coded(Encoding::Turbo { bits: self.bits.unwrap_or(4), group: ScaleGroup::Row });
        let budget = self.budget(checkpoint);
        let mut overrides = self.named_roles(checkpoint, budget);
        overrides.extend_from_slice(&self.overrides);
        let plain = Policy::new(self.encoding.unwrap_or(bits));
        Policy {
            embedding: self.embedding.unwrap_or(plain.embedding),
            head: self.head.unwrap_or(plain.head),
            per_layer_table: self.per_layer_table.unwrap_or(plain.per_layer_table),
            per_layer_projection: self.per_layer_projection.unwrap_or(plain.per_layer_projection),
            overrides,
            rotation: self.rotation,
            seed: self.seed,
            keep_towers: self.keep_towers,
            grids: !self.no_grid,
            budget,
            codes: match self.codes {
                CodeFamily::Scalar => Codes::Scalar,
                CodeFamily::Trellis => Codes::Trellis,
                CodeFamily::TrellisS12 => Codes::TrellisLarge,
                CodeFamily::TrellisS14 => Codes::TrellisLargest,
            },
            calibration: measurements.map(calibration),
            ..plain
        }
    }

    /// Roles whose encodings are asked for by name do not compete for a budget: rules for their tensors, which come
    /// before those of --override.
    fn named_roles(&self, checkpoint: &Checkpoint, budget: Option<Budget>) -> Vec<Override> {
        let asked = |role| match role {
            Role::Embedding => self.embedding,
            Role::Head => self.head,
            Role::PerLayerTable => self.per_layer_table,
            Role::PerLayerGate | Role::PerLayerProjection => self.per_layer_projection,
            _ => None,
        };
        let competes = |role| match budget {
            None => false,
            Some(Budget::BodyBits(_)) => matches!(role, Role::PerLayerGate | Role::PerLayerProjection),
            Some(Budget::FileBytes(_) | Budget::Divergence(_) | Budget::MeanBits { .. }) => true,
        };
        let rule = |tensor: &gq_checkpoint::SourceTensor| {
            let encoding = asked(tensor.role).filter(|_| competes(tensor.role))?;
            Some(Override { pattern: format!("^{}$", regex::escape(&tensor.name)), encoding })
        };
        checkpoint.tensors().iter().filter_map(rule).collect()
    }

    /// What a file made by these options is called, unless told otherwise: the source, what was asked for, and what of
    /// it is not as usual.
    pub fn file_name(&self, source: &str, calibrate: &Calibrate) -> PathBuf {
        let source = source.strip_suffix(".gguf").unwrap_or(source);
        let figure = match (self.size, self.fit, self.bpw, self.target_kld) {
            (Some(bytes), ..) => units::asked_bytes(bytes),
            (_, Some(bytes), ..) => {
                format!("fit-{}-{}", units::asked_bytes(bytes), units::asked_tokens(self.ctx))
            }
            (_, _, Some(bits), _) => format!("{bits}bpw"),
            (.., Some(nats)) => format!("kld{nats}"),
            _ => match (self.bits, self.encoding) {
                (Some(bits), _) => format!("tq{bits}"),
                (_, Some(choice)) => choice.name(),
                (None, None) => format!("{}bpw", Budget::DEFAULT_BODY_BITS),
            },
        };
        let others = self.unusual();
        let codes = match self.codes {
            CodeFamily::Trellis => "",
            CodeFamily::Scalar => "-scalar",
            CodeFamily::TrellisS12 => "-s12",
            CodeFamily::TrellisS14 => "-s14",
        };
        let calibration = match (self.names_an_encoding(), calibrate) {
            (true, Calibrate::Without(_)) => String::new(),
            (true, _) => "-calibrated".to_owned(),
            (false, calibrate) => calibration_name(calibrate),
        };
        PathBuf::from(format!("{source}-{figure}{codes}{others}{calibration}.gq"))
    }

    /// What a name says of options that change bytes and are not as usual.
    fn unusual(&self) -> String {
        let mut name = String::new();
        let mut add = |part: &str| {
            name.push('-');
            name.push_str(part);
        };
        // With bits per weight of the body the embedding has an encoding of its own; without, the budget spends on both.
        let fixed = self.bpw.map(|_| Policy::new(Choice::Exact).embedding);
        if let Some(embedding) = self.embedding.or(fixed) {
            add(&format!("emb-{}", embedding.name()));
        }
        for (part, choice) in
            [("head", self.head), ("ple", self.per_layer_table), ("plp", self.per_layer_projection)]
        {
            if let Some(choice) = choice {
                add(&format!("{part}-{}", choice.name()));
            }
        }
        for lora in self.loras.names() {
            add(&lora);
        }
        if !self.overrides.is_empty() {
            let rules =
                self.overrides.iter().map(|rule| format!("{}={}\n", rule.pattern, rule.encoding.name()));
            let digest = Sha256::digest(rules.collect::<String>());
            add(&format!("override-{}", hex(&digest)));
        }
        match self.rotation {
            RotationKind::Hadamard => {}
            RotationKind::None => add("unrotated"),
            other => add(other.name()),
        }
        if self.seed != 0 {
            add(&format!("seed{}", self.seed));
        }
        let flags =
            [(self.keep_towers, "towers"), (self.no_grid, "nogrid"), (self.no_corrections, "uncorrected")];
        flags.into_iter().filter(|(given, _)| *given).for_each(|(_, part)| add(part));
        name
    }
}

/// What a name says of calibration where it is the usual thing.
fn calibration_name(calibrate: &Calibrate) -> String {
    match calibrate {
        Calibrate::Without(_) => "-uncalibrated".to_owned(),
        Calibrate::Measured => String::new(),
        Calibrate::Measure(how) => how.text_name().map_or_else(String::new, |text| format!("-{text}")),
    }
}

/// The first six digits of a digest.
fn hex(digest: &[u8]) -> String {
    digest.iter().take(3).map(|byte| format!("{byte:02x}")).collect()
}

/// What a recipe says about measurements.
pub fn calibration(measurements: &Measurements) -> Calibration {
    Calibration {
        text_sha256: measurements.text_sha256.clone(),
        tokens: measurements.tokens,
        sha256: measurements.sha256(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::decision::Why;
    use clap::Parser;
    use std::collections::BTreeSet;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        recipe: Recipe,
    }

    #[test]
    fn recipes_that_differ_have_names_that_differ() {
        let name = |args: &str| {
            let line = Line::try_parse_from(["gq"].into_iter().chain(args.split_whitespace())).unwrap();
            let name = line.recipe.file_name("d", &Calibrate::Without(Why::Encoding));
            name.to_str().unwrap().to_owned()
        };
        assert_eq!(name("--bits 4"), "d-tq4.gq");
        assert_eq!(name(""), "d-4.25bpw-uncalibrated.gq");
        assert_eq!(name("--bpw 4.25"), "d-4.25bpw-emb-tq8-uncalibrated.gq");
        assert_eq!(name("--bits 4 --embedding tt4 --seed 3"), "d-tq4-emb-tt4-seed3.gq");
        let all = [
            "--bits 4",
            "--bits 4 --embedding tt4",
            "--bits 4 --head tt4",
            "--bits 4 --per-layer-table tt4",
            "--bits 4 --per-layer-projection tt4",
            "--bits 4 --override down=tq6",
            "--bits 4 --override down=tq5",
            "--bits 4 --rotation none",
            "--bits 4 --rotation haar",
            "--bits 4 --seed 3",
            "--bits 4 --keep-towers",
            "--bits 4 --no-grid",
            "--bits 4 --lora ./mine",
            "--bits 4 --lora ./mine=0.5",
            "",
            "--bpw 4.25",
            "--bpw 4.25 --embedding tt4",
            "--no-corrections",
        ];
        let names: BTreeSet<String> = all.into_iter().map(name).collect();
        assert_eq!(names.len(), all.len(), "{names:?}");
    }
}
