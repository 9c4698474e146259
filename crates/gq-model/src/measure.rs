//! What a calibration measures on a model: the inputs of every product, and gradients at every product's output.

use crate::ModelError;
use crate::eager::{Matrix, softmax};
use crate::family::Residual;
use crate::fixed::{Fixed, Gradients, Observation, Observer, Place, Replaced};
use crate::layerwise::{Layers, SharedMatrices, turns};
use crate::linear::Linear;
use crate::model::Model;
use crate::spill::Spill;
use gq_checkpoint::ModelSpec;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::sync::Arc;

/// Positions whose logits are held at once.
const HEAD_ROWS: usize = 64;

/// Sequences that pass through a model layer by layer.
///
/// Memory is the residual stream of all sequences, unless it is spilled to a file, and one layer's work for one
/// sequence. All arithmetic is fixed:
/// the same observations on every CPU and thread count.
#[derive(Debug)]
pub struct CalibrationPass<'m> {
    model: &'m Model,
    sequences: Vec<Sequence>,
    spill: Option<Spill>,
    next: usize,
}

#[derive(Debug)]
struct Sequence {
    tokens: Vec<u32>,
    x: Arc<Matrix>,
    /// Keys and values of layers that later layers read.
    shared: SharedMatrices,
}

impl<'m> CalibrationPass<'m> {
    /// Each sequence starts at position 0 with an empty cache.
    ///
    /// # Errors
    /// For an empty sequence or a token beyond the vocabulary.
    pub fn new(model: &'m Model, sequences: Vec<Vec<u32>>) -> Result<CalibrationPass<'m>, ModelError> {
        let sequence = |tokens: Vec<u32>| {
            model.check_tokens(&tokens)?;
            Ok(Sequence { tokens, x: Arc::default(), shared: BTreeMap::new() })
        };
        let sequences = sequences.into_iter().map(sequence).collect::<Result<_, _>>()?;
        Ok(CalibrationPass { model, sequences, spill: None, next: 0 })
    }

    /// Keeps what belongs to the sequences in `file` between layers; observations are the same.
    pub fn spilled_to(mut self, file: File) -> CalibrationPass<'m> {
        let longest = self.sequences.iter().map(|sequence| sequence.tokens.len()).max().unwrap_or(0);
        let stride = longest as u64 * residual_token_bytes(self.model.spec());
        self.spill = Some(Spill::new(file, stride, self.sequences.len()));
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
        let (graph, layer) = (self.model.graph(), self.next);
        if layer == graph.layers() {
            return Ok(false);
        }
        for (index, sequence) in self.sequences.iter_mut().enumerate() {
            let mut state = (std::mem::take(&mut sequence.x), std::mem::take(&mut sequence.shared));
            if let Some(spill) = self.spill.as_ref().filter(|_| layer > 0) {
                state = spill.load(index)?;
            }
            let run = LayerRun { observer: Some(&mut *observe), start: true, ..LayerRun::default() };
            let (x, shared) = run_layer(self.model, layer, (index, &sequence.tokens), state, run);
            match &mut self.spill {
                Some(spill) => spill.store(index, &x, &shared)?,
                None => (sequence.x, sequence.shared) = (x, shared),
            }
        }
        self.next += 1;
        Ok(true)
    }

    /// After the last layer: shows `observe` the head's inputs. Logits are not computed.
    ///
    /// # Errors
    /// When the file that it is spilled to cannot be read.
    pub fn head(&self, observe: &mut dyn FnMut(Observation<'_>)) -> io::Result<()> {
        let graph = self.model.graph();
        for (index, sequence) in self.sequences.iter().enumerate() {
            let mut ops = Fixed::new(self.model.options().level, &[]);
            let x = match &self.spill {
                Some(spill) => spill.load(index)?.0,
                None => sequence.x.clone(),
            };
            let x = ops.leaf(x);
            let x = graph.head_input(&mut ops, &x);
            let weights = &[graph.head()];
            observe(Observation { sequence: index, weights, expert: None, input: &x.matrix, sizes: None });
        }
        Ok(())
    }
}

/// The residual stream of a sequence, and keys and values of layers that later layers read.
pub(crate) type State = (Arc<Matrix>, SharedMatrices);

/// How a layer is run.
#[derive(Default)]
pub(crate) struct LayerRun<'a> {
    pub(crate) observer: Option<Observer<'a>>,
    /// Whether the observer also sees what comes before the layers.
    pub(crate) start: bool,
    /// Products of the layer to go through; all of them unless given.
    pub(crate) left: Option<usize>,
    pub(crate) replaced: Option<&'a Replaced>,
}

/// Runs one sequence through a layer: its state before to its state after.
pub(crate) fn run_layer(
    model: &Model,
    layer: usize,
    (index, tokens): (usize, &[u32]),
    (mut x, shared): State,
    mut run: LayerRun<'_>,
) -> State {
    let (graph, spec, level) = (model.graph(), model.spec(), model.options().level);
    let read_later = |cache: &usize| {
        spec.layers.iter().skip(layer + 1).any(|later| later.attention.kv_shared_with == Some(*cache))
    };
    let turns = turns(model, tokens.len());
    let mut per_layer = None;
    if layer == 0 || spec.per_layer_embedding.is_some() {
        // The vectors of all layers together are several times the residual: made again for each layer.
        let mut ops = Fixed::new(level, &turns);
        ops.sequence = index;
        if let Some(observer) = run.observer.as_mut().filter(|_| layer == 0 && run.start) {
            ops.observer = Some(&mut **observer);
        }
        let start = graph.start(&mut ops, tokens);
        per_layer = start.per_layer.map(|vectors| vectors.matrix);
        if layer == 0 {
            x = start.x.matrix;
        }
    }
    let mut ops = Fixed::new(level, &turns);
    (ops.sequence, ops.left, ops.replaced) = (index, run.left, run.replaced);
    if let Some(observer) = run.observer.as_mut() {
        ops.observer = Some(&mut **observer);
    }
    let per_layer = per_layer.map(|vectors| ops.leaf(vectors));
    for (cache, (keys, values)) in shared {
        let pair = (ops.leaf(keys), ops.leaf(values));
        ops.shared.insert(cache, pair);
    }
    let x = ops.leaf(x);
    let x = graph.layer(&mut ops, layer, x, per_layer.as_ref());
    let shared = std::mem::take(&mut ops.shared).into_iter();
    let kept = shared.filter(|(cache, _)| read_later(cache));
    (x.matrix, kept.map(|(cache, (k, v))| (cache, (k.matrix, v.matrix))).collect())
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

/// Sums over positions of squared gradients at the outputs of products.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OutputMoments {
    /// By weight: one sum per row of the weight matrix, in nats^2 per squared unit of the output, or, where an RMS norm
    /// of all outputs comes right after, of the output over the token's root mean square.
    pub rows: BTreeMap<String, Vec<f64>>,
    /// By table: the same at looked-up rows, summed over their columns.
    pub lookups: BTreeMap<String, f64>,
    /// Positions summed over.
    pub positions: usize,
}

/// Squared gradients of `-log p(label)` with labels drawn from the model's own distribution: the diagonal of the
/// Fisher information in the products' outputs (K-FAC, arXiv 1503.05671, section 2.3).
///
/// Memory: the residual stream of one sequence at every layer, and one layer's tape.
/// `progress` is called after each sequence.
///
/// # Errors
/// For an empty sequence or a token beyond the vocabulary.
pub fn output_moments(
    model: &Model,
    sequences: &[Vec<u32>],
    seed: u64,
    progress: &mut dyn FnMut(usize),
) -> Result<OutputMoments, ModelError> {
    let mut moments = OutputMoments::default();
    for (index, tokens) in sequences.iter().enumerate() {
        model.check_tokens(tokens)?;
        add_sequence(model, tokens, seed.wrapping_add(index as u64), &mut moments);
        progress(index + 1);
    }
    Ok(moments)
}

fn add_sequence(model: &Model, tokens: &[u32], seed: u64, moments: &mut OutputMoments) {
    let turns = turns(model, tokens.len());
    let mut ops = Fixed::new(model.options().level, &turns);
    ops.tape = Some(Default::default());
    let Residual { x, per_layer } = model.graph().start(&mut ops, tokens);
    let vectors = per_layer.as_ref().map(|vectors| vectors.matrix.clone());
    let mut layers = Layers::forward(model, &turns, None, x.matrix.clone(), vectors);
    let OutputMoments { rows, lookups, .. } = moments;
    let mut seen = |weight: &Linear, place: Place, dy: &Matrix| {
        let first = match place {
            Place::Lookup => {
                *lookups.entry(weight.name().to_owned()).or_default() += squares(dy);
                return;
            }
            Place::Product => 0,
            Place::Expert(expert) => expert * dy.width,
        };
        let sums = rows.entry(weight.name().to_owned()).or_insert_with(|| vec![0.0; weight.shape().rows]);
        for row in dy.data.chunks_exact(dy.width) {
            let sums = sums.iter_mut().skip(first);
            sums.zip(row).for_each(|(sum, &d)| *sum += f64::from(d) * f64::from(d));
        }
    };
    let hidden = layers.inputs.pop().unwrap_or_default();
    let dx = head(model, &hidden, seed, &mut seen);
    let (dx, by_vectors) = layers.backward(model, &turns, dx, &mut seen, &mut Default::default());
    let mut gradients = Gradients::default();
    gradients.add(x.id, dx);
    if let (Some(vectors), Some(by_vectors)) = (per_layer, by_vectors) {
        gradients.add(vectors.id, by_vectors);
    }
    ops.backward(&mut gradients, &mut seen);
    moments.positions += tokens.len();
}

fn squares(x: &Matrix) -> f64 {
    x.data.iter().map(|&x| f64::from(x) * f64::from(x)).sum()
}

/// Draws labels and returns the gradient at the residual stream `hidden`.
fn head(
    model: &Model,
    hidden: &Arc<Matrix>,
    seed: u64,
    seen: &mut dyn FnMut(&Linear, Place, &Matrix),
) -> Matrix {
    let mut dx = Matrix { width: hidden.width, data: Vec::with_capacity(hidden.data.len()) };
    for (block, rows) in hidden.data.chunks(HEAD_ROWS * hidden.width).enumerate() {
        let mut ops = Fixed::new(model.options().level, &[]);
        ops.tape = Some(Default::default());
        let x = ops.leaf(Matrix { width: hidden.width, data: rows.to_vec() });
        let input = x.id;
        let logits = model.graph().logits(&mut ops, &x);
        let mut by_logit = logits.matrix.as_ref().clone();
        let width = by_logit.width;
        by_logit.data.par_chunks_exact_mut(width).enumerate().for_each(|(row, logits)| {
            let position = (block * HEAD_ROWS + row) as u64;
            softmax(logits);
            let label = draw(logits, uniform(seed, position));
            logits[label] -= 1.0;
        });
        let mut gradients = Gradients::default();
        gradients.add(logits.id, by_logit);
        ops.backward(&mut gradients, seen);
        dx.data.extend(gradients.take(input).unwrap_or_default().data);
    }
    dx
}

/// The first index at which the running sum passes `u` times the sum.
fn draw(probabilities: &[f32], u: f64) -> usize {
    let total: f64 = probabilities.iter().map(|&p| f64::from(p)).sum();
    let mut left = u * total;
    for (index, &p) in probabilities.iter().enumerate() {
        left -= f64::from(p);
        if left < 0.0 {
            return index;
        }
    }
    probabilities.len() - 1
}

/// In [0, 1), from SplitMix64 of seed and position.
fn uniform(seed: u64, position: u64) -> f64 {
    let mut z = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ position.wrapping_mul(0xD1B5_4A32_D192_ED03);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixed::{Wide, WideOps};
    use crate::ops::{Norm, Ops};
    use crate::{ActivationMode, KvType, LogitRows, RunOptions};
    use gq_checkpoint::Checkpoint;
    use gq_tensor::Isa;
    use std::path::Path;

    const TINY: [&str; 7] =
        ["llama", "qwen2", "gemma3", "gemma4-e2b", "gemma4-e4b", "gemma4-moe", "gemma4-dense"];

    fn model(name: &str, level: Isa) -> Model {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny").join(name);
        let options = RunOptions { level, activations: ActivationMode::F32, kv: KvType::F32 };
        Model::from_checkpoint(Arc::new(Checkpoint::open(path).unwrap()), options).unwrap()
    }

    fn tokens(model: &Model, count: usize) -> Vec<u32> {
        (0..count).map(|i| (i * i * 7 + 3 * i + 5) as u32 % model.vocab_size() as u32).collect()
    }

    fn numbers(n: usize, seed: u64) -> Vec<f32> {
        (0..n as u64).map(|i| (uniform(seed, i) * 2.0 - 1.0) as f32).collect()
    }

    fn dot(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    }

    #[test]
    fn the_pass_computes_what_inference_does() {
        for name in TINY {
            let model = model(name, Isa::detect());
            let tokens = tokens(&model, 40);
            let mut pass = CalibrationPass::new(&model, vec![tokens.clone()]).unwrap();
            let mut products = 0;
            while pass
                .next_layer(&mut |seen| {
                    products += seen.weights.len();
                    assert_eq!(seen.input.width, seen.weights[0].shape().cols);
                })
                .unwrap()
            {}
            assert!(products >= 5 * pass.layers(), "{name}: {products}");
            let hidden = pass.sequences[0].x.clone();
            let mut ops = Fixed::new(Isa::detect(), &[]);
            let x = ops.leaf(hidden);
            let fixed = model.graph().logits(&mut ops, &x).matrix;
            let (mut cache, mut logits) = (model.new_cache(tokens.len()), Vec::new());
            model.forward(&tokens, &mut cache, LogitRows::All, &mut logits).unwrap();
            let error = fixed.data.iter().zip(&logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(error < 5e-4, "{name}: {error:e}");
        }
    }

    #[test]
    fn a_spilled_pass_observes_the_same_bits() {
        for name in TINY {
            let model = model(name, Isa::detect());
            let observed = |spilled: bool| {
                let sequences = vec![tokens(&model, 30), tokens(&model, 7), tokens(&model, 19)];
                let mut pass = CalibrationPass::new(&model, sequences).unwrap();
                if spilled {
                    pass = pass.spilled_to(tempfile::tempfile().unwrap());
                }
                let mut bits: Vec<u32> = Vec::new();
                let mut observe = |seen: Observation<'_>| {
                    bits.push(seen.sequence as u32);
                    bits.extend(seen.input.data.iter().map(|x| x.to_bits()));
                };
                while pass.next_layer(&mut observe).unwrap() {
                    let held = |sequence: &Sequence| sequence.x.data.len() + sequence.shared.len();
                    assert!(!spilled || pass.sequences.iter().all(|sequence| held(sequence) == 0));
                }
                pass.head(&mut observe).unwrap();
                bits
            };
            assert!(observed(true) == observed(false), "{name}");
        }
    }

    #[test]
    fn the_same_bits_on_every_level_and_thread_count() {
        for name in TINY {
            let run = |level: Isa, threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let model = model(name, level);
                let sequences = vec![tokens(&model, 37), tokens(&model, 5)];
                pool.install(|| output_moments(&model, &sequences, 3, &mut |_| ()).unwrap())
            };
            let first = run(Isa::detect(), 1);
            assert_eq!(first, run(Isa::detect(), 3), "{name}");
            for level in Isa::available() {
                assert_eq!(first, run(level, 2), "{name} on {}", level.name());
            }
            assert!(first.rows.values().flatten().all(|x| x.is_finite()), "{name}");
        }
    }

    fn wide(x: &Matrix) -> Wide {
        Wide { width: x.width, data: x.data.iter().map(|&x| f64::from(x)).collect() }
    }

    fn size(x: &[f32]) -> f64 {
        dot(x, x).sqrt()
    }

    /// Derivatives of a random functional of the last residual stream, by what enters the first layer and by the
    /// outputs of every product, next to differences of forward passes in f64.
    #[test]
    fn gradients_equal_finite_differences_in_f64() {
        for name in TINY {
            let model = model(name, Isa::detect());
            let tokens = tokens(&model, 24);
            let turns = turns(&model, tokens.len());
            let mut ops = Fixed::new(Isa::detect(), &turns);
            let Residual { x, per_layer } = model.graph().start(&mut ops, &tokens);
            let per_layer = per_layer.map(|vectors| vectors.matrix);
            let layers = Layers::forward(&model, &turns, None, x.matrix.clone(), per_layer.clone());
            let functional = numbers(x.matrix.data.len(), 11);
            let given = Matrix { width: x.matrix.width, data: functional.clone() };
            let mut expected = BTreeSet::new();
            let mut pass = CalibrationPass::new(&model, vec![tokens.clone()]).unwrap();
            let mut note = |seen: Observation<'_>| {
                let layers = seen.weights.iter().filter(|weight| weight.name().contains(".layers."));
                expected.extend(layers.map(|weight| (weight.name().to_owned(), seen.expert)));
            };
            while pass.next_layer(&mut note).unwrap() {}
            let mut products: Vec<(String, Option<usize>, Vec<f32>)> = Vec::new();
            let mut seen = |weight: &Linear, place: Place, dy: &Matrix| {
                let expert = match place {
                    Place::Expert(expert) => Some(expert),
                    _ => None,
                };
                products.push((weight.name().to_owned(), expert, dy.data.clone()));
            };
            let (dx, _) = layers.backward(&model, &turns, given, &mut seen, &mut Default::default());
            let vectors = per_layer.as_deref().map(wide);
            let run = |x: Wide, pushed: Option<(String, Option<usize>, Vec<f64>)>| -> f64 {
                let mut ops = WideOps { ropes: &model.spec().ropes, pushed, ..WideOps::default() };
                let layers = 0..model.graph().layers();
                let x = layers.fold(x, |x, layer| model.graph().layer(&mut ops, layer, x, vectors.as_ref()));
                x.data.iter().zip(&functional).map(|(x, &f)| x * f64::from(f)).sum()
            };
            let compare = |what: &str, gradient: &[f32], at: &dyn Fn(f64, &[f32]) -> f64| {
                let direction = numbers(gradient.len(), 100);
                let step = 1e-5;
                let difference = (at(step, &direction) - at(-step, &direction)) / (2.0 * step);
                let scale = size(gradient) * size(&direction) / (gradient.len() as f64).sqrt();
                let error = (dot(gradient, &direction) - difference).abs() / scale;
                // f32 has 6e-8 of a number, and a gradient passes some hundred sums.
                assert!(error < 5e-5, "{name}, {what}: {error:e}");
            };
            let x = wide(&x.matrix);
            compare("residual", &dx.data, &|step, direction| {
                let mut x = x.clone();
                x.data.iter_mut().zip(direction).for_each(|(x, &d)| *x += step * f64::from(d));
                run(x, None)
            });
            let seen = products.iter().map(|(weight, expert, _)| (weight.clone(), *expert));
            assert_eq!(seen.collect::<BTreeSet<_>>(), expected, "{name}");
            for (weight, expert, dy) in &products {
                compare(&format!("{weight} {expert:?}"), dy, &|step, direction| {
                    let push = direction.iter().map(|&d| step * f64::from(d)).collect();
                    run(x.clone(), Some((weight.clone(), *expert, push)))
                });
            }
        }
    }

    #[test]
    fn the_head_gives_the_gradient_of_drawn_labels() {
        for name in ["llama", "qwen2", "gemma4-e2b"] {
            let model = model(name, Isa::detect());
            let hidden = Arc::new(Matrix {
                width: model.spec().hidden_size,
                data: numbers(9 * model.spec().hidden_size, 5),
            });
            let dx = head(&model, &hidden, 77, &mut |_, _, _| ());
            let probabilities = |hidden: &Wide| {
                let mut p = model.graph().logits(&mut WideOps::default(), hidden);
                p.data.chunks_exact_mut(model.vocab_size()).for_each(crate::fixed::wide_softmax);
                p
            };
            let base = probabilities(&wide(&hidden));
            let rows = base.rows().enumerate();
            let narrow = |p: &[f64]| p.iter().map(|&p| p as f32).collect::<Vec<_>>();
            let labels: Vec<_> = rows.map(|(row, p)| draw(&narrow(p), uniform(77, row as u64))).collect();
            let direction = numbers(hidden.data.len(), 6);
            let loss = |step: f64| {
                let mut hidden = wide(&hidden);
                hidden.data.iter_mut().zip(&direction).for_each(|(x, &d)| *x += step * f64::from(d));
                probabilities(&hidden).rows().zip(&labels).map(|(p, &label)| -p[label].ln()).sum::<f64>()
            };
            let difference = (loss(1e-5) - loss(-1e-5)) / 2e-5;
            let error = (dot(&dx.data, &direction) - difference).abs();
            let scale = size(&dx.data) * size(&direction) / (direction.len() as f64).sqrt();
            assert!(error < 5e-5 * scale, "{name}: {error:e} of {scale:e}");
        }
    }

    /// What a norm divides is what is weighed: the flag is on exactly the products that a norm of all their outputs
    /// follows, and their gradients are seen behind it.
    #[test]
    fn products_before_a_norm_are_known() {
        for (name, per_layer) in
            [("llama", 0), ("qwen2", 0), ("gemma3", 2), ("gemma4-e2b", 3), ("gemma4-moe", 2)]
        {
            let model = model(name, Isa::detect());
            let tokens = tokens(&model, 12);
            let turns = turns(&model, tokens.len());
            let (mut marked, mut followed) = (0, 0);
            for layer in 0..model.graph().layers() {
                let mut ops = Fixed::new(Isa::detect(), &turns);
                let start = model.graph().start(&mut ops, &tokens);
                ops.tape = Some(Default::default());
                model.graph().layer(&mut ops, layer, start.x, start.per_layer.as_ref());
                let tape = ops.tape.take().unwrap();
                (marked, followed) = (marked + tape.normed(), followed + tape.normed_and_followed());
            }
            assert_eq!(marked, per_layer * model.graph().layers(), "{name}");
            assert_eq!(marked, followed, "{name}");
        }
    }

    /// A token ten times as large is the same to a norm, so it must be the same to what is measured before one.
    #[test]
    fn tokens_weigh_alike_before_a_norm() {
        for name in ["gemma3", "gemma4-e2b", "gemma4-moe"] {
            let model = model(name, Isa::detect());
            let mut normed: Vec<(Linear, Matrix)> = Vec::new();
            let mut pass = CalibrationPass::new(&model, vec![tokens(&model, 12)]).unwrap();
            let mut keep = |seen: Observation<'_>| {
                if let ([weight], Some(_)) = (seen.weights, seen.sizes) {
                    normed.push(((*weight).clone(), seen.weighed().into_owned()));
                }
            };
            while pass.next_layer(&mut keep).unwrap() {}
            assert!(!normed.is_empty(), "{name}");
            for (weight, input) in normed {
                // Every second token `factor` times as large.
                let run = |factor: f32| {
                    let mut seen = Matrix::default();
                    let mut observe = |observed: Observation<'_>| seen = observed.weighed().into_owned();
                    let mut ops = Fixed::new(Isa::detect(), &[]);
                    ops.tape = Some(Default::default());
                    ops.observer = Some(&mut observe);
                    let mut x = input.clone();
                    for row in x.data.chunks_exact_mut(input.width).step_by(2) {
                        row.iter_mut().for_each(|x| *x *= factor);
                    }
                    let x = ops.leaf(x);
                    let [y] = ops.linear(&x, [&weight]);
                    let width = y.matrix.width;
                    let norm = Norm { name: None, weight: None, width, eps: weight.normed.unwrap() };
                    let z = ops.rms_norm(&y, &norm);
                    let mut gradients = Gradients::default();
                    gradients.add(z.id, Matrix { width, data: numbers(z.matrix.data.len(), 4) });
                    let mut gradient = Matrix::default();
                    ops.backward(&mut gradients, &mut |_, _, dy| gradient = dy.clone());
                    drop(ops);
                    (seen.data, gradient.data)
                };
                let (once, ten) = (run(1.0), run(10.0));
                let difference = |a: &[f32], b: &[f32]| {
                    let apart: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
                    (dot(&apart, &apart) / dot(a, a)).sqrt()
                };
                let (inputs, gradients) = (difference(&once.0, &ten.0), difference(&once.1, &ten.1));
                assert!(inputs < 0.01 && gradients < 0.01, "{name} {}: {inputs} {gradients}", weight.name());
            }
        }
    }

    #[test]
    fn labels_follow_their_probabilities() {
        let p = [0.1f32, 0.0, 0.6, 0.3];
        let mut counts = [0usize; 4];
        (0..20_000).for_each(|i| counts[draw(&p, uniform(1, i))] += 1);
        for (count, p) in counts.iter().zip(p) {
            let (mean, spread) = (20_000.0 * p, (20_000.0 * p * (1.0 - p)).sqrt());
            assert!((*count as f32 - mean).abs() <= 4.0 * spread, "{counts:?}");
        }
    }
}
