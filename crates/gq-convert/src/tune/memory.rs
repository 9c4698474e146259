//! Memory of a measurement, from the model's specification and the text's size alone.

use super::measure::TuneError;
use gq_checkpoint::{LayerSpec, ModelSpec};
use gq_model::residual_token_bytes;
use gq_tensor::Encoding;

/// Program, headers, decoded tiles.
const BASE: u64 = 48 << 20;

/// A thread's stack, decoded tiles and packed operands.
const THREAD: u64 = 3 << 20;

/// Bytes that reading a tokenizer takes for each entry of the vocabulary: 640 to 1600 were measured.
const VOCABULARY_ENTRY: u64 = 1600;

/// Queries or positions of which logits, scores and their gradients are held.
const ROWS: u64 = 64;

/// What measuring takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeasuringMemory {
    /// Most bytes of anonymous memory; the mapped checkpoint is not counted.
    pub peak: u64,
    /// Bytes of hidden states in a file beside the measurements; 0: they are held in memory.
    pub spilled: u64,
}

/// The text to measure on, and the threads to do it with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeasuringSize {
    /// Sequences.
    pub sequences: usize,
    /// Tokens of the longest.
    pub ctx: usize,
    /// Whether gradients are measured.
    pub gradients: bool,
    /// Threads.
    pub threads: usize,
}

impl MeasuringMemory {
    /// Hidden states are spilled when they would not fit under `limit`.
    ///
    /// # Errors
    /// [`TuneError::Memory`] when one layer's moments and one sequence do not fit either.
    pub fn new(
        spec: &ModelSpec,
        size: MeasuringSize,
        limit: Option<u64>,
    ) -> Result<MeasuringMemory, TuneError> {
        let (threads, ctx) = (size.threads.max(1) as u64, size.ctx as u64);
        let base = BASE + VOCABULARY_ENTRY * spec.vocab_size as u64 + threads * THREAD;
        let sequence = ctx * residual_token_bytes(spec);
        let tokens = 4 * ctx * size.sequences as u64;
        let work = spec.layers.iter().map(|layer| work(spec, layer, ctx, threads)).max().unwrap_or(0);
        let moments = spec.layers.iter().map(|layer| moments(spec, layer)).max().unwrap_or(0);
        let measuring = work + moments.max(32 * square(spec.hidden_size));
        let gradients = if size.gradients { gradients(spec, ctx, work) } else { 0 };
        let states = sequence * size.sequences as u64;
        let peak = |held: u64| base + 2 * tokens + (measuring + held).max(gradients);
        let (whole, least) = (peak(states), peak(3 * sequence));
        match limit {
            Some(limit) if whole.min(least) > limit => {
                Err(TuneError::Memory { limit, actual: whole.min(least) })
            }
            Some(limit) if whole > limit => Ok(MeasuringMemory { peak: least, spilled: states }),
            _ => Ok(MeasuringMemory { peak: whole, spilled: 0 }),
        }
    }
}

/// Rows of a tensor that a thread rounds again at once.
const ROWS_AGAIN: u64 = Encoding::STRIP_ROWS as u64;

impl MeasuringMemory {
    /// What rounding a finished file again takes: two residual streams, one product's inputs in both models, and what
    /// is made of its moments. States are spilled when they would not fit under `limit`; new codes always are.
    ///
    /// # Errors
    /// [`TuneError::Memory`] when one product's moments and one sequence do not fit either.
    pub fn rounding_again(
        spec: &ModelSpec,
        size: MeasuringSize,
        limit: Option<u64>,
    ) -> Result<MeasuringMemory, TuneError> {
        let (threads, ctx) = (size.threads.max(1) as u64, size.ctx as u64);
        let base = BASE + 2 * VOCABULARY_ENTRY * spec.vocab_size as u64 + threads * THREAD;
        let sequence = ctx * residual_token_bytes(spec);
        let states = 2 * sequence * size.sequences as u64;
        let tokens = 4 * ctx * size.sequences as u64;
        let work = spec.layers.iter().map(|layer| work(spec, layer, ctx, threads)).max().unwrap_or(0);
        let widest = |layer: &LayerSpec| spec.hidden_size.max(layer.attention.q_width()).max(layer.mlp.width);
        let n = spec.layers.iter().map(widest).max().unwrap_or(0);
        // Six sums; six squares, two of them transposed for a moment; the elimination in f64 or a factor's inverse and
        // product; a factor and the correction. Then blocks of rows, a tensor's payload, and those of the layer.
        let rows = threads * ROWS_AGAIN * n as u64 * 4 * 10;
        let codes = spec.layers.iter().map(|layer| codes(spec, layer)).max().unwrap_or(0);
        let rounding = 96 * square(n) + rows + 2 * codes;
        let compared = 12 * ctx * 4 * spec.hidden_size as u64 + work + 3 * 4 * 128 * spec.vocab_size as u64;
        let peak = |held: u64| base + 2 * tokens + (2 * work + rounding + held).max(compared);
        let (whole, least) = (peak(states), peak(6 * sequence));
        match limit {
            Some(limit) if whole.min(least) > limit => {
                Err(TuneError::Memory { limit, actual: whole.min(least) })
            }
            Some(limit) if whole > limit => Ok(MeasuringMemory { peak: least, spilled: states }),
            _ => Ok(MeasuringMemory { peak: whole, spilled: 0 }),
        }
    }
}

/// Bytes of a layer's coded matrices, experts aside, at the most that any encoding takes.
fn codes(spec: &ModelSpec, layer: &LayerSpec) -> u64 {
    let attention = &layer.attention;
    let width = 2 * attention.q_width() + 2 * attention.kv_width() + 3 * layer.mlp.width;
    let per_layer = spec.per_layer_embedding.map_or(0, |ple| 2 * ple.width);
    2 * spec.hidden_size as u64 * (width + per_layer) as u64
}

fn square(n: usize) -> u64 {
    n as u64 * n as u64
}

/// Moments of a layer's inputs, measured and held out, in f32, and what choosing a damping takes at the widest.
fn moments(spec: &ModelSpec, layer: &LayerSpec) -> u64 {
    let (hidden, attention) = (square(spec.hidden_size), &layer.attention);
    let experts = layer.moe.map_or(0, |moe| (moe.experts as u64 + 1) * square(moe.width) + hidden);
    let per_layer = spec.per_layer_embedding.map_or(0, |ple| hidden + square(ple.width));
    // Inputs of q, k and v; of the output; of gate and up; of down; and, at the first, of what precedes the layers.
    let all = 3 * hidden + square(attention.q_width()) + square(layer.mlp.width) + experts + per_layer;
    let widths =
        [spec.hidden_size, attention.q_width(), layer.mlp.width, layer.moe.map_or(0, |moe| moe.width)];
    // Two triangles, two squares, a transposed copy, and the elimination in f64 or a factor's inverse and product.
    8 * all + 28 * square(widths.into_iter().max().unwrap_or(0))
}

/// Activations of one sequence in one layer, and the scores of each thread.
fn work(spec: &ModelSpec, layer: &LayerSpec, ctx: u64, threads: u64) -> u64 {
    let attention = &layer.attention;
    let experts = layer.moe.map_or(0, |moe| 4 * moe.width * moe.top_k + 2 * spec.hidden_size * moe.top_k);
    let attention = 3 * attention.q_width() + 4 * attention.kv_width();
    let per_layer = spec.per_layer_embedding.map_or(0, |ple| 3 * ple.width * spec.layers.len());
    let token = 8 * spec.hidden_size + attention + 4 * layer.mlp.width + experts + per_layer;
    4 * ctx * token as u64 + threads * 3 * 4 * ROWS * ctx
}

/// The residual stream of one sequence at every layer, a layer's tape and gradients, and a few rows of logits.
fn gradients(spec: &ModelSpec, ctx: u64, work: u64) -> u64 {
    let streams = ctx * 4 * (spec.hidden_size * (spec.layers.len() + 2)) as u64;
    let own = spec.layers.iter().map(|layer| 2 * layer.attention.kv_width()).sum::<usize>() as u64;
    let rows = spec.layers.iter().map(|layer| {
        let experts = layer.moe.map_or(0, |moe| moe.experts * (2 * moe.width + spec.hidden_size));
        layer.attention.q_width()
            + 2 * layer.attention.kv_width()
            + 3 * spec.hidden_size
            + 2 * layer.mlp.width
            + experts
    });
    let sums = 8 * (rows.sum::<usize>() + spec.vocab_size) as u64;
    streams + 4 * ctx * own + sums + 3 * work + 5 * 4 * ROWS * spec.vocab_size as u64
}
