//! `--calibration` and what goes with it: what is measured, on which text, how much of it, and what is said where nothing is.

use crate::commands::calibrate;
use crate::commands::recipe::Recipe;
use crate::failure::{Exit, Failure};
use crate::units;
use gq_checkpoint::{Checkpoint, ModelSpec, Role};
use gq_convert::{Amounts, ExpertMoments, Measurements};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// No calibration.
const NONE: &str = "none";
/// The calibration text that the model writes.
const SELF: &str = "self";
/// The calibration text that comes with the program.
const BUILTIN: &str = "builtin";

/// Weights up to which `gq convert` calibrates without being told to.
const CALIBRATED_WEIGHTS: u64 = 2_000_000_000;

/// Tokens of a calibration sequence.
const CTX: usize = 512;

/// Where calibration text comes from.
pub enum TextSource<'a> {
    /// With the program.
    Builtin,
    /// The model writes it.
    Own,
    /// A file or a directory.
    Files(&'a Path),
}

impl TextSource<'_> {
    /// What `--calibration` names; unless told otherwise, what comes with the program.
    pub fn of(given: Option<&Path>) -> TextSource<'_> {
        match given {
            Some(path) if path.as_os_str() == SELF => TextSource::Own,
            Some(path) if path.as_os_str() != BUILTIN => TextSource::Files(path),
            _ => TextSource::Builtin,
        }
    }
}

/// What to measure on.
#[derive(clap::Args, Debug, Clone)]
pub struct CalibrationArgs {
    /// Calibration text: `builtin` (prose, code, mathematics, 27 languages and conversations that come with gq), `self`
    /// (what the model writes when it is asked for such things), a file, a directory whose .txt and .md files count equally,
    /// or `none` [default: builtin; none above 2 billion weights, and with --bits or --encoding].
    #[arg(long, value_name = "none|builtin|self|FILE|DIR")]
    pub calibration: Option<PathBuf>,
    /// Tokens to measure second moments on [default: 12 per input dimension, from 4096 to 16384; `gq calibrate`, for many
    /// sizes, measures more].
    #[arg(long, value_name = "N")]
    pub calibration_tokens: Option<usize>,
    /// Tokens of a calibration sequence.
    #[arg(long, value_name = "N", default_value_t = CTX, value_parser = sequence_length)]
    pub calibration_ctx: usize,
    /// Tokens to measure gradients on. 0: sensitivities come from trials alone or, without those too, from the error of
    /// each tensor's own outputs (relative to the outputs where a norm follows) [default: 2048].
    #[arg(long, value_name = "N")]
    pub gradient_tokens: Option<usize>,
    /// Held-out tokens of trials: each group of tensors is rounded alone, and the divergence that it causes corrects the
    /// predictions that budgets are spent by. 0: no trials [default: 1024].
    #[arg(long, value_name = "N")]
    pub trial_tokens: Option<usize>,
    /// Second moments that gate and up projections of experts are rounded by: one for each expert, which takes 8 n^2 bytes
    /// of memory and half of that on the disk in a layer of width n, or one for all experts of a layer.
    #[arg(long, value_name = "WHICH", default_value = "own")]
    pub expert_moments: Moments,
}

/// The same options as `gq calibrate` has them: a text there must be, and more is measured.
pub fn as_of_calibrate(command: clap::Command) -> clap::Command {
    command
        .mut_arg("calibration", |arg| {
            arg.value_name("builtin|self|FILE|DIR").help(
                "Calibration text: `builtin` (prose, code, mathematics, 27 languages and conversations that come with gq), \
                 `self` (what the model writes when it is asked for such things), a file, or a directory whose .txt and \
                 .md files count equally [default: builtin]",
            )
        })
        .mut_arg("calibration_tokens", |arg| {
            arg.help("Tokens to measure second moments on [default: 300 per input dimension, at most 131072]")
        })
        .mut_arg("gradient_tokens", |arg| instead(arg, "2048", "8192"))
        .mut_arg("trial_tokens", |arg| instead(arg, "1024", "3072"))
}

/// An option with another default in its help.
fn instead(arg: clap::Arg, of: &str, default: &str) -> clap::Arg {
    let [of, default] = [of, default].map(|n| format!("[default: {n}]"));
    let help = arg.get_help().map(|help| help.to_string().replace(&of, &default));
    match help {
        Some(help) => arg.help(help),
        None => arg,
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

/// What codes are rounded and budgets spent by.
#[derive(Debug, Clone)]
pub enum Calibrate {
    /// Measurements made before: `--measurements`.
    Measured,
    /// What is measured first.
    Measure(Measuring),
    /// Nothing.
    Without(Why),
}

/// Why nothing is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// `--calibration none`.
    Asked,
    /// An encoding is asked for by name.
    Encoding,
    /// The model is large: so many weights.
    Large(u64),
    /// There is no tokenizer to read a text with.
    NoTokenizer,
}

impl Calibrate {
    /// Refuses a text or measurements that cannot be read, before anything is done.
    ///
    /// # Errors
    /// As [`CalibrationArgs::check`] and [`Recipe::open_measurements`].
    pub fn check_names(recipe: &Recipe, args: &CalibrationArgs) -> Result<(), Failure> {
        // Both together are refused for that.
        if recipe.measurements.is_none() || args.calibration.is_none() {
            args.check()?;
            recipe.open_measurements()?;
        }
        Ok(())
    }

    /// Decides by the options and the model.
    ///
    /// # Errors
    /// When both `--measurements` and a text are given, or a divergence is to be promised without either.
    pub fn resolve(
        recipe: &Recipe,
        args: &CalibrationArgs,
        checkpoint: &Checkpoint,
    ) -> Result<Calibrate, Failure> {
        let weights = weights(checkpoint);
        let given = args.calibration.as_deref();
        let decided = match (&recipe.measurements, given) {
            (Some(_), Some(_)) => {
                let message =
                    "--calibration measures, --measurements takes what was measured: give one of them";
                let failure = Failure::new(Exit::Usage, "calibration.twice", message);
                return Err(failure.at("--calibration, --measurements"));
            }
            (Some(_), None) => Calibrate::Measured,
            (None, Some(text)) if text.as_os_str() == NONE => Calibrate::Without(Why::Asked),
            (None, Some(_)) => Calibrate::Measure(args.quick(checkpoint)),
            (None, None) if recipe.names_an_encoding() => Calibrate::Without(Why::Encoding),
            (None, None) if weights > CALIBRATED_WEIGHTS => Calibrate::Without(Why::Large(weights)),
            (None, None) if !checkpoint.has_tokenizer() => Calibrate::Without(Why::NoTokenizer),
            (None, None) => Calibrate::Measure(args.quick(checkpoint)),
        };
        if let (Calibrate::Without(_), Some(limit)) = (&decided, recipe.target_kld) {
            let message = "a divergence is promised by measurements, and nothing is measured here";
            let failure = Failure::new(Exit::Usage, "plan.not_measured", message);
            return Err(failure.at("--target-kld").limit(limit).actual("no measurements"));
        }
        Ok(decided)
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

pub fn sequence_length(text: &str) -> Result<usize, String> {
    let length = text.parse().ok().filter(|length| (2..=1 << 20).contains(length));
    length.ok_or_else(|| "expected a number of tokens from 2 to 1048576".to_owned())
}

/// Refuses `--calibration none` where a text is needed.
pub fn refuse_none(given: Option<&Path>, command: &str) -> Result<(), Failure> {
    if given.is_none_or(|text| text.as_os_str() != NONE) {
        return Ok(());
    }
    let message = format!("--calibration none: `{command}` needs a text");
    let failure = Failure::new(Exit::Usage, "calibration.none", message).at("--calibration");
    Err(failure.limit("builtin, self, a file or a directory").actual(NONE))
}

/// Whether the model writes the calibration text itself.
pub fn is_own_text(given: Option<&Path>) -> bool {
    matches!(TextSource::of(given), TextSource::Own)
}

impl CalibrationArgs {
    /// No option given.
    fn unsaid() -> CalibrationArgs {
        CalibrationArgs {
            calibration: None,
            calibration_tokens: None,
            calibration_ctx: CTX,
            gradient_tokens: None,
            trial_tokens: None,
            expert_moments: Moments::Own,
        }
    }

    /// Refuses a text that cannot be read, before anything is done.
    ///
    /// # Errors
    /// When a file is missing, is not UTF-8, or a folder has none.
    pub fn check(&self) -> Result<(), Failure> {
        match (self.calibration.as_deref(), TextSource::of(self.calibration.as_deref())) {
            (Some(given), TextSource::Files(path)) if given.as_os_str() != NONE => {
                calibrate::texts(path).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// What `gq calibrate` measures: once for every size to come.
    ///
    /// # Errors
    /// When nothing is to be measured.
    pub fn thorough(&self, checkpoint: &Checkpoint) -> Result<Measuring, Failure> {
        refuse_none(self.calibration.as_deref(), "gq calibrate")?;
        Ok(self.measuring((default_tokens(checkpoint), 8192, 3072), "default"))
    }

    /// What `gq convert` measures for one file, in minutes.
    pub fn quick(&self, checkpoint: &Checkpoint) -> Measuring {
        let tokens = quick_tokens(checkpoint);
        self.measuring((tokens, 2048, 1024), &tokens.to_string())
    }

    fn measuring(&self, (tokens, gradients, trials): (usize, usize, usize), name: &str) -> Measuring {
        let asked = self.calibration_tokens;
        Measuring {
            text: self.calibration.clone(),
            tokens: asked.unwrap_or(tokens),
            asked_tokens: asked.map_or_else(|| name.to_owned(), |n| n.to_string()),
            ctx: self.calibration_ctx,
            gradient_tokens: self.gradient_tokens.unwrap_or(gradients),
            trial_tokens: self.trial_tokens.unwrap_or(trials),
            experts: self.expert_moments,
            without: BTreeSet::new(),
        }
    }
}

impl Measuring {
    /// What `gq convert` measures unless told otherwise.
    pub fn usual(checkpoint: &Checkpoint) -> Measuring {
        CalibrationArgs::unsaid().quick(checkpoint)
    }

    /// Where the text comes from.
    pub fn source(&self) -> TextSource<'_> {
        TextSource::of(self.text.as_deref())
    }

    /// The text in a file's name; the one that comes with the program goes without saying.
    pub fn text_name(&self) -> Option<String> {
        match self.source() {
            TextSource::Builtin => None,
            TextSource::Own => Some(SELF.to_owned()),
            TextSource::Files(path) => {
                Some(path.file_stem().map_or_else(|| "text".to_owned(), |n| n.to_string_lossy().into_owned()))
            }
        }
    }

    /// The text in a sentence.
    pub fn text_words(&self) -> String {
        match self.source() {
            TextSource::Builtin => "the built-in text".to_owned(),
            TextSource::Own => "what the model writes".to_owned(),
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
            TextSource::Own => SELF,
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

impl Why {
    /// What to know of a file that nothing was measured for, and what would do better.
    pub fn sentence(self, command: &str) -> String {
        let cost = "SmolLM2 135M diverges 3 times as far so at the same bytes";
        match self {
            Why::Asked => format!(
                "not calibrated, as asked: codes are rounded to nearest and bytes go where such tensors usually need them; {cost}"
            ),
            Why::Encoding => format!(
                "not calibrated: --bits and --encoding round to nearest, in seconds; at fewer bytes `{command}` without \
                 them comes 10 times closer on SmolLM2 135M"
            ),
            Why::Large(weights) => format!(
                "not calibrated: with {} billion weights that takes long and is left to you ({cost}); calibrated: \
                 `{command} --calibration builtin`",
                units::billions(weights)
            ),
            Why::NoTokenizer => format!(
                "not calibrated: the checkpoint has no tokenizer to read a calibration text with; {cost}"
            ),
        }
    }

    /// The same in a word, for a document.
    pub fn name(self) -> &'static str {
        match self {
            Why::Asked => "asked",
            Why::Encoding => "encoding",
            Why::Large(_) => "large",
            Why::NoTokenizer => "no tokenizer",
        }
    }
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
