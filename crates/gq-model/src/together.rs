//! New tokens of several sequences that pass through the layers as one batch: what a server does for many at once.

use crate::cache::KvCache;
use crate::cpu::Sums;
use crate::matrix::Matrix;
use crate::model::{LogitRows, Model};
use crate::{DeviceError, ModelError};

/// New tokens of one sequence among several.
#[derive(Debug)]
pub struct Turn<'a> {
    /// The tokens; at least one.
    pub tokens: &'a [u32],
    /// Of the sequence.
    pub cache: &'a mut KvCache,
    /// Whether the last token's logits are wanted.
    pub logits: bool,
}

impl Model {
    /// Runs new tokens of several sequences after those in their caches, adds them there, and gives logits
    /// `[turns that want them, vocab_size]` in the order of the turns. They may be infinite or not numbers: whoever asks
    /// looks at each sequence's own.
    ///
    /// All tokens pass through the layers together, so that memory for activations goes by their number. With
    /// [`Sums::Deterministic`] a sequence's logits have the same bits whatever else is run and however its tokens were cut;
    /// with [`Sums::Fastest`] they agree to rounding. On a GPU the sequences run one after the other, whatever the sums.
    ///
    /// # Errors
    /// As [`forward`](Model::forward), and for deterministic sums on a GPU; before anything is run, all caches are as they
    /// were. Where a device fails, caches of turns before the failing one are advanced.
    pub fn forward_together(&self, sums: Sums, mut turns: Vec<Turn<'_>>) -> Result<Matrix, ModelError> {
        let on_device = self.gpu().is_some();
        if on_device && sums == Sums::Deterministic {
            return Err(DeviceError::Deterministic.into());
        }
        for turn in &turns {
            self.check(turn.tokens, turn.cache, on_device, LogitRows::Last)?;
        }
        let mut logits = Matrix { width: self.vocab_size(), data: Vec::new() };
        if turns.is_empty() {
            return Ok(logits);
        }
        if on_device {
            let mut own = Vec::new();
            for turn in &mut turns {
                let rows = if turn.logits { LogitRows::Last } else { LogitRows::Range(0..0) };
                match self.forward(turn.tokens, turn.cache, rows, &mut own) {
                    Ok(()) | Err(ModelError::NotFinite { .. }) => logits.data.extend_from_slice(&own),
                    Err(error) => return Err(error),
                }
            }
            return Ok(logits);
        }
        let tokens: Vec<u32> = turns.iter().flat_map(|turn| turn.tokens).copied().collect();
        let wanted: Vec<bool> = turns.iter().map(|turn| turn.logits).collect();
        let parts = turns.into_iter().map(|turn| (turn.tokens.len(), turn.cache)).collect();
        // From inside the pool, a parallel region costs a microsecond; from outside, two thread switches.
        rayon::scope(|_| {
            let mut ops = self.ops(sums, parts);
            let hidden = self.graph().hidden(&mut ops, &tokens);
            let last = ops.last_rows(&hidden);
            let rows = last.data.chunks_exact(last.width.max(1)).zip(&wanted).filter(|(_, wanted)| **wanted);
            let data: Vec<f32> = rows.flat_map(|(row, _)| row).copied().collect();
            if !data.is_empty() {
                let hidden = Matrix { width: last.width, data };
                logits.data = self.graph().logits(&mut ops, &hidden).data;
            }
            ops.advance();
        });
        Ok(logits)
    }
}
