//! Sequences through a model layer by layer: the inputs of every product.

use crate::ModelError;
use crate::fixed::{Fixed, Observation, Observer, Replaced};
use crate::layerwise::{SharedMatrices, turns};
use crate::matrix::Matrix;
use crate::model::Model;
use crate::spill::Spill;
use gq_checkpoint::ModelSpec;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::sync::Arc;

/// Sequences that pass through a model layer by layer.
///
/// Memory is the residual stream of all sequences, unless it is spilled to a file, and one layer's work for one
/// sequence. All arithmetic is fixed:
/// the same observations on every CPU and thread count.
#[derive(Debug)]
pub struct CalibrationPass<'m> {
    model: &'m Model,
    pub(super) sequences: Vec<Sequence>,
    spill: Option<Spill>,
    next: usize,
}

#[derive(Debug)]
pub(super) struct Sequence {
    tokens: Vec<u32>,
    pub(super) x: Arc<Matrix>,
    /// Keys and values of layers that later layers read.
    pub(super) shared: SharedMatrices,
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
