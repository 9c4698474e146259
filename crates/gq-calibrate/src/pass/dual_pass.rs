//! The original and its rounded copy over the same sequences, layer by layer and product by product: each product's
//! inputs in both, while the copy's weights are being replaced.

use super::state::State;
use super::states::States;
use super::walk::{Run, Walk};
use crate::deterministic::{Observation, Overlay, Replacements, over_sizes};
use gq_model::{Linear, Matrix, Model, ModelError};
use std::fs::File;
use std::io;

/// Inputs of one or more products in both models at the same tokens.
#[derive(Debug)]
pub struct DualObservation<'a> {
    /// Index of the sequence.
    pub sequence: usize,
    /// The original's, `[tokens, cols]`, not rotated. Where a norm comes right after the product, each token's input is
    /// over the size of the original's outputs ([`Observation::weighed`]), in both models.
    pub original: &'a Matrix,
    /// The rounded model's.
    pub rounded: &'a Matrix,
}

/// Sequences that pass through two models of one architecture in lockstep.
///
/// Memory is the residual streams of all sequences in both, unless they are spilled to a file, and one layer's work for
/// one sequence in both. All arithmetic is deterministic: the same observations on every CPU and thread count.
#[derive(Debug)]
pub struct DualPass<'m> {
    original: &'m Model,
    rounded: &'m Model,
    tokens: Vec<Vec<u32>>,
    /// The original's states, then the rounded model's.
    states: States,
    replacements: Replacements,
    next: usize,
}

impl<'m> DualPass<'m> {
    /// Each sequence starts at position 0 with an empty cache. The models have the same specification.
    ///
    /// # Errors
    /// For an empty sequence or a token beyond a vocabulary.
    pub fn new(
        original: &'m Model,
        rounded: &'m Model,
        tokens: Vec<Vec<u32>>,
    ) -> Result<DualPass<'m>, ModelError> {
        for sequence in &tokens {
            original.check_tokens(sequence)?;
            rounded.check_tokens(sequence)?;
        }
        let (states, replacements) = (States::new(2 * tokens.len()), Replacements::default());
        Ok(DualPass { original, rounded, tokens, states, replacements, next: 0 })
    }

    /// Keeps the states in `file` between layers; observations are the same.
    #[must_use]
    pub fn spilled_to(mut self, file: File) -> DualPass<'m> {
        let longest = self.tokens.iter().map(Vec::len).max().unwrap_or(0);
        self.states.spill_to(file, self.original.spec(), longest);
        self
    }

    /// Layers of the models.
    pub fn layers(&self) -> usize {
        self.original.graph().layers()
    }

    /// Sequences.
    pub fn sequences(&self) -> usize {
        self.tokens.len()
    }

    /// The next layer's products in the order in which they are computed: the rounded weights that meet each input.
    /// Experts are not among them.
    ///
    /// # Errors
    /// When the file that it is spilled to cannot be read.
    pub fn products(&self) -> io::Result<Vec<Vec<Linear>>> {
        let mut products = Vec::new();
        let Some(tokens) = self.tokens.first() else { return Ok(products) };
        let mut observe = |seen: Observation<'_>| {
            if seen.expert.is_none() {
                products.push(seen.weights.iter().map(|&weight| weight.clone()).collect());
            }
        };
        let run = Run { observer: Some(&mut observe), ..Run::default() };
        // One token is enough to see what meets what.
        let State { x, shared } = self.states.get(self.tokens.len())?;
        let row =
            |m: &Matrix| Matrix { width: m.width, data: m.data.iter().take(m.width).copied().collect() };
        let shared = shared.into_iter().map(|(cache, (k, v))| (cache, (row(&k).into(), row(&v).into())));
        let first = State { x: row(&x).into(), shared: shared.collect() };
        Walk::new(self.rounded, &tokens[..1]).layer_from(self.next, first, run, false);
        Ok(products)
    }

    /// Shows the inputs of the next layer's product number `product`, for all sequences in order. What precedes it in
    /// the layer is computed with the weights as they are now.
    ///
    /// # Errors
    /// When the file that it is spilled to cannot be read.
    pub fn observe(&self, product: usize, observe: &mut dyn FnMut(DualObservation<'_>)) -> io::Result<()> {
        for sequence in 0..self.tokens.len() {
            let (mut original, sizes) = self.input(sequence, product)?;
            let (mut rounded, _) = self.input(self.tokens.len() + sequence, product)?;
            if let Some(sizes) = sizes {
                (original, rounded) = (over_sizes(&original, &sizes), over_sizes(&rounded, &sizes));
            }
            observe(DualObservation { sequence, original: &original, rounded: &rounded });
        }
        Ok(())
    }

    /// The input of a product of the next layer, of a place's sequence in its model, and the sizes of its outputs.
    fn input(&self, place: usize, product: usize) -> io::Result<(Matrix, Option<Vec<f32>>)> {
        let (mut at, mut input) = (0, (Matrix::default(), None));
        let mut observe = |seen: Observation<'_>| {
            if seen.expert.is_some() {
                return;
            }
            if at == product {
                input = (seen.input.clone(), seen.sizes.map(<[f32]>::to_vec));
            }
            at += 1;
        };
        let (walk, overlay) = self.walk(place);
        let sequence = place % self.tokens.len();
        let run = Run { observer: Some(&mut observe), sequence, left: Some(product + 1), overlay };
        walk.layer_from(self.next, self.states.get(place)?, run, false);
        Ok(input)
    }

    /// The way of a place's sequence through its model, and what differs from that now.
    fn walk(&self, place: usize) -> (Walk<'_>, Overlay<'_>) {
        let tokens = &self.tokens[place % self.tokens.len()];
        match place < self.tokens.len() {
            true => (Walk::new(self.original, tokens), Overlay::default()),
            false => (Walk::new(self.rounded, tokens), Overlay::replaced(&self.replacements)),
        }
    }

    /// Gives a weight of the rounded model another payload of the same encoding; `false` when it is not one.
    pub fn replace(&mut self, weight: &Linear, payload: &[u8]) -> bool {
        let Some(replaced) = weight.with_payload(payload) else { return false };
        self.replacements.insert(replaced);
        true
    }

    /// Takes all sequences through the next layer, in both models.
    ///
    /// # Errors
    /// When the file that it is spilled to cannot be read or written.
    pub fn advance(&mut self) -> io::Result<()> {
        for place in 0..self.states.len() {
            let before = self.states.get(place)?;
            let (walk, overlay) = self.walk(place);
            let after = walk.layer_from(self.next, before, Run::over(overlay), false);
            self.states.put(place, after)?;
        }
        self.states.layer_is_done();
        // The layer is done with: nothing reads its weights again.
        self.replacements.clear();
        self.next += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gq_suite::tiny;
    use gq_tensor::{DType, Encoding, Isa};

    /// Inputs of both models are over the sizes of the original's outputs: twice the input stays twice the input.
    #[test]
    fn both_models_inputs_are_weighed_by_the_original() {
        let model = tiny("gemma3", Isa::detect());
        let mut pass = DualPass::new(&model, &model, vec![(0..9).collect()]).unwrap();
        let products = pass.products().unwrap();
        let named = |part: &str| {
            let with = |weights: &Vec<Linear>| weights.iter().any(|weight| weight.name().contains(part));
            products.iter().position(with).unwrap()
        };
        let up = products[named("up_proj")].iter().find(|weight| weight.name().contains("up_proj")).unwrap();
        assert_eq!(up.encoding(), Encoding::Exact(DType::BF16));
        let mut values = vec![0.0; up.shape().rows * up.shape().cols];
        up.read_rows(Isa::detect(), 0..up.shape().rows, &mut values);
        let twice = |value: &f32| half::bf16::from_f32(2.0 * value).to_le_bytes();
        let payload: Vec<u8> = values.iter().flat_map(twice).collect();
        assert!(pass.replace(up, &payload));
        let mut seen = 0;
        pass.observe(named("down_proj"), &mut |inputs| {
            let pairs = inputs.original.data.iter().zip(&inputs.rounded.data);
            let size = inputs.original.data.iter().fold(0.0f32, |size, x| size.max(x.abs()));
            assert!(size > 0.0 && pairs.clone().all(|(x, y)| (2.0 * x - y).abs() <= 1e-5 * size));
            seen += 1;
        })
        .unwrap();
        assert_eq!(seen, 1);
    }
}
