//! A block of rows to codes with the inputs' second moments in view.

use crate::encode::{Coded, CoderError, Coders, RowCoder, squared_error};
use crate::error::ConvertError;
use crate::memory::FACTORS;
use crate::tune::{Tune, TuneFileError, rotate};
use gq_checkpoint::{Checkpoint, Role, SourceTensor};
use gq_codec::{
    Codebook, Factor, Operand, StripOutcome, Trellis, encode_calibrated, encode_trellis_calibrated,
    fixed_product,
};
use gq_tensor::{CpuLevel, EncodedMatrix, Encoding, MatrixShape, RotationSpec, ScaleGroup};
use rayon::prelude::*;
use std::sync::{Arc, Mutex, PoisonError};

/// Rows rounded together: a strip of a trellis code. For codes of single rows, results do not depend on it.
const STRIP: usize = Encoding::STRIP_ROWS;

/// Of so many rows, one is measured on the held-out tokens.
const SAMPLE: usize = 16;

/// Squared output errors and energies of the rows, with the input's moments.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct OutputSums {
    /// On the tokens that decided the codes; every row.
    pub(crate) error: f64,
    pub(crate) energy: f64,
    /// On the tokens held out; a sample of rows.
    pub(crate) held_out_error: f64,
    pub(crate) held_out_energy: f64,
}

impl OutputSums {
    pub(crate) fn to_bits(self) -> [u64; 4] {
        [self.error, self.energy, self.held_out_error, self.held_out_energy].map(f64::to_bits)
    }

    pub(crate) fn from_bits(bits: [u64; 4]) -> OutputSums {
        let [error, energy, held_out_error, held_out_energy] = bits.map(f64::from_bits);
        OutputSums { error, energy, held_out_error, held_out_energy }
    }

    pub(crate) fn add(&mut self, other: &OutputSums) {
        self.error += other.error;
        self.energy += other.energy;
        self.held_out_error += other.held_out_error;
        self.held_out_energy += other.held_out_energy;
    }
}

/// A coder that cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CalibratedError {
    /// The encoding or the rotation does not exist at this width.
    #[error(transparent)]
    Coder(#[from] CoderError),
    /// Gradients that cannot be read.
    #[error(transparent)]
    Tune(#[from] TuneFileError),
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
    matches!(encoding, Encoding::Turbo { group: ScaleGroup::Row, .. } | Encoding::Trellis { .. })
}

/// A code that is rounded column by column.
enum Code {
    Scalar(Codebook),
    /// With what an error in each row of the tensor costs, where that was measured.
    Trellis(Box<Trellis>, Option<Vec<f32>>),
}

impl Code {
    fn new(encoding: Encoding, tune: &Tune, tensor: &SourceTensor) -> Result<Option<Code>, TuneFileError> {
        if let Some(trellis) = Trellis::of(encoding) {
            // Rows of a vocabulary that no label was drawn for are looked up and predicted all the same.
            let vocabulary = matches!(tensor.role, Role::Embedding | Role::Head);
            let weights = if vocabulary { None } else { tune.row_weights(&tensor.name)? };
            return Ok(Some(Code::Trellis(Box::new(trellis), weights)));
        }
        let Encoding::Turbo { bits, group: ScaleGroup::Row } = encoding else { return Ok(None) };
        Ok(Codebook::of(bits).map(Code::Scalar))
    }

    /// Rounds the rotated rows of a strip; `first` is the first's number in the tensor.
    fn encode(
        &self,
        level: CpuLevel,
        factor: &Factor,
        (first, rotated): (usize, &[f32]),
        codes: &mut [u8],
        scales: &mut [u8],
    ) -> StripOutcome {
        match self {
            Code::Scalar(book) => encode_calibrated(level, *book, factor, rotated, codes, scales),
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
    tune: &'a Tune,
    /// One, or one per expert.
    inputs: &'a [String],
    /// Rows that share an input.
    group: usize,
}

impl<'a> CalibratedCoder<'a> {
    /// `None` when nothing was measured for the tensor or its encoding is rounded row by row.
    pub(crate) fn new(
        tune: &'a Tune,
        tensor: &SourceTensor,
        (encoding, rotation): (Encoding, RotationSpec),
        (rows, cols): (usize, usize),
        coders: &mut Coders,
    ) -> Result<Option<CalibratedCoder<'a>>, CalibratedError> {
        let measured = tune.tensors.get(&tensor.name).filter(|measured| !measured.inputs.is_empty());
        let Some(measured) = measured else { return Ok(None) };
        let Some(code) = Code::new(encoding, tune, tensor)? else { return Ok(None) };
        Ok(Some(CalibratedCoder {
            tensor: tensor.name.clone(),
            rows: coders.get(encoding, rotation, cols)?,
            code,
            tune,
            inputs: &measured.inputs,
            group: rows / measured.inputs.len().max(1),
        }))
    }

    /// Codes the rows in `source`, the first of which is row `first` of `tensor`.
    pub(crate) fn code(
        &self,
        level: CpuLevel,
        factors: &Factors,
        (checkpoint, tensor): (&Checkpoint, &SourceTensor),
        source: &[u8],
        first: usize,
        out: &mut Coded,
    ) -> Result<(), ConvertError> {
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
            let strips = source[done * source_row..end * source_row]
                .par_chunks(STRIP * source_row)
                .zip(out.codes[codes_bytes(done)..codes_bytes(end)].par_chunks_mut(codes_bytes(STRIP)))
                .zip(out.scales[done * scales_row..end * scales_row].par_chunks_mut(STRIP * scales_row))
                .zip(out.sums[done..end].par_chunks_mut(STRIP))
                .zip(out.outputs[done..end].par_chunks_mut(STRIP))
                .enumerate();
            strips.try_for_each(|(index, ((((source, codes), scales), sums), outputs))| {
                let row = first + done + index * STRIP;
                let mut weights = vec![0.0; sums.len() * cols];
                checkpoint.decode_rows_f32(tensor, row..row + sums.len(), source, &mut weights)?;
                self.rows.rotation.forward(level, &mut weights, &mut Vec::new());
                let outcome = self.code.encode(level, &input.factor, (row, &weights), codes, scales);
                let measured = outcome.errors.iter().zip(&outcome.energies);
                for (output, (&error, &energy)) in outputs.iter_mut().zip(measured) {
                    (output.error, output.energy) = (error, energy);
                }
                self.measure(level, &input, (row, &weights), (codes, scales), (sums, outputs));
                Ok::<_, ConvertError>(())
            })?;
            done = end;
        }
        Ok(())
    }

    /// Plain errors of all rows, held-out errors of some, chosen by their number in the tensor.
    fn measure(
        &self,
        level: CpuLevel,
        input: &Input,
        (first, weights): (usize, &[f32]),
        (codes, scales): (&[u8], &[u8]),
        (sums, outputs): (&mut [(f64, f64)], &mut [OutputSums]),
    ) {
        let cols = self.rows.cols;
        let payload = [codes, scales].concat();
        let shape = MatrixShape { rows: sums.len(), cols };
        let Ok(matrix) = EncodedMatrix::new(shape, self.rows.encoding, self.rows.rotation_spec, &payload)
        else {
            return;
        };
        let mut decoded = vec![0.0; weights.len()];
        self.rows.decoder.decode_rows(level, &matrix, 0..sums.len(), &mut decoded);
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
        let mut products = vec![0.0f32; sampled.len()];
        let (left, right) = (Operand::rows(&sampled, cols), Operand::rows(&input.held_out, cols));
        fixed_product(level, (2 * chosen.len(), cols, cols), left, right, &mut products, cols);
        let squares = sampled
            .chunks_exact(cols)
            .zip(products.chunks_exact(cols))
            .map(|(x, hx)| x.iter().zip(hx).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>());
        let squares: Vec<f64> = squares.collect();
        for (row, pair) in chosen.into_iter().zip(squares.chunks_exact(2)) {
            (outputs[row].held_out_error, outputs[row].held_out_energy) = (pair[0], pair[1]);
        }
    }

    fn input(&self, level: CpuLevel, factors: &Factors, group: usize) -> Result<Arc<Input>, ConvertError> {
        let name = &self.inputs[group.min(self.inputs.len() - 1)];
        let rotation = self.rows.rotation_spec;
        let mut kept = factors.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(input) = kept.iter().find(|input| input.name == *name && input.rotation == rotation) {
            return Ok(input.clone());
        }
        let (mut moment, mut held_out) = self.tune.moments(name)?;
        rotate(level, &mut moment, &self.rows.rotation);
        rotate(level, &mut held_out, &self.rows.rotation);
        let damping = self.tune.inputs.get(name).map_or(0.1, |measured| measured.damping);
        let factor = Factor::new(&moment, self.rows.cols, damping)
            .map_err(|source| ConvertError::Moment { tensor: self.tensor.clone(), source })?;
        let input = Arc::new(Input { name: name.clone(), rotation, factor, held_out });
        if kept.len() >= FACTORS {
            kept.remove(0);
        }
        kept.push(input.clone());
        Ok(input)
    }
}
