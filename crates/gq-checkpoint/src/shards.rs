//! Which files hold the weights of a directory: those of the index, a whole set of numbered shards, or the single one.

use crate::read_at::read_exact_at;
use crate::safetensors::{Header, HeaderError, Index, IndexError, header_bytes, parse_header, parse_index};
use crate::stamp::Stamp;
use crate::stand_in::{StandIn, unfinished};
use crate::texts::read_text;
use crate::{CheckpointError, FileKind, Note, SourceFile, limits};
use std::fs::File;
use std::path::Path;

pub(crate) const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";
/// Endings of weights that are pickles.
const PICKLES: [&str; 4] = [".bin", ".pt", ".pth", ".ckpt"];

/// The weight files, and the index where it describes them.
#[derive(Debug)]
pub(crate) struct Weights {
    /// Names, in order.
    pub names: Vec<String>,
    /// The index, unless it is not there or describes other files.
    pub index: Option<Index>,
    /// Whether the names alone say that nothing is missing: a single file, or all numbers of a set.
    pub whole: bool,
    /// What was noticed.
    pub notes: Vec<Note>,
}

/// Chooses among the files `names` of `dir`. Weights that are not chosen are refused, not passed over.
///
/// An index that names files which are not there is passed over when the files that are there are whole by themselves.
pub(crate) fn weights(dir: &Path, names: &[String]) -> Result<Weights, CheckpointError> {
    let there: Vec<&String> =
        names.iter().filter(|name| name.starts_with("model") && name.ends_with(".safetensors")).collect();
    let alone = there.len() == 1 && *there[0] == SINGLE;
    let set = numbered(&there);
    let whole = alone || matches!(set, Some(Numbered::Whole));
    let all = || there.iter().map(|name| (*name).clone()).collect::<Vec<_>>();
    let path = dir.join(INDEX);
    if let Some(index) = read_index(dir, names)? {
        let stray = there.iter().find(|name| !index.files.contains(name));
        let absent = index.files.iter().find(|file| !names.contains(file));
        return match (absent, stray) {
            (None, None) => {
                Ok(Weights { names: index.files.clone(), index: Some(index), whole, notes: Vec::new() })
            }
            (None, Some(stray)) => Err(CheckpointError::StrayWeights { path: dir.join(stray) }),
            (Some(file), Some(_)) if whole => {
                let why = format!("names {file}, which does not exist");
                let notes = vec![Note::StaleIndex { path, why }];
                Ok(Weights { names: all(), index: None, whole, notes })
            }
            (Some(file), _) => {
                refuse_unfinished(dir, names)?;
                let source = IndexError::FileMissing { file: file.clone() };
                Err(CheckpointError::Index { path, source })
            }
        };
    }
    if names.iter().any(|name| name == SINGLE) {
        return match there.iter().find(|name| **name != SINGLE) {
            Some(stray) => Err(CheckpointError::SecondWeights { path: dir.join(stray) }),
            None => Ok(Weights { names: all(), index: None, whole, notes: Vec::new() }),
        };
    }
    match set {
        Some(Numbered::Whole) => {
            let notes = vec![Note::NoIndex { dir: dir.to_owned(), shards: there.len() }];
            Ok(Weights { names: all(), index: None, whole, notes })
        }
        Some(Numbered::Missing { file, of }) => {
            refuse_unfinished(dir, names)?;
            Err(CheckpointError::ShardMissing { dir: dir.to_owned(), file, of })
        }
        None => {
            refuse_unfinished(dir, names)?;
            match names.iter().find(|name| PICKLES.iter().any(|end| name.ends_with(end))) {
                Some(pickle) => Err(CheckpointError::Pickle { path: dir.join(pickle) }),
                None => Err(CheckpointError::NoWeights { dir: dir.to_owned() }),
            }
        }
    }
}

/// Says that a download did not finish, where a file shows it.
pub(crate) fn refuse_unfinished(dir: &Path, names: &[String]) -> Result<(), CheckpointError> {
    match unfinished(dir, names) {
        Some(file) => Err(CheckpointError::Unfinished { path: dir.join(file) }),
        None => Ok(()),
    }
}

/// What numbered names make up.
enum Numbered {
    /// Every number up to the count, once.
    Whole,
    /// The first name that is missing.
    Missing { file: String, of: usize },
}

/// Reads `model-00001-of-00003.safetensors` and the like; `None` unless all names are so and agree on the count.
fn numbered(names: &[&String]) -> Option<Numbered> {
    let parts = |name: &str| -> Option<(usize, usize)> {
        let (number, count) =
            name.strip_prefix("model-")?.strip_suffix(".safetensors")?.split_once("-of-")?;
        let digits = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
        (digits(number) && digits(count)).then_some(())?;
        Some((number.parse().ok()?, count.parse().ok()?))
    };
    let numbers = names.iter().map(|name| parts(name)).collect::<Option<Vec<_>>>()?;
    let (_, of) = *numbers.first()?;
    if numbers.iter().any(|(number, count)| *count != of || !(1..=of).contains(number)) {
        return None;
    }
    let missing =
        (1..=of.min(limits::SHARDS)).find(|wanted| !numbers.iter().any(|(number, _)| number == wanted));
    Some(match missing {
        Some(number) => Numbered::Missing { file: format!("model-{number:05}-of-{of:05}.safetensors"), of },
        None => Numbered::Whole,
    })
}

fn read_index(dir: &Path, names: &[String]) -> Result<Option<Index>, CheckpointError> {
    if !names.iter().any(|name| name == INDEX) {
        return Ok(None);
    }
    let path = dir.join(INDEX);
    let text = read_text(&path, limits::INDEX_BYTES)?;
    parse_index(text.as_bytes()).map(Some).map_err(|source| CheckpointError::Index { path, source })
}

/// Opens a weight file and reads its header; `names` are the files of the directory.
pub(crate) fn open_weights(
    dir: &Path,
    name: &str,
    names: &[String],
) -> Result<(File, SourceFile, Header), CheckpointError> {
    let path = dir.join(name);
    // The file has its full length from the beginning on while this lies next to it.
    if names.iter().any(|other| other.strip_suffix(".aria2") == Some(name)) {
        return Err(CheckpointError::Unfinished { path: dir.join(format!("{name}.aria2")) });
    }
    let failed = |source| CheckpointError::Io { path: path.clone(), source };
    let broken = |source: HeaderError| CheckpointError::Header { path: path.clone(), source };
    let file = File::open(&path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let bytes = metadata.len();
    let mut start = [0; 1024];
    let start = &mut start[..bytes.min(1024) as usize];
    read_exact_at(&file, start, 0).map_err(failed)?;
    if let Some(what) = StandIn::recognize(start) {
        if what == StandIn::Empty {
            refuse_unfinished(dir, names)?;
        }
        return Err(CheckpointError::StandIn { path, what });
    }
    let length = header_bytes(start, bytes).map_err(broken)?;
    let mut head = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    read_exact_at(&file, &mut head, 0).map_err(failed)?;
    let header = parse_header(&head, bytes).map_err(broken)?;
    let (name, stamp) = (name.to_owned(), Stamp::of(&metadata));
    let source = SourceFile { name, path: path.clone(), bytes, kind: FileKind::Weights, stamp };
    Ok((file, source, header))
}
