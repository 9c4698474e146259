//! What a budget is spent by where nothing was measured.

use gq_calibrate::{Measurements, TensorMeasured};
use gq_checkpoint::{Role, SourceTensor};
use std::collections::BTreeMap;

/// What one unit of relative squared error in all tensors of a role is taken to cost, in nats per token, rounded to
/// nearest codes.
///
/// Geometric means of what `gq calibrate` measures on SmolLM2 135M and Gemma 3 270M, less two layers of the latter whose
/// down projections outweigh everything else. Experts are taken for the MLP that they are in place of. Tables that no
/// head reads were not measured: they stand as what looking up a row was measured to cost.
/// Only their ratios matter.
const COSTS: [(Role, f64); 11] = [
    (Role::Embedding, 1.5),
    (Role::Head, 8.0),
    (Role::Query, 1.6),
    (Role::Key, 4.1),
    (Role::Value, 9.0),
    (Role::Output, 1.8),
    (Role::Gate, 2.8),
    (Role::Up, 4.6),
    (Role::Down, 34.0),
    (Role::ExpertGateUp, 7.4),
    (Role::ExpertDown, 34.0),
];

/// The same for a per-layer table and for an embedding that is the head too.
const PER_LAYER_TABLE: f64 = 1.5;
const TIED: f64 = 9.3;

/// Stands in for measurements: each role's cost in equal parts to its layers.
pub(crate) fn default_sensitivities<'a>(
    tensors: impl Iterator<Item = &'a SourceTensor> + Clone,
    tied: bool,
) -> Measurements {
    let cost = |role| match role {
        Role::Embedding if tied => Some(TIED),
        Role::PerLayerTable => Some(PER_LAYER_TABLE),
        _ => COSTS.iter().find(|(known, _)| *known == role).map(|(_, cost)| *cost),
    };
    let mut layers: BTreeMap<Role, f64> = BTreeMap::new();
    tensors.clone().for_each(|tensor| *layers.entry(tensor.role).or_default() += 1.0);
    let mut measurements = Measurements::empty();
    for tensor in tensors {
        let Some(cost) = cost(tensor.role) else { continue };
        let share = cost / layers.get(&tensor.role).copied().unwrap_or(1.0);
        let measured = TensorMeasured { inputs: Vec::new(), sensitivity: share, nearest_sensitivity: share };
        measurements.tensors.insert(tensor.name.clone(), measured);
    }
    measurements
}
