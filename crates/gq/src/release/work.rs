//! What is done of a release that is being made, so that a killed one is taken up where it stopped.
//!
//! One JSON line for everything that the release's bytes depend on, then one per finished file with its digest.
//! The file lies in the release's folder, is locked while it is used, and goes away at the end.

use crate::failure::{Exit, Failure};
use crate::sums::sha256;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Its name in the release's folder.
pub const NAME: &str = ".gq-release";

/// A release that is being made.
pub struct Work {
    dir: PathBuf,
    file: File,
    done: BTreeMap<String, String>,
}

impl Work {
    /// Begins the work in `dir`, or takes it up.
    pub fn open(dir: &Path, inputs: &Value, restart: bool) -> Result<Work, Failure> {
        let path = dir.join(NAME);
        let io = |e| Failure::io(&path, &e);
        let mut file = match gq_files::open_locked(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::ResourceBusy => {
                let message = format!("{}: another gq is making this release", dir.display());
                return Err(Failure::new(Exit::Environment, "convert.busy", message).at(dir.display()));
            }
            Err(error) => return Err(io(error)),
        };
        let mut text = String::new();
        // What is no text is the torn end of something.
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io)?;
        text.push_str(&String::from_utf8_lossy(&bytes));
        // Only whole lines count.
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]).to_owned();
        let mut lines = whole.lines().map_while(|line| serde_json::from_str::<Value>(line).ok());
        let mut done = BTreeMap::new();
        match lines.next() {
            Some(begun) if !restart => {
                if begun != *inputs {
                    return Err(differs(dir, &begun, inputs));
                }
                for line in lines {
                    let field = |name: &str| line.get(name).and_then(Value::as_str).map(str::to_owned);
                    done.extend(field("file").zip(field("sha256")));
                }
                file.set_len(whole.len() as u64).map_err(io)?;
            }
            _ => {
                file.set_len(0).map_err(io)?;
                file.seek(SeekFrom::Start(0)).map_err(io)?;
                writeln!(file, "{inputs}").map_err(io)?;
            }
        }
        file.seek(SeekFrom::End(0)).map_err(io)?;
        Ok(Work { dir: dir.to_owned(), file, done })
    }

    /// Whether a file is finished: noted, there, and with the digest that was noted.
    pub fn has(&self, name: &str) -> bool {
        let path = self.dir.join(name);
        let noted = self.done.get(name);
        noted.is_some_and(|noted| sha256(&path, |_| {}).is_ok_and(|(actual, _)| actual == *noted))
    }

    /// Notes that a file is finished.
    pub fn note(&mut self, name: &str) -> Result<(), Failure> {
        let (sha256, _) = sha256(&self.dir.join(name), |_| {})?;
        let line = json!({ "file": name, "sha256": sha256 });
        writeln!(self.file, "{line}").map_err(|e| Failure::io(&self.dir.join(NAME), &e))?;
        self.done.insert(name.to_owned(), sha256);
        Ok(())
    }

    /// Ends the work.
    pub fn finish(self) -> Result<(), Failure> {
        let path = self.dir.join(NAME);
        gq_files::remove(&path).map_err(|e| Failure::io(&path, &e))
    }

    /// Whether a folder holds work that was begun.
    pub fn is_begun(dir: &Path) -> bool {
        dir.join(NAME).exists()
    }
}

/// Names the first input that is not what it was.
pub fn differs(dir: &Path, begun: &Value, now: &Value) -> Failure {
    let changed = now.as_object().into_iter().flatten().find(|(name, value)| begun.get(*name) != Some(value));
    let (what, limit, actual) = match changed {
        Some((name, value)) => {
            let before = begun.get(name).map(Value::to_string).unwrap_or_default();
            (name.replace('_', " "), before, value.to_string())
        }
        None => ("inputs".to_owned(), String::new(), String::new()),
    };
    let message = format!("{}: holds a release that was made or begun with another {what}", dir.display());
    Failure::new(Exit::Usage, "release.differs", message).at(what).limit(limit).actual(actual)
}
