//! `model.safetensors.index.json`: which tensor is in which shard.

use crate::limits;
use gq_files::{Escaped, Sentence};
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use std::collections::HashMap;
use std::fmt;

/// Tensors and their files; file names are plain names inside the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Weight files, sorted by name.
    pub files: Vec<String>,
    /// Tensor name to index into `files`.
    pub tensors: HashMap<String, usize>,
}

/// An index that breaks a rule.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Not JSON of the right form.
    #[error("not valid: {}", Sentence(.source))]
    Json {
        /// What the parser says, with line and column.
        #[source]
        source: serde_json::Error,
    },
    /// A file name that could lead out of the directory, or is no weight file's.
    #[error("weight_map names the file {}, expected a plain name that ends in .safetensors", Escaped(.file))]
    BadFileName {
        /// Name.
        file: String,
    },
    /// A file that is not there.
    #[error("weight_map names the file {}, which does not exist", Escaped(.file))]
    FileMissing {
        /// Name.
        file: String,
    },
    /// No tensors.
    #[error("weight_map is empty")]
    Empty,
    /// More files than the cap.
    #[error("weight_map names {actual} files, at most {limit} are allowed")]
    TooManyFiles {
        /// Files.
        actual: usize,
        /// Cap.
        limit: usize,
    },
}

/// Parses an index.
///
/// # Errors
/// When it is not JSON, names a tensor twice, or names a file by anything but a plain `.safetensors` name.
pub fn parse_index(bytes: &[u8]) -> Result<Index, IndexError> {
    let raw: RawIndex = serde_json::from_slice(bytes).map_err(|source| IndexError::Json { source })?;
    let RawMap { files, tensors } = raw.weight_map;
    if tensors.is_empty() {
        return Err(IndexError::Empty);
    }
    if files.len() > limits::SHARDS {
        return Err(IndexError::TooManyFiles { actual: files.len(), limit: limits::SHARDS });
    }
    let mut order: Vec<(String, usize)> = files.into_iter().collect();
    order.sort();
    if let Some((file, _)) = order.iter().find(|(file, _)| !is_plain(file)) {
        return Err(IndexError::BadFileName { file: file.clone() });
    }
    let mut sorted = vec![0; order.len()];
    for (new, (_, old)) in order.iter().enumerate() {
        sorted[*old] = new;
    }
    let tensors = tensors.into_iter().map(|(name, file)| (name, sorted[file])).collect();
    Ok(Index { files: order.into_iter().map(|(file, _)| file).collect(), tensors })
}

/// A name without directories, drive letters or control characters: it stays inside the directory on every system.
fn is_plain(file: &str) -> bool {
    file.len() <= 255
        && file.ends_with(".safetensors")
        && !file.starts_with('.')
        && file.chars().all(|c| !c.is_control() && !matches!(c, '/' | '\\' | ':'))
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawIndex {
    #[serde(default)]
    #[allow(dead_code)] // total sizes: known, and wrong in many released files
    metadata: IgnoredAny,
    weight_map: RawMap,
}

struct RawMap {
    files: HashMap<String, usize>,
    tensors: HashMap<String, usize>,
}

impl<'de> Deserialize<'de> for RawMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = RawMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensor names and file names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawMap, A::Error> {
                let mut raw = RawMap { files: HashMap::new(), tensors: HashMap::new() };
                while let Some((name, file)) = map.next_entry::<String, String>()? {
                    let next = raw.files.len();
                    let file = *raw.files.entry(file).or_insert(next);
                    if raw.tensors.contains_key(&name) {
                        return Err(A::Error::custom(format_args!(
                            "tensor {} appears twice",
                            Escaped(&name)
                        )));
                    }
                    if raw.tensors.len() == limits::TENSORS {
                        return Err(A::Error::custom(format_args!("more than {} tensors", limits::TENSORS)));
                    }
                    raw.tensors.insert(name, file);
                }
                Ok(raw)
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}
