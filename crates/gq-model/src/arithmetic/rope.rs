//! Rotary embeddings.

use super::in_pieces;
use crate::matrix::Matrix;
use gq_checkpoint::RopeSpec;

/// Cosines and sines of the rows' positions, `[positions, head_dim / 2]` each.
#[derive(Clone, Debug)]
pub struct RopeTable {
    head_dim: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RopeTable {
    /// Those of `positions` consecutive positions from `start` on.
    pub fn new(spec: &RopeSpec, start: usize, positions: usize) -> RopeTable {
        RopeTable::at(spec, start..start + positions)
    }

    /// Those of any positions. The angle is rounded to f32, as the reference does.
    pub fn at(spec: &RopeSpec, positions: impl IntoIterator<Item = usize>) -> RopeTable {
        let mut table = RopeTable { head_dim: spec.head_dim, cos: Vec::new(), sin: Vec::new() };
        for position in positions {
            for &frequency in &spec.inv_freq {
                // Not the platform's: results decide codes where this runs for a calibration.
                let (sin, cos) = libm::sincos(f64::from(position as f32 * frequency));
                table.cos.push(cos as f32 * spec.attention_factor);
                table.sin.push(sin as f32 * spec.attention_factor);
            }
        }
        table
    }

    /// Cosines and sines, `[positions, head_dim / 2]` each.
    pub(crate) fn parts(&self) -> [&[f32]; 2] {
        [&self.cos, &self.sin]
    }

    /// Turns every head of `x [positions, heads * head_dim]`.
    pub fn apply(&self, x: Matrix) -> Matrix {
        self.turn(x, 1.0)
    }

    /// Turns back, with the same factor on lengths: the transpose.
    pub fn apply_inverse(&self, x: Matrix) -> Matrix {
        self.turn(x, -1.0)
    }

    fn turn(&self, mut x: Matrix, direction: f32) -> Matrix {
        let (width, half) = (x.width, self.head_dim / 2);
        in_pieces(&mut x.data, width, |first, part| {
            let pairs = self.cos.chunks_exact(half).zip(self.sin.chunks_exact(half)).skip(first / width);
            for (row, (cos, sin)) in part.chunks_exact_mut(width).zip(pairs) {
                for head in row.chunks_exact_mut(self.head_dim) {
                    let (low, high) = head.split_at_mut(half);
                    for ((a, b), (cos, sin)) in low.iter_mut().zip(high).zip(cos.iter().zip(sin)) {
                        let sin = direction * sin;
                        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                    }
                }
            }
        });
        x
    }
}
