//! Failures of reading, checking and writing `.gq` files and files of reference outputs.

use super::sentence;
use crate::failure::{Exit, Failure};
use crate::{looks, units};
use gq_checkpoint::StandIn;
use gq_container::{ContainerError, FormatError, VerifyError, WriteError};
use gq_eval::OutputsError;
use std::path::Path;

impl From<ContainerError> for Failure {
    fn from(error: ContainerError) -> Failure {
        let message = sentence(&error);
        match error {
            ContainerError::Io { path, source } => Failure::io(&path, &source),
            ContainerError::Changed { path, limit, actual, .. } => {
                let failure = Failure::new(Exit::Environment, "file.changed", message).at(path.display());
                failure.limit(limit).actual(actual)
            }
            ContainerError::Format { path, source } => match pointer(&path) {
                Some(what) => {
                    super::checkpoint::stand_in(&path, &what, &format!("{}: {what}", path.display()))
                }
                None if !looks::is_gq(&path) => {
                    let place = path.display();
                    let seems = looks::like(&path).unwrap_or("none of the files that gq knows");
                    let message = format!("{place}: not a .gq file; it seems to be {seems}");
                    Failure::new(Exit::Input, "container.magic", message)
                        .at(place)
                        .limit("a .gq file")
                        .actual(seems)
                }
                None => {
                    let message = match source {
                        FormatError::FileBytes { limit, actual } => format!(
                            "{}: {} bytes, the header says {}",
                            path.display(),
                            units::count(actual),
                            units::count(limit)
                        ),
                        _ => message,
                    };
                    Failure::new(Exit::Input, "container.format", message)
                        .at(path.display())
                        .actual(source.code())
                }
            },
        }
    }
}

/// What lies in the place of a file that is no `.gq` file.
fn pointer(path: &Path) -> Option<StandIn> {
    StandIn::of_file(path).ok().flatten().filter(|what| *what != StandIn::Empty)
}

impl From<FormatError> for Failure {
    fn from(error: FormatError) -> Failure {
        Failure::new(Exit::Input, "container.format", sentence(&error)).actual(error.code())
    }
}

impl From<VerifyError> for Failure {
    fn from(error: VerifyError) -> Failure {
        Failure::new(Exit::Check, "verify.damaged", sentence(&error)).actual(error.code())
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Failure {
        let message = sentence(&error);
        match error {
            WriteError::Io { path, source } => match source.kind() {
                std::io::ErrorKind::NotFound => {
                    Failure::new(Exit::Environment, "output.missing_folder", message).at(path.display())
                }
                _ => Failure::new(Exit::Environment, "output.io", message).at(path.display()),
            },
            WriteError::Taken { path, kept } => taken(&path, &kept),
            WriteError::Busy { path } => {
                let failure = Failure::new(Exit::Environment, "convert.busy", message);
                failure.at(path.display()).limit("one process").actual("two")
            }
            WriteError::Rule { path, .. } => {
                Failure::new(Exit::Input, "output.rule", message).at(path.display())
            }
        }
    }
}

impl From<OutputsError> for Failure {
    fn from(error: OutputsError) -> Failure {
        use OutputsError as E;
        let message = sentence(&error);
        let bad = |code, path: &Path| Failure::new(Exit::Input, code, &message).at(path.display());
        match &error {
            E::Io { path, source } if source.kind() == std::io::ErrorKind::UnexpectedEof => {
                bad("outputs.truncated", path).limit("a whole file")
            }
            E::Io { path, source } => Failure::io(path, source),
            E::Header { path, source } => super::checkpoint::header(bad("outputs", path), source),
            E::Missing { path, name } => bad("outputs.missing", path).limit(name).actual("missing"),
            E::DType { path, limit, actual, .. } => bad("outputs.dtype", path).limit(limit).actual(actual),
            E::Shape { path, limit, actual, .. } => {
                bad("outputs.shape", path).limit(limit).actual(format!("{actual:?}"))
            }
            E::ShapesDiffer { path, limit, actual } => {
                bad("outputs.shapes_differ", path).limit(format!("{limit:?}")).actual(format!("{actual:?}"))
            }
            E::Token { path, limit, actual, .. } => bad("outputs.token", path).limit(limit).actual(actual),
            E::NotFinite { path, actual, .. } => {
                bad("outputs.not_finite", path).limit("finite numbers").actual(actual)
            }
            E::Changed { path, limit, actual, .. } => {
                Failure::new(Exit::Environment, "file.changed", &message)
                    .at(path.display())
                    .limit(limit)
                    .actual(actual)
            }
            E::Written { path, limit, actual } => bad("outputs.written", path).limit(limit).actual(actual),
        }
    }
}

/// The failure of a command whose output's name was taken while it worked.
pub fn taken(path: &Path, kept: &Path) -> Failure {
    let (place, kept) = (path.display(), kept.display());
    let message = format!("{place}: something took this name meanwhile; the finished file is {kept}");
    Failure::new(Exit::Environment, "output.taken", message)
        .at(place)
        .limit("a name that is free")
        .actual(kept)
}
