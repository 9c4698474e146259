//! One tensor: how much of its inputs' correction it takes, its new codes, and whether they are better than the old.

use super::objective::{Errors, times};
use super::{Input, RoundAgainError, TensorAgain};
use crate::calibrated::{Code, STRIP};
use crate::encode::{RowCoder, squared_error};
use gq_checkpoint::{Checkpoint, SourceTensor};
use gq_tensor::{CpuLevel, EncodedMatrix, MatrixShape};
use rayon::prelude::*;

/// Parts of the correction that compete: the whole of it fits the tokens it was made from.
const STRENGTHS: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];

/// Strips worked on at once.
const STRIPS: usize = 32;

/// A tensor and how it is coded.
pub(super) struct Rounding<'a> {
    pub(super) level: CpuLevel,
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) tensor: &'a SourceTensor,
    pub(super) rows: &'a RowCoder,
    pub(super) code: &'a Code,
}

impl Rounding<'_> {
    /// Rounds all rows again; the payload is that of the new codes.
    pub(super) fn run(
        &self,
        input: &Input,
        old: &EncodedMatrix<'_>,
    ) -> Result<(TensorAgain, Vec<u8>), RoundAgainError> {
        let (encoding, n) = (self.rows.encoding, self.rows.cols);
        let rows = self.tensor.rows();
        let blocks =
            || (0..rows).step_by(STRIPS * STRIP).map(|first| (first, rows.min(first + STRIPS * STRIP)));
        let strength = self.strength(input, blocks())?;
        let scales_row = encoding.scales_row_bytes(n);
        let codes_bytes = |rows: usize| encoding.codes_bytes(rows, n).unwrap_or(0);
        let mut payload = vec![0u8; codes_bytes(rows) + rows * scales_row];
        let (codes, scales) = payload.split_at_mut(codes_bytes(rows));
        for (first, end) in blocks() {
            let weights = self.weights(first, end)?;
            let targets = self.targets(input, &weights, strength);
            let strips = targets.par_chunks(STRIP * n);
            let strips =
                strips.zip(codes[codes_bytes(first)..codes_bytes(end)].par_chunks_mut(codes_bytes(STRIP)));
            let scales = scales[first * scales_row..end * scales_row].par_chunks_mut(STRIP * scales_row);
            strips.zip(scales).enumerate().for_each(|(strip, ((targets, codes), scales))| {
                let row = first + strip * STRIP;
                self.code.encode(self.level, &input.factor, (row, targets), codes, scales);
            });
        }
        let shape = MatrixShape { rows, cols: n };
        let new = EncodedMatrix::new(shape, encoding, self.rows.rotation_spec, &payload);
        let new = new.map_err(|_| RoundAgainError::Payload { tensor: self.tensor.name.clone() })?;
        let (mut before, mut after, mut in_sample) = <(Errors, Errors, Errors)>::default();
        let (mut error, mut energy) = (0.0, 0.0);
        for (first, end) in blocks() {
            let weights = self.weights(first, end)?;
            let mut decoded = vec![0.0; weights.len()];
            self.rows.decoder.decode_rows(self.level, old, first..end, &mut decoded);
            before.add(input.held.errors(self.level, &weights, &decoded));
            self.rows.decoder.decode_rows(self.level, &new, first..end, &mut decoded);
            after.add(input.held.errors(self.level, &weights, &decoded));
            in_sample.add(input.train.errors(self.level, &weights, &decoded));
            let plain = squared_error(&weights, &decoded);
            (error, energy) = (error + plain.0, energy + plain.1);
        }
        let ratio = |errors: Errors| if errors.energy > 0.0 { errors.error / errors.energy } else { 0.0 };
        let outcome = TensorAgain {
            name: self.tensor.name.clone(),
            strength,
            held_out: (ratio(before), ratio(after)),
            in_sample: ratio(in_sample),
            relative_mse: if energy > 0.0 { error / energy } else { 0.0 },
            taken: after.error < before.error,
        };
        Ok((outcome, payload))
    }

    /// Rows in the basis of the codes.
    fn weights(&self, first: usize, end: usize) -> Result<Vec<f32>, RoundAgainError> {
        let mut weights = vec![0.0; (end - first) * self.rows.cols];
        self.checkpoint.read_rows_f32(self.tensor, first..end, &mut weights)?;
        self.rows.rotation.forward(self.level, &mut weights, &mut Vec::new());
        Ok(weights)
    }

    /// What rows are rounded toward.
    fn targets(&self, input: &Input, weights: &[f32], strength: f64) -> Vec<f32> {
        if strength == 0.0 {
            return weights.to_vec();
        }
        let e = times(self.level, weights, &input.correction, self.rows.cols, false);
        weights.iter().zip(e).map(|(w, e)| (f64::from(*w) + strength * f64::from(e)) as f32).collect()
    }

    /// The part of the correction with the least error on the held-out tokens, before rounding, over all rows.
    fn strength(
        &self,
        input: &Input,
        blocks: impl Iterator<Item = (usize, usize)>,
    ) -> Result<f64, RoundAgainError> {
        let (mut a, mut b) = (0.0, 0.0);
        for (first, end) in blocks {
            let weights = self.weights(first, end)?;
            let e = times(self.level, &weights, &input.correction, self.rows.cols, false);
            let (square, slope) = input.held.along(self.level, &weights, &e);
            (a, b) = (a + square, b + slope);
        }
        let change = |s: f64| a * s * s + b * s;
        Ok(STRENGTHS.into_iter().fold(0.0, |best, s| if change(s) < change(best) { s } else { best }))
    }
}
