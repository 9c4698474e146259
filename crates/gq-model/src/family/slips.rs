//! Wrong readings of an architecture, applied to this graph: parity with the reference notices every one.
//!
//! A term is dropped or misread in the specification, in the loaded graph or in an operator; the logits of some tiny
//! checkpoint that has the term must then miss the reference by many times what the parity test tolerates. Each family's
//! mutations stand next to its graph.

use crate::arithmetic::Routes;
use crate::blocks::Experts;
use crate::cache::{KvCache, KvType};
use crate::cpu::{ActivationMode, Batch, Sums};
use crate::family::Graph;
use crate::linear::{Bytes, Linear};
use crate::matrix::Matrix;
use crate::ops::{Attention, Norm, Ops, Router};
use crate::weight_source::Source;
use gq_checkpoint::{Activation, AttentionSpec, Checkpoint, ModelSpec, MoeSpec, RouterSpec};
use gq_tensor::Isa;
use safetensors::SafeTensors;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the parity test tolerates, in the reference's own f32 error.
const TOLERANCE: f64 = 3.0;
/// How many times that a mutation must move the logits.
const NOTICED: f64 = 30.0;

/// Execution with a slip in it.
struct Slipping<'a> {
    batch: Batch<'a>,
    slip: Slip,
    /// A norm that comes later.
    late: Option<Norm>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Slip {
    None,
    /// Where there is no value projection, values are the keys as they are cached.
    ValueIsKey,
    /// Queries and keys turn first and are normed then.
    NormsAfterRope,
}

/// Makes a norm an identity, by a mark that [`Slipping`] knows.
pub(super) fn absent(norm: &mut Norm) {
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
        let of_heads = self.slip == Slip::NormsAfterRope && x.width != norm.width;
        if of_heads {
            self.late = Some(norm.clone());
        }
        match of_heads || norm.eps.is_infinite() {
            true => x.clone(),
            false => self.batch.rms_norm(x, norm),
        }
    }

    fn rope(&mut self, x: Matrix, rope: usize) -> Matrix {
        let x = self.batch.rope(x, rope);
        match self.late.take() {
            Some(norm) => self.batch.rms_norm(&x, &norm),
            None => x,
        }
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
pub(super) enum Change {
    Spec(fn(&mut ModelSpec) -> bool),
    Graph(fn(&mut Graph) -> bool),
    Operator(Slip, fn(&ModelSpec) -> bool),
}

use Change::{Graph as InGraph, Operator, Spec};

/// Changes all parts there are; whether there are some.
pub(super) fn in_each<'a, T: 'a>(
    parts: impl IntoIterator<Item = &'a mut T>,
    change: impl Fn(&mut T),
) -> bool {
    parts.into_iter().map(change).count() > 0
}

pub(super) fn replace(value: &mut f32, with: f32) -> bool {
    std::mem::replace(value, with) != with
}

pub(super) fn weight(norm: &mut Norm, change: impl Fn(f32) -> f32) {
    norm.weight.iter_mut().flatten().for_each(|w| *w = change(*w));
}

pub(super) fn there<T>(part: &mut Option<T>) -> &mut T {
    part.as_mut().unwrap()
}

/// Up rows first, then gate rows, of every expert.
pub(super) fn swap_halves(experts: &mut Experts) {
    let half = experts.width;
    reordered(&mut experts.gate_up, |rows| {
        rows.chunks_exact_mut(2 * half).for_each(|expert| expert.rotate_left(half));
    });
}

/// The same rows in another order.
pub(super) fn reordered(weight: &mut Linear, change: impl Fn(&mut [&[u8]])) {
    let rows = weight.shape.rows;
    let bytes = match &weight.bytes {
        Bytes::Mapped(weights, tensor) | Bytes::Stacked(weights, tensor) => {
            weights.pieces_of_rows(tensor, 0..rows).concat()
        }
        // Decoded when it was loaded.
        Bytes::Owned(bytes) => bytes.to_vec(),
        _ => panic!("weights elsewhere"),
    };
    let mut rows: Vec<&[u8]> = bytes.chunks_exact(bytes.len() / rows).collect();
    change(&mut rows);
    weight.bytes = Bytes::Owned(rows.concat().into());
}

pub(super) fn attention(spec: &mut ModelSpec, change: impl Fn(&mut AttentionSpec)) -> bool {
    in_each(spec.layers.iter_mut().map(|layer| &mut layer.attention), change)
}

pub(super) fn moe(spec: &mut ModelSpec, change: impl Fn(&mut MoeSpec)) -> bool {
    in_each(spec.layers.iter_mut().filter_map(|layer| layer.moe.as_mut()), change)
}

pub(super) fn routers(spec: &mut ModelSpec, change: impl Fn(&mut RouterSpec)) -> bool {
    moe(spec, |moe| change(&mut moe.router))
}

/// A pair of dimensions of one kind of head.
pub(super) struct Pair {
    pub(super) theta: f64,
    pub(super) index: f64,
    /// Pairs of the head.
    pub(super) pairs: f64,
    /// Those that turn.
    pub(super) turning: f64,
    pub(super) frequency: f32,
}

/// Every frequency of the rotary embeddings changed.
pub(super) fn frequencies(spec: &mut ModelSpec, change: fn(Pair) -> f32) -> bool {
    for rope in &mut spec.ropes {
        let turning = rope.inv_freq.iter().filter(|f| **f > 0.0).count() as f64;
        let (theta, pairs) = (rope.theta, rope.inv_freq.len() as f64);
        for (index, frequency) in rope.inv_freq.iter_mut().enumerate() {
            *frequency = change(Pair { theta, index: index as f64, pairs, turning, frequency: *frequency });
        }
    }
    true
}

pub(super) fn theta_doubled(pair: Pair) -> f32 {
    (f64::from(pair.frequency) * 2f64.powf(-pair.index / pair.pairs)) as f32
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
            let mut ops = Slipping { batch, slip, late: None };
            let hidden = graph.hidden(&mut ops, tokens);
            actual.extend(graph.logits(&mut ops, &hidden).data);
        }
        assert_eq!(actual.len(), self.logits.len());
        let errors = actual.iter().zip(&self.logits).map(|(a, e)| (f64::from(*a) - e).abs());
        errors.fold(0.0, |max, error| if error.is_nan() { f64::INFINITY } else { error.max(max) })
    }
}

/// Runs every mutation on every checkpoint that has its term.
pub(super) fn notices(variants: &[&str], mutations: &[(&str, Change)]) {
    let mut seen = vec![0; mutations.len()];
    for &name in variants {
        let case = Case::read(name);
        let tolerance = TOLERANCE * case.floor;
        let plain = case.error(None).unwrap();
        assert!(plain <= tolerance, "{name} without a mutation: {plain:e} > {tolerance:e}");
        let mut least = (f64::INFINITY, "");
        for ((mutation, change), seen) in mutations.iter().zip(&mut seen) {
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
    for ((mutation, _), seen) in mutations.iter().zip(seen) {
        assert!(seen > 0, "no checkpoint has the term of {mutation:?}");
    }
}
