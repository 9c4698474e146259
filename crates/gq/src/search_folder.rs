//! The folder next to an output in which `--target-kld` searches: what was measured so far, and the best file.

use crate::failure::{Exit, Failure};
use gq_container::put_in_place;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A file that was made and measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Expected divergence that it was planned for.
    #[serde(with = "bits")]
    pub allowed: f64,
    /// What it measured.
    #[serde(with = "bits")]
    pub kld: f64,
    /// On so many tokens.
    pub tokens: usize,
    /// Its bytes.
    pub bytes: u64,
    /// Whether it became the best.
    pub kept: bool,
}

/// Numbers that decide plans survive as they are.
mod bits {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(x: &f64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(x.to_bits())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        Ok(f64::from_bits(u64::deserialize(from)?))
    }
}

/// What one process holds of it, and by which it is known.
const LOCK: &str = "lock";

/// What is written down.
#[derive(Serialize, Deserialize)]
struct Log {
    /// Everything that decides the search.
    asked: String,
    rounds: Vec<Round>,
}

/// `OUT.target-kld`, held by one process.
pub struct SearchFolder {
    dir: PathBuf,
    log: Log,
    lock: File,
}

impl SearchFolder {
    /// Where the folder of the output `path` is.
    pub fn path(path: &Path) -> PathBuf {
        gq_files::sibling(path, ".target-kld")
    }

    /// Refuses what has the folder's name and is not what a search left.
    ///
    /// # Errors
    /// When it is a link or a file, or holds no lock.
    pub fn refuse_foreign(dir: &Path) -> Result<(), Failure> {
        let own = match std::fs::symlink_metadata(dir) {
            Ok(found) => found.is_dir() && dir.join(LOCK).is_file(),
            Err(_) => true,
        };
        if own {
            return Ok(());
        }
        let message = format!("{} is not what a search left behind", dir.display());
        Err(Failure::new(Exit::Input, "target_kld.foreign", message).at(dir.display()))
    }

    /// The folder of the output `path`, new or as an interrupted search of the same kind left it.
    ///
    /// # Errors
    /// When something else has its name, another process is at it, or it was begun otherwise and `restart` is not set.
    pub fn open(path: &Path, asked: &str, restart: bool) -> Result<SearchFolder, Failure> {
        let dir = SearchFolder::path(path);
        let io = |error: std::io::Error| Failure::io(&dir, &error);
        let lock_path = dir.join(LOCK);
        match std::fs::create_dir(&dir) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                SearchFolder::refuse_foreign(&dir)?;
            }
            Err(error) => return Err(io(error)),
        }
        let lock = match gq_files::open_locked(&lock_path) {
            Ok(lock) => lock,
            Err(error) if error.kind() == ErrorKind::ResourceBusy => {
                let message = format!("{}: another gq is writing this output", dir.display());
                let failure = Failure::new(Exit::Environment, "convert.busy", message).at(dir.display());
                return Err(failure.limit("one process").actual("two"));
            }
            Err(error) => return Err(io(error)),
        };
        let found = std::fs::read(dir.join("search.json")).ok();
        let found: Option<Log> = found.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let mut folder = SearchFolder { dir, lock, log: Log { asked: asked.to_owned(), rounds: Vec::new() } };
        match found {
            Some(log) if log.asked == asked && !restart => {
                // Without the file, what was said of it is of no use.
                if folder.best().exists() || !log.rounds.iter().any(|round| round.kept) {
                    folder.log = log;
                }
            }
            Some(_) if !restart => {
                let message = format!("{}: an unfinished search was begun otherwise", folder.dir.display());
                let failure = Failure::new(Exit::Usage, "convert.differs", message);
                return Err(failure.at(folder.dir.display()));
            }
            _ => folder.clear(),
        }
        folder.write()?;
        Ok(folder)
    }

    /// The smallest file that met the limit.
    pub fn best(&self) -> PathBuf {
        self.dir.join("best.gq")
    }

    /// The file that is being made.
    pub fn trial(&self) -> PathBuf {
        self.dir.join("trial.gq")
    }

    /// What is known of a file planned for so much.
    pub fn known(&self, allowed: f64) -> Option<Round> {
        self.log.rounds.iter().copied().find(|round| round.allowed.to_bits() == allowed.to_bits())
    }

    /// Writes down a round; the trial becomes the best where it was kept.
    pub fn add(&mut self, round: Round) -> Result<(), Failure> {
        if round.kept {
            put_in_place(&self.trial(), &self.best())?;
        }
        self.log.rounds.push(round);
        self.write()
    }

    fn write(&self) -> Result<(), Failure> {
        let path = self.dir.join("search.json");
        let json = serde_json::to_vec(&self.log).map_err(gq_convert::ConvertError::from)?;
        gq_files::write_whole(&path, &json).map_err(|error| Failure::io(&path, &error))
    }

    /// What a search makes, and nothing else.
    fn clear(&self) {
        for name in [
            "best.gq",
            "trial.gq",
            "trial.gq.partial",
            "trial.gq.journal",
            "search.json",
            "search.json.partial",
        ] {
            let _ = gq_files::remove(&self.dir.join(name));
        }
    }

    /// Removes the folder; what somebody else put into it stays, and so does it then.
    pub fn remove(self) {
        self.clear();
        let _ = gq_files::remove(&self.dir.join(LOCK));
        drop(self.lock);
        let _ = std::fs::remove_dir(&self.dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_goes_on_where_it_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gq");
        let round = Round { allowed: 0.1 / 3.0, kld: 0.07 / 3.0, tokens: 9, bytes: 7, kept: false };
        let mut first = SearchFolder::open(&path, "this", false).unwrap();
        first.add(round).unwrap();
        assert_eq!(SearchFolder::open(&path, "this", false).err().unwrap().code, "convert.busy");
        drop(first);
        assert_eq!(SearchFolder::open(&path, "that", false).err().unwrap().code, "convert.differs");
        let again = SearchFolder::open(&path, "this", false).unwrap();
        assert_eq!(again.known(0.1 / 3.0), Some(round));
        assert_eq!(again.known(0.03), None);
        drop(again);
        let restarted = SearchFolder::open(&path, "that", true).unwrap();
        assert_eq!(restarted.known(0.1 / 3.0), None);
        restarted.remove();
        assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
    }

    #[test]
    fn what_others_left_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gq");
        let foreign = folder.path().join("m.gq.target-kld");
        std::fs::create_dir(&foreign).unwrap();
        std::fs::write(foreign.join("best.gq"), "mine").unwrap();
        assert_eq!(SearchFolder::open(&path, "this", true).err().unwrap().code, "target_kld.foreign");
        assert_eq!(std::fs::read(foreign.join("best.gq")).unwrap(), b"mine");
        std::fs::remove_dir_all(&foreign).unwrap();
        // A best file that is gone, and what was said of it.
        let mut first = SearchFolder::open(&path, "this", false).unwrap();
        std::fs::write(first.trial(), "a file").unwrap();
        first.add(Round { allowed: 0.5, kld: 0.4, tokens: 9, bytes: 6, kept: true }).unwrap();
        std::fs::remove_file(first.best()).unwrap();
        drop(first);
        assert_eq!(SearchFolder::open(&path, "this", false).unwrap().known(0.5), None);
    }
}
