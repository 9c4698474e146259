//! Whether a conversion is calibrated, and what is said where it is not.

use crate::options::amounts::Measuring;
use crate::units;

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
    /// An importance matrix is given.
    Importance,
}

impl Why {
    /// What to know of a file that nothing was measured for, and what would do better: `command` without options, or this
    /// one `calibrated`.
    pub fn sentence(self, command: &str, calibrated: &str) -> String {
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
                 `{calibrated}`",
                units::billions(weights)
            ),
            Why::Importance => format!("not calibrated: an importance matrix is given; {cost}"),
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
            Why::Importance => "importance matrix",
        }
    }
}
