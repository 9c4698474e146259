//! Ways out: the model of a checkpoint, a GGUF or a `.gq` file as f32 rows, written in other formats.

pub mod checkpoint;
pub mod cost;
pub mod gguf;
mod modelfile;
pub mod packed;
pub mod ranged;
mod rate;
pub mod safetensors;
pub mod tokens;
pub mod types;
mod weights;

use crate::failure::Failure;
use crate::global::Global;
use crate::progress::{Progress, Stage};
pub use weights::Weights;

/// What is to be done, said before it begins.
fn begin(weights: &Weights, writing: Stage, cost: &cost::Plan, global: &Global) -> Result<Progress, Failure> {
    let stages = [writing].into_iter().chain(cost.stage(weights, global)?).collect();
    Ok(Progress::staged(global, "export", stages))
}

/// Rows and columns of a matrix or of matrices one below the other; a vector is a row.
pub fn rows_of(shape: &[usize]) -> (usize, usize) {
    (shape.iter().rev().skip(1).product(), shape.last().copied().unwrap_or(1))
}
