//! A measurement that is not finished: what is done of it, next to its files, bound to what was asked for.

use super::directory::{
    GRADIENTS, HELD_OUT, IMATRIX, INDEX, MeasurementsDir, MeasurementsError, TEMPORARY, UNFINISHED,
    is_moments, malformed, read, write,
};
use super::value::{self, Measurements};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// Version of the layout.
const FORMAT: u32 = 1;

/// How far a measurement has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Done {
    /// sha256 of everything that the result is a function of: another measurement is not taken up.
    pub(crate) asked_sha256: String,
    /// Whether gradients were measured, or are not asked for.
    pub(crate) gradients: bool,
    /// Sums of squared gradients at looked-up rows, by table.
    pub(crate) lookups: BTreeMap<String, f64>,
    /// Layers whose moments are saved; the head counts as one.
    pub(crate) layers: usize,
}

/// The file.
#[derive(Serialize, Deserialize)]
struct Unfinished<M> {
    format: u32,
    done: Done,
    /// With everything measured so far.
    measurements: M,
}

impl MeasurementsDir {
    /// Begins a measurement in `dir`, which is made, or takes up the unfinished one that lies there if the same was asked
    /// for. Everything else that was measured there is removed.
    pub(crate) fn begin(
        dir: &Path,
        asked_sha256: String,
    ) -> Result<(MeasurementsDir, Done), MeasurementsError> {
        let io = |source| MeasurementsError::Io { path: dir.to_owned(), source };
        std::fs::create_dir_all(dir).map_err(io)?;
        let found = take_up(dir, &asked_sha256);
        remove(&dir.join(INDEX))?;
        // It was said of what was finished there.
        remove(&dir.join(TEMPORARY))?;
        let (measurements, done) = found.unwrap_or_else(|| {
            let measurements = MeasurementsDir { dir: dir.to_owned(), value: Measurements::empty() };
            (measurements, Done { asked_sha256, ..Done::default() })
        });
        if done.layers == 0 && !done.gradients {
            remove(&dir.join(UNFINISHED))?;
        }
        // Nobody knows these any more, and the next measurement may have fewer.
        for entry in std::fs::read_dir(dir).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = entry.file_name();
            let unknown = |name: &str| {
                (is_moments(name) || [GRADIENTS, HELD_OUT, IMATRIX].contains(&name))
                    && !measurements.value.digests.contains_key(name)
            };
            if name.to_str().is_some_and(unknown) {
                remove(&entry.path())?;
            }
        }
        Ok((measurements, done))
    }

    /// Makes sure that what was measured in `dir` is not taken up, finished or not.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn discard(dir: &Path) -> Result<(), MeasurementsError> {
        MeasurementsDir::marks(dir).iter().try_for_each(|mark| remove(mark))
    }

    /// Writes down what is done: everything that it names is on the disk already.
    pub(crate) fn save_unfinished(&self, done: &Done) -> Result<(), MeasurementsError> {
        let path = self.dir.join(UNFINISHED);
        let unfinished = Unfinished { format: FORMAT, done: done.clone(), measurements: &self.value };
        let json = serde_json::to_vec(&unfinished).map_err(|e| malformed(&path, e.to_string()))?;
        write(&path, &json)
    }

    /// Whether it was measured for one file, and goes when that is made.
    pub fn is_temporary(&self) -> bool {
        self.dir.join(TEMPORARY).exists()
    }

    /// Notes that it was measured for one file, whoever measured there before; or that it is to stay.
    ///
    /// # Errors
    /// When the note cannot be written or removed.
    pub fn set_temporary(&self, temporary: bool) -> Result<(), MeasurementsError> {
        let path = self.dir.join(TEMPORARY);
        match temporary {
            true => write(&path, b""),
            false => remove(&path),
        }
    }

    /// Removes what says that it is not finished.
    pub(super) fn remove_unfinished(&self) -> Result<(), MeasurementsError> {
        remove(&self.dir.join(UNFINISHED))
    }
}

/// What lies in `dir`, if the same was asked for and its files are as they were written.
fn take_up(dir: &Path, asked_sha256: &str) -> Option<(MeasurementsDir, Done)> {
    if MeasurementsDir::is_finished(dir) {
        return None;
    }
    let bytes = read(&dir.join(UNFINISHED)).ok()?;
    let Unfinished { format, done, measurements } =
        serde_json::from_slice::<Unfinished<Measurements>>(&bytes).ok()?;
    let whole = |(name, digest): (&String, &String)| {
        let bytes = read(&dir.join(name));
        bytes.is_ok_and(|bytes| *digest == hex::encode(Sha256::digest(bytes)))
    };
    let known = (format, measurements.format) == (FORMAT, value::FORMAT);
    let same = known && done.asked_sha256 == asked_sha256;
    (same && measurements.digests.iter().all(whole))
        .then(|| (MeasurementsDir { dir: dir.to_owned(), value: measurements }, done))
}

/// Removes a file that may not be there.
fn remove(path: &Path) -> Result<(), MeasurementsError> {
    match gq_files::remove(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(MeasurementsError::Io { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A measurement with gradients and the first layer's moments.
    fn begun(dir: &Path) -> (MeasurementsDir, Done) {
        let (mut measurements, mut done) = MeasurementsDir::begin(dir, "asked".to_owned()).unwrap();
        assert_eq!(done, Done { asked_sha256: "asked".to_owned(), ..Done::default() });
        let third = 1.0 / 3.0;
        measurements.value.gradient_tokens = 7;
        measurements.save_gradients(&BTreeMap::from([("w".to_owned(), vec![third, 1e-300])])).unwrap();
        let file = super::super::moments_file(0, 0);
        measurements.save_moments(&file, vec![("w.moment".to_owned(), vec![0.1, 0.2, 0.3])]).unwrap();
        done = Done { gradients: true, lookups: [("e".to_owned(), third)].into(), layers: 1, ..done };
        measurements.save_unfinished(&done).unwrap();
        (measurements, done)
    }

    #[test]
    fn what_is_done_comes_back_bit_for_bit() {
        let dir = tempfile::tempdir().unwrap();
        let (measurements, done) = begun(dir.path());
        let strange = dir.path().join(super::super::moments_file(1, 0));
        std::fs::write(&strange, "of a layer that was not done").unwrap();
        let (again, kept) = MeasurementsDir::begin(dir.path(), "asked".to_owned()).unwrap();
        assert_eq!((&again, &kept), (&measurements, &done));
        assert_eq!(again.gradients().unwrap()["w"], [1.0 / 3.0, 1e-300]);
        assert!(!strange.exists());
        again.finish().unwrap();
        assert!(!dir.path().join(UNFINISHED).exists());
    }

    #[test]
    fn nothing_is_taken_up_that_is_of_something_else_or_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let moments = dir.path().join(super::super::moments_file(0, 0));
        let begins_anew = |asked: &str| {
            let (measurements, done) = MeasurementsDir::begin(dir.path(), asked.to_owned()).unwrap();
            let left: Vec<_> =
                std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!((left, done.layers, done.gradients), (vec![], 0, false));
            assert!(measurements.value.digests.is_empty());
        };
        begun(dir.path());
        begins_anew("something else");
        begun(dir.path());
        std::fs::write(&moments, "damaged").unwrap();
        begins_anew("asked");
        begun(dir.path());
        std::fs::write(dir.path().join(UNFINISHED), "{").unwrap();
        begins_anew("asked");
        // Finished, and measured again: nothing of the old one counts, nor what was made of it.
        let (measurements, done) = begun(dir.path());
        std::fs::write(measurements.imatrix_path(), "of the old one").unwrap();
        measurements.finish().unwrap();
        measurements.save_unfinished(&done).unwrap();
        begins_anew("asked");
    }
}
