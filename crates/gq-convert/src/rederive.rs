//! Tensors of a finished file encoded again from their source, and compared bit for bit.
//!
//! A file stores how each tensor is encoded and in which basis, so that nothing has to be planned again. Tensors whose
//! codes were rounded with their inputs in view take the measurements that the file's recipe names by their digest.

use crate::execute::{Coder, Coding, ConvertError};
use crate::plan::Calibration;
use crate::provenance::{adapters, digest_of};
use crate::round::{Coded, Factors, StripBuffer, rounds_columns};
use gq_calibrate::MeasurementsDir;
use gq_checkpoint::{Checkpoint, FileKind, ReadError, SourceTensor, TensorReader};
use gq_codec::Coders;
use gq_container::{Container, Digest, FormatError, Provenance, TensorEntry, TextKind};
use gq_tensor::{Isa, MatrixShape};
use sha2::Digest as _;
use std::collections::HashSet;
use std::ops::Range;

/// Bytes of the source that are read at once, whole strips of rows beyond it.
const BLOCK: usize = 8 << 20;

/// What encoding a tensor again showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every byte is the file's.
    Same,
    /// Every code is the file's; scales were tuned afterwards and are not compared.
    SameCodes,
    /// The first byte of the payload that differs.
    Differs {
        /// Where it is in the tensor's payload.
        at: u64,
    },
    /// The source has no such tensor, or one of another shape or dtype.
    NotInSource,
    /// It cannot be encoded again here.
    Not(WhyNot),
}

/// Why a tensor cannot be encoded again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyNot {
    /// It was rounded by measurements, which are not at hand.
    Measurements,
    /// It was rounded again behind rounded layers.
    RoundedAgain,
    /// It is stored as it is, and may have been tuned with the scales.
    Tuned,
}

/// What cannot be compared at all.
#[derive(Debug, thiserror::Error)]
pub enum RederiveError {
    /// A text of the file cannot be read.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The file does not say what it was made from.
    #[error("the file has no provenance: it does not say what it was made from")]
    NoProvenance,
    /// These measurements are not those of the file.
    #[error("the file was rounded by measurements {limit}, these are {actual}")]
    OtherMeasurements {
        /// Digest of those in the file's recipe; `none` where it was made without.
        limit: String,
        /// Digest of those given.
        actual: String,
    },
    /// A tensor cannot be read or encoded.
    #[error(transparent)]
    Convert(#[from] ConvertError),
}

/// Encodes tensors of a file again.
pub struct Rederiver<'a> {
    container: &'a Container,
    checkpoint: &'a Checkpoint,
    measurements: Option<&'a MeasurementsDir>,
    level: Isa,
    provenance: Provenance,
    /// Tensors that the file's report says were rounded with their inputs in view; `None`: it does not say.
    calibrated: Option<HashSet<String>>,
    coders: Coders,
    factors: Factors,
}

impl<'a> Rederiver<'a> {
    /// Reads what the file says of how it was made.
    ///
    /// # Errors
    /// When it says nothing, or was made by other measurements than these.
    pub fn new(
        container: &'a Container,
        checkpoint: &'a Checkpoint,
        measurements: Option<&'a MeasurementsDir>,
        level: Isa,
    ) -> Result<Rederiver<'a>, RederiveError> {
        let provenance = container.provenance()?.ok_or(RederiveError::NoProvenance)?;
        if let Some(given) = measurements {
            let actual = given.value().sha256();
            let limit = recipe_calibration(&provenance).map_or_else(|| "none".to_owned(), |c| c.sha256);
            // Corrections weigh bytes against each other, not rows: codes are the same without them.
            let plain = || given.value().clone().without_corrections().sha256();
            if limit != actual && limit != plain() {
                return Err(RederiveError::OtherMeasurements { limit, actual });
            }
        }
        let report = container.text(TextKind::Report)?;
        let (coders, factors) = (Coders::default(), Factors::default());
        let calibrated = report.as_deref().and_then(calibrated_tensors);
        Ok(Rederiver { container, checkpoint, measurements, level, provenance, calibrated, coders, factors })
    }

    /// What the file says of where it comes from.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Why this tensor cannot be encoded again, as far as the file says; `None` where it can.
    pub fn why_not(&self, entry: &TensorEntry) -> Option<WhyNot> {
        if !rounds_columns(entry.encoding) {
            return None;
        }
        let by_inputs = match &self.calibrated {
            Some(names) => names.contains(&entry.name),
            None => recipe_calibration(&self.provenance).is_some(),
        };
        if self.provenance.rounded_again.is_some() {
            return Some(WhyNot::RoundedAgain);
        }
        (by_inputs && self.measurements.is_none()).then_some(WhyNot::Measurements)
    }

    /// Encodes a tensor again and compares. `progress` gets bytes of the source.
    ///
    /// # Errors
    /// When the source cannot be read, or holds what cannot be encoded.
    pub fn compare(
        &mut self,
        entry: &TensorEntry,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Verdict, RederiveError> {
        if let Some(why) = self.why_not(entry) {
            return Ok(Verdict::Not(why));
        }
        let source = self.checkpoint.tensor(&entry.name);
        let same = |source: &&SourceTensor| {
            let shape = source.shape.iter().map(|d| *d as u64);
            shape.eq(entry.shape.iter().copied()) && source.dtype == entry.source_dtype
        };
        let (Some(source), Ok(shape)) = (source.filter(same), entry.spec().matrix_shape()) else {
            return Ok(Verdict::NotInSource);
        };
        let tuned = self.provenance.scales_tuned.is_some();
        let differs = self.first_difference(entry, source, shape, progress)?;
        let codes = entry.encoding.codes_bytes(shape.rows, shape.cols).unwrap_or(0) as u64;
        Ok(match differs {
            Some(_) if tuned && entry.encoding.is_exact() => Verdict::Not(WhyNot::Tuned),
            Some(at) if tuned && at >= codes => Verdict::SameCodes,
            Some(at) => Verdict::Differs { at },
            None => Verdict::Same,
        })
    }

    /// Where the payload differs from what the source gives.
    fn first_difference(
        &mut self,
        entry: &TensorEntry,
        source: &SourceTensor,
        shape: MatrixShape,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Option<u64>, RederiveError> {
        let coder = Coder::new(source, entry.storage(), shape, self.measurements, &mut self.coders)?;
        let how = Coding { level: self.level, factors: &self.factors, checkpoint: self.checkpoint };
        let reader = TensorReader::new(self.checkpoint, source);
        let row_bytes = source.row_bytes();
        let mut rest = Rest { payload: self.container.payload(entry), at: 0 };
        let (mut bytes, mut scales) = (Vec::new(), Vec::new());
        let (mut coded, mut buffer) = (Coded::default(), StripBuffer::default());
        for rows in blocks(entry, source, shape) {
            bytes.resize(rows.len() * row_bytes, 0);
            let start = rows.start as u64 * row_bytes as u64;
            let range = start..start + bytes.len() as u64;
            self.checkpoint.read_bytes(source, range, &mut bytes).map_err(ConvertError::Values)?;
            source.order_rows(&mut bytes);
            coder.code(how, reader, &bytes, &rows, &mut coded, &mut buffer)?;
            if let Some(at) = rest.difference(&coded.codes) {
                return Ok(Some(at));
            }
            scales.extend_from_slice(&coded.scales);
            progress(bytes.len() as u64);
        }
        let left = rest.difference(&scales);
        Ok(left.or_else(|| (rest.at < rest.payload.len()).then_some(rest.at as u64)))
    }
}

/// What of a payload is not compared yet.
struct Rest<'a> {
    payload: &'a [u8],
    at: usize,
}

impl Rest<'_> {
    /// Compares what comes next; gives the first byte that differs.
    fn difference(&mut self, next: &[u8]) -> Option<u64> {
        let stored = self.payload.get(self.at..).unwrap_or_default();
        let same = stored.iter().zip(next).take_while(|(a, b)| a == b).count();
        let at = self.at + same;
        self.at += next.len();
        (same < next.len()).then_some(at as u64)
    }
}

/// Rows that are coded at once: whole strips of whole units of one matrix.
fn blocks(entry: &TensorEntry, source: &SourceTensor, shape: MatrixShape) -> Vec<Range<usize>> {
    let (strip, unit) = (entry.encoding.strip_rows().max(1), source.row_unit().max(1));
    let whole = (1..=unit).map(|n| n * strip).find(|rows| rows.is_multiple_of(unit)).unwrap_or(strip * unit);
    let rows = (BLOCK / source.row_bytes().max(1) / whole * whole).max(whole);
    let matrix = if strip > 1 { shape.rows_each().max(1) } else { shape.rows.max(1) };
    let starts = (0..shape.rows).step_by(matrix);
    let blocks = starts.flat_map(|first| {
        let end = (first + matrix).min(shape.rows);
        (first..end).step_by(rows).map(move |start| start..(start + rows).min(end))
    });
    blocks.collect()
}

/// Compares every file of the source with its digest in the file's provenance, and the adapters. Gives the names of those
/// that differ, are missing or were not there. `progress` gets the bytes read and the file.
///
/// # Errors
/// When a file cannot be read.
pub fn compare_files(
    provenance: &Provenance,
    checkpoint: &Checkpoint,
    progress: &mut dyn FnMut(u64, &str),
) -> Result<Vec<String>, ReadError> {
    let mut other = Vec::new();
    let mut recorded: Vec<_> = provenance.source.files.iter().collect();
    for (index, file) in checkpoint.files().iter().enumerate() {
        if file.kind == FileKind::Adapter {
            continue;
        }
        let known = recorded.iter().position(|known| known.name == file.name).map(|at| recorded.remove(at));
        let limit = known.filter(|known| known.bytes == file.bytes).map(|known| known.sha256);
        let same = match limit {
            Some(limit) => {
                file_digest(checkpoint, index, file.bytes, &mut |n| progress(n, &file.name))? == Some(limit)
            }
            None => false,
        };
        if !same {
            other.push(file.name.clone());
        }
    }
    other.extend(recorded.into_iter().map(|file| file.name.clone()));
    let given = adapters(checkpoint);
    let unlike = provenance.source.adapters.iter().filter(|adapter| !given.contains(adapter));
    let added = given.iter().filter(|adapter| !provenance.source.adapters.contains(adapter));
    other.extend(unlike.chain(added).map(|adapter| format!("adapter {}", adapter.name)));
    Ok(other)
}

fn file_digest(
    checkpoint: &Checkpoint,
    file: usize,
    bytes: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<Option<Digest>, ReadError> {
    let mut hash = sha2::Sha256::new();
    let mut buffer = Vec::new();
    let mut at = 0;
    while at < bytes {
        let now = (bytes - at).min(BLOCK as u64);
        buffer.resize(now as usize, 0);
        checkpoint.read_file(file, at, &mut buffer)?;
        hash.update(&buffer);
        progress(now);
        at += now;
    }
    Ok(digest_of(&hex::encode(hash.finalize())))
}

fn recipe_calibration(provenance: &Provenance) -> Option<Calibration> {
    serde_json::from_value(provenance.recipe.get("calibration")?.clone()).ok()
}

/// Names of the tensors of which a report gives errors of outputs: those were rounded with their inputs in view.
fn calibrated_tensors(report: &str) -> Option<HashSet<String>> {
    let report: serde_json::Value = serde_json::from_str(report).ok()?;
    let calibrated = report.get("tensors")?.as_array()?.iter().filter(|tensor| {
        ["output_error", "held_out_error"]
            .iter()
            .any(|key| tensor.get(*key).is_some_and(|error| !error.is_null()))
    });
    Some(calibrated.filter_map(|tensor| Some(tensor.get("name")?.as_str()?.to_owned())).collect())
}
