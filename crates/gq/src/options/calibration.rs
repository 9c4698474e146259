//! `--calibration` and what goes with it.

use crate::failure::{Exit, Failure};
use crate::options::amounts::{CTX, Given, Measuring, Moments, NONE};
use gq_checkpoint::Checkpoint;
use std::path::{Path, PathBuf};

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
    /// Tokens per calibration sequence.
    #[arg(long, value_name = "N", default_value_t = CTX, value_parser = sequence_length)]
    pub calibration_ctx: usize,
    /// Tokens to measure gradients on, which say how sensitive the model is to each tensor's outputs. 0: no gradients;
    /// sensitivities come from trials alone, or without trials from the error of each tensor's own outputs (relative to the
    /// outputs where a norm follows) [default: 2048].
    #[arg(long, value_name = "N")]
    pub gradient_tokens: Option<usize>,
    /// Held-out tokens of trials: each group of tensors is rounded alone, and the KL divergence measured then corrects the
    /// predictions that bits are allocated by. 0: no trials [default: 1024].
    #[arg(long, value_name = "N")]
    pub trial_tokens: Option<usize>,
    /// Second moments for gate and up projections of experts: one for each expert, which takes 8 n^2 bytes of memory and half
    /// of that on the disk for each in a layer of width n, or one for all experts of a layer.
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

impl CalibrationArgs {
    /// What `gq calibrate` measures: once for every size to come.
    ///
    /// # Errors
    /// When nothing is to be measured.
    pub fn thorough(&self, checkpoint: &Checkpoint) -> Result<Measuring, Failure> {
        refuse_none(self.calibration.as_deref(), "gq calibrate")?;
        Ok(self.given().thorough(checkpoint))
    }

    /// What `gq convert` measures for one file, in minutes.
    pub fn quick(&self, checkpoint: &Checkpoint) -> Measuring {
        self.given().quick(checkpoint)
    }

    /// An option that says how to measure and is given.
    pub fn how_to_measure(&self) -> Option<&'static str> {
        let options = [
            ("--calibration-tokens", self.calibration_tokens.is_some()),
            ("--calibration-ctx", self.calibration_ctx != CTX),
            ("--gradient-tokens", self.gradient_tokens.is_some()),
            ("--trial-tokens", self.trial_tokens.is_some()),
            ("--expert-moments", self.expert_moments != Moments::Own),
        ];
        options.into_iter().find(|(_, given)| *given).map(|(option, _)| option)
    }

    fn given(&self) -> Given {
        Given {
            text: self.calibration.clone(),
            tokens: self.calibration_tokens,
            ctx: self.calibration_ctx,
            gradient_tokens: self.gradient_tokens,
            trial_tokens: self.trial_tokens,
            experts: self.expert_moments,
        }
    }
}
