//! What passes over many sequences keep between layers.

use super::spill::Spill;
use super::state::State;
use gq_checkpoint::ModelSpec;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Result;

/// States by place: of every sequence, and of each in several models or trials.
#[derive(Debug)]
pub(crate) struct States {
    states: Vec<State>,
    spill: Option<Spill>,
    /// Whether the first layer is done: before it, there is nothing in the file.
    begun: bool,
}

impl States {
    /// Nothing in so many places.
    pub(crate) fn new(places: usize) -> States {
        States { states: vec![State::default(); places], spill: None, begun: false }
    }

    /// Keeps them in `file`, a place for sequences of up to `longest` tokens each.
    pub(crate) fn spill_to(&mut self, file: File, spec: &ModelSpec, longest: usize) {
        let stride = longest as u64 * residual_token_bytes(spec);
        self.spill = Some(Spill::new(file, stride, self.states.len()));
    }

    /// Places.
    pub(crate) fn len(&self) -> usize {
        self.states.len()
    }

    /// A copy of what is in a place.
    pub(crate) fn get(&self, place: usize) -> Result<State> {
        match self.spill.as_ref().filter(|_| self.begun) {
            Some(spill) => spill.load(place),
            None => Ok(self.states[place].clone()),
        }
    }

    /// What is in a place, which may be empty after that.
    pub(crate) fn take(&mut self, place: usize) -> Result<State> {
        match self.spill.as_ref().filter(|_| self.begun) {
            Some(spill) => spill.load(place),
            None => Ok(std::mem::take(&mut self.states[place])),
        }
    }

    /// Puts a state in its place.
    pub(crate) fn put(&mut self, place: usize, state: State) -> Result<()> {
        match &mut self.spill {
            Some(spill) => spill.store(place, &state),
            None => {
                self.states[place] = state;
                Ok(())
            }
        }
    }

    /// A layer is done: all places hold what is after it.
    pub(crate) fn layer_is_done(&mut self) {
        self.begun = true;
    }

    /// Values that are held in memory.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.states.iter().map(|state| state.x.data.len() + state.shared.len()).sum()
    }
}

/// Bytes that a pass keeps of every token between layers: the residual stream, and keys and values that other layers
/// read later.
pub fn residual_token_bytes(spec: &ModelSpec) -> u64 {
    let read: BTreeSet<usize> =
        spec.layers.iter().filter_map(|layer| layer.attention.kv_shared_with).collect();
    let shared = read.iter().filter_map(|&layer| spec.layers.get(layer));
    let shared: usize = shared.map(|layer| 2 * layer.attention.kv_width()).sum();
    4 * (spec.hidden_size + shared) as u64
}
