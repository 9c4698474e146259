//! Decides whether a conversion is calibrated, by its options and the model.

use crate::failure::{Exit, Failure};
use crate::options::amounts::{NONE, weights};
use crate::options::calibration::CalibrationArgs;
use crate::options::decision::{Calibrate, Why};
use crate::options::recipe::Recipe;
use gq_checkpoint::Checkpoint;

/// Weights up to which `gq convert` calibrates without being told to.
const CALIBRATED_WEIGHTS: u64 = 2_000_000_000;

impl Calibrate {
    /// Decides by the options and the model.
    ///
    /// # Errors
    /// When both `--measurements` and a text are given, options of measuring where nothing is measured, or a divergence is to be promised without either.
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
        if let (Calibrate::Without(_) | Calibrate::Measured, Some(option)) = (&decided, args.how_to_measure())
        {
            let message = format!("{option} is an option of --calibration, and nothing is measured here");
            let failure = Failure::new(Exit::Usage, "calibration.option", message).at(option);
            return Err(failure.limit("a text to measure on").actual("none"));
        }
        if let (Calibrate::Without(_), Some(limit)) = (&decided, recipe.target_kld) {
            let message = "a divergence is promised by measurements, and nothing is measured here";
            let failure = Failure::new(Exit::Usage, "plan.not_measured", message);
            return Err(failure.at("--target-kld").limit(limit).actual("no measurements"));
        }
        Ok(decided)
    }
}
