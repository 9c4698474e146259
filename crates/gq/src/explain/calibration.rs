//! Failures of measuring and of its text.

use crate::failure::{Exit, Failure};
use crate::units;
use gq_calibrate::{CalibrateError, MeasurementsError};

impl From<CalibrateError> for Failure {
    fn from(error: CalibrateError) -> Failure {
        match error {
            CalibrateError::File(error) => error.into(),
            CalibrateError::Memory { limit, actual } => {
                let message = format!(
                    "measuring needs {} of memory, --max-memory allows {}",
                    units::bytes(actual),
                    units::bytes(limit)
                );
                let failure = Failure::new(Exit::Environment, "calibrate.memory", message);
                failure.at("--max-memory").limit(limit).actual(actual)
            }
            other => Failure::new(Exit::Input, "calibrate", other.to_string()),
        }
    }
}

impl From<MeasurementsError> for Failure {
    fn from(error: MeasurementsError) -> Failure {
        use MeasurementsError as E;
        let message = error.to_string();
        match error {
            E::Io { path, source } => Failure::io(&path, &source),
            E::Malformed { path, actual } => {
                Failure::new(Exit::Input, "measurements.malformed", message).at(path.display()).actual(actual)
            }
            E::OtherCheckpoint { path, limit, actual } | E::Differs { path, limit, actual, .. } => {
                Failure::new(Exit::Input, "measurements.other", message)
                    .at(path.display())
                    .limit(limit)
                    .actual(actual)
            }
        }
    }
}

impl From<gq_calibrate::BuiltinError> for Failure {
    fn from(error: gq_calibrate::BuiltinError) -> Failure {
        match error {
            gq_calibrate::BuiltinError::Chat(error) => error.into(),
            damaged => Failure::internal("builtin text", &damaged),
        }
    }
}

impl From<gq_calibrate::SequenceError> for Failure {
    fn from(error: gq_calibrate::SequenceError) -> Failure {
        let message = error.to_string();
        match error {
            gq_calibrate::SequenceError::TooShort { limit, actual, .. } => {
                let failure = Failure::new(Exit::Input, "calibration.too_short", message);
                failure.at("--calibration").limit(limit).actual(actual)
            }
            gq_calibrate::SequenceError::Tokenizer { .. } => {
                Failure::new(Exit::Input, "calibration.text", message)
            }
        }
    }
}
