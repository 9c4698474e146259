//! An adapter's folder, opened as facts.

use super::config::{AdapterConfig, options};
use super::modules::{Module, Modules, modules};
use super::text_files::texts_of;
use super::{AdapterError, mlx};
use crate::read_at::read_exact_at;
use crate::safetensors::{header_bytes, parse_header};
use crate::{FileKind, Note, SourceFile, Stamp, StandIn, limits};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
const PICKLE: &str = "adapter_model.bin";

/// An adapter: configuration and names of tensors. Its factors stay on disk.
#[derive(Debug)]
pub struct Adapter {
    name: String,
    weight: f64,
    files: Vec<AdapterFile>,
    /// Texts in its folder that say how the model is spoken to.
    pub(super) texts: Vec<PathBuf>,
    /// An example of names that are not as PEFT saves them.
    pub(super) unusual: Option<String>,
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) config: AdapterConfig,
    pub(super) modules: BTreeMap<String, Module>,
}

/// A file of an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterFile {
    /// File name, without directory.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
    /// sha256 in lower-case hexadecimal.
    pub sha256: String,
    /// Path.
    pub path: PathBuf,
    /// Its state when it was opened.
    pub stamp: Stamp,
}

impl Adapter {
    /// Opens a folder that PEFT (or Unsloth) or MLX wrote. `weight` multiplies the change; 1 is the adapter as trained.
    ///
    /// # Errors
    /// When a file is missing or broken, an option is not supported, or a tensor has no known part.
    pub fn open(dir: impl AsRef<Path>, weight: f64) -> Result<Adapter, AdapterError> {
        let dir = dir.as_ref();
        let absolute = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        let name = absolute.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if !weight.is_finite() {
            return Err(AdapterError::Weight { adapter: name, actual: weight });
        }
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| AdapterError::Io { path, source }
        };
        let (path, file) = open_file(dir, CONFIG)?;
        let metadata = file.metadata().map_err(io(&path))?;
        let (bytes, stamp) = (metadata.len(), Stamp::of(&metadata));
        if bytes > limits::CONFIG_BYTES {
            return Err(AdapterError::TooLong { path, actual: bytes, limit: limits::CONFIG_BYTES });
        }
        let mut text = Vec::new();
        (&file).take(limits::CONFIG_BYTES).read_to_end(&mut text).map_err(io(&path))?;
        refuse_stand_in(&path, &text)?;
        let options = options(&path, &String::from_utf8_lossy(&text))?;
        let config = match mlx::is_mlx(&options) {
            true => mlx::config(&options)?,
            false => AdapterConfig::parse(&path, &options)?,
        };
        let (bytes, sha256) = (text.len() as u64, hex::encode(Sha256::digest(&text)));
        let mut files = vec![AdapterFile { name: CONFIG.to_owned(), bytes, sha256, path, stamp }];

        let weights = if config.mlx { mlx::WEIGHTS } else { WEIGHTS };
        let (path, file) = open_file(dir, weights)?;
        let metadata = file.metadata().map_err(io(&path))?;
        let (bytes, stamp) = (metadata.len(), Stamp::of(&metadata));
        let header = |source| AdapterError::Header { path: path.clone(), source };
        let mut start = [0; 1024];
        let start = &mut start[..bytes.min(1024) as usize];
        read_exact_at(&file, start, 0).map_err(io(&path))?;
        refuse_stand_in(&path, start)?;
        let length = header_bytes(start, bytes).map_err(header)?;
        let mut head = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        read_exact_at(&file, &mut head, 0).map_err(io(&path))?;
        let head = parse_header(&head, bytes).map_err(header)?;
        let Modules { by_name: modules, unusual } =
            if config.mlx { mlx::modules(&head)? } else { modules(&head)? };
        let sha256 = sha256_of(&file).map_err(io(&path))?;
        files.push(AdapterFile { name: weights.to_owned(), bytes, sha256, path: path.clone(), stamp });
        let texts = texts_of(dir);
        Ok(Adapter { name, weight, files, texts, unusual, path, file, config, modules })
    }

    /// Name of its folder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its change is multiplied by.
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// Whether its folder has texts of its own.
    pub(crate) fn has_texts(&self) -> bool {
        !self.texts.is_empty()
    }

    /// What is to be told about its names.
    pub(crate) fn note(&self) -> Option<Note> {
        let name = self.unusual.clone()?;
        Some(Note::AdapterNames { adapter: self.name.clone(), name })
    }

    /// Its weight file as one of a checkpoint.
    pub(crate) fn weights(&self) -> Result<(SourceFile, File), AdapterError> {
        let io = |source| AdapterError::Io { path: self.path.clone(), source };
        let handle = self.file.try_clone().map_err(io)?;
        let metadata = self.file.metadata().map_err(io)?;
        let stamp = self.files.last().map_or_else(|| Stamp::of(&metadata), |file| file.stamp);
        let name = self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let (path, bytes, kind) = (self.path.clone(), metadata.len(), FileKind::Adapter);
        Ok((SourceFile { name, path, bytes, kind, stamp }, handle))
    }

    /// Its two files: together they are its identity.
    pub fn files(&self) -> &[AdapterFile] {
        &self.files
    }

    /// `NAME x WEIGHT (DIGESTS)`.
    pub fn identity(&self) -> String {
        let digests: Vec<&str> = self.files.iter().map(|file| file.sha256.as_str()).collect();
        format!("{} x {} ({})", self.name, self.weight, digests.join(" "))
    }
}

fn open_file(dir: &Path, file: &'static str) -> Result<(PathBuf, File), AdapterError> {
    let path = dir.join(file);
    match File::open(&path) {
        Ok(opened) => Ok((path, opened)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && dir.is_dir() => {
            let pickle = dir.join(PICKLE);
            match file == WEIGHTS && pickle.is_file() {
                true => Err(AdapterError::Pickle { path: pickle }),
                false => Err(AdapterError::NoFile { dir: dir.to_owned(), file }),
            }
        }
        Err(source) => Err(AdapterError::Io { path, source }),
    }
}

/// Says what lies in a file's place.
fn refuse_stand_in(path: &Path, start: &[u8]) -> Result<(), AdapterError> {
    match StandIn::recognize(start) {
        Some(what) => Err(AdapterError::StandIn { path: path.to_owned(), what }),
        None => Ok(()),
    }
}

fn sha256_of(mut file: &File) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    std::io::Seek::rewind(&mut file)?;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hash.finalize())),
            now => hash.update(buffer.get(..now).unwrap_or_default()),
        }
    }
}
