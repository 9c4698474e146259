//! What writing an export is expected to take, from a trial of every type.

use super::Weights;
use crate::failure::Failure;
use crate::progress::{Stage, Unit};
use crate::rates;
use gq_checkpoint::gguf::{GgmlType, encode_blocks};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::time::Instant;

/// Most weights of a trial, in whole rows.
const TRIAL: usize = 1 << 19;

/// A tensor of the source and the type that it gets.
pub struct Target<'a> {
    /// Its name in the source.
    pub name: &'a str,
    /// Rows and columns; experts one below the other.
    pub shape: (usize, usize),
    /// The type.
    pub kind: GgmlType,
}

impl Target<'_> {
    fn weights(&self) -> usize {
        self.shape.0 * self.shape.1
    }
}

/// The stage of writing `total` bytes; on the threads of the current pool.
pub fn writing(weights: &Weights, targets: &[Target<'_>], total: u64) -> Result<Stage, Failure> {
    let mut kinds: BTreeMap<u32, (&Target<'_>, usize)> = BTreeMap::new();
    for target in targets {
        let found = kinds.entry(target.kind.code()).or_insert((target, 0));
        found.1 += target.weights();
        if target.weights() > found.0.weights() {
            found.0 = target;
        }
    }
    let mut seconds = rates::writing(total);
    for (largest, all) in kinds.into_values() {
        let (rows, cols) = largest.shape;
        let tried = (TRIAL / cols.max(1)).clamp(1, rows.max(1));
        seconds += trial(weights, largest, tried)? * all as f64 / (tried * cols).max(1) as f64;
    }
    Ok(Stage { name: "writing", unit: Unit::Bytes, total, seconds: Some(seconds) })
}

/// Seconds of reading and encoding so many rows, as the export does it: the first time costs more.
fn trial(weights: &Weights, target: &Target<'_>, rows: usize) -> Result<f64, Failure> {
    let cols = target.shape.1.max(1);
    let row_bytes = target.kind.row_bytes(cols).unwrap_or(0).max(1);
    let (mut values, mut bytes) = (vec![0.0f32; rows * cols], vec![0; rows * row_bytes]);
    let share = rows.div_ceil(rayon::current_num_threads()).max(1);
    let mut seconds = f64::INFINITY;
    for _ in 0..2 {
        let began = Instant::now();
        weights.read_rows(target.name, 0..rows, &mut values)?;
        let shares = values.par_chunks(share * cols).zip(bytes.par_chunks_mut(share * row_bytes));
        shares.for_each(|(values, bytes)| {
            encode_blocks(target.kind, values, bytes);
        });
        // What is written is looked at, value after value.
        std::hint::black_box(values.iter().all(|value| value.is_finite()));
        seconds = seconds.min(began.elapsed().as_secs_f64());
    }
    Ok(seconds)
}
