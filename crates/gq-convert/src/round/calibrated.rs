//! A block of rows to codes with the inputs' second moments in view.

use super::error::{CoderError, RoundError};
use super::inputs::{Factors, Input, squares};
use super::row_coder::{Coded, RowCoder, squared_error};
use super::sums::OutputSums;
use gq_calibrate::{MeasurementsDir, MeasurementsError};
use gq_checkpoint::{Role, SourceTensor, TensorReader};
use gq_codec::{Coders, ColumnCode, Encoder, Factor, Parallelism, Strip, StripOutcome, code_of};
use gq_tensor::{CodedRows, Encoding, Isa, MatrixShape, Storage};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Rows rounded together: a strip of a trellis code. For codes of single rows, results do not depend on it.
pub(crate) const STRIP: usize = Encoding::STRIP_ROWS;

/// Of so many rows, one is measured on the held-out tokens.
const SAMPLE: usize = 16;

/// Rows of every input that feedback and rounding to nearest compete on.
const TRIED: usize = 32;

/// A coder that cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CalibratedError {
    /// The encoding or the rotation does not exist at this width.
    #[error(transparent)]
    Coder(#[from] CoderError),
    /// Gradients that cannot be read.
    #[error(transparent)]
    Measurements(#[from] MeasurementsError),
}

/// Whether this encoding is rounded column after column, with the inputs in view.
pub(crate) fn rounds_columns(encoding: Encoding) -> bool {
    code_of(Storage::unrotated(encoding)).is_ok_and(|code| code.columns().is_some())
}

/// A code that is rounded column after column, for one tensor.
pub(crate) struct ColumnCoder {
    code: Arc<dyn ColumnCode>,
    /// What an error in each row of the tensor costs, where that was measured and rows are coded together.
    row_weights: Option<Vec<f32>>,
}

impl ColumnCoder {
    /// `None` for an encoding that is rounded row by row; without `measurements`, all rows count the same.
    pub(crate) fn new(
        encoder: &Encoder,
        measurements: Option<&MeasurementsDir>,
        tensor: &SourceTensor,
    ) -> Result<Option<ColumnCoder>, MeasurementsError> {
        let Some(code) = encoder.columns() else { return Ok(None) };
        // Rows of a vocabulary that no label was drawn for are looked up and predicted all the same.
        let vocabulary = matches!(tensor.role, Role::Embedding | Role::Head);
        let weighed = encoder.encoding().strip_rows() > 1 && !vocabulary;
        let row_weights = match measurements.filter(|_| weighed) {
            Some(measurements) => measurements.row_weights(&tensor.name)?,
            None => None,
        };
        Ok(Some(ColumnCoder { code, row_weights }))
    }

    /// Rotated rows of the tensor, `n` wide, the first of which is its row `first`.
    pub(crate) fn strip<'a>(&'a self, first: usize, rotated: &'a [f32], n: usize) -> Strip<'a> {
        let rows = first..first + rotated.len() / n.max(1);
        let row_weights = self.row_weights.as_ref().and_then(|weights| weights.get(rows));
        Strip { rotated, row_weights }
    }

    /// Rounds a strip.
    pub(crate) fn encode(
        &self,
        level: Isa,
        parallelism: Parallelism,
        factor: &Factor,
        strip: Strip<'_>,
        codes: &mut [u8],
        scales: &mut [u8],
    ) -> StripOutcome {
        self.code.encode(level, parallelism, factor, strip, codes, scales)
    }
}

/// What is needed to code one tensor.
pub(crate) struct CalibratedCoder<'a> {
    tensor: String,
    rows: RowCoder,
    code: ColumnCoder,
    measurements: &'a MeasurementsDir,
    /// One, or one per expert.
    inputs: &'a [String],
    /// Rows that share an input.
    group: usize,
    /// Who won, by input.
    verdicts: Mutex<BTreeMap<usize, Verdict>>,
}

/// Where the errors of some rows are kept.
struct RowErrors<'a> {
    /// The first row's number in the tensor.
    first: usize,
    sums: &'a mut [(f64, f64)],
    outputs: &'a mut [OutputSums],
}

/// Held-out errors of the rows tried.
#[derive(Clone, Copy, Debug)]
struct Verdict {
    feedback: f64,
    nearest: f64,
    energy: f64,
}

impl Verdict {
    /// Feedback overfits where few tokens were seen: an error below nearest's on the tokens held out is what counts.
    /// So is an error that is no number, whatever the other one is.
    fn is_nearest(self) -> bool {
        self.nearest < self.feedback || self.feedback.is_nan()
    }
}

impl<'a> CalibratedCoder<'a> {
    /// How rows are stored.
    pub(crate) fn encoding(&self) -> Encoding {
        self.rows.storage.encoding
    }

    /// `None` when nothing was measured for the tensor or its encoding is rounded row by row.
    pub(crate) fn new(
        measurements: &'a MeasurementsDir,
        tensor: &SourceTensor,
        storage: Storage,
        shape: MatrixShape,
        coders: &mut Coders,
    ) -> Result<Option<CalibratedCoder<'a>>, CalibratedError> {
        let measured =
            measurements.value().tensors.get(&tensor.name).filter(|measured| !measured.inputs.is_empty());
        let Some(measured) = measured else { return Ok(None) };
        let rows = RowCoder::new(coders, storage, shape.cols)?;
        let Some(code) = ColumnCoder::new(&rows.encoder, Some(measurements), tensor)? else {
            return Ok(None);
        };
        Ok(Some(CalibratedCoder {
            tensor: tensor.name.clone(),
            rows,
            code,
            measurements,
            inputs: &measured.inputs,
            group: shape.rows / measured.inputs.len().max(1),
            verdicts: Mutex::default(),
        }))
    }

    /// Codes the rows in `source`, the first of which is row `first` of `tensor`.
    pub(crate) fn code(
        &self,
        level: Isa,
        factors: &Factors,
        reader: TensorReader<'_>,
        source: &[u8],
        first: usize,
        out: &mut Coded,
    ) -> Result<(), RoundError> {
        let (encoding, cols) = (self.rows.storage.encoding, self.rows.cols);
        let scales_row = encoding.scales_row_bytes(cols);
        let codes_bytes = |rows: usize| encoding.codes_bytes(rows, cols).unwrap_or(0);
        let source_row = reader.tensor().row_bytes();
        let rows = source.len() / source_row;
        out.codes.resize(codes_bytes(rows), 0);
        out.scales.resize(rows * scales_row, 0);
        out.sums.resize(rows, (0.0, 0.0));
        out.outputs.clear();
        out.outputs.resize(rows, OutputSums::default());
        let mut done = 0;
        while done < rows {
            let group = (first + done) / self.group.max(1);
            let end = rows.min((group + 1) * self.group.max(1) - first);
            let input = self.input(level, factors, group)?;
            let verdict = self.verdict(level, &input, reader, group)?;
            let strips = source[done * source_row..end * source_row]
                .par_chunks(STRIP * source_row)
                .zip(out.codes[codes_bytes(done)..codes_bytes(end)].par_chunks_mut(codes_bytes(STRIP)))
                .zip(out.scales[done * scales_row..end * scales_row].par_chunks_mut(STRIP * scales_row))
                .zip(out.sums[done..end].par_chunks_mut(STRIP))
                .zip(out.outputs[done..end].par_chunks_mut(STRIP))
                .enumerate();
            let parallelism = Parallelism::within((end - done).div_ceil(STRIP));
            strips.try_for_each(|(index, ((((source, codes), scales), sums), outputs))| {
                let row = first + done + index * STRIP;
                let mut weights = vec![0.0; sums.len() * cols];
                reader.decode_rows_f32(row..row + sums.len(), source, &mut weights)?;
                self.rows.rotation.forward(level, &mut weights, &mut Vec::new());
                let coded = if verdict.is_nearest() {
                    outputs.iter_mut().for_each(|output| output.nearest_rows = 1.0);
                    self.rows.nearest(level, parallelism, &weights, codes, scales)
                } else {
                    let strip = self.code.strip(row, &weights, cols);
                    let outcome = self.code.encode(level, parallelism, &input.factor, strip, codes, scales);
                    let measured = outcome.errors.iter().zip(&outcome.energies);
                    for (output, (&error, &energy)) in outputs.iter_mut().zip(measured) {
                        (output.error, output.energy) = (error, energy);
                    }
                    self.rows.encoder.rows(codes, scales)
                };
                let errors = RowErrors { first: row, sums, outputs };
                self.measure(level, parallelism, &input, &weights, &coded, errors);
                Ok::<_, RoundError>(())
            })?;
            // Counted once: with the first of the rows that it is about.
            if (first + done).is_multiple_of(self.group.max(1))
                && let Some(output) = out.outputs.get_mut(done)
            {
                output.tried_feedback = verdict.feedback;
                output.tried_nearest = verdict.nearest;
                output.tried_energy = verdict.energy;
            }
            done = end;
        }
        Ok(())
    }

    /// Rounds rows from the middle of a group both ways: a function of the tensor and what was measured alone.
    fn verdict(
        &self,
        level: Isa,
        input: &Input,
        reader: TensorReader<'_>,
        group: usize,
    ) -> Result<Verdict, RoundError> {
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(verdict) = verdicts.get(&group) {
            return Ok(*verdict);
        }
        let (cols, rows) = (self.rows.cols, self.group.min(TRIED));
        let parallelism = Parallelism::Threads;
        let first = group * self.group + (self.group - rows) / 2;
        let mut weights = vec![0.0; rows * cols];
        reader.read_rows_f32(first..first + rows, &mut weights)?;
        self.rows.rotation.forward(level, &mut weights, &mut Vec::new());
        let encoding = self.rows.storage.encoding;
        let mut codes = vec![0; encoding.codes_bytes(rows, cols).unwrap_or(0)];
        let mut scales = vec![0; rows * encoding.scales_row_bytes(cols)];
        let error = |coded: CodedRows<'_>| -> f64 {
            let mut decoded = vec![0.0; weights.len()];
            self.rows.decoder.decode_rows(level, &coded, 0..rows, &mut decoded);
            decoded.iter_mut().zip(&weights).for_each(|(q, w)| *q = w - *q);
            squares(level, parallelism, &input.held_out, &decoded, cols).iter().sum()
        };
        let strip = self.code.strip(first, &weights, cols);
        self.code.encode(level, parallelism, &input.factor, strip, &mut codes, &mut scales);
        let feedback = error(self.rows.encoder.rows(&codes, &scales));
        codes.fill(0);
        let nearest = error(self.rows.nearest(level, parallelism, &weights, &mut codes, &mut scales));
        let energy = squares(level, parallelism, &input.held_out, &weights, cols).iter().sum();
        let verdict = Verdict { feedback, nearest, energy };
        verdicts.insert(group, verdict);
        Ok(verdict)
    }

    /// Plain errors of all rows, held-out errors of some, chosen by their number in the tensor.
    fn measure(
        &self,
        level: Isa,
        parallelism: Parallelism,
        input: &Input,
        weights: &[f32],
        coded: &CodedRows<'_>,
        RowErrors { first, sums, outputs }: RowErrors<'_>,
    ) {
        let cols = self.rows.cols;
        let mut decoded = vec![0.0; weights.len()];
        self.rows.decoder.decode_rows(level, coded, 0..sums.len(), &mut decoded);
        let (mut sampled, mut chosen) = (Vec::new(), Vec::new());
        let rows = weights.chunks_exact(cols).zip(decoded.chunks_exact(cols)).zip(sums);
        for (row, ((weights, decoded), sums)) in rows.enumerate() {
            *sums = squared_error(weights, decoded);
            if (first + row).is_multiple_of(SAMPLE) {
                sampled.extend(weights.iter().zip(decoded).map(|(w, q)| w - q));
                sampled.extend_from_slice(weights);
                chosen.push(row);
            }
        }
        let squares = squares(level, parallelism, &input.held_out, &sampled, cols);
        for (row, pair) in chosen.into_iter().zip(squares.chunks_exact(2)) {
            (outputs[row].held_out_error, outputs[row].held_out_energy) = (pair[0], pair[1]);
        }
    }

    fn input(&self, level: Isa, factors: &Factors, group: usize) -> Result<Arc<Input>, RoundError> {
        let name = &self.inputs[group.min(self.inputs.len() - 1)];
        factors.of(level, self.measurements, name, &self.rows.rotation, &self.tensor)
    }
}
