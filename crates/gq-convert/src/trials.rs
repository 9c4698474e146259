//! What trials are rounded to, and how, in memory.

use crate::plan;
use crate::round::{CalibratedCoder, CalibratedError, Coded, CoderError, Factors, RowCoder, StripBuffer};
use gq_calibrate::{
    CalibrateError, CalibrateEvent, Measurements, MeasurementsDir, Replacements, TrialOptions, TrialRounding,
};
use gq_checkpoint::{Checkpoint, SourceTensor, TensorReader};
use gq_codec::{Coders, Rotation};
use gq_model::{Linear, Model};
use gq_tensor::{Encoding, Isa, RotationKind, RotationSpec, States, Storage};
use std::collections::{BTreeMap, BTreeSet};

/// What is tried: where a damage is some hundredths of a nat, well above noise and not yet out of proportion.
const ENCODING: Encoding = Encoding::Trellis { bits: 3, states: States::S10 };
const ROTATION: RotationSpec = RotationSpec { kind: RotationKind::Hadamard, seed: 0 };
const STORAGE: Storage = Storage::new(ENCODING, ROTATION);
/// Bytes of source rows read at once, and rows at least.
const BLOCK: usize = 4 << 20;
const BLOCK_ROWS: usize = 128;

/// Compares predictions with divergences measured on text that was held out ([`gq_calibrate::correct`]): what a
/// conversion with the kernels `level` would round to is tried, with the same result on all.
///
/// # Errors
/// [`CalibrateError`]; the measurement is then as it was.
pub fn correct(
    checkpoint: &Checkpoint,
    model: &Model,
    sequences: &[Vec<u32>],
    options: &TrialOptions,
    level: Isa,
    measurements: &mut MeasurementsDir,
    progress: &mut dyn FnMut(CalibrateEvent),
) -> Result<(), CalibrateError> {
    let rounding = Rounding { checkpoint, level };
    gq_calibrate::correct(checkpoint, model, sequences, options, &rounding, measurements, progress)
}

/// Rounds tensors in memory.
struct Rounding<'a> {
    checkpoint: &'a Checkpoint,
    level: Isa,
}

impl TrialRounding for Rounding<'_> {
    fn encoding(&self) -> String {
        ENCODING.name()
    }

    fn supports(&self, tensor: &SourceTensor) -> bool {
        ENCODING.supports_cols(tensor.cols()) && Rotation::check(ROTATION, tensor.cols()).is_ok()
    }

    fn predicted(&self, measurements: &Measurements, tensor: &str) -> f64 {
        plan::predicted(measurements, tensor, ENCODING).unwrap_or(0.0)
    }

    fn round(
        &self,
        measurements: &MeasurementsDir,
        tensors: &[&SourceTensor],
        weights: &mut Replacements,
    ) -> Result<(), CalibrateError> {
        // Factors are not kept while layers run.
        let (factors, mut coders) = (Factors::default(), Coders::default());
        for tensor in tensors {
            let shape = tensor.matrix();
            let coder = CalibratedCoder::new(measurements, tensor, STORAGE, shape, &mut coders);
            let coder = coder.map_err(|error| match error {
                CalibratedError::Coder(source) => failed(tensor, source),
                CalibratedError::Measurements(source) => CalibrateError::File(source),
            })?;
            let Some(coder) = coder else { continue };
            let (mut payload, mut scales, mut coded) = (Vec::new(), Vec::new(), Coded::default());
            for matrix in (0..shape.rows).step_by(shape.rows_each().max(1)) {
                let end = matrix + shape.rows_each();
                let step = block(tensor);
                for first in (matrix..end).step_by(step) {
                    let source = self.source(tensor, first..(first + step).min(end))?;
                    let reader = TensorReader::new(self.checkpoint, tensor);
                    coder.code(self.level, &factors, reader, &source, first, &mut coded)?;
                    payload.extend_from_slice(&coded.codes);
                    scales.extend_from_slice(&coded.scales);
                }
            }
            payload.append(&mut scales);
            let linear = Linear::in_memory(&tensor.name, STORAGE, shape, payload);
            weights.insert(linear.map_err(|error| CalibrateError::Trial {
                tensor: tensor.name.clone(),
                actual: error.to_string(),
            })?);
        }
        Ok(())
    }

    fn round_rows(
        &self,
        table: &SourceTensor,
        rows: &BTreeSet<usize>,
        weights: &mut Replacements,
    ) -> Result<(), CalibrateError> {
        let coder = RowCoder::new(&mut Coders::default(), STORAGE, table.cols());
        let coder = coder.map_err(|source| failed(table, source))?;
        weights.insert_rows(&table.name, self.rows(table, &coder, rows)?);
        Ok(())
    }
}

impl Rounding<'_> {
    /// Rows rounded to nearest with the strips that they are in, and decoded.
    fn rows(
        &self,
        tensor: &SourceTensor,
        coder: &RowCoder,
        wanted: &BTreeSet<usize>,
    ) -> Result<BTreeMap<usize, Vec<f32>>, CalibrateError> {
        let (mut out, cols) = (BTreeMap::new(), tensor.cols());
        let step = unit(tensor);
        let starts: BTreeSet<usize> = wanted.iter().map(|row| row / step * step).collect();
        let (mut coded, mut buffer, mut values) = (Coded::default(), StripBuffer::default(), Vec::new());
        for first in starts {
            let end = (first + step).min(tensor.rows());
            let source = self.source(tensor, first..end)?;
            let reader = TensorReader::new(self.checkpoint, tensor);
            coder.code(self.level, reader, &source, first, &mut coded, &mut buffer)?;
            let rows = coder.encoder.rows(&coded.codes, &coded.scales);
            values.resize(rows.shape().rows * cols, 0.0);
            coder.decoder.decode_rows(self.level, &rows, 0..end - first, &mut values);
            coder.rotation.inverse(self.level, &mut values, &mut Vec::new());
            let read = (first..end).zip(values.chunks_exact(cols)).filter(|(row, _)| wanted.contains(row));
            out.extend(read.map(|(row, values)| (row, values.to_vec())));
        }
        Ok(out)
    }

    fn source(&self, tensor: &SourceTensor, rows: std::ops::Range<usize>) -> Result<Vec<u8>, CalibrateError> {
        let row = tensor.row_bytes();
        let mut bytes = vec![0; rows.len() * row];
        let range = (rows.start * row) as u64..(rows.end * row) as u64;
        self.checkpoint.read_bytes(tensor, range, &mut bytes)?;
        tensor.order_rows(&mut bytes);
        Ok(bytes)
    }
}

/// Rows that cannot be cut apart: whole strips of whole units of the source.
fn unit(tensor: &SourceTensor) -> usize {
    let (strip, unit) = (ENCODING.strip_rows(), tensor.row_unit().max(1));
    (1..=unit).map(|n| n * strip).find(|rows| rows.is_multiple_of(unit)).unwrap_or(strip * unit)
}

/// Rows rounded at once.
fn block(tensor: &SourceTensor) -> usize {
    let fit = (BLOCK / tensor.row_bytes().max(1)).max(BLOCK_ROWS);
    fit.next_multiple_of(unit(tensor))
}

fn failed(tensor: &SourceTensor, source: CoderError) -> CalibrateError {
    CalibrateError::Trial { tensor: tensor.name.clone(), actual: source.to_string() }
}
