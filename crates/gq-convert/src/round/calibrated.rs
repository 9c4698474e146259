//! A block of rows to codes with the inputs' second moments in view.

use super::error::RoundError;
use super::row_coder::{Coded, CoderError, Coders, RowCoder, squared_error};
use super::sums::OutputSums;
use gq_calibrate::{MeasurementsDir, MeasurementsError, rotate};
use gq_checkpoint::{Checkpoint, Role, SourceTensor};
use gq_codec::{
    Codebook, Factor, Operand, StripOutcome, Trellis, encode_calibrated, encode_trellis_calibrated,
    fixed_product, serially,
};
use gq_tensor::{EncodedMatrix, Encoding, Isa, MatrixShape, RotationSpec, ScaleGroup};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Rows rounded together: a strip of a trellis code. For codes of single rows, results do not depend on it.
pub(crate) const STRIP: usize = Encoding::STRIP_ROWS;

/// Of so many rows, one is measured on the held-out tokens.
const SAMPLE: usize = 16;

/// Rows of every input that feedback and rounding to nearest compete on.
const TRIED: usize = 32;

/// Inputs whose factors are kept at once: products of one input follow each other closely in a file.
pub(crate) const FACTORS: usize = 3;

/// Does the work of one of `count` strips that are spread over threads: in one thread where there are enough for all,
/// and so never more of them at a time than there are threads.
pub(crate) fn of_strips<T>(count: usize, work: impl FnOnce() -> T) -> T {
    if count >= rayon::current_num_threads() { serially(work) } else { work() }
}

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

/// Factors of inputs in use.
#[derive(Default)]
pub(crate) struct Factors {
    kept: Mutex<Vec<Arc<Input>>>,
}

/// One input's moments in the basis of the codes.
struct Input {
    name: String,
    rotation: RotationSpec,
    factor: Factor,
    held_out: Vec<f32>,
}

/// Whether this encoding has a calibrated rounding.
pub(crate) fn supports(encoding: Encoding) -> bool {
    matches!(encoding, Encoding::Turbo { .. } | Encoding::Trellis { .. })
}

/// A code that is rounded column by column.
pub(crate) enum Code {
    /// With its group of scales.
    Scalar(Codebook, ScaleGroup),
    /// With what an error in each row of the tensor costs, where that was measured.
    Trellis(Box<Trellis>, Option<Vec<f32>>),
}

impl Code {
    /// `None` for an encoding that is rounded row by row; without `measurements`, all rows count the same.
    pub(crate) fn new(
        encoding: Encoding,
        measurements: Option<&MeasurementsDir>,
        tensor: &SourceTensor,
    ) -> Result<Option<Code>, MeasurementsError> {
        if let Some(trellis) = Trellis::of(encoding) {
            // Rows of a vocabulary that no label was drawn for are looked up and predicted all the same.
            let vocabulary = matches!(tensor.role, Role::Embedding | Role::Head);
            let weights = match measurements.filter(|_| !vocabulary) {
                Some(measurements) => measurements.row_weights(&tensor.name)?,
                None => None,
            };
            return Ok(Some(Code::Trellis(Box::new(trellis), weights)));
        }
        let Encoding::Turbo { bits, group } = encoding else { return Ok(None) };
        Ok(Codebook::of(bits).map(|book| Code::Scalar(book, group)))
    }

    /// Rounds the rotated rows of a strip; `first` is the first's number in the tensor.
    pub(crate) fn encode(
        &self,
        level: Isa,
        factor: &Factor,
        (first, rotated): (usize, &[f32]),
        codes: &mut [u8],
        scales: &mut [u8],
    ) -> StripOutcome {
        match self {
            Code::Scalar(book, group) => {
                let code = (*book, group.len(factor.n()));
                encode_calibrated(level, code, factor, rotated, codes, scales)
            }
            Code::Trellis(trellis, weights) => {
                let rows = first..first + scales.len() / 2;
                let weights = weights.as_ref().and_then(|weights| weights.get(rows));
                encode_trellis_calibrated(level, trellis, factor, rotated, weights, codes, scales)
            }
        }
    }
}

/// What is needed to code one tensor.
pub(crate) struct CalibratedCoder<'a> {
    tensor: String,
    rows: RowCoder,
    code: Code,
    measurements: &'a MeasurementsDir,
    /// One, or one per expert.
    inputs: &'a [String],
    /// Rows that share an input.
    group: usize,
    /// Who won, by input.
    verdicts: Mutex<BTreeMap<usize, Verdict>>,
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
        self.rows.encoding
    }

    /// `None` when nothing was measured for the tensor or its encoding is rounded row by row.
    pub(crate) fn new(
        measurements: &'a MeasurementsDir,
        tensor: &SourceTensor,
        (encoding, rotation): (Encoding, RotationSpec),
        (rows, cols): (usize, usize),
        coders: &mut Coders,
    ) -> Result<Option<CalibratedCoder<'a>>, CalibratedError> {
        let measured =
            measurements.value().tensors.get(&tensor.name).filter(|measured| !measured.inputs.is_empty());
        let Some(measured) = measured else { return Ok(None) };
        let Some(code) = Code::new(encoding, Some(measurements), tensor)? else { return Ok(None) };
        Ok(Some(CalibratedCoder {
            tensor: tensor.name.clone(),
            rows: coders.get(encoding, rotation, cols)?,
            code,
            measurements,
            inputs: &measured.inputs,
            group: rows / measured.inputs.len().max(1),
            verdicts: Mutex::default(),
        }))
    }

    /// Codes the rows in `source`, the first of which is row `first` of `tensor`.
    pub(crate) fn code(
        &self,
        level: Isa,
        factors: &Factors,
        (checkpoint, tensor): (&Checkpoint, &SourceTensor),
        source: &[u8],
        first: usize,
        out: &mut Coded,
    ) -> Result<(), RoundError> {
        let (encoding, cols) = (self.rows.encoding, self.rows.cols);
        let scales_row = encoding.scales_row_bytes(cols);
        let codes_bytes = |rows: usize| encoding.codes_bytes(rows, cols).unwrap_or(0);
        let source_row = tensor.row_bytes();
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
            let verdict = self.verdict(level, &input, (checkpoint, tensor), group)?;
            let strips = source[done * source_row..end * source_row]
                .par_chunks(STRIP * source_row)
                .zip(out.codes[codes_bytes(done)..codes_bytes(end)].par_chunks_mut(codes_bytes(STRIP)))
                .zip(out.scales[done * scales_row..end * scales_row].par_chunks_mut(STRIP * scales_row))
                .zip(out.sums[done..end].par_chunks_mut(STRIP))
                .zip(out.outputs[done..end].par_chunks_mut(STRIP))
                .enumerate();
            let count = (end - done).div_ceil(STRIP);
            strips.try_for_each(|(index, ((((source, codes), scales), sums), outputs))| {
                of_strips(count, || {
                    let row = first + done + index * STRIP;
                    let mut weights = vec![0.0; sums.len() * cols];
                    checkpoint.decode_rows_f32(tensor, row..row + sums.len(), source, &mut weights)?;
                    self.rows.rotation.forward(level, &mut weights, &mut Vec::new());
                    if verdict.is_nearest() {
                        self.rows.nearest(level, &weights, codes, scales);
                        outputs.iter_mut().for_each(|output| output.nearest_rows = 1.0);
                        self.measure(level, &input, (row, &weights), (codes, scales), (sums, outputs));
                        return Ok(());
                    }
                    let outcome = self.code.encode(level, &input.factor, (row, &weights), codes, scales);
                    let measured = outcome.errors.iter().zip(&outcome.energies);
                    for (output, (&error, &energy)) in outputs.iter_mut().zip(measured) {
                        (output.error, output.energy) = (error, energy);
                    }
                    self.measure(level, &input, (row, &weights), (codes, scales), (sums, outputs));
                    Ok::<_, RoundError>(())
                })
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
        (checkpoint, tensor): (&Checkpoint, &SourceTensor),
        group: usize,
    ) -> Result<Verdict, RoundError> {
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(verdict) = verdicts.get(&group) {
            return Ok(*verdict);
        }
        let (cols, rows) = (self.rows.cols, self.group.min(TRIED));
        let first = group * self.group + (self.group - rows) / 2;
        let mut weights = vec![0.0; rows * cols];
        checkpoint.read_rows_f32(tensor, first..first + rows, &mut weights)?;
        self.rows.rotation.forward(level, &mut weights, &mut Vec::new());
        let mut codes = vec![0; self.rows.encoding.codes_bytes(rows, cols).unwrap_or(0)];
        let mut scales = vec![0; rows * self.rows.encoding.scales_row_bytes(cols)];
        let error = |codes: &[u8], scales: &[u8]| -> f64 {
            let mut decoded = vec![0.0; weights.len()];
            self.decode(level, rows, (codes, scales), &mut decoded);
            decoded.iter_mut().zip(&weights).for_each(|(q, w)| *q = w - *q);
            squares(level, &input.held_out, &decoded, cols).iter().sum()
        };
        self.code.encode(level, &input.factor, (first, &weights), &mut codes, &mut scales);
        let feedback = error(&codes, &scales);
        codes.fill(0);
        self.rows.nearest(level, &weights, &mut codes, &mut scales);
        let nearest = error(&codes, &scales);
        let energy = squares(level, &input.held_out, &weights, cols).iter().sum();
        let verdict = Verdict { feedback, nearest, energy };
        verdicts.insert(group, verdict);
        Ok(verdict)
    }

    /// Rows in the rotated basis.
    fn decode(&self, level: Isa, rows: usize, (codes, scales): (&[u8], &[u8]), out: &mut [f32]) {
        let payload = [codes, scales].concat();
        let shape = MatrixShape { rows, cols: self.rows.cols };
        let matrix = EncodedMatrix::new(shape, self.rows.encoding, self.rows.rotation_spec, &payload);
        if let Ok(matrix) = matrix {
            self.rows.decoder.decode_rows(level, &matrix, 0..rows, out);
        }
    }

    /// Plain errors of all rows, held-out errors of some, chosen by their number in the tensor.
    fn measure(
        &self,
        level: Isa,
        input: &Input,
        (first, weights): (usize, &[f32]),
        (codes, scales): (&[u8], &[u8]),
        (sums, outputs): (&mut [(f64, f64)], &mut [OutputSums]),
    ) {
        let cols = self.rows.cols;
        let mut decoded = vec![0.0; weights.len()];
        self.decode(level, sums.len(), (codes, scales), &mut decoded);
        let (mut sampled, mut chosen) = (Vec::new(), Vec::new());
        let rows = weights.chunks_exact(cols).zip(decoded.chunks_exact(cols)).zip(sums);
        for (row, ((weights, decoded), sums)) in rows.enumerate() {
            *sums = squared_error(weights, decoded);
            if (first + row) % SAMPLE == 0 {
                sampled.extend(weights.iter().zip(decoded).map(|(w, q)| w - q));
                sampled.extend_from_slice(weights);
                chosen.push(row);
            }
        }
        let squares = squares(level, &input.held_out, &sampled, cols);
        for (row, pair) in chosen.into_iter().zip(squares.chunks_exact(2)) {
            (outputs[row].held_out_error, outputs[row].held_out_energy) = (pair[0], pair[1]);
        }
    }

    fn input(&self, level: Isa, factors: &Factors, group: usize) -> Result<Arc<Input>, RoundError> {
        let name = &self.inputs[group.min(self.inputs.len() - 1)];
        let rotation = self.rows.rotation_spec;
        let mut kept = factors.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(input) = kept.iter().find(|input| input.name == *name && input.rotation == rotation) {
            return Ok(input.clone());
        }
        // Room first: making a factor takes more than keeping it.
        if kept.len() >= FACTORS {
            kept.remove(0);
        }
        let (mut moment, mut held_out) = self.measurements.moments(name)?;
        rotate(level, &mut moment, &self.rows.rotation);
        rotate(level, &mut held_out, &self.rows.rotation);
        let damping = self.measurements.value().inputs.get(name).map_or(0.1, |measured| measured.damping);
        let factor = Factor::new(level, &moment, self.rows.cols, damping)
            .map_err(|source| RoundError::Moment { tensor: self.tensor.clone(), source })?;
        let input = Arc::new(Input { name: name.clone(), rotation, factor, held_out });
        kept.push(input.clone());
        Ok(input)
    }
}

/// `x H x^T` of every row of `x`.
fn squares(level: Isa, h: &[f32], x: &[f32], cols: usize) -> Vec<f64> {
    let mut products = vec![0.0f32; x.len()];
    let rows = x.len() / cols.max(1);
    fixed_product(
        level,
        (rows, cols, cols),
        Operand::rows(x, cols),
        Operand::rows(h, cols),
        &mut products,
        cols,
    );
    let rows = x.chunks_exact(cols).zip(products.chunks_exact(cols));
    rows.map(|(x, hx)| x.iter().zip(hx).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()).collect()
}
