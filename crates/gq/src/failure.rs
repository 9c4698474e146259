//! What went wrong, ready to be shown: one sentence with where, limit and actual, a stable code and an exit code.

use crate::hints;
use serde::ser::{Serialize, SerializeStruct, Serializer};
use std::fmt::Display;

/// Exit codes, documented in `docs/CLI.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// A check failed: `verify`, or a gate of `eval`.
    Check = 1,
    /// The command line is wrong.
    Usage = 2,
    /// A file is not what it should be.
    Input = 3,
    /// Disk, memory, permissions, device.
    Environment = 4,
}

/// A failed command.
#[derive(Debug)]
pub struct Failure {
    /// Stable identifier, such as `checkpoint.tensor_missing`; hints are looked up by it.
    pub code: &'static str,
    /// Decides the process's exit code.
    pub exit: Exit,
    /// The sentence, without a final full stop.
    pub message: String,
    /// File, tensor or option it is about.
    pub place: Option<Box<str>>,
    /// What was allowed or expected.
    pub limit: Option<Box<str>>,
    /// What was found.
    pub actual: Option<Box<str>>,
    advice: Option<Box<str>>,
    silent: bool,
    told: bool,
}

impl Failure {
    /// A failure with a code and a sentence; add the rest with `at`, `limit` and `actual`.
    pub fn new(exit: Exit, code: &'static str, message: impl Display) -> Failure {
        let message = message.to_string();
        let (place, limit, actual, advice) = (None, None, None, None);
        Failure { code, exit, message, place, limit, actual, advice, silent: false, told: false }
    }

    /// Puts something before the sentence.
    pub fn prefixed(mut self, text: &str) -> Failure {
        self.message.insert_str(0, text);
        self
    }

    /// Says which failure more precisely.
    pub fn code(mut self, code: &'static str) -> Failure {
        self.code = code;
        self
    }

    /// Says where.
    pub fn at(mut self, place: impl Display) -> Failure {
        self.place = Some(place.to_string().into());
        self
    }

    /// Says what was allowed or expected.
    pub fn limit(mut self, limit: impl Display) -> Failure {
        self.limit = Some(limit.to_string().into());
        self
    }

    /// Says what was found.
    pub fn actual(mut self, actual: impl Display) -> Failure {
        self.actual = Some(actual.to_string().into());
        self
    }

    /// Says what to try next, where more is known than the code tells.
    pub fn advise(mut self, advice: impl Display) -> Failure {
        self.advice = Some(advice.to_string().into());
        self
    }

    /// Standard output cannot be written; silent when its reader simply went away.
    pub fn stdout(error: &std::io::Error) -> Failure {
        let mut failure = Failure::new(Exit::Environment, "stdout", format!("standard output: {error}"));
        failure.silent = error.kind() == std::io::ErrorKind::BrokenPipe;
        failure.at("standard output")
    }

    /// A value of ours that cannot be written down; a defect of gq.
    pub fn internal(place: &str, error: &dyn Display) -> Failure {
        Failure::new(Exit::Environment, "internal", format!("{place}: {error}")).at(place)
    }

    /// An operating-system error at a path.
    pub fn io(path: &std::path::Path, error: &std::io::Error) -> Failure {
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        let (exit, code) = match missing {
            true => (Exit::Input, "path.missing"),
            false => (Exit::Environment, "path.io"),
        };
        Failure::new(exit, code, format!("{}: {error}", path.display())).at(path.display())
    }

    /// Shows nothing more when the document on standard output says it already.
    pub fn shown(mut self, already: bool) -> Failure {
        self.told = already;
        self
    }

    /// Whether it has been shown.
    pub fn is_told(&self) -> bool {
        self.told
    }

    /// Whether nothing should be shown (the reader of standard output closed it).
    pub fn is_silent(&self) -> bool {
        self.silent
    }

    /// The sentence shown to a person, control characters escaped.
    pub fn sentence(&self) -> String {
        crate::units::printable(&self.message)
    }

    /// What to try next.
    pub fn hint(&self) -> Option<&str> {
        self.advice.as_deref().or_else(|| hints::hint(self.code))
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl Serialize for Failure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Failure", 6)?;
        object.serialize_field("code", self.code)?;
        object.serialize_field("message", &self.message)?;
        object.serialize_field("where", &self.place)?;
        object.serialize_field("limit", &self.limit)?;
        object.serialize_field("actual", &self.actual)?;
        object.serialize_field("hint", &self.hint())?;
        object.end()
    }
}
