//! Whether there is room on the disk for what a command is about to write.

use crate::failure::{Exit, Failure};
use crate::units;
use std::path::Path;

/// Refuses to begin what would not fit on the disk. `needed` bytes are going to be written for `path`; what an earlier
/// run left next to it counts.
///
/// # Errors
/// With both numbers.
pub fn space(path: &Path, needed: u64) -> Result<(), Failure> {
    let begun = std::fs::symlink_metadata(gq_files::partial_path(path)).map_or(0, |found| found.len());
    let folder = path.ancestors().skip(1).find(|above| above.is_dir()).unwrap_or(Path::new("."));
    fits(path, needed.saturating_sub(begun), gq_files::free_bytes(folder))
}

/// The same, of a disk with `free` bytes; `None` where nobody can tell.
fn fits(path: &Path, needed: u64, free: Option<u64>) -> Result<(), Failure> {
    match free {
        Some(free) if free < needed => {
            let message = format!(
                "{}: {} are needed, {} are free on this disk",
                path.display(),
                units::bytes(needed),
                units::bytes(free)
            );
            let failure = Failure::new(Exit::Environment, "output.no_space", message).at(path.display());
            Err(failure.limit(free).actual(needed))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_both_numbers() {
        let path = Path::new("m.gq");
        fits(path, 1000, Some(1000)).unwrap();
        fits(path, 1000, None).unwrap();
        let failure = fits(path, 1001, Some(1000)).unwrap_err();
        assert_eq!((failure.code, failure.exit), ("output.no_space", Exit::Environment));
        assert_eq!((failure.limit.as_deref(), failure.actual.as_deref()), (Some("1000"), Some("1001")));
        assert!(failure.message.contains("m.gq: 1.00 kB are needed, 1.00 kB are free"), "{failure}");
        // What is there already need not be written again.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gq");
        assert_eq!(space(&path, u64::MAX).unwrap_err().code, "output.no_space");
        std::fs::write(gq_files::partial_path(&path), [0; 100]).unwrap();
        space(&path, 100).unwrap();
    }
}
