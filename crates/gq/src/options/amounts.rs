//! What is measured, on which text and how much of it, decided.

use gq_calibrate::{ExpertMoments, Measurements};
use gq_checkpoint::{Checkpoint, ModelSpec, Role};
use gq_convert::Amounts;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// No calibration.
pub const NONE: &str = "none";

/// The calibration text that the model writes.
pub const SELF: &str = "self";

/// The calibration text that comes with the program.
pub const BUILTIN: &str = "builtin";

/// Tokens of a calibration sequence.
pub const CTX: usize = 512;

/// Where calibration text comes from.
pub enum TextSource<'a> {
    /// With the program.
    Builtin,
    /// The model writes it.
    SelfText,
    /// A file or a directory.
    Files(&'a Path),
}

impl TextSource<'_> {
    /// What `--calibration` names; unless told otherwise, what comes with the program.
    pub fn of(given: Option<&Path>) -> TextSource<'_> {
        match given {
            Some(path) if path.as_os_str() == SELF => TextSource::SelfText,
            Some(path) if path.as_os_str() != BUILTIN => TextSource::Files(path),
            _ => TextSource::Builtin,
        }
    }
}

/// Which moment experts' gates are rounded by.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moments {
    /// One for each expert, of the tokens that chose it.
    Own,
    /// One for all experts of a layer.
    Layer,
}

/// What of it was given on the command line.
#[derive(Debug, Clone)]
pub struct Given {
    /// The text.
    pub text: Option<PathBuf>,
    /// Tokens of second moments.
    pub tokens: Option<usize>,
    /// Tokens of a sequence.
    pub ctx: usize,
    /// Tokens of gradients.
    pub gradient_tokens: Option<usize>,
    /// Tokens of trials.
    pub trial_tokens: Option<usize>,
    /// Which moments experts' gates are rounded by.
    pub experts: Moments,
}

impl Default for Given {
    fn default() -> Given {
        let (tokens, gradient_tokens, trial_tokens) = (None, None, None);
        Given { text: None, tokens, ctx: CTX, gradient_tokens, trial_tokens, experts: Moments::Own }
    }
}

impl Given {
    /// What `gq calibrate` measures: once for every size to come.
    pub fn thorough(self, checkpoint: &Checkpoint) -> Measuring {
        self.measuring(default_tokens(checkpoint), 8192, 3072, "default")
    }

    /// What `gq convert` measures for one file, in minutes.
    pub fn quick(self, checkpoint: &Checkpoint) -> Measuring {
        let tokens = quick_tokens(checkpoint);
        self.measuring(tokens, 2048, 1024, &tokens.to_string())
    }

    fn measuring(self, tokens: usize, gradients: usize, trials: usize, name: &str) -> Measuring {
        Measuring {
            text: self.text,
            tokens: self.tokens.unwrap_or(tokens),
            asked_tokens: self.tokens.map_or_else(|| name.to_owned(), |n| n.to_string()),
            ctx: self.ctx,
            gradient_tokens: self.gradient_tokens.unwrap_or(gradients),
            trial_tokens: self.trial_tokens.unwrap_or(trials),
            experts: self.experts,
            without: BTreeSet::new(),
        }
    }
}

/// What is measured, decided: a function of the options and the model, never of the machine.
#[derive(Debug, Clone)]
pub struct Measuring {
    /// The text, as it was given.
    pub text: Option<PathBuf>,
    /// Tokens of second moments.
    pub tokens: usize,
    /// How those were asked for.
    asked_tokens: String,
    /// Tokens of a sequence.
    pub ctx: usize,
    /// Tokens of gradients.
    pub gradient_tokens: usize,
    /// Tokens of trials.
    pub trial_tokens: usize,
    /// Which moments experts' gates are rounded by.
    experts: Moments,
    /// Tensors that nothing is measured for: they lose nothing.
    pub without: BTreeSet<String>,
}

impl Measuring {
    /// What `gq convert` measures unless told otherwise.
    pub fn usual(checkpoint: &Checkpoint) -> Measuring {
        Given::default().quick(checkpoint)
    }

    /// Where the text comes from.
    pub fn source(&self) -> TextSource<'_> {
        TextSource::of(self.text.as_deref())
    }

    /// The text in a file's name; the one that comes with the program goes without saying.
    pub fn text_name(&self) -> Option<String> {
        match self.source() {
            TextSource::Builtin => None,
            TextSource::SelfText => Some(SELF.to_owned()),
            TextSource::Files(path) => {
                Some(path.file_stem().map_or_else(|| "text".to_owned(), |n| n.to_string_lossy().into_owned()))
            }
        }
    }

    /// The text in a sentence.
    pub fn text_words(&self) -> String {
        match self.source() {
            TextSource::Builtin => "the built-in text".to_owned(),
            TextSource::SelfText => "what the model writes".to_owned(),
            TextSource::Files(path) => path.display().to_string(),
        }
    }

    /// The same, leaving out what is stored without loss whatever is measured. What one tensor alone is worth decides
    /// nothing: gradients are not measured then.
    pub fn leaving_out(mut self, certain: BTreeSet<String>, checkpoint: &Checkpoint) -> Measuring {
        self.without = certain;
        if self.wanted(checkpoint).count() < 2 {
            self.gradient_tokens = 0;
        }
        self
    }

    /// Names of the tensors that are measured.
    pub fn wanted<'a>(&'a self, checkpoint: &'a Checkpoint) -> impl Iterator<Item = &'a str> {
        let names = checkpoint.tensors().iter().filter(|tensor| is_measured(tensor.role));
        names.map(|tensor| tensor.name.as_str()).filter(|name| !self.without.contains(*name))
    }

    /// Whether any tensor is measured.
    pub fn wants_some(&self, checkpoint: &Checkpoint) -> bool {
        self.wanted(checkpoint).next().is_some()
    }

    /// Sequences asked for.
    pub fn sequences(&self) -> usize {
        self.tokens.div_ceil(self.ctx.max(1)).max(2)
    }

    /// How much is measured.
    pub fn amounts(&self) -> Amounts {
        let Measuring { tokens, gradient_tokens, trial_tokens, .. } = *self;
        Amounts { tokens, gradient_tokens, trial_tokens }
    }

    /// Which moments experts' gates are rounded by.
    pub fn expert_moments(&self) -> ExpertMoments {
        match self.experts {
            Moments::Layer => ExpertMoments::Layer,
            Moments::Own => ExpertMoments::Own,
        }
    }

    /// Whether trials were made, or not, as is asked for.
    pub fn has_trials(&self, measurements: &Measurements) -> bool {
        let made = measurements.corrections.as_ref().map(|corrections| corrections.asked_tokens);
        self.trial_tokens == 0 || made == Some(self.trial_tokens)
    }

    /// What was asked for aside from the text and the trials, in one line.
    pub fn asked(&self, spec: &ModelSpec) -> String {
        let text = match self.source() {
            TextSource::SelfText => SELF,
            TextSource::Builtin => BUILTIN,
            TextSource::Files(_) => "text",
        };
        let experts = match self.experts {
            Moments::Layer if spec.layers.iter().any(|layer| layer.moe.is_some()) => " layer",
            Moments::Layer | Moments::Own => "",
        };
        let without = match self.without.is_empty() {
            true => String::new(),
            false => {
                let names = self.without.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
                let digest = Sha256::digest(names);
                let digest: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
                format!(" without {} {digest}", self.without.len())
            }
        };
        format!("{text} {} {} {}{experts}{without}", self.asked_tokens, self.ctx, self.gradient_tokens)
    }
}

/// Weights that the graph computes with.
pub fn weights(checkpoint: &Checkpoint) -> u64 {
    let used = checkpoint.tensors().iter().filter(|tensor| tensor.role.is_used() && tensor.shape.len() > 1);
    used.map(|tensor| tensor.shape.iter().map(|&n| n as u64).product::<u64>()).sum()
}

/// Columns of the widest input of a product.
fn widest(checkpoint: &Checkpoint) -> usize {
    let products = checkpoint.tensors().iter().filter(|t| is_product(t.role));
    products.map(gq_checkpoint::SourceTensor::cols).max().unwrap_or(0)
}

/// Tokens to measure on unless given: 300 per dimension of the widest input, within limits.
pub fn default_tokens(checkpoint: &Checkpoint) -> usize {
    (300 * widest(checkpoint)).min(131_072)
}

/// What `gq convert` measures on unless told otherwise; `scripts/trials/amounts.py` is the study that it was chosen by.
fn quick_tokens(checkpoint: &Checkpoint) -> usize {
    (12 * widest(checkpoint)).clamp(4096, 16_384)
}

/// Whether the model writes the calibration text itself.
pub fn is_self_text(given: Option<&Path>) -> bool {
    matches!(TextSource::of(given), TextSource::SelfText)
}

fn is_product(role: Role) -> bool {
    is_measured(role) && !matches!(role, Role::Embedding | Role::PerLayerTable)
}

/// Roles whose tensors may be coded.
pub fn is_measured(role: Role) -> bool {
    use Role::{
        Down, Embedding, ExpertDown, ExpertGateUp, Gate, Head, Key, Output, PerLayerGate, PerLayerProjection,
        PerLayerTable, Query, Up, Value,
    };
    matches!(
        role,
        Embedding
            | Head
            | Query
            | Key
            | Value
            | Output
            | Gate
            | Up
            | Down
            | ExpertGateUp
            | ExpertDown
            | PerLayerTable
            | PerLayerProjection
            | PerLayerGate
    )
}
