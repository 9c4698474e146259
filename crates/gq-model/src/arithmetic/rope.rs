//! Rotary embeddings.

use super::in_pieces;
use crate::matrix::Matrix;
use gq_checkpoint::RopeSpec;

/// Where a row stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its position in its sequence.
    pub position: usize,
    /// Tokens that the sequence may have, or has: they decide between frequencies of short and of long contexts.
    pub context: usize,
}

/// Cosines and sines of the rows' positions, `[positions, pairs]` each.
#[derive(Clone, Debug)]
pub struct RopeTable {
    head_dim: usize,
    pairs: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RopeTable {
    /// Those of `positions` consecutive positions from `start` on, of a sequence of up to `context` tokens.
    pub fn new(spec: &RopeSpec, context: usize, start: usize, positions: usize) -> RopeTable {
        RopeTable::at(spec, (start..start + positions).map(|position| Place { position, context }))
    }

    /// Those of any places. The angle is rounded to f32, as the reference does.
    pub fn at(spec: &RopeSpec, places: impl IntoIterator<Item = Place>) -> RopeTable {
        let (head_dim, pairs) = (spec.head_dim, spec.inv_freq.len());
        let mut table = RopeTable { head_dim, pairs, cos: Vec::new(), sin: Vec::new() };
        for Place { position, context } in places {
            for &frequency in spec.frequencies(context) {
                // Not the platform's: results decide codes where this runs for a calibration.
                let (sin, cos) = libm::sincos(f64::from(position as f32 * frequency));
                table.cos.push(cos as f32 * spec.attention_factor);
                table.sin.push(sin as f32 * spec.attention_factor);
            }
        }
        table
    }

    /// Cosines and sines, `[positions, pairs]` each.
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
        let (width, pairs) = (x.width, self.pairs.max(1));
        in_pieces(&mut x.data, width, |first, part| {
            let angles = self.cos.chunks_exact(pairs).zip(self.sin.chunks_exact(pairs)).skip(first / width);
            for (row, (cos, sin)) in part.chunks_exact_mut(width).zip(angles) {
                for head in row.chunks_exact_mut(self.head_dim) {
                    let (low, high) = head.split_at_mut(pairs);
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
