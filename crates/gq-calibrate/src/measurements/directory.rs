//! A directory of measurements: `measurements.json`, and moments, gradients and held-out text next to it.

use super::moment::square;
use super::value::{FORMAT, Measurements};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The file that is written last: without it, a directory holds no measurement.
pub(super) const INDEX: &str = "measurements.json";
/// What is done of a measurement, while it is not finished.
pub(super) const UNFINISHED: &str = "unfinished.json";
/// Says that what lies next to it was measured for one file, and goes with it.
pub(super) const TEMPORARY: &str = "temporary";
/// What the name of a file of moments begins with.
const MOMENTS: &str = "moments-";
/// Squared gradients at products' outputs, one f64 vector per tensor.
pub(super) const GRADIENTS: &str = "gradients.safetensors";

/// Sequences that were held out, a vector of tokens each.
pub(super) const HELD_OUT: &str = "held_out.safetensors";

/// llama.cpp's importance matrix, where one was asked for.
pub(super) const IMATRIX: &str = "imatrix.gguf";

/// Weight of the mean in every row's squared gradient.
const PRIOR: f64 = 0.1;

/// Measurements that cannot be used or saved.
#[derive(Debug, thiserror::Error)]
pub enum MeasurementsError {
    /// Reading or writing failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Not what this program writes.
    #[error("{}: {actual}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        actual: String,
    },
    /// Measured on other weights.
    #[error("{}: measured on another checkpoint, of {actual}; this one is of {limit}", path.display())]
    OtherCheckpoint {
        /// The file.
        path: PathBuf,
        /// The checkpoint's files that differ.
        limit: String,
        /// What was measured in their place.
        actual: String,
    },
    /// Measured by another version.
    #[error("{}: measured with {what} {actual}, this is {limit}", path.display())]
    Differs {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// What is needed.
        limit: String,
        /// What was measured.
        actual: String,
    },
}

/// The files of `own` that are not among `others`, in words. What has no size stands for the weights in them, whose digest
/// would tell a reader nothing.
fn differing(own: &[(String, u64)], others: &[(String, u64)]) -> String {
    let named = own.iter().filter(|file| file.1 > 0 && !others.contains(file));
    let named: Vec<String> = named.map(|(name, bytes)| format!("{name} ({bytes} bytes)")).collect();
    match named.is_empty() {
        true => "other weights in files of the same names and sizes".to_owned(),
        false => named.join(", "),
    }
}

#[derive(Deserialize)]
struct Numbered {
    format: u32,
}

/// A directory with a measurement: the value, and the files that rounding reads.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasurementsDir {
    pub(super) dir: PathBuf,
    pub(crate) value: Measurements,
}

impl MeasurementsDir {
    /// Reads `dir/measurements.json`.
    ///
    /// # Errors
    /// When it is not there, or was not written by this version.
    pub fn open(dir: &Path) -> Result<MeasurementsDir, MeasurementsError> {
        let path = dir.join(INDEX);
        let bytes = read(&path)?;
        let malformed =
            |e: serde_json::Error| MeasurementsError::Malformed { path: path.clone(), actual: e.to_string() };
        // Alone at first: in another format, other fields may be missing.
        let Numbered { format } = serde_json::from_slice(&bytes).map_err(malformed)?;
        if format != FORMAT {
            let (limit, actual) = (FORMAT.to_string(), format.to_string());
            return Err(MeasurementsError::Differs { path, what: "format", limit, actual });
        }
        let measurements: Measurements = serde_json::from_slice(&bytes).map_err(malformed)?;
        let version = env!("CARGO_PKG_VERSION");
        if measurements.version != version {
            let (limit, actual) = (version.to_owned(), measurements.version);
            return Err(MeasurementsError::Differs { path, what: "gq", limit, actual });
        }
        if measurements.corrections.as_ref().is_some_and(|corrections| !corrections.is_known()) {
            let actual = "corrections made by other rules".to_owned();
            return Err(MeasurementsError::Malformed { path, actual });
        }
        Ok(MeasurementsDir { dir: dir.to_owned(), value: measurements })
    }

    /// What was measured.
    pub fn value(&self) -> &Measurements {
        &self.value
    }

    /// The same without corrections: predictions count as they are.
    #[must_use]
    pub fn without_corrections(self) -> MeasurementsDir {
        MeasurementsDir { value: self.value.without_corrections(), ..self }
    }

    /// Where llama.cpp's importance matrix of it goes.
    pub fn imatrix_path(&self) -> PathBuf {
        self.dir.join(IMATRIX)
    }

    /// A file in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Whether a finished measurement lies in `dir`, of whatever it is.
    pub fn is_finished(dir: &Path) -> bool {
        dir.join(INDEX).exists()
    }

    /// Whether a measurement has a file of this name, finished or not.
    pub fn is_file_name(name: &std::ffi::OsStr) -> bool {
        let whole = name.to_str().map(|name| name.strip_suffix(".partial").unwrap_or(name));
        whole.is_some_and(|name| {
            [INDEX, UNFINISHED, TEMPORARY, GRADIENTS, HELD_OUT, IMATRIX, "states", "trials"].contains(&name)
                || is_moments(name)
        })
    }

    /// Files in `dir` one of which is there when a measurement can be taken up or used.
    pub fn marks(dir: &Path) -> [PathBuf; 2] {
        [INDEX, UNFINISHED].map(|name| dir.join(name))
    }

    /// Files in `dir` that are of use only while something is measured.
    pub fn scratch(dir: &Path) -> [PathBuf; 2] {
        ["states.partial", "trials.partial"].map(|name| dir.join(name))
    }

    /// Whether it was measured on these weight files.
    ///
    /// # Errors
    /// [`MeasurementsError::OtherCheckpoint`] with the files that differ.
    pub fn check_source(&self, files: &[(String, u64)]) -> Result<(), MeasurementsError> {
        if self.value.files == files {
            return Ok(());
        }
        let path = self.dir.join(INDEX);
        Err(MeasurementsError::OtherCheckpoint {
            path,
            limit: differing(files, &self.value.files),
            actual: differing(&self.value.files, files),
        })
    }

    /// Removes what was saved, and the directory when nothing else is in it.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn remove(&self) -> Result<(), MeasurementsError> {
        let imatrix = [IMATRIX].into_iter().filter(|file| self.dir.join(file).exists());
        for file in self.value.digests.keys().map(String::as_str).chain(imatrix).chain([INDEX]) {
            let path = self.dir.join(file);
            gq_files::remove(&path).map_err(|source| MeasurementsError::Io { path, source })?;
        }
        self.remove_unfinished()?;
        self.set_temporary(false)?;
        match std::fs::remove_dir(&self.dir) {
            Err(source) if source.kind() != std::io::ErrorKind::DirectoryNotEmpty => {
                Err(MeasurementsError::Io { path: self.dir.clone(), source })
            }
            _ => Ok(()),
        }
    }

    /// The second moment `[n, n]` of an input's tokens.
    ///
    /// # Errors
    /// [`MeasurementsError`]: a file that cannot be read or is not the one that was written.
    pub fn moment(&self, input: &str) -> Result<Vec<f32>, MeasurementsError> {
        self.square(input, "moment")
    }

    /// The second moment `[n, n]` of the tokens that were held out.
    ///
    /// # Errors
    /// Those of [`moment`](MeasurementsDir::moment).
    pub fn held_out_moment(&self, input: &str) -> Result<Vec<f32>, MeasurementsError> {
        self.square(input, "held_out")
    }

    /// One of an input's two moments.
    fn square(&self, input: &str, part: &str) -> Result<Vec<f32>, MeasurementsError> {
        let index = self.dir.join(INDEX);
        let malformed =
            |path: &Path, actual: String| MeasurementsError::Malformed { path: path.to_owned(), actual };
        let measured = self.value.inputs.get(input);
        let measured = measured.ok_or_else(|| malformed(&index, format!("no input {input:?}")))?;
        let path = self.dir.join(&measured.file);
        let bytes = read(&path)?;
        if self.value.digests.get(&measured.file) != Some(&hex::encode(Sha256::digest(&bytes))) {
            return Err(malformed(&path, "its sha256 is not the one in measurements.json".to_owned()));
        }
        let tensors = SafeTensors::deserialize(&bytes).map_err(|e| malformed(&path, e.to_string()))?;
        let n = measured.cols;
        let name = format!("{input}.{part}");
        let tensor = tensors.tensor(&name).map_err(|e| malformed(&path, e.to_string()))?;
        let values = tensor.data().as_chunks::<4>().0;
        match values.len() == n * (n + 1) / 2 {
            true => Ok(square(values.iter().map(|&bytes| f32::from_le_bytes(bytes)), n)),
            false => Err(malformed(&path, format!("{name} has {} elements", values.len()))),
        }
    }

    /// What an error in each row of a tensor costs, relative to the costliest, where gradients were measured.
    ///
    /// A part of the mean is added to every row: a sample of labels says little of rows that it seldom reached.
    pub fn row_weights(&self, tensor: &str) -> Result<Option<Vec<f32>>, MeasurementsError> {
        if self.value.gradient_tokens == 0 {
            return Ok(None);
        }
        let gradients = self.gradients_with(&mut |name| name == tensor)?;
        let Some(sums) = gradients.get(tensor) else { return Ok(None) };
        let prior = PRIOR * sums.iter().sum::<f64>() / sums.len().max(1) as f64;
        let largest = sums.iter().fold(0.0, |largest, &sum| f64::max(largest, sum)) + prior;
        Ok((largest > 0.0).then(|| sums.iter().map(|sum| ((sum + prior) / largest) as f32).collect()))
    }

    /// Sums of squared gradients at products' outputs, one for each row.
    pub(crate) fn gradients(&self) -> Result<BTreeMap<String, Vec<f64>>, MeasurementsError> {
        self.gradients_with(&mut |_| true)
    }

    /// Those of the tensors that `wanted` accepts.
    fn gradients_with(
        &self,
        wanted: &mut dyn FnMut(&str) -> bool,
    ) -> Result<BTreeMap<String, Vec<f64>>, MeasurementsError> {
        let path = self.dir.join(GRADIENTS);
        let bytes = read(&path)?;
        let malformed = |actual: String| malformed(&path, actual);
        if self.value.digests.get(GRADIENTS) != Some(&hex::encode(Sha256::digest(&bytes))) {
            return Err(malformed("its sha256 is not the one in measurements.json".to_owned()));
        }
        let tensors = SafeTensors::deserialize(&bytes).map_err(|e| malformed(e.to_string()))?;
        let named = tensors.iter().filter(|(name, _)| wanted(name));
        let sums = named.map(|(name, tensor)| {
            let sums = tensor.data().as_chunks::<8>().0.iter().map(|&bytes| f64::from_le_bytes(bytes));
            (name.to_owned(), sums.collect())
        });
        Ok(sums.collect())
    }

    /// Sequences that were held out, to measure a finished file on; none where they were not kept. Codes were not made by
    /// them, but dampings were chosen and trials made on them.
    ///
    /// # Errors
    /// When the file is not what was written.
    pub fn held_out(&self) -> Result<Vec<Vec<u32>>, MeasurementsError> {
        let Some(digest) = self.value.digests.get(HELD_OUT) else { return Ok(Vec::new()) };
        let path = self.dir.join(HELD_OUT);
        let bytes = read(&path)?;
        let malformed = |actual: String| MeasurementsError::Malformed { path: path.clone(), actual };
        if *digest != hex::encode(Sha256::digest(&bytes)) {
            return Err(malformed("its sha256 is not the one in measurements.json".to_owned()));
        }
        let tensors = SafeTensors::deserialize(&bytes).map_err(|e| malformed(e.to_string()))?;
        let mut named = tensors.tensors();
        named.sort_by(|a, b| a.0.cmp(&b.0));
        let tokens = |(_, tensor): (String, TensorView<'_>)| -> Vec<u32> {
            tensor.data().as_chunks::<4>().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect()
        };
        Ok(named.into_iter().map(tokens).collect())
    }

    /// Writes sequences that were held out.
    pub(crate) fn save_held_out(&mut self, sequences: &[Vec<u32>]) -> Result<(), MeasurementsError> {
        let bytes = sequences.iter().enumerate().map(|(index, tokens)| {
            let bytes = tokens.iter().flat_map(|x| x.to_le_bytes()).collect();
            (format!("sequence-{index:04}"), vec![tokens.len()], bytes)
        });
        self.save(HELD_OUT, Dtype::U32, bytes.collect())
    }

    /// Writes sums of squared gradients.
    pub(crate) fn save_gradients(
        &mut self,
        rows: &BTreeMap<String, Vec<f64>>,
    ) -> Result<(), MeasurementsError> {
        let bytes = rows.iter().map(|(name, sums)| {
            (name.clone(), vec![sums.len()], sums.iter().flat_map(|x| x.to_le_bytes()).collect())
        });
        self.save(GRADIENTS, Dtype::F64, bytes.collect())
    }

    /// Writes a file of lower triangles.
    pub(crate) fn save_moments(
        &mut self,
        file: &str,
        triangles: Vec<(String, Vec<f32>)>,
    ) -> Result<(), MeasurementsError> {
        let bytes = triangles.into_iter().map(|(name, values)| {
            (name, vec![values.len()], values.iter().flat_map(|x| x.to_le_bytes()).collect())
        });
        self.save(file, Dtype::F32, bytes.collect())
    }

    fn save(
        &mut self,
        file: &str,
        dtype: Dtype,
        tensors: Vec<(String, Vec<usize>, Vec<u8>)>,
    ) -> Result<(), MeasurementsError> {
        let path = self.dir.join(file);
        let malformed = |actual: String| MeasurementsError::Malformed { path: path.clone(), actual };
        let view = |(name, shape, bytes): &'_ (String, Vec<usize>, Vec<u8>)| {
            TensorView::new(dtype, shape.clone(), bytes).map(|_| name.clone())
        };
        tensors
            .iter()
            .try_for_each(|tensor| view(tensor).map(|_| ()))
            .map_err(|e| malformed(e.to_string()))?;
        let views = tensors.iter().filter_map(|(name, shape, bytes)| {
            Some((name.clone(), TensorView::new(dtype, shape.clone(), bytes).ok()?))
        });
        let bytes = safetensors::serialize(views, None).map_err(|e| malformed(e.to_string()))?;
        self.value.digests.insert(file.to_owned(), hex::encode(Sha256::digest(&bytes)));
        write(&path, &bytes)
    }

    /// Writes the index: the measurement is complete.
    pub(crate) fn finish(&self) -> Result<(), MeasurementsError> {
        let path = self.dir.join(INDEX);
        let json = serde_json::to_vec_pretty(&self.value)
            .map_err(|e| MeasurementsError::Malformed { path: path.clone(), actual: e.to_string() })?;
        write(&path, &json)?;
        self.remove_unfinished()
    }
}

/// The file of an input's moments, by layer and number.
pub(crate) fn moments_file(layer: usize, index: usize) -> String {
    format!("{MOMENTS}{layer:04}-{index:03}.safetensors")
}

/// The failure of a file that is not what was written.
pub(super) fn malformed(path: &Path, actual: String) -> MeasurementsError {
    MeasurementsError::Malformed { path: path.to_owned(), actual }
}

/// Whether a file has moments, or was to have them.
pub(super) fn is_moments(name: &str) -> bool {
    let numbers = name.strip_prefix(MOMENTS).map(|rest| rest.strip_suffix(".partial").unwrap_or(rest));
    let numbers = numbers.and_then(|rest| rest.strip_suffix(".safetensors"));
    numbers.is_some_and(|numbers| numbers.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-'))
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, MeasurementsError> {
    std::fs::read(path).map_err(|source| MeasurementsError::Io { path: path.to_owned(), source })
}

/// Writes next to its place, syncs, renames.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), MeasurementsError> {
    let io = |source| MeasurementsError::Io { path: path.to_owned(), source };
    gq_files::write_whole(path, bytes).map_err(io)
}
