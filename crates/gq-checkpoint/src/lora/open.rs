//! An adapter's folder, opened as facts.

use super::AdapterError;
use super::config::AdapterConfig;
use super::modules::{Module, modules};
use crate::limits;
use crate::read_at::read_exact_at;
use crate::safetensors::{header_bytes, parse_header};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// An adapter: configuration and names of tensors. Its factors stay on disk.
#[derive(Debug)]
pub struct Adapter {
    name: String,
    weight: f64,
    files: Vec<AdapterFile>,
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
}

impl Adapter {
    /// Opens a folder that PEFT (or Unsloth) wrote. `weight` multiplies the change; 1 is the adapter as trained.
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
        let (path, file) = open_file(dir, CONFIG)?;
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| AdapterError::Io { path, source }
        };
        let bytes = file.metadata().map_err(io(&path))?.len();
        if bytes > limits::CONFIG_BYTES {
            return Err(AdapterError::TooLong { path, actual: bytes, limit: limits::CONFIG_BYTES });
        }
        let text = std::fs::read(&path).map_err(io(&path))?;
        let config = AdapterConfig::parse(&path, &String::from_utf8_lossy(&text))?;
        let mut files = vec![AdapterFile {
            name: CONFIG.to_owned(),
            bytes: text.len() as u64,
            sha256: hex(&Sha256::digest(&text)),
        }];

        let (path, file) = open_file(dir, WEIGHTS)?;
        let bytes = file.metadata().map_err(io(&path))?.len();
        let header = |source| AdapterError::Header { path: path.clone(), source };
        let mut start = [0; 8];
        let start = &mut start[..bytes.min(8) as usize];
        read_exact_at(&file, start, 0).map_err(io(&path))?;
        let length = header_bytes(start, bytes).map_err(header)?;
        let mut head = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        read_exact_at(&file, &mut head, 0).map_err(io(&path))?;
        let modules = modules(&parse_header(&head, bytes).map_err(header)?)?;
        let sha256 = sha256_of(&file).map_err(io(&path))?;
        files.push(AdapterFile { name: WEIGHTS.to_owned(), bytes, sha256 });
        Ok(Adapter { name, weight, files, path, file, config, modules })
    }

    /// Name of its folder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its change is multiplied by.
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// Its two files: together they are its identity.
    pub fn files(&self) -> &[AdapterFile] {
        &self.files
    }
}

fn open_file(dir: &Path, file: &'static str) -> Result<(PathBuf, File), AdapterError> {
    let path = dir.join(file);
    match File::open(&path) {
        Ok(opened) => Ok((path, opened)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && dir.is_dir() => {
            Err(AdapterError::NoFile { dir: dir.to_owned(), file })
        }
        Err(source) => Err(AdapterError::Io { path, source }),
    }
}

fn sha256_of(mut file: &File) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    std::io::Seek::rewind(&mut file)?;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            now => hash.update(buffer.get(..now).unwrap_or_default()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
