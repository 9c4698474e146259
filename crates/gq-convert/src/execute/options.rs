//! How to execute a plan.

use gq_calibrate::MeasurementsDir;
use gq_files::Existing;
use gq_tensor::Isa;
use std::path::Path;

/// How to execute; nothing here but the origin, which is noted in the file, changes the output's bytes.
#[derive(Clone, Copy, Debug)]
pub struct ExecuteOptions<'a> {
    /// Kernels to code with.
    pub level: Isa,
    /// Discard an interrupted conversion to the same output.
    pub restart: bool,
    /// Measurements on the same source that the plan was made with; they decide codes.
    pub measurements: Option<&'a MeasurementsDir>,
    /// Where the source was fetched from, for the file's provenance.
    pub origin: Option<&'a Origin>,
    /// Looks at every file when it is whole and has no name yet.
    pub check: Option<Check<'a>>,
    /// What becomes of a file that has an output's name when the output is to get it.
    pub existing: Existing,
}

/// What looks at a whole file, given where it lies. A file that is refused gets no name; what was done is kept for another
/// execution.
#[derive(Clone, Copy)]
pub struct Check<'a>(pub &'a (dyn Fn(&Path) -> Result<(), CheckError> + Sync));

/// Why a file was refused.
pub type CheckError = Box<dyn std::error::Error + Send + Sync>;

impl std::fmt::Debug for Check<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Check")
    }
}

/// A repository on the Hub at one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// `owner/name`.
    pub repo: String,
    /// The commit.
    pub revision: String,
}
