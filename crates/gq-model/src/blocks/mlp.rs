//! Gated MLP.

use crate::LoadError;
use crate::linear::Linear;
use crate::ops::Ops;
use crate::weight_source::Source;
use gq_checkpoint::{Activation, LayerSpec, Part};

/// `down(activation(gate(x), up(x)))`.
#[derive(Debug)]
pub struct Mlp {
    activation: Activation,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Mlp {
    /// The layer's dense one. `normed`: an RMS norm of its result comes right after.
    ///
    /// # Errors
    /// When the layer has none, or a tensor is missing.
    pub(crate) fn load(
        layer: &LayerSpec,
        normed: bool,
        index: usize,
        source: &mut Source,
    ) -> Result<Mlp, LoadError> {
        let missing = || LoadError::MissingTensor { name: format!("MLP of layer {index}") };
        let activation = layer.mlp.ok_or_else(missing)?.activation;
        let at = Some(index);
        let (gate, up) = (source.linear(Part::Gate, at)?, source.linear(Part::Up, at)?);
        let down = match normed {
            true => source.normed_linear(Part::Down, at)?,
            false => source.linear(Part::Down, at)?,
        };
        Ok(Mlp { activation, gate, up, down })
    }

    /// The one that every token takes in addition to its experts.
    pub(crate) fn shared(
        activation: Activation,
        layer: usize,
        source: &mut Source,
    ) -> Result<Mlp, LoadError> {
        let mut load = |part| source.linear(part, Some(layer));
        let (gate, up) = (load(Part::SharedGate)?, load(Part::SharedUp)?);
        Ok(Mlp { activation, gate, up, down: load(Part::SharedDown)? })
    }

    /// Of weights in memory.
    pub fn of(activation: Activation, [gate, up, down]: [Linear; 3]) -> Mlp {
        Mlp { activation, gate, up, down }
    }

    /// `[tokens, hidden]` to the same shape.
    pub fn forward<O: Ops>(&self, ops: &mut O, x: &O::Value) -> O::Value {
        let [gate, up] = ops.linear(x, [&self.gate, &self.up]); // [tokens, width]
        let h = ops.gated(self.activation, gate, &up); // [tokens, width]
        let [y] = ops.linear(&h, [&self.down]); // [tokens, hidden]
        y
    }
}
