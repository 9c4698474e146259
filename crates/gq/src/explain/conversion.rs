//! Failures of planning and executing conversions.

use super::sentence;
use crate::failure::{Exit, Failure};
use crate::units;
use gq_convert::{
    ConvertError, GridError, JournalError, PlanError, RederiveError, RoundAgainError, ScalesError,
    TargetKldError,
};
use std::path::Path;

/// What took a budget's room, to append to a sentence: `around` the weights, and of those what has no choice of codes, by
/// role and the largest first. In bytes; parts below a hundredth of the largest are left out.
pub fn took_room(around: u64, fixed: &[(String, u64)]) -> String {
    let part = |(role, bytes): &(String, u64)| format!("{role} {}", units::bytes(*bytes));
    let largest = fixed.first().map_or(0, |(_, bytes)| *bytes);
    let named: Vec<String> = fixed.iter().filter(|(_, bytes)| bytes * 100 >= largest).map(part).collect();
    let texts = (around > 0).then(|| format!("; texts and tables of contents take {}", units::bytes(around)));
    let fixed = (largest > 0).then(|| format!("; fixed among the weights: {}", named.join(", ")));
    texts.into_iter().chain(fixed).collect()
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Failure {
        let message = sentence(&error);
        let bad = |exit, code, place: &str| Failure::new(exit, code, &message).at(place);
        match error {
            PlanError::Policy(error) => error.into(),
            PlanError::NotSourceDtype { tensor, limit, actual } => {
                bad(Exit::Usage, "plan.not_source_dtype", &tensor).limit(limit).actual(actual)
            }
            PlanError::OffGrid { tensor, limit, actual } => {
                let found = actual.map_or_else(|| "none".to_owned(), |grid| grid.name());
                bad(Exit::Usage, "plan.off_grid", &tensor).limit(limit).actual(found)
            }
            PlanError::UnknownDivergence { tensor, actual } => {
                let limit = "a scalar or trellis code";
                bad(Exit::Usage, "plan.unknown_divergence", &tensor).limit(limit).actual(actual)
            }
            PlanError::NotFloat { tensor, actual } => {
                bad(Exit::Input, "plan.not_float", &tensor).limit("a floating point dtype").actual(actual)
            }
            PlanError::Scaled { tensor, actual, .. } => {
                bad(Exit::Usage, "plan.scaled", &tensor).limit("an encoding").actual(actual)
            }
            PlanError::Merged { tensor, actual, .. } => {
                bad(Exit::Usage, "plan.merged", &tensor).limit("an encoding").actual(actual)
            }
            PlanError::Shape { tensor, actual } => bad(Exit::Input, "plan.shape", &tensor)
                .limit("no dimension of 0")
                .actual(format!("{actual:?}")),
            PlanError::Rotation { tensor, source } => {
                bad(Exit::Usage, "plan.rotation", &tensor).limit("--rotation hadamard").actual(source)
            }
            PlanError::Budget { limit, actual, around, fixed } => {
                let message = format!(
                    "the smallest file needs {} for its weights, the budget leaves {}{}",
                    units::bytes(actual),
                    units::bytes(limit),
                    took_room(around, &fixed),
                );
                Failure::new(Exit::Usage, "plan.budget", message)
                    .at("--size, --bpw")
                    .limit(limit)
                    .actual(actual)
            }
            PlanError::Divergence { limit, actual } => {
                let failure = Failure::new(Exit::Usage, "plan.divergence", message);
                failure.at("--target-kld").limit(format!("{limit:.2e}")).actual(format!("{actual:.2e}"))
            }
            PlanError::NotMeasured => {
                bad(Exit::Usage, "plan.not_measured", "--target-kld").limit("--measurements or --calibration")
            }
            PlanError::Memory { limit, actual } => {
                let message = format!(
                    "the conversion needs {} of memory, --max-memory allows {}",
                    units::bytes(actual),
                    units::bytes(limit)
                );
                let failure = Failure::new(Exit::Environment, "plan.memory", message);
                failure.at("--max-memory").limit(limit).actual(actual)
            }
        }
    }
}

impl From<RederiveError> for Failure {
    fn from(error: RederiveError) -> Failure {
        let message = sentence(&error);
        let failed = |exit, code| Failure::new(exit, code, &message);
        match error {
            RederiveError::Format(error) => error.into(),
            RederiveError::Convert(error) => error.into(),
            RederiveError::NoProvenance => failed(Exit::Input, "verify.no_provenance"),
            RederiveError::OtherMeasurements { limit, actual } => {
                failed(Exit::Input, "verify.other_measurements")
                    .at("--measurements")
                    .limit(limit)
                    .actual(actual)
            }
        }
    }
}

impl From<ConvertError> for Failure {
    fn from(error: ConvertError) -> Failure {
        let message = sentence(&error);
        let bad = |exit, code, place: &str| Failure::new(exit, code, &message).at(place);
        match error {
            ConvertError::Read { path, source } => Failure::io(&path, &source),
            ConvertError::Checkpoint(error) => error.into(),
            ConvertError::Values(error) => error.into(),
            ConvertError::OtherSource { tensor } => Failure::internal(&tensor, &message),
            ConvertError::Coder { tensor, .. } => bad(Exit::Usage, "convert.coder", &tensor),
            ConvertError::SourceChanged { tensor, limit, actual } => {
                bad(Exit::Input, "convert.source_changed", &tensor).limit(limit).actual(actual)
            }
            ConvertError::OffGrid { tensor, limit } => {
                bad(Exit::Input, "convert.off_grid", &tensor).limit(limit).actual("other weights")
            }
            ConvertError::Scale { tensor, limit, row } => {
                bad(Exit::Input, "convert.scale", &format!("{tensor}[{row}]"))
                    .limit(limit)
                    .actual("larger weights")
            }
            ConvertError::Vanished { tensor, limit } => {
                bad(Exit::Input, "convert.scale", &tensor).limit(limit).actual("smaller weights")
            }
            ConvertError::Refused { path, source } => refused(&path, source),
            ConvertError::Measurements(error) => error.into(),
            ConvertError::Budget { limit, actual } => {
                bad(Exit::Usage, "convert.budget", "--size").limit(limit).actual(actual)
            }
            ConvertError::Moment { tensor, .. } => bad(Exit::Input, "convert.moment", &tensor),
            ConvertError::Journal(JournalError::Io { path, source }) => Failure::io(&path, &source),
            ConvertError::Journal(JournalError::Busy { path }) => {
                let place = path.display().to_string();
                bad(Exit::Environment, "convert.busy", &place).limit("one process").actual("two")
            }
            ConvertError::Journal(JournalError::Differs { path, what, limit, actual }) => {
                let place = format!("{}: {what}", path.display());
                bad(Exit::Usage, "convert.differs", &place).limit(limit).actual(actual)
            }
            ConvertError::Write(error) => error.into(),
            ConvertError::Text(_) | ConvertError::Provenance(_) => bad(Exit::Input, "convert.text", "texts"),
            ConvertError::Json { source } => Failure::internal("report", &source),
            ConvertError::Threads { .. } => bad(Exit::Environment, "convert.threads", "--threads"),
        }
    }
}

impl From<GridError> for Failure {
    fn from(error: GridError) -> Failure {
        match error {
            GridError::Policy(error) => PlanError::Policy(error).into(),
            GridError::Read(error) => ConvertError::Values(error).into(),
        }
    }
}

impl From<gq_convert::PolicyError> for Failure {
    fn from(error: gq_convert::PolicyError) -> Failure {
        use gq_convert::PolicyError as E;
        let message = error.to_string();
        match error {
            E::Pattern { pattern, actual } => {
                Failure::new(Exit::Usage, "override.pattern", message).at(pattern).actual(actual)
            }
            E::Unmatched { pattern, tensors } => Failure::new(Exit::Usage, "override.unmatched", message)
                .at(pattern)
                .limit("at least 1 match")
                .actual(format!("0 of {tensors} tensors")),
        }
    }
}

impl From<TargetKldError> for Failure {
    fn from(error: TargetKldError) -> Failure {
        match error {
            TargetKldError::Container(error) => error.into(),
            TargetKldError::Load(error) => error.into(),
            TargetKldError::NotFinite(error) => error.into(),
            TargetKldError::Model(error) => error.into(),
            TargetKldError::Measurements(error) => error.into(),
        }
    }
}

impl From<RoundAgainError> for Failure {
    fn from(error: RoundAgainError) -> Failure {
        use RoundAgainError as E;
        let message = error.to_string();
        let input = |code| Failure::new(Exit::Input, code, message);
        match error {
            E::Measure(error) => error.into(),
            E::NotFinite(error) => error.into(),
            E::Model(error) => error.into(),
            E::Load(error) => error.into(),
            E::Measurements(error) => error.into(),
            E::Container(error) => error.into(),
            E::Text(error) => error.into(),
            E::Write(error) => error.into(),
            E::Io { path, source } => Failure::io(&path, &source),
            E::OtherSource { limit, actual, .. } => {
                input("improve.source").at("--reference").limit(limit).actual(actual)
            }
            E::Nothing => input("improve.nothing"),
            E::Moment { tensor, .. } | E::Overflow { tensor } | E::Payload { tensor } => {
                input("improve.tensor").at(tensor)
            }
            E::Read(_) | E::Coder(_) | E::Rule(_) | E::Provenance(_) | E::Json { .. } => {
                input("improve.file")
            }
        }
    }
}

impl From<ScalesError> for Failure {
    fn from(error: ScalesError) -> Failure {
        use ScalesError as E;
        let message = error.to_string();
        match error {
            E::NotFinite(error) => error.into(),
            E::Model(error) => error.into(),
            E::Container(error) => error.into(),
            E::Text(error) => error.into(),
            E::Write(error) => error.into(),
            E::Vocabulary { limit, actual } => Failure::new(Exit::Input, "improve.vocabulary", message)
                .at("--reference")
                .limit(limit)
                .actual(actual),
            E::TooShort { limit, actual } => Failure::new(Exit::Input, "improve.text", message)
                .at("--calibration")
                .limit(limit)
                .actual(actual),
            E::Nothing => Failure::new(Exit::Input, "improve.no_scales", message),
            E::Rule(_) | E::Provenance(_) | E::Payload { .. } => {
                Failure::new(Exit::Input, "improve.file", message)
            }
        }
    }
}

/// The failure of a conversion whose file was refused.
fn refused(path: &Path, error: gq_convert::CheckError) -> Failure {
    match error.downcast::<Failure>() {
        Ok(failure) => broken(path, *failure),
        Err(other) => broken(path, Failure::new(Exit::Input, "seen.broken", other)),
    }
}

/// The failure of a file that was written and does not work.
pub fn broken(path: &Path, failure: Failure) -> Failure {
    // What the machine lacks is no fault of the file.
    let code = if failure.exit == Exit::Environment { failure.code } else { "seen.broken" };
    failure.prefixed(&format!("{}: what was written does not work: ", path.display())).code(code)
}
