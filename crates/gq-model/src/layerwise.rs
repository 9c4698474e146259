//! One sequence through the layers and back, a layer's tape at a time.

use crate::cpu::Turns;
use crate::fixed::{FactorGradients, Factors, Fixed, Gradients, Place, Value, add_gradients};
use crate::linear::Linear;
use crate::matrix::Matrix;
use crate::model::Model;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Keys and values by the layer that made them.
pub(crate) type SharedMatrices = BTreeMap<usize, (Arc<Matrix>, Arc<Matrix>)>;

/// The layers' work on one sequence.
pub(crate) struct Layers<'f> {
    /// Residual stream before each layer, and after the last.
    pub(crate) inputs: Vec<Arc<Matrix>>,
    shared: SharedMatrices,
    per_layer: Option<Arc<Matrix>>,
    factors: Option<&'f Factors>,
}

impl<'f> Layers<'f> {
    /// The residual stream of a sequence, layer after layer.
    pub(crate) fn forward(
        model: &Model,
        turns: &[Turns],
        factors: Option<&'f Factors>,
        x: Arc<Matrix>,
        per_layer: Option<Arc<Matrix>>,
    ) -> Layers<'f> {
        let mut layers = Layers { inputs: vec![x], shared: BTreeMap::new(), per_layer, factors };
        for layer in 0..model.graph().layers() {
            let LayerRun { x, mut ops, .. } = layers.run(model, turns, layer, false);
            let new = std::mem::take(&mut ops.shared).into_iter();
            layers.shared = new.map(|(cache, (k, v))| (cache, (k.matrix, v.matrix))).collect();
            layers.inputs.push(x.matrix);
        }
        layers
    }

    /// From the gradient after the last layer to that before the first, and that of the per-layer vectors.
    pub(crate) fn backward(
        &self,
        model: &Model,
        turns: &[Turns],
        mut dx: Matrix,
        seen: &mut dyn FnMut(&Linear, Place, &Matrix),
        by_factor: &mut FactorGradients,
    ) -> (Matrix, Option<Matrix>) {
        let mut by_vectors: Option<Matrix> = None;
        // What later layers ask of a layer's keys and values.
        let mut asked: BTreeMap<usize, (Matrix, Matrix)> = BTreeMap::new();
        for layer in (0..model.graph().layers()).rev() {
            let LayerRun { x, input, vectors, mut ops } = self.run(model, turns, layer, true);
            let mut gradients = Gradients::default();
            gradients.add(x.id, dx);
            let shared = std::mem::take(&mut ops.shared);
            if let (Some((k, v)), Some((dk, dv))) = (shared.get(&layer), asked.remove(&layer)) {
                gradients.add(k.id, dk);
                gradients.add(v.id, dv);
            }
            ops.backward(&mut gradients, seen);
            add_gradients(by_factor, std::mem::take(&mut ops.by_factor));
            for (cache, (k, v)) in shared.into_iter().filter(|(cache, _)| *cache != layer) {
                let (Some(dk), Some(dv)) = (gradients.take(k.id), gradients.take(v.id)) else { continue };
                match asked.get_mut(&cache) {
                    Some((sum_k, sum_v)) => {
                        add(sum_k, &dk);
                        add(sum_v, &dv);
                    }
                    None => {
                        asked.insert(cache, (dk, dv));
                    }
                }
            }
            match (&mut by_vectors, vectors.and_then(|id| gradients.take(id))) {
                (Some(sum), Some(more)) => add(sum, &more),
                (None, more) => by_vectors = more,
                (Some(_), None) => {}
            }
            dx = gradients.take(input).unwrap_or_default();
        }
        (dx, by_vectors)
    }

    fn run<'t>(&self, model: &Model, turns: &'t [Turns], layer: usize, taped: bool) -> LayerRun<'t>
    where
        'f: 't,
    {
        let mut ops = Fixed::new(model.options().level, turns);
        ops.factors = self.factors;
        // A layer's own keys and values of the forward pass are not its input.
        for (&cache, (keys, values)) in self.shared.iter().filter(|(cache, _)| **cache < layer) {
            let pair = (ops.leaf(keys.clone()), ops.leaf(values.clone()));
            ops.shared.insert(cache, pair);
        }
        let x = ops.leaf(self.inputs[layer].clone());
        let input = x.id;
        let vectors = self.per_layer.clone().map(|vectors| ops.leaf(vectors));
        ops.tape = taped.then(Default::default);
        let x = model.graph().layer(&mut ops, layer, x, vectors.as_ref());
        LayerRun { x, input, vectors: vectors.map(|vectors| vectors.id), ops }
    }
}

/// One layer's result, the ids of its inputs, and what it recorded.
struct LayerRun<'t> {
    x: Value,
    input: usize,
    vectors: Option<usize>,
    ops: Fixed<'t>,
}

fn add(sum: &mut Matrix, x: &Matrix) {
    sum.data.iter_mut().zip(&x.data).for_each(|(sum, x)| *sum += x);
}

/// The rotary tables of a sequence from position 0.
pub(crate) fn turns(model: &Model, tokens: usize) -> Vec<Turns> {
    model.spec().ropes.iter().map(|rope| Turns::new(rope, 0, tokens)).collect()
}
