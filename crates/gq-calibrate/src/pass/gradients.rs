//! One sequence through the layers and back, a layer's tape at a time.

use super::state::{SharedMatrices, State};
use super::walk::{LayerRun, Run, Walk};
use crate::deterministic::{FactorGradients, Factors, Gradients, Overlay, Place, add_gradients};
use gq_model::{Linear, Matrix, Model, Stream};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Called with the gradient at the outputs of every product, and at looked-up rows.
pub(crate) type Seen<'a> = &'a mut dyn FnMut(&Linear, Place, &Matrix);

/// Runs a sequence from position 0, asks `head` for the gradient at its last hidden states, and goes back through the
/// layers and what precedes them. Gradients by `factors` are added to `by_factor`.
pub(crate) fn back(
    model: &Model,
    tokens: &[u32],
    factors: Option<&Factors>,
    head: &mut dyn FnMut(&Arc<Matrix>, Seen<'_>, &mut FactorGradients) -> Matrix,
    seen: Seen<'_>,
    by_factor: &mut FactorGradients,
) {
    let overlay = factors.map_or_else(Overlay::default, Overlay::factors);
    let walk = Walk::new(model, tokens);
    let mut ops = walk.ops(Run::over(overlay));
    ops.tape = Some(Default::default());
    let Stream { x, per_layer } = model.graph().start(&mut ops, tokens);
    let vectors = per_layer.as_ref().map(|vectors| vectors.matrix.clone());
    let mut layers = Layers::forward(&walk, overlay, x.matrix.clone(), vectors);
    let hidden = layers.inputs.pop().unwrap_or_default();
    let dx = head(&hidden, &mut *seen, by_factor);
    let (dx, by_vectors) = layers.backward(dx, &mut *seen, by_factor);
    let mut gradients = Gradients::default();
    gradients.add(x.id, dx);
    if let (Some(vectors), Some(by_vectors)) = (per_layer, by_vectors) {
        gradients.add(vectors.id, by_vectors);
    }
    ops.backward(&mut gradients, seen);
    add_gradients(by_factor, std::mem::take(&mut ops.by_factor));
}

/// The layers' work on one sequence.
pub(crate) struct Layers<'w> {
    walk: &'w Walk<'w>,
    overlay: Overlay<'w>,
    /// Residual stream before each layer, and after the last.
    pub(crate) inputs: Vec<Arc<Matrix>>,
    /// Keys and values that layers after those that made them read.
    shared: SharedMatrices,
    vectors: Option<Arc<Matrix>>,
}

impl<'w> Layers<'w> {
    /// The residual stream of a sequence, layer after layer.
    pub(crate) fn forward(
        walk: &'w Walk<'w>,
        overlay: Overlay<'w>,
        x: Arc<Matrix>,
        vectors: Option<Arc<Matrix>>,
    ) -> Layers<'w> {
        let mut layers = Layers { walk, overlay, inputs: vec![x], shared: BTreeMap::new(), vectors };
        for layer in 0..walk.model().graph().layers() {
            let before = layers.before(layer);
            let State { x, shared } = walk.layer(layer, before, layers.vectors.clone(), Run::over(overlay));
            layers.shared.extend(shared);
            layers.inputs.push(x);
        }
        layers
    }

    /// What enters a layer. Its own keys and values of the forward pass are not its input.
    fn before(&self, layer: usize) -> State {
        let shared = self.shared.range(..layer).map(|(cache, pair)| (*cache, pair.clone()));
        State { x: self.inputs[layer].clone(), shared: shared.collect() }
    }

    /// From the gradient after the last layer to that before the first, and that of the per-layer vectors.
    pub(crate) fn backward(
        &self,
        mut dx: Matrix,
        seen: Seen<'_>,
        by_factor: &mut FactorGradients,
    ) -> (Matrix, Option<Matrix>) {
        let mut by_vectors: Option<Matrix> = None;
        // What later layers ask of a layer's keys and values.
        let mut asked: BTreeMap<usize, (Matrix, Matrix)> = BTreeMap::new();
        for layer in (0..self.walk.model().graph().layers()).rev() {
            let run = Run::over(self.overlay);
            let LayerRun { x, input, vectors, mut ops } =
                self.walk.run(layer, self.before(layer), self.vectors.clone(), run, true);
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
}

fn add(sum: &mut Matrix, x: &Matrix) {
    sum.data.iter_mut().zip(&x.data).for_each(|(sum, x)| *sum += x);
}
