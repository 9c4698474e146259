//! Wrong readings of the architecture, applied to this graph: parity with the reference notices every one.
//!
//! A term is dropped or misread in the specification, in the loaded graph or in an operator; the logits of some tiny
//! checkpoint that has the term must then miss the reference by many times what the parity test tolerates.

use super::Layer;
use crate::arithmetic::Routes;
use crate::blocks::{Experts, KeysValues, ParallelExperts};
use crate::cache::{KvCache, KvType};
use crate::cpu::{ActivationMode, Batch, Sums};
use crate::family::{Graph, Layers};
use crate::linear::{Bytes, Linear};
use crate::matrix::Matrix;
use crate::ops::{Attention, Norm, Ops, Router};
use crate::source::Source;
use gq_checkpoint::{
    Activation, AttentionSpec, Checkpoint, ModelSpec, MoeSpec, PerLayerEmbedding, RouterSpec,
};
use gq_tensor::Isa;
use safetensors::SafeTensors;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const VARIANTS: [&str; 5] = ["gemma4-e2b", "gemma4-e4b", "gemma4-moe", "gemma4-dense", "gemma4-vision"];
/// What the parity test tolerates, in the reference's own f32 error.
const TOLERANCE: f64 = 3.0;
/// How many times that a mutation must move the logits.
const NOTICED: f64 = 30.0;

/// Execution with a slip in it.
struct Slipping<'a> {
    batch: Batch<'a>,
    slip: Slip,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Slip {
    None,
    /// Where there is no value projection, values are the keys as they are cached.
    ValueIsKey,
}

/// Makes a norm an identity, by a mark that [`Slipping`] knows.
fn absent(norm: &mut Norm) {
    norm.eps = f32::INFINITY;
}

impl Ops for Slipping<'_> {
    type Value = Matrix;
    type Routes = Routes;

    fn embed(&mut self, table: &Linear, tokens: &[u32]) -> Matrix {
        self.batch.embed(table, tokens)
    }

    fn linear<const N: usize>(&mut self, x: &Matrix, weights: [&Linear; N]) -> [Matrix; N] {
        self.batch.linear(x, weights)
    }

    fn rms_norm(&mut self, x: &Matrix, norm: &Norm) -> Matrix {
        match norm.eps.is_infinite() {
            true => x.clone(),
            false => self.batch.rms_norm(x, norm),
        }
    }

    fn rope(&mut self, x: Matrix, rope: usize) -> Matrix {
        self.batch.rope(x, rope)
    }

    fn attention(
        &mut self,
        q: Matrix,
        new: Option<(Matrix, Matrix)>,
        cache: usize,
        layer: &Attention,
    ) -> Matrix {
        let new = match (self.slip, new) {
            (Slip::ValueIsKey, Some((key, _))) if layer.spec.k_eq_v => Some((key.clone(), key)),
            (_, new) => new,
        };
        self.batch.attention(q, new, cache, layer)
    }

    fn gated(&mut self, activation: Activation, gate: Matrix, up: &Matrix) -> Matrix {
        self.batch.gated(activation, gate, up)
    }

    fn route(&mut self, scores: &Matrix, router: &Router) -> Routes {
        self.batch.route(scores, router)
    }

    fn grouped_linear(&mut self, x: &Matrix, routes: &Routes, weight: &Linear) -> Matrix {
        self.batch.grouped_linear(x, routes, weight)
    }

    fn combine(&mut self, x: Matrix, routes: &Routes) -> Matrix {
        self.batch.combine(x, routes)
    }

    fn add(&mut self, x: Matrix, y: &Matrix) -> Matrix {
        self.batch.add(x, y)
    }

    fn scale(&mut self, x: Matrix, factor: f32) -> Matrix {
        self.batch.scale(x, factor)
    }

    fn softcap(&mut self, x: Matrix, cap: f32) -> Matrix {
        self.batch.softcap(x, cap)
    }

    fn rows(&mut self, x: Matrix, rows: Range<usize>) -> Matrix {
        self.batch.rows(x, rows)
    }

    fn columns(&mut self, x: &Matrix, columns: Range<usize>) -> Matrix {
        self.batch.columns(x, columns)
    }
}

/// How a mutation is made. Each function says whether the model has the term.
enum Change {
    Spec(fn(&mut ModelSpec) -> bool),
    Graph(fn(&mut Graph) -> bool),
    Operator(Slip, fn(&ModelSpec) -> bool),
}

use Change::{Graph as InGraph, Operator, Spec};

const MUTATIONS: &[(&str, Change)] = &[
    // Norms.
    ("norm gain off by one", InGraph(|g| each(g, |l| weight(&mut l.around_attention.before, |w| w + 1.0)))),
    ("norm epsilon 1e-6", Spec(|s| replace(&mut s.norm_eps, 1e-6))),
    ("no input norm", InGraph(|g| each(g, |l| absent(&mut l.around_attention.before)))),
    ("no post-attention norm", InGraph(|g| each(g, |l| absent(after(&mut l.around_attention))))),
    ("no pre-feedforward norm", InGraph(|g| each(g, |l| absent(&mut l.around_mlp.before)))),
    ("no post-feedforward norm", InGraph(|g| each(g, |l| absent(after(&mut l.around_mlp))))),
    ("no query norm", InGraph(|g| each(g, |l| absent(there(&mut l.attention.query_norm))))),
    ("no key norm", InGraph(|g| key_value(g, |l| absent(there(&mut l.key_norm))))),
    ("value not normed", InGraph(|g| key_value(g, |l| absent(there(&mut l.value_norm))))),
    ("no final norm", InGraph(|g| in_each([&mut g.ends.norm], absent))),
    // Values from keys.
    ("K=V: value not normed", InGraph(|g| shared_values(g, |l| absent(there(&mut l.value_norm))))),
    ("K=V: value is the normed key", InGraph(|g| shared_values(g, |l| l.value_norm = l.key_norm.clone()))),
    ("K=V: value is the cached key", Operator(Slip::ValueIsKey, |s| any(s, |a| a.k_eq_v))),
    // Rotary embeddings.
    ("RoPE theta doubled", Spec(|s| frequencies(s, theta_doubled))),
    ("sliding layers turn like full ones", Spec(one_rope)),
    ("RoPE denominator is the rotated dimensions", Spec(|s| frequencies(s, over_turning))),
    ("RoPE turns all dimensions", Spec(|s| frequencies(s, all_turning))),
    // Attention.
    (
        "attention scaled by 1/sqrt(head_dim)",
        Spec(|s| attention(s, |a| a.scale = (a.head_dim as f32).powf(-0.5))),
    ),
    ("window one shorter", Spec(|s| attention(s, |a| a.window = a.window.map(|w| w - 1)))),
    ("window one longer", Spec(|s| attention(s, |a| a.window = a.window.map(|w| w + 1)))),
    ("no window", Spec(|s| attention(s, |a| a.window = None))),
    ("shared cache of another layer", Spec(another_cache)),
    // Around the layers.
    ("no embedding scale", Spec(|s| s.embed_scale.take().is_some())),
    ("no final softcap", Spec(|s| s.final_softcap.take().is_some())),
    ("no layer_scalar", Spec(|s| in_each(&mut s.layers, |l| l.layer_scalar = false))),
    ("no layer_scalar on the last layer", Spec(|s| in_each(s.layers.last_mut(), |l| l.layer_scalar = false))),
    ("SiLU for GELU", Spec(silu)),
    // Per-layer embeddings.
    ("no PLE", InGraph(|g| each(g, |l| l.per_layer = None) && g.per_layer.take().is_some())),
    ("PLE: no token table", Spec(|s| ple(s, |p| p.table_scale = 0.0))),
    ("PLE: table not scaled", Spec(|s| ple(s, |p| p.table_scale = 1.0))),
    ("PLE: no context projection", InGraph(|g| context(g, |norm| weight(norm, |_| 0.0)))),
    ("PLE: context not normed", InGraph(|g| context(g, absent))),
    ("PLE: sum not scaled", Spec(|s| ple(s, |p| p.sum_scale = 1.0))),
    ("PLE: no post norm", InGraph(no_per_layer_norm)),
    ("PLE: vectors of the next layer", InGraph(next_columns)),
    // Experts.
    ("MoE: router without hidden^-1/2", Spec(|s| moe(s, |m| m.input_scale = None))),
    ("MoE: one expert fewer", Spec(|s| moe(s, |m| m.router.top_k -= 1))),
    ("MoE: no router scale", InGraph(|g| moes(g, |l| l.before_router.weight = None))),
    ("MoE: router input not normed", InGraph(|g| moes(g, |l| absent(&mut l.before_router)))),
    ("MoE: no per_expert_scale", InGraph(|g| moes(g, |l| l.experts.choice.scales = None))),
    ("MoE: weights not renormalized", Spec(|s| routers(s, |r| r.renormalize = false))),
    ("MoE: sigmoid for softmax", Spec(|s| routers(s, |r| r.scoring = gq_checkpoint::Scoring::Sigmoid))),
    ("MoE: experts' sum scaled", Spec(|s| routers(s, |r| r.scale = 2.5))),
    ("MoE: gate and up swapped", InGraph(|g| moes(g, |l| swap_halves(&mut l.experts)))),
    ("MoE: experts read the MLP's norm", InGraph(experts_read_mlp_norm)),
    ("MoE: no norm after the MLP", InGraph(|g| moes(g, |l| absent(&mut l.after_dense)))),
    ("MoE: no norm after the experts", InGraph(|g| moes(g, |l| absent(&mut l.after)))),
    ("MoE: no experts", InGraph(|g| moes(g, |_| {}) && each(g, |l| l.moe = None))),
];

/// Changes all parts there are; whether there are some.
fn in_each<'a, T: 'a>(parts: impl IntoIterator<Item = &'a mut T>, change: impl Fn(&mut T)) -> bool {
    parts.into_iter().map(change).count() > 0
}

fn replace(value: &mut f32, with: f32) -> bool {
    std::mem::replace(value, with) != with
}

fn weight(norm: &mut Norm, change: impl Fn(f32) -> f32) {
    norm.weight.iter_mut().flatten().for_each(|w| *w = change(*w));
}

fn layers(graph: &mut Graph) -> std::slice::IterMut<'_, Layer> {
    let Layers::Gemma4(layers) = &mut graph.layers else { panic!("another family") };
    layers.iter_mut()
}

fn each(graph: &mut Graph, change: impl Fn(&mut Layer)) -> bool {
    in_each(layers(graph), change)
}

fn there<T>(part: &mut Option<T>) -> &mut T {
    part.as_mut().unwrap()
}

fn after(residual: &mut crate::blocks::Residual) -> &mut Norm {
    there(&mut residual.after)
}

/// In dense MLPs, experts and where a layer takes in its vector.
fn silu(spec: &mut ModelSpec) -> bool {
    ple(spec, |ple| ple.activation = Activation::SILU);
    moe(spec, |moe| moe.activation = Activation::SILU);
    in_each(spec.layers.iter_mut().filter_map(|l| l.mlp.as_mut()), |mlp| mlp.activation = Activation::SILU)
}

fn key_value(graph: &mut Graph, change: impl Fn(&mut KeysValues)) -> bool {
    in_each(layers(graph).filter_map(|layer| layer.attention.keys_values.as_mut()), change)
}

/// Layers whose values are the key projection's output.
fn shared_values(graph: &mut Graph, change: impl Fn(&mut KeysValues)) -> bool {
    let parts = layers(graph).filter_map(|layer| layer.attention.keys_values.as_mut());
    in_each(parts.filter(|part| part.value.is_none()), change)
}

fn moes(graph: &mut Graph, change: impl Fn(&mut ParallelExperts)) -> bool {
    in_each(layers(graph).filter_map(|layer| layer.moe.as_mut()), change)
}

fn experts_read_mlp_norm(graph: &mut Graph) -> bool {
    let layers = layers(graph).filter_map(|layer| Some((layer.moe.as_mut()?, &layer.around_mlp.before)));
    layers.map(|(moe, norm)| moe.before = norm.clone()).count() > 0
}

/// Up rows first, then gate rows, of every expert.
fn swap_halves(experts: &mut Experts) {
    let Bytes::Mapped(weights, tensor) = &experts.gate_up.bytes else { panic!("weights in memory") };
    let mut bytes = weights.bytes(tensor).to_vec();
    let half = experts.width * tensor.row_bytes();
    bytes.chunks_exact_mut(2 * half).for_each(|expert| expert.rotate_left(half));
    experts.gate_up.bytes = Bytes::Owned(bytes.into());
}

fn context(graph: &mut Graph, change: impl Fn(&mut Norm)) -> bool {
    in_each(graph.per_layer.as_mut().map(|inputs| &mut inputs.norm), change)
}

fn no_per_layer_norm(graph: &mut Graph) -> bool {
    let parts = layers(graph).filter_map(|layer| layer.per_layer.as_mut());
    in_each(parts, |part| absent(&mut part.norm))
}

fn next_columns(graph: &mut Graph) -> bool {
    let mut parts: Vec<_> = layers(graph).filter_map(|layer| layer.per_layer.as_mut()).collect();
    let columns: Vec<_> = parts.iter().map(|part| part.columns.clone()).collect();
    let next = columns.iter().cycle().skip(1);
    parts.iter_mut().zip(next).for_each(|(part, next)| part.columns = next.clone());
    !columns.is_empty()
}

fn any(spec: &ModelSpec, term: impl Fn(&AttentionSpec) -> bool) -> bool {
    spec.layers.iter().any(|layer| term(&layer.attention))
}

fn attention(spec: &mut ModelSpec, change: impl Fn(&mut AttentionSpec)) -> bool {
    in_each(spec.layers.iter_mut().map(|layer| &mut layer.attention), change)
}

fn ple(spec: &mut ModelSpec, change: impl Fn(&mut PerLayerEmbedding)) -> bool {
    in_each(&mut spec.per_layer_embedding, change)
}

fn moe(spec: &mut ModelSpec, change: impl Fn(&mut MoeSpec)) -> bool {
    in_each(spec.layers.iter_mut().filter_map(|layer| layer.moe.as_mut()), change)
}

fn routers(spec: &mut ModelSpec, change: impl Fn(&mut RouterSpec)) -> bool {
    moe(spec, |moe| change(&mut moe.router))
}

/// A pair of dimensions of one kind of head.
struct Pair {
    theta: f64,
    index: f64,
    /// Pairs of the head.
    pairs: f64,
    /// Those that turn.
    turning: f64,
    frequency: f32,
}

/// Every frequency of the rotary embeddings changed.
fn frequencies(spec: &mut ModelSpec, change: fn(Pair) -> f32) -> bool {
    for rope in &mut spec.ropes {
        let turning = rope.inv_freq.iter().filter(|f| **f > 0.0).count() as f64;
        let (theta, pairs) = (rope.theta, rope.inv_freq.len() as f64);
        for (index, frequency) in rope.inv_freq.iter_mut().enumerate() {
            *frequency = change(Pair { theta, index: index as f64, pairs, turning, frequency: *frequency });
        }
    }
    true
}

fn theta_doubled(pair: Pair) -> f32 {
    (f64::from(pair.frequency) * 2f64.powf(-pair.index / pair.pairs)) as f32
}

fn over_turning(pair: Pair) -> f32 {
    if pair.frequency > 0.0 { pair.theta.powf(-pair.index / pair.turning) as f32 } else { 0.0 }
}

fn all_turning(pair: Pair) -> f32 {
    pair.theta.powf(-pair.index / pair.pairs) as f32
}

fn one_rope(spec: &mut ModelSpec) -> bool {
    let full = spec.ropes.iter().find(|rope| rope.inv_freq.contains(&0.0)).unwrap().inv_freq.clone();
    for rope in spec.ropes.iter_mut().filter(|rope| !rope.inv_freq.contains(&0.0)) {
        rope.inv_freq.iter_mut().zip(&full).for_each(|(f, full)| *f = *full);
    }
    true
}

/// The first layer of a kind instead of the last.
fn another_cache(spec: &mut ModelSpec) -> bool {
    let owners: Vec<_> = spec.layers.iter().map(|layer| layer.attention.clone()).collect();
    let first = |kind: &AttentionSpec| {
        owners.iter().position(|a| a.kv_shared_with.is_none() && a.window == kind.window).unwrap()
    };
    let mut moved = false;
    for attention in spec.layers.iter_mut().map(|layer| &mut layer.attention) {
        if let Some(owner) = attention.kv_shared_with {
            let first = first(attention);
            moved |= first != owner;
            attention.kv_shared_with = Some(first);
        }
    }
    moved
}

/// A checkpoint with the logits of its reference.
struct Case {
    checkpoint: Arc<Checkpoint>,
    rows: Vec<Vec<u32>>,
    logits: Vec<f64>,
    /// What the reference's f32 differs from its f64.
    floor: f64,
}

impl Case {
    fn read(name: &str) -> Case {
        let dir: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny").join(name);
        let bytes = std::fs::read(dir.join("reference.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let words = |name: &str| {
            let data = tensors.tensor(name).unwrap().data().to_vec();
            data.as_chunks::<8>().0.to_vec()
        };
        let ids: Vec<u32> =
            words("input_ids").into_iter().map(|word| i64::from_le_bytes(word) as u32).collect();
        let tokens = tensors.tensor("input_ids").unwrap().shape()[1];
        let facts = std::fs::read_to_string(dir.join("reference.json")).unwrap();
        let facts: serde_json::Value = serde_json::from_str(&facts).unwrap();
        Case {
            checkpoint: Arc::new(Checkpoint::open(&dir).unwrap()),
            rows: ids.chunks(tokens).map(<[u32]>::to_vec).collect(),
            logits: words("logits").into_iter().map(f64::from_le_bytes).collect(),
            floor: facts["floor_max_abs"].as_f64().unwrap(),
        }
    }

    /// Largest error of the logits under a change; `None`: the model has no such term.
    fn error(&self, change: Option<&Change>) -> Option<f64> {
        let mut spec = self.checkpoint.spec().clone();
        let (mut slip, mut applies) = (Slip::None, true);
        match change {
            Some(Spec(change)) => applies = change(&mut spec),
            Some(Operator(operator, has)) => (slip, applies) = (*operator, has(&spec)),
            _ => {}
        }
        let mut source = Source::checkpoint_as(self.checkpoint.clone(), &spec).unwrap();
        let mut graph = Graph::load(&spec, &mut source).unwrap();
        if let Some(InGraph(change)) = change {
            applies = change(&mut graph);
        }
        applies.then(|| self.largest_error(&spec, &graph, slip))
    }

    fn largest_error(&self, spec: &ModelSpec, graph: &Graph, slip: Slip) -> f64 {
        let mut actual = Vec::new();
        for tokens in &self.rows {
            let mut cache = KvCache::new(spec, tokens.len(), KvType::F32);
            let sums = Sums::Fastest(ActivationMode::F32);
            let batch = Batch::new(Isa::detect(), sums, &spec.ropes, vec![(tokens.len(), &mut cache)]);
            let mut ops = Slipping { batch, slip };
            let hidden = graph.hidden(&mut ops, tokens);
            actual.extend(graph.logits(&mut ops, &hidden).data);
        }
        assert_eq!(actual.len(), self.logits.len());
        let errors = actual.iter().zip(&self.logits).map(|(a, e)| (f64::from(*a) - e).abs());
        errors.fold(0.0, |max, error| if error.is_nan() { f64::INFINITY } else { error.max(max) })
    }
}

#[test]
fn parity_notices_every_mutation() {
    let mut seen = vec![0; MUTATIONS.len()];
    for name in VARIANTS {
        let case = Case::read(name);
        let tolerance = TOLERANCE * case.floor;
        let plain = case.error(None).unwrap();
        assert!(plain <= tolerance, "{name} without a mutation: {plain:e} > {tolerance:e}");
        let mut least = (f64::INFINITY, "");
        for ((mutation, change), seen) in MUTATIONS.iter().zip(&mut seen) {
            let Some(error) = case.error(Some(change)) else { continue };
            assert!(
                error >= NOTICED * tolerance,
                "{name}, {mutation}: logits move by {error:e}, less than {NOTICED} x {tolerance:e}"
            );
            *seen += 1;
            if error < least.0 {
                least = (error, mutation);
            }
        }
        eprintln!(
            "{name}: plain {plain:.1e}, tolerance {tolerance:.1e}, least noticed {:.1e} ({})",
            least.0, least.1
        );
    }
    for ((mutation, _), seen) in MUTATIONS.iter().zip(seen) {
        assert!(seen > 0, "no checkpoint has the term of {mutation:?}");
    }
}
