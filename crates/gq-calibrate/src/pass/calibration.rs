//! Sequences through a model layer by layer: the inputs of every product.

use super::states::States;
use super::walk::{Run, Walk};
use crate::deterministic::{Deterministic, Observation};
use gq_model::{Model, ModelError};
use std::fs::File;
use std::io;

/// Sequences that pass through a model layer by layer.
///
/// Memory is the residual stream of all sequences, unless it is spilled to a file, and one layer's work for one
/// sequence. All arithmetic is deterministic: the same observations on every CPU and thread count.
#[derive(Debug)]
pub struct CalibrationPass<'m> {
    model: &'m Model,
    tokens: Vec<Vec<u32>>,
    pub(crate) states: States,
    next: usize,
}

impl<'m> CalibrationPass<'m> {
    /// Each sequence starts at position 0 with an empty cache.
    ///
    /// # Errors
    /// For an empty sequence or a token beyond the vocabulary.
    pub fn new(model: &'m Model, sequences: Vec<Vec<u32>>) -> Result<CalibrationPass<'m>, ModelError> {
        sequences.iter().try_for_each(|tokens| model.check_tokens(tokens))?;
        let states = States::new(sequences.len());
        Ok(CalibrationPass { model, tokens: sequences, states, next: 0 })
    }

    /// Keeps what belongs to the sequences in `file` between layers; observations are the same.
    #[must_use]
    pub fn spilled_to(mut self, file: File) -> CalibrationPass<'m> {
        let longest = self.tokens.iter().map(Vec::len).max().unwrap_or(0);
        self.states.spill_to(file, self.model.spec(), longest);
        self
    }

    /// Layers of the model.
    pub fn layers(&self) -> usize {
        self.model.graph().layers()
    }

    /// Runs the next layer over all sequences in order; `observe` sees the input of each of its products.
    /// Before the first layer, it also sees those of what comes before the layers. `false`: no layer was left.
    ///
    /// # Errors
    /// When the file that it is spilled to cannot be read or written.
    pub fn next_layer(&mut self, observe: &mut dyn FnMut(Observation<'_>)) -> io::Result<bool> {
        let layer = self.next;
        if layer == self.layers() {
            return Ok(false);
        }
        for (sequence, tokens) in self.tokens.iter().enumerate() {
            let state = self.states.take(sequence)?;
            let run = Run { observer: Some(&mut *observe), sequence, ..Run::default() };
            let state = Walk::new(self.model, tokens).layer_from(layer, state, run, true);
            self.states.put(sequence, state)?;
        }
        self.states.layer_is_done();
        self.next += 1;
        Ok(true)
    }

    /// After the last layer: shows `observe` the head's inputs. Logits are not computed.
    ///
    /// # Errors
    /// When the file that it is spilled to cannot be read.
    pub fn head(&self, observe: &mut dyn FnMut(Observation<'_>)) -> io::Result<()> {
        let graph = self.model.graph();
        for sequence in 0..self.tokens.len() {
            let mut ops = Deterministic::new(self.model.options().level, &[]);
            let x = ops.leaf(self.states.get(sequence)?.x);
            let x = graph.head_input(&mut ops, &x);
            let weights = &[graph.head()];
            observe(Observation { sequence, weights, expert: None, input: &x.matrix, sizes: None });
        }
        Ok(())
    }
}
