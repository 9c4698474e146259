//! Memory of a measurement, from the model's specification and the text's size alone.

use super::collected::ExpertMoments;
use super::error::CalibrateError;
use super::held_out::HELD_OUT;
use crate::residual_token_bytes;
use gq_checkpoint::{LayerSpec, ModelSpec};
use gq_tensor::Encoding;

/// Program, headers, decoded tiles.
const BASE: u64 = 48 << 20;

/// A thread's stack, decoded tiles and packed operands.
const THREAD: u64 = 3 << 20;

/// Bytes that reading a tokenizer takes for each entry of the vocabulary: 640 to 1600 were measured.
const VOCABULARY_ENTRY: u64 = 1600;

/// Queries or positions of which logits, scores and their gradients are held.
const ROWS: u64 = 64;

/// Positions of which a trial's logits are held.
const HEAD_ROWS: u64 = 128;

/// Bytes of factors of inputs that rounding for a trial holds at most, over the square of the widest input: two that are
/// kept, and one in the making.
pub const FACTORS_AT_WORK: u64 = 28;

/// Groups of a role's layers, by depth: a few where gradients tell tensors apart, more where trials alone do.
pub(super) const fn depths(gradients: bool) -> usize {
    if gradients { 3 } else { 10 }
}

/// What measuring takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeasuringMemory {
    /// Most bytes of anonymous memory; the mapped checkpoint is not counted.
    pub peak: u64,
    /// Bytes of hidden states in a file next to the measurements; 0: they are held in memory.
    pub spilled: u64,
    /// Bytes of the moments that stay on the disk.
    pub saved: u64,
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
    /// Tokens that trials are made on; 0: none are.
    pub trial_tokens: usize,
    /// Threads.
    pub threads: usize,
    /// Bytes that the source takes by itself: [`gq_checkpoint::Checkpoint::held_bytes`].
    pub held: u64,
}

impl MeasuringMemory {
    /// Of measuring and of the trials that follow, whichever takes more.
    ///
    /// Hidden states are spilled when they would not fit under `limit`.
    ///
    /// # Errors
    /// [`CalibrateError::Memory`] when one layer's moments and one sequence do not fit either.
    pub fn new(
        spec: &ModelSpec,
        size: MeasuringSize,
        experts: ExpertMoments,
        limit: Option<u64>,
    ) -> Result<MeasuringMemory, CalibrateError> {
        let (threads, ctx) = (size.threads.max(1) as u64, size.ctx as u64);
        let base = BASE + VOCABULARY_ENTRY * spec.vocab_size as u64 + threads * THREAD + size.held;
        let sequence = ctx * residual_token_bytes(spec);
        let tokens = 4 * ctx * size.sequences as u64;
        let work = spec.layers.iter().map(|layer| work(spec, layer, ctx, threads)).max().unwrap_or(0);
        let moments = spec.layers.iter().map(|layer| moments(spec, layer, experts)).max().unwrap_or(0);
        let measuring = work + moments.max(32 * square(spec.hidden_size));
        let gradients = if size.gradients { gradients(spec, ctx, work) } else { 0 };
        let states = sequence * size.sequences as u64;
        let peak = |held: u64| base + 2 * tokens + (measuring + held).max(gradients);
        let measuring = MeasuringMemory {
            saved: saved(spec, experts),
            ..MeasuringMemory::under(limit, peak(states), peak(3 * sequence), states)?
        };
        if size.trial_tokens == 0 {
            return Ok(measuring);
        }
        let trials = MeasuringMemory::trials(spec, size, limit)?;
        Ok(MeasuringMemory {
            peak: measuring.peak.max(trials.peak),
            spilled: measuring.spilled.max(trials.spilled),
            ..measuring
        })
    }

    /// Of the trials alone.
    pub(super) fn trials(
        spec: &ModelSpec,
        size: MeasuringSize,
        limit: Option<u64>,
    ) -> Result<MeasuringMemory, CalibrateError> {
        let (threads, ctx) = (size.threads.max(1) as u64, size.ctx as u64);
        // Whole sequences of those held out, whatever was asked for.
        let held_out = size.sequences.div_ceil(HELD_OUT).max(1) as u64;
        let tokens = (size.trial_tokens as u64).min(held_out * ctx).max(ctx);
        let text = 4 * (ctx * size.sequences as u64 + tokens);
        let base = BASE + VOCABULARY_ENTRY * spec.vocab_size as u64 + threads * THREAD + text + size.held;
        let work = spec.layers.iter().map(|layer| work(spec, layer, ctx, threads)).max().unwrap_or(0);
        // Codes of three bits and a scale, of a layer and of what precedes the layers, and those of a layer's largest
        // tensor once more while they are made: two thirds of all where experts' gate and up are one.
        let codes = spec.layers.iter().map(|layer| weights(spec, layer)).max().unwrap_or(0) * 3 / 4;
        let tables = (spec.vocab_size * spec.hidden_size) as u64 * if spec.tied_head { 1 } else { 2 } / 2;
        let per_layer = spec.per_layer_embedding.map_or(0, |ple| {
            let all = (ple.width * spec.layers.len()) as u64;
            all * spec.hidden_size as u64 / 2 + 4 * tokens * all
        });
        let rows = 4 * tokens * spec.hidden_size as u64;
        let widest = spec.layers.iter().map(|layer| widest(spec, layer)).max().unwrap_or(0) as u64;
        let coding = FACTORS_AT_WORK * widest * widest + threads * 64 * 4 * widest + (32 << 20);
        // Logits of the original and of a trial, a copy on the way, and a row for each thread.
        let logits = 4 * (4 * HEAD_ROWS + 2 * threads) * spec.vocab_size as u64;
        let sequence = ctx * residual_token_bytes(spec);
        let states = trials(spec, size.gradients) * tokens * residual_token_bytes(spec);
        let peak =
            |held: u64| base + codes + tables + per_layer + rows + (coding.max(2 * work).max(logits)) + held;
        let least = peak((trials(spec, size.gradients) + 2) * sequence);
        MeasuringMemory::under(limit, peak(states + 2 * sequence), least, states)
    }

    /// In memory where the `whole` fits, else in the `least` bytes with `states` in a file.
    fn under(
        limit: Option<u64>,
        whole: u64,
        least: u64,
        states: u64,
    ) -> Result<MeasuringMemory, CalibrateError> {
        match limit {
            Some(limit) if whole.min(least) > limit => {
                Err(CalibrateError::Memory { limit, actual: whole.min(least) })
            }
            Some(limit) if whole > limit => Ok(MeasuringMemory { peak: least, spilled: states, saved: 0 }),
            _ => Ok(MeasuringMemory { peak: whole, spilled: 0, saved: 0 }),
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
    /// [`CalibrateError::Memory`] when one product's moments and one sequence do not fit either.
    pub fn rounding_again(
        spec: &ModelSpec,
        size: MeasuringSize,
        limit: Option<u64>,
    ) -> Result<MeasuringMemory, CalibrateError> {
        let (threads, ctx) = (size.threads.max(1) as u64, size.ctx as u64);
        let base = BASE + 2 * VOCABULARY_ENTRY * spec.vocab_size as u64 + threads * THREAD + size.held;
        let sequence = ctx * residual_token_bytes(spec);
        let states = 2 * sequence * size.sequences as u64;
        let tokens = 4 * ctx * size.sequences as u64;
        let work = spec.layers.iter().map(|layer| work(spec, layer, ctx, threads)).max().unwrap_or(0);
        let widest =
            |layer: &LayerSpec| spec.hidden_size.max(layer.attention.q_width()).max(layer.dense_width());
        let n = spec.layers.iter().map(widest).max().unwrap_or(0);
        // Six sums; six squares, two of them transposed for a moment; the elimination in f64 or a factor's inverse and
        // product; a factor and the correction. Then blocks of rows, a tensor's payload, and those of the layer.
        let rows = threads * ROWS_AGAIN * n as u64 * 4 * 10;
        let codes = spec.layers.iter().map(|layer| codes(spec, layer)).max().unwrap_or(0);
        let rounding = 96 * square(n) + rows + 2 * codes;
        let compared = 12 * ctx * 4 * spec.hidden_size as u64 + work + 3 * 4 * 128 * spec.vocab_size as u64;
        let peak = |held: u64| base + 2 * tokens + (2 * work + rounding + held).max(compared);
        MeasuringMemory::under(limit, peak(states), peak(6 * sequence), states)
    }
}

impl MeasuringMemory {
    /// What comparing a finished file with its source on sequences of `ctx` tokens takes; the source takes `held` bytes
    /// by itself.
    ///
    /// # Errors
    /// [`CalibrateError::Memory`] when that is above `limit`.
    pub fn comparing(
        spec: &ModelSpec,
        ctx: usize,
        threads: usize,
        held: u64,
        limit: Option<u64>,
    ) -> Result<MeasuringMemory, CalibrateError> {
        let (threads, ctx) = (threads.max(1) as u64, ctx as u64);
        let base = BASE + 2 * VOCABULARY_ENTRY * spec.vocab_size as u64 + threads * THREAD + held;
        let work = spec.layers.iter().map(|layer| work(spec, layer, ctx, threads)).max().unwrap_or(0);
        let logits = 3 * 4 * HEAD_ROWS * spec.vocab_size as u64;
        let peak = base + 3 * ctx * residual_token_bytes(spec) + work + logits;
        MeasuringMemory::under(limit, peak, peak, 0)
    }
}

/// Bytes of a layer's coded matrices, experts aside, at the most that any encoding takes.
fn codes(spec: &ModelSpec, layer: &LayerSpec) -> u64 {
    let attention = &layer.attention;
    let width = 2 * attention.q_width() + 2 * attention.kv_width() + 3 * layer.dense_width();
    let per_layer = spec.per_layer_embedding.map_or(0, |ple| 2 * ple.width);
    2 * spec.hidden_size as u64 * (width + per_layer) as u64
}

/// States that trials keep of every token, at most: of every group, of everything together twice, and the original's.
fn trials(spec: &ModelSpec, gradients: bool) -> u64 {
    // Projections of attention and MLP; per-layer gates and projections; experts.
    let roles = 7
        + if spec.per_layer_embedding.is_some() { 2 } else { 0 }
        + if spec.layers.iter().any(|layer| layer.moe.is_some()) { 2 } else { 0 };
    // Embedding, head, per-layer table and projection.
    (roles * depths(gradients) + 4 + 3) as u64
}

/// Weights of a layer's products.
fn weights(spec: &ModelSpec, layer: &LayerSpec) -> u64 {
    let attention = &layer.attention;
    let experts = layer.moe.map_or(0, |moe| 3 * moe.experts * moe.width);
    let per_layer = spec.per_layer_embedding.map_or(0, |ple| 2 * ple.width);
    let rows =
        2 * attention.q_width() + 2 * attention.kv_width() + 3 * layer.dense_width() + experts + per_layer;
    rows as u64 * spec.hidden_size as u64
}

/// The widest input of a layer's products.
fn widest(spec: &ModelSpec, layer: &LayerSpec) -> usize {
    let experts = layer.moe.map_or(0, |moe| moe.width);
    spec.hidden_size.max(layer.attention.q_width()).max(layer.dense_width()).max(experts)
}

fn square(n: usize) -> u64 {
    n as u64 * n as u64
}

/// Moments of a layer's inputs, measured and held out, in f32, and what choosing a damping takes at the widest.
fn moments(spec: &ModelSpec, layer: &LayerSpec, experts: ExpertMoments) -> u64 {
    // What precedes the layers is collected with the first; the mean of the experts is there while it is joined.
    let hidden = spec.hidden_size;
    let means = layer.moe.map(|moe| [hidden, moe.width]).into_iter().flatten();
    let all = inputs(spec, layer, experts).into_iter().map(|(count, n)| count * square(n));
    let all = all.chain([square(hidden)]).chain(means.map(square)).sum::<u64>();
    // Two triangles, two squares, and the elimination in f64 with U.
    8 * all + 24 * square(widest(spec, layer))
}

/// Moments of all inputs on the disk: two triangles in f32 for each.
fn saved(spec: &ModelSpec, experts: ExpertMoments) -> u64 {
    let inputs = spec.layers.iter().flat_map(|layer| inputs(spec, layer, experts));
    // The head's, and a per-layer projection's.
    let others = [(if spec.per_layer_embedding.is_some() { 2 } else { 1 }, spec.hidden_size)];
    inputs.chain(others).map(|(count, n)| count * 4 * n as u64 * (n as u64 + 1)).sum()
}

/// Distinct inputs of a layer's products, how many of each width: of q, k and v; of the output; of gate and up; of down;
/// of a per-layer gate and its projection; of experts.
fn inputs(spec: &ModelSpec, layer: &LayerSpec, experts: ExpertMoments) -> Vec<(u64, usize)> {
    let mut inputs = vec![(2, spec.hidden_size), (1, layer.attention.q_width()), (1, layer.mlp_width())];
    if let Some(ple) = spec.per_layer_embedding {
        inputs.extend([(1, spec.hidden_size), (1, ple.width)]);
    }
    if let Some(moe) = layer.moe {
        let gates = match experts {
            ExpertMoments::Own => moe.experts as u64,
            ExpertMoments::Layer => 1,
        };
        inputs.extend([(gates, spec.hidden_size), (moe.experts as u64, moe.width)]);
        inputs.extend(moe.shared_width.into_iter().flat_map(|width| [(1, spec.hidden_size), (1, width)]));
    }
    inputs
}

/// Activations of one sequence in one layer, and the scores of each thread.
fn work(spec: &ModelSpec, layer: &LayerSpec, ctx: u64, threads: u64) -> u64 {
    let attention = &layer.attention;
    let experts =
        layer.moe.map_or(0, |moe| 4 * moe.width * moe.router.top_k + 2 * spec.hidden_size * moe.router.top_k);
    let attention = 3 * attention.q_width() + 4 * attention.kv_width();
    let per_layer = spec.per_layer_embedding.map_or(0, |ple| 3 * ple.width * spec.layers.len());
    let token = 8 * spec.hidden_size + attention + 4 * layer.dense_width() + experts + per_layer;
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
            + 2 * layer.dense_width()
            + experts
    });
    let sums = 8 * (rows.sum::<usize>() + spec.vocab_size) as u64;
    streams + 4 * ctx * own + sums + 3 * work + 5 * 4 * ROWS * spec.vocab_size as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 26B-A4B: 30 layers of 128 experts, width 2816 and 704; by hand, in bytes.
    #[test]
    fn moments_of_experts_are_promised() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/configs");
        let config = std::fs::read_to_string(path.join("gemma4-26b-a4b.json")).unwrap();
        let spec = gq_checkpoint::parse_config(&config).unwrap();
        let gates = 2816 * 2816;
        let layer = &spec.layers[0];
        let [own, shared] =
            [ExpertMoments::Own, ExpertMoments::Layer].map(|which| moments(&spec, layer, which));
        assert_eq!(own - shared, 8 * 127 * gates);
        // Queries, gates and what precedes the layers; experts' gates and their mean; experts' downs and theirs.
        let (attention, dense) = (square(layer.attention.q_width()), square(layer.dense_width()));
        let all = 3 * gates + attention + dense + 129 * gates + 129 * 704 * 704;
        assert_eq!(own, 8 * all + 24 * attention.max(gates));
        let [own, shared] = [ExpertMoments::Own, ExpertMoments::Layer].map(|which| saved(&spec, which));
        assert_eq!(own - shared, 30 * 127 * 4 * 2816 * 2817);
    }
}
