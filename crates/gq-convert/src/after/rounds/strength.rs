//! One tensor: how much of its inputs' correction it takes, its new codes, and whether they are better than the old.

use super::objective::{Errors, times};
use super::{Input, RoundAgainError, TensorAgain};
use crate::round::{ColumnCoder, RowCoder, STRIP, squared_error};
use gq_checkpoint::{Checkpoint, SourceTensor};
use gq_codec::Parallelism;
use gq_tensor::{CodedRows, Isa};
use rayon::prelude::*;
use std::ops::Range;

/// Parts of the correction that compete: the whole of it fits the tokens it was made from.
const STRENGTHS: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];

/// A tensor and how it is coded.
pub(super) struct Rounding<'a> {
    pub(super) level: Isa,
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) tensor: &'a SourceTensor,
    pub(super) rows: &'a RowCoder,
    pub(super) code: &'a ColumnCoder,
}

impl Rounding<'_> {
    /// Rounds all rows again; the payload is that of the new codes.
    pub(super) fn run(
        &self,
        input: &Input,
        old: &CodedRows<'_>,
    ) -> Result<(TensorAgain, Vec<u8>), RoundAgainError> {
        let (encoding, n) = (self.rows.storage.encoding, self.rows.cols);
        let rows = self.tensor.rows();
        let strength = self.strength(input)?;
        let parallelism = self.parallelism();
        let scales_row = encoding.scales_row_bytes(n);
        let codes_bytes = |rows: usize| encoding.codes_bytes(rows, n).unwrap_or(0);
        let mut payload = vec![0u8; codes_bytes(rows) + rows * scales_row];
        let (codes, scales) = payload.split_at_mut(codes_bytes(rows));
        let parts = codes
            .par_chunks_mut(codes_bytes(STRIP))
            .zip(scales.par_chunks_mut(STRIP * scales_row))
            .enumerate();
        parts.try_for_each(|(strip, (codes, scales))| {
            let first = strip * STRIP;
            let weights = self.weights(first..rows.min(first + STRIP))?;
            let targets = self.targets(parallelism, input, &weights, strength);
            let strip = self.code.strip(first, &targets, n);
            self.code.encode(self.level, parallelism, &input.factor, strip, codes, scales);
            Ok::<_, RoundAgainError>(())
        })?;
        let new = self.rows.encoder.rows(codes, scales);
        let measured = self.strips(|rows| {
            let weights = self.weights(rows.clone())?;
            let mut decoded = vec![0.0; weights.len()];
            self.rows.decoder.decode_rows(self.level, old, rows.clone(), &mut decoded);
            let before = input.held.errors(self.level, parallelism, &weights, &decoded);
            self.rows.decoder.decode_rows(self.level, &new, rows, &mut decoded);
            let after = input.held.errors(self.level, parallelism, &weights, &decoded);
            let in_sample = input.train.errors(self.level, parallelism, &weights, &decoded);
            Ok((before, after, in_sample, squared_error(&weights, &decoded)))
        })?;
        let (mut before, mut after, mut in_sample) = <(Errors, Errors, Errors)>::default();
        let (mut error, mut energy) = (0.0, 0.0);
        for strip in measured {
            before.add(strip.0);
            after.add(strip.1);
            in_sample.add(strip.2);
            (error, energy) = (error + strip.3.0, energy + strip.3.1);
        }
        let ratio = |errors: Errors| match errors.error / errors.energy {
            _ if errors.energy == 0.0 => 0.0,
            ratio if ratio.is_finite() => ratio,
            _ => f64::INFINITY,
        };
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

    /// What `work` makes of the rows of each strip, in order.
    fn strips<T: Send>(
        &self,
        work: impl Fn(Range<usize>) -> Result<T, RoundAgainError> + Sync,
    ) -> Result<Vec<T>, RoundAgainError> {
        let rows = self.tensor.rows();
        let strips = (0..rows.div_ceil(STRIP)).into_par_iter();
        strips.map(|strip| work(strip * STRIP..rows.min((strip + 1) * STRIP))).collect()
    }

    /// Inside the work of one strip.
    fn parallelism(&self) -> Parallelism {
        Parallelism::within(self.tensor.rows().div_ceil(STRIP))
    }

    /// Rows in the basis of the codes.
    fn weights(&self, rows: Range<usize>) -> Result<Vec<f32>, RoundAgainError> {
        let mut weights = vec![0.0; rows.len() * self.rows.cols];
        self.checkpoint.read_rows_f32(self.tensor, rows, &mut weights)?;
        self.rows.rotation.forward(self.level, &mut weights, &mut Vec::new());
        Ok(weights)
    }

    /// What rows are rounded toward.
    fn targets(&self, parallelism: Parallelism, input: &Input, weights: &[f32], strength: f64) -> Vec<f32> {
        if strength == 0.0 {
            return weights.to_vec();
        }
        let e = times(self.level, parallelism, weights, &input.correction, self.rows.cols, false);
        weights.iter().zip(e).map(|(w, e)| (f64::from(*w) + strength * f64::from(e)) as f32).collect()
    }

    /// The part of the correction with the least error on the held-out tokens, before rounding, over all rows.
    fn strength(&self, input: &Input) -> Result<f64, RoundAgainError> {
        let parallelism = self.parallelism();
        let along = self.strips(|rows| {
            let weights = self.weights(rows)?;
            let e = times(self.level, parallelism, &weights, &input.correction, self.rows.cols, false);
            Ok(input.held.along(self.level, parallelism, &weights, &e))
        })?;
        let (a, b) = along.into_iter().fold((0.0, 0.0), |(a, b), (square, slope)| (a + square, b + slope));
        let change = |s: f64| a * s * s + b * s;
        Ok(STRENGTHS.into_iter().fold(0.0, |best, s| if change(s) < change(best) { s } else { best }))
    }
}
