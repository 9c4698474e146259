//! The journal next to an unfinished output: what is being made, and the tensors that are done.
//!
//! One JSON object per line. The first is the [`Fingerprint`]; each further line is a finished [`Entry`],
//! appended after the tensor's bytes are in the partial file. A torn last line is ignored.
//! A process killed between the two loses one tensor's work, never the output's bytes.

use crate::plan::Policy;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Everything the output's bytes depend on, but the weights themselves (those are compared by digest as they are read).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Version of this program.
    pub version: String,
    /// The recipe.
    pub policy: Policy,
    /// Weight files of the source: name and size.
    pub files: Vec<(String, u64)>,
    /// Adapters that are merged in: name, weight and digests of each.
    #[serde(default)]
    pub adapters: Vec<String>,
    /// sha256 over the texts that ride along, and the tensors' names, shapes and places.
    pub facts: String,
}

/// A finished tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Index among the plan's steps.
    pub step: usize,
    /// Where its payload starts in the partial file.
    pub offset: u64,
    /// Bytes of its payload.
    pub bytes: u64,
    /// sha256 of its payload.
    pub sha256: String,
    /// sha256 of the source file from its beginning to the end of this tensor.
    pub source_sha256: String,
    /// Sum of squared errors, as the bits of an f64.
    pub error: u64,
    /// Sum of squared weights, as the bits of an f64.
    pub energy: u64,
    /// Output errors and energies, in sample and held out, and who won by what, as the bits of f64.
    #[serde(default)]
    pub outputs: [u64; 8],
}

/// A journal that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Reading or writing failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The journal.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Another process is converting to the same output.
    #[error("{}: another gq is writing this output", path.display())]
    Busy {
        /// The journal.
        path: PathBuf,
    },
    /// The unfinished output was begun differently.
    #[error("{}: an unfinished conversion was begun with {what} {limit}, this one has {actual}", path.display())]
    Differs {
        /// The journal.
        path: PathBuf,
        /// The option, source or version that differs.
        what: String,
        /// Its value when the conversion began.
        limit: String,
        /// Its value now.
        actual: String,
    },
}

/// An open, locked journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    entries: Vec<Entry>,
}

impl Journal {
    /// Opens the journal at `path`, or begins one. A journal whose first line is torn is begun again.
    ///
    /// # Errors
    /// [`JournalError::Differs`] when it belongs to another conversion, [`JournalError::Busy`] while another process holds it.
    pub fn open(path: &Path, fingerprint: &Fingerprint) -> Result<Journal, JournalError> {
        let io = |source| JournalError::Io { path: path.to_owned(), source };
        let mut file = match gq_files::open_locked(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::ResourceBusy => {
                return Err(JournalError::Busy { path: path.to_owned() });
            }
            Err(error) => return Err(io(error)),
        };
        let (begun, entries, end) = read(&file).map_err(io)?;
        if let Some(begun) = &begun {
            refuse_difference(path, begun, fingerprint)?;
        }
        // What follows the last whole line is torn.
        file.set_len(end).and_then(|()| file.seek(SeekFrom::End(0))).map_err(io)?;
        if begun.is_none() {
            file.write_all(&line(fingerprint).map_err(io)?).map_err(io)?;
        }
        Ok(Journal { path: path.to_owned(), file, entries })
    }

    /// The finished tensors, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Forgets all entries but the first `n`.
    ///
    /// # Errors
    /// When the file cannot be rewritten.
    pub fn keep(&mut self, n: usize, fingerprint: &Fingerprint) -> Result<(), JournalError> {
        if n >= self.entries.len() {
            return Ok(());
        }
        self.entries.truncate(n);
        let rewrite = |file: &mut File, entries: &[Entry]| {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&line(fingerprint)?)?;
            entries.iter().try_for_each(|entry| file.write_all(&line(entry)?))
        };
        rewrite(&mut self.file, &self.entries)
            .map_err(|source| JournalError::Io { path: self.path.clone(), source })
    }

    /// Adds a finished tensor whose bytes are in the partial file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn append(&mut self, entry: Entry) -> Result<(), JournalError> {
        let written = line(&entry).and_then(|line| self.file.write_all(&line));
        written.map_err(|source| JournalError::Io { path: self.path.clone(), source })?;
        self.entries.push(entry);
        Ok(())
    }

    /// Removes the journal: the output is complete.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn remove(self) -> Result<(), JournalError> {
        gq_files::remove(&self.path).map_err(|source| JournalError::Io { path: self.path, source })
    }
}

fn line(value: &impl Serialize) -> std::io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

/// The fingerprint, the entries, and where the last whole line ends.
fn read(file: &File) -> std::io::Result<(Option<Fingerprint>, Vec<Entry>, u64)> {
    let mut reader = BufReader::new(file);
    let mut next = |end: &mut u64| -> std::io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line)?;
        let whole = line.ends_with(b"\n");
        *end += if whole { line.len() as u64 } else { 0 };
        Ok(whole.then_some(line))
    };
    let mut end = 0;
    let first = next(&mut end)?;
    let Some(begun) = first.and_then(|line| serde_json::from_slice(&line).ok()) else {
        return Ok((None, Vec::new(), 0));
    };
    let mut entries: Vec<Entry> = Vec::new();
    let mut good = end;
    while let Some(line) = next(&mut end)? {
        match serde_json::from_slice::<Entry>(&line) {
            Ok(entry) if entry.step == entries.len() => entries.push(entry),
            _ => break,
        }
        good = end;
    }
    Ok((Some(begun), entries, good))
}

/// Names the first difference between what was begun and what is asked for now.
fn refuse_difference(path: &Path, begun: &Fingerprint, now: &Fingerprint) -> Result<(), JournalError> {
    if begun == now {
        return Ok(());
    }
    let differs = |what: &str, limit: String, actual: String| {
        Err(JournalError::Differs { path: path.to_owned(), what: what.to_owned(), limit, actual })
    };
    if begun.version != now.version {
        return differs("gq version", begun.version.clone(), now.version.clone());
    }
    let fields = |policy: &Policy| match serde_json::to_value(policy) {
        Ok(serde_json::Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (old, new) = (fields(&begun.policy), fields(&now.policy));
    if let Some((name, value)) = new.iter().find(|(name, value)| old.get(*name) != Some(value)) {
        let before = old.get(name).map(ToString::to_string).unwrap_or_default();
        return differs(&name.replace('_', " "), before, value.to_string());
    }
    let list = |files: &[(String, u64)]| {
        let shown: Vec<_> = files.iter().map(|(name, bytes)| format!("{name} ({bytes} bytes)")).collect();
        shown.join(", ")
    };
    if begun.files != now.files {
        return differs("source files", list(&begun.files), list(&now.files));
    }
    if begun.adapters != now.adapters {
        return differs("adapters", begun.adapters.join(", "), now.adapters.join(", "));
    }
    differs("source texts or tensors", begun.facts.clone(), now.facts.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Choice;

    fn fingerprint() -> Fingerprint {
        let files = vec![("model.safetensors".to_owned(), 9)];
        let policy = Policy::new(Choice::from_name("tq4").unwrap());
        Fingerprint { version: "1".to_owned(), policy, files, adapters: Vec::new(), facts: "00".to_owned() }
    }

    fn entry(step: usize) -> Entry {
        let sha256 = "ab".to_owned();
        Entry {
            step,
            offset: 0,
            bytes: 1,
            sha256: sha256.clone(),
            source_sha256: sha256,
            error: 1,
            energy: 2,
            outputs: [0; 8],
        }
    }

    #[test]
    fn entries_survive_and_a_torn_line_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.journal");
        let mut journal = Journal::open(&path, &fingerprint()).unwrap();
        journal.append(entry(0)).unwrap();
        journal.append(entry(1)).unwrap();
        assert!(matches!(Journal::open(&path, &fingerprint()), Err(JournalError::Busy { .. })));
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 5]).unwrap();
        let mut journal = Journal::open(&path, &fingerprint()).unwrap();
        assert_eq!(journal.entries(), [entry(0)]);
        journal.append(entry(1)).unwrap();
        journal.keep(1, &fingerprint()).unwrap();
        drop(journal);
        assert_eq!(Journal::open(&path, &fingerprint()).unwrap().entries(), [entry(0)]);
        std::fs::write(&path, b"{\"vers").unwrap();
        assert!(Journal::open(&path, &fingerprint()).unwrap().entries().is_empty());
    }

    #[test]
    fn the_difference_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.journal");
        drop(Journal::open(&path, &fingerprint()).unwrap());
        let named = |change: &dyn Fn(&mut Fingerprint)| {
            let mut other = fingerprint();
            change(&mut other);
            match Journal::open(&path, &other) {
                Err(JournalError::Differs { what, .. }) => what,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(named(&|f| f.version.push('1')), "gq version");
        assert_eq!(named(&|f| f.policy.seed = 7), "seed");
        assert_eq!(named(&|f| f.policy.per_layer_table = Choice::Exact), "per layer table");
        assert_eq!(named(&|f| f.files[0].1 = 8), "source files");
        assert_eq!(named(&|f| f.adapters.push("a".to_owned())), "adapters");
        assert_eq!(named(&|f| f.facts.push('1')), "source texts or tensors");
    }
}
