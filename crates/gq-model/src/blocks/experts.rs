//! Mixture of experts: a router, the chosen experts' MLPs, their weighted sum, and an MLP that every token takes.

use super::Mlp;
use crate::LoadError;
use crate::linear::Linear;
use crate::ops::{Ops, Router};
use crate::weight_source::Source;
use gq_checkpoint::{Activation, ModelSpec, MoeSpec, Part};

/// A router and what it chooses among.
#[derive(Debug)]
pub struct Experts {
    pub(crate) router: Linear,
    pub(crate) choice: Router,
    /// `[experts * 2 * width, hidden]`: the gate rows of an expert, then its up rows.
    pub(crate) gate_up: Linear,
    /// `[experts * hidden, width]`.
    pub(crate) down: Linear,
    /// Rows of an expert's gate.
    pub(crate) width: usize,
    activation: Activation,
    shared: Option<Mlp>,
}

impl Experts {
    pub(crate) fn load(
        spec: &ModelSpec,
        moe: &MoeSpec,
        layer: usize,
        source: &mut Source,
    ) -> Result<Experts, LoadError> {
        let at = Some(layer);
        let MoeSpec { width, activation, router, shared_width, .. } = *moe;
        let scales = spec.tensor(Part::ExpertScale, at).is_some();
        Ok(Experts {
            router: Linear { precise: true, ..source.linear(Part::Router, at)? },
            choice: Router {
                spec: router,
                selection_bias: router
                    .selection_bias
                    .then(|| source.vector(Part::SelectionBias, at))
                    .transpose()?,
                scales: scales.then(|| source.vector(Part::ExpertScale, at)).transpose()?,
            },
            gate_up: source.linear(Part::ExpertGateUp, at)?,
            down: source.linear(Part::ExpertDown, at)?,
            width,
            activation,
            shared: shared_width.map(|_| Mlp::shared(activation, layer, source)).transpose()?,
        })
    }

    /// Of weights in memory: router, gate and up rows of all experts, down rows of all experts.
    pub fn of(
        choice: Router,
        [router, gate_up, down]: [Linear; 3],
        activation: Activation,
        shared: Option<Mlp>,
    ) -> Experts {
        let width = gate_up.shape.rows_each() / 2;
        Experts { router, choice, gate_up, down, width, activation, shared }
    }

    /// From what the router takes and what the experts take, `[tokens, hidden]` to the same shape.
    pub fn forward<O: Ops>(&self, ops: &mut O, router_input: &O::Value, x: &O::Value) -> O::Value {
        let [scores] = ops.linear(router_input, [&self.router]); // [tokens, experts]
        let routes = ops.route(&scores, &self.choice);
        let both = ops.grouped_linear(x, &routes, &self.gate_up); // [tokens * top_k, 2 * width]
        let gate = ops.columns(&both, 0..self.width); // [tokens * top_k, width]
        let up = ops.columns(&both, self.width..2 * self.width); // [tokens * top_k, width]
        drop(both);
        let h = ops.gated(self.activation, gate, &up); // [tokens * top_k, width]
        let y = ops.grouped_linear(&h, &routes, &self.down); // [tokens * top_k, hidden]
        let y = ops.combine(y, &routes); // [tokens, hidden]
        match &self.shared {
            Some(shared) => {
                let every = shared.forward(ops, x); // [tokens, hidden]
                ops.add(y, &every) // [tokens, hidden]
            }
            None => y,
        }
    }
}
