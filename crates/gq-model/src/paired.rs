//! The original and its rounded copy over the same sequences, layer by layer and product by product: each product's
//! inputs in both, while the copy's weights are being replaced.

use crate::ModelError;
use crate::fixed::{Observation, Replaced, over_sizes};
use crate::linear::Linear;
use crate::matrix::Matrix;
use crate::measure::{LayerRun, State, residual_token_bytes, run_layer};
use crate::model::Model;
use crate::spill::Spill;
use std::fs::File;
use std::io;

/// Inputs of one or more products in both models at the same tokens.
#[derive(Debug)]
pub struct PairedObservation<'a> {
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
/// one sequence in both. All arithmetic is fixed: the same observations on every CPU and thread count.
#[derive(Debug)]
pub struct PairedPass<'m> {
    original: &'m Model,
    rounded: &'m Model,
    tokens: Vec<Vec<u32>>,
    /// The original's states, then the rounded model's.
    states: Vec<State>,
    spill: Option<Spill>,
    replaced: Replaced,
    next: usize,
}

impl<'m> PairedPass<'m> {
    /// Each sequence starts at position 0 with an empty cache. The models have the same specification.
    ///
    /// # Errors
    /// For an empty sequence or a token beyond a vocabulary.
    pub fn new(
        original: &'m Model,
        rounded: &'m Model,
        tokens: Vec<Vec<u32>>,
    ) -> Result<PairedPass<'m>, ModelError> {
        for sequence in &tokens {
            original.check_tokens(sequence)?;
            rounded.check_tokens(sequence)?;
        }
        let states = vec![State::default(); 2 * tokens.len()];
        let (spill, replaced) = (None, Replaced::new());
        Ok(PairedPass { original, rounded, tokens, states, spill, replaced, next: 0 })
    }

    /// Keeps the states in `file` between layers; observations are the same.
    pub fn spilled_to(mut self, file: File) -> PairedPass<'m> {
        let longest = self.tokens.iter().map(Vec::len).max().unwrap_or(0);
        let stride = longest as u64 * residual_token_bytes(self.original.spec());
        self.spill = Some(Spill::new(file, stride, self.states.len()));
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
        let run = LayerRun { observer: Some(&mut observe), ..LayerRun::default() };
        // One token is enough to see what meets what.
        let ((x, _), one) = (self.load(self.tokens.len())?, &tokens[..1]);
        let first = Matrix { width: x.width, data: x.data.iter().take(x.width).copied().collect() };
        let shared = self.load(self.tokens.len())?.1.into_iter().map(|(cache, (k, v))| {
            let row = |m: &Matrix| Matrix { width: m.width, data: m.data[..m.width].to_vec() };
            (cache, (row(&k).into(), row(&v).into()))
        });
        run_layer(self.rounded, self.next, (0, one), (first.into(), shared.collect()), run);
        Ok(products)
    }

    /// Shows the inputs of the next layer's product number `product`, for all sequences in order. What precedes it in
    /// the layer is computed with the weights as they are now.
    ///
    /// # Errors
    /// When the file that it is spilled to cannot be read.
    pub fn observe(&self, product: usize, observe: &mut dyn FnMut(PairedObservation<'_>)) -> io::Result<()> {
        for sequence in 0..self.tokens.len() {
            let (mut original, sizes) = self.input(self.original, (sequence, sequence), product, None)?;
            let place = (self.tokens.len() + sequence, sequence);
            let (mut rounded, _) = self.input(self.rounded, place, product, Some(&self.replaced))?;
            if let Some(sizes) = sizes {
                (original, rounded) = (over_sizes(&original, &sizes), over_sizes(&rounded, &sizes));
            }
            observe(PairedObservation { sequence, original: &original, rounded: &rounded });
        }
        Ok(())
    }

    /// The input of a product of the next layer, of one sequence in one model, and the sizes of its outputs.
    fn input(
        &self,
        model: &Model,
        (place, sequence): (usize, usize),
        product: usize,
        replaced: Option<&Replaced>,
    ) -> io::Result<(Matrix, Option<Vec<f32>>)> {
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
        let left = Some(product + 1);
        let run = LayerRun { observer: Some(&mut observe), start: false, left, replaced };
        run_layer(model, self.next, (sequence, &self.tokens[sequence]), self.load(place)?, run);
        Ok(input)
    }

    /// Gives a weight of the rounded model another payload of the same encoding; `false` when it is not one.
    pub fn replace(&mut self, weight: &Linear, payload: &[u8]) -> bool {
        let Some(replaced) = weight.with_payload(payload) else { return false };
        self.replaced.insert(weight.name().to_owned(), replaced);
        true
    }

    /// Takes all sequences through the next layer, in both models.
    ///
    /// # Errors
    /// When the file that it is spilled to cannot be read or written.
    pub fn advance(&mut self) -> io::Result<()> {
        for place in 0..self.states.len() {
            let sequence = place % self.tokens.len();
            let (model, replaced) = match place < self.tokens.len() {
                true => (self.original, None),
                false => (self.rounded, Some(&self.replaced)),
            };
            let run = LayerRun { replaced, ..LayerRun::default() };
            let before = self.load(place)?;
            let after = run_layer(model, self.next, (sequence, &self.tokens[sequence]), before, run);
            match &mut self.spill {
                Some(spill) => spill.store(place, &after.0, &after.1)?,
                None => self.states[place] = after,
            }
        }
        // The layer is done with: nothing reads its weights again.
        self.replaced.clear();
        self.next += 1;
        Ok(())
    }

    fn load(&self, place: usize) -> io::Result<State> {
        match self.spill.as_ref().filter(|_| self.next > 0) {
            Some(spill) => spill.load(place),
            None => Ok(self.states[place].clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ActivationMode, KvType, RunOptions};
    use gq_checkpoint::Checkpoint;
    use gq_tensor::{DType, Encoding, Isa};
    use std::path::Path;
    use std::sync::Arc;

    /// Inputs of both models are over the sizes of the original's outputs: twice the input stays twice the input.
    #[test]
    fn both_models_inputs_are_weighed_by_the_original() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny/gemma3");
        let options = RunOptions { level: Isa::detect(), activations: ActivationMode::F32, kv: KvType::F32 };
        let model = Model::from_checkpoint(Arc::new(Checkpoint::open(path).unwrap()), options).unwrap();
        let mut pass = PairedPass::new(&model, &model, vec![(0..9).collect()]).unwrap();
        let products = pass.products().unwrap();
        let named = |part: &str| {
            let with = |weights: &Vec<Linear>| weights.iter().any(|weight| weight.name().contains(part));
            products.iter().position(with).unwrap()
        };
        let up = products[named("up_proj")].iter().find(|weight| weight.name().contains("up_proj")).unwrap();
        assert_eq!(up.encoding(), Encoding::Exact(DType::BF16));
        let twice = |bytes: &[u8; 2]| {
            let value = half::bf16::from_le_bytes(*bytes);
            (value + value).to_le_bytes()
        };
        let payload: Vec<u8> = up.matrix().codes().as_chunks::<2>().0.iter().flat_map(twice).collect();
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
