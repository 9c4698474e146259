//! Memory of a GPU that a model takes: known from its specification and encodings, before anything is brought there.

use super::arena::GRAIN;
use crate::cache::{DeviceShape, KvType};
use gq_checkpoint::{AttentionSpec, ModelSpec, Part, RouterSpec, Scoring};
use gq_cuda::{CacheRows, Kept, PlaneCode, RotationTables, ScaleForm, TrellisCode, attention_chunk, layout};
use gq_tensor::{DType, Encoding, MatrixShape, RotationKind, Storage};
use std::collections::{BTreeMap, BTreeSet};

/// Tokens that pass through the layers together.
pub(crate) const BATCH: usize = 256;

/// Rows of logits that are made together.
pub(crate) const LOGIT_ROWS: usize = 8;

/// Bytes of partial sums of attention; queries are taken in turns where all would take more.
pub(super) const PARTIAL: u64 = 16 << 20;

/// What a driver takes for kernels and allocations, in addition to the context that is there already.
const DRIVER: u64 = 48 << 20;

/// Bytes of a GPU's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DevicePlan {
    /// Tokens that there is room for.
    pub context: usize,
    /// Matrices and vectors.
    pub weights: u64,
    /// Keys and values of one sequence.
    pub cache: u64,
    /// What is computed on the way, with what the driver takes for kernels.
    pub scratch: u64,
}

impl DevicePlan {
    /// For a model whose weights take so many bytes.
    pub fn new(spec: &ModelSpec, weights: u64, context: usize, kv: KvType) -> DevicePlan {
        let scratch = scratch_bytes(spec, context) + input_bytes(spec) + DRIVER;
        DevicePlan { context, weights, cache: cache_bytes(spec, context, kv), scratch }
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights + self.cache + self.scratch
    }
}

/// How a matrix is brought to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Planes(PlaneCode, ScaleForm),
    Trellis(TrellisCode),
    Exact(DType),
    /// As f32 in the basis it had before it was rotated: there are no kernels for its codes.
    Decoded,
}

impl Form {
    /// `precise`: activations stay f32.
    pub(super) fn of(storage: Storage, cols: usize, precise: bool) -> Form {
        let rotated = match storage.rotation.kind {
            RotationKind::None => true,
            RotationKind::Hadamard => RotationTables::has_kernels(cols),
            RotationKind::Haar => false,
        };
        let plain = storage.rotation.kind == RotationKind::None;
        match (storage.encoding, PlaneCode::of(storage.encoding), TrellisCode::of(storage.encoding)) {
            (Encoding::Exact(dtype @ (DType::F32 | DType::F16 | DType::BF16)), ..) if plain => {
                Form::Exact(dtype)
            }
            (_, Some((code, form)), _) if rotated && !precise => Form::Planes(code, form),
            (_, _, Some(code)) if rotated && !precise => Form::Trellis(code),
            _ => Form::Decoded,
        }
    }
}

fn grains(bytes: u64) -> u64 {
    bytes.next_multiple_of(GRAIN)
}

/// Bytes of a matrix on a device, biases aside. `precise`: a router, which stays f32.
pub(super) fn weight_bytes(storage: Storage, shape: MatrixShape, precise: bool) -> u64 {
    let rows = shape.rows as u64;
    match Form::of(storage, shape.cols, precise) {
        Form::Planes(code, form) => {
            let codes = rows * (shape.cols / 8) as u64 * u64::from(code.bits());
            grains(codes) + grains(rows * form.row_bytes(shape.cols) as u64)
        }
        Form::Trellis(code) => {
            let codes = layout::trellis_bytes(code.bits, shape.rows_each(), shape.cols, shape.matrices);
            grains(codes as u64) + grains(2 * rows)
        }
        Form::Exact(dtype) => grains(rows * (shape.cols * dtype.size()) as u64),
        Form::Decoded => grains(4 * rows * shape.cols as u64),
    }
}

/// Whether the kernel chooses experts by this rule.
pub(super) fn chooses(spec: &RouterSpec, scaled: bool, experts: usize) -> bool {
    spec.scoring == Scoring::Softmax
        && spec.renormalize
        && spec.groups.is_none()
        && !spec.selection_bias
        && (!scaled || spec.scale == 1.0)
        && experts <= 512
        && spec.top_k <= experts.min(32)
}

/// What a model whose tensors are stored so takes on a GPU: names, shapes and storages, as a plan or a container lists
/// them. Tensors that are not of the language model, and tables of which every token takes a row, stay on the host.
pub fn planned<'a>(
    spec: &ModelSpec,
    tensors: impl IntoIterator<Item = (&'a str, &'a [u64], Storage)>,
    context: usize,
    kv: KvType,
) -> DevicePlan {
    let name = |part: Part, layer: Option<usize>| Some(spec.tensor(part, layer)?.name);
    let mut wanted: BTreeSet<String> =
        spec.expected_tensors().into_iter().map(|tensor| tensor.name).collect();
    let table = if spec.tied_head { None } else { name(Part::Embedding, None) };
    for table in [table, name(Part::PerLayerTable, None)].into_iter().flatten() {
        wanted.remove(&table);
    }
    // What operators of the host add or multiply by, and factors that kernels are given as numbers.
    let mut factors = BTreeMap::new();
    for (index, layer) in spec.layers.iter().enumerate() {
        let at = Some(index);
        let scale = name(Part::ExpertScale, at);
        let by_kernel = layer.moe.filter(|moe| chooses(&moe.router, scale.is_some(), moe.experts));
        if let (Some(moe), None) = (by_kernel, &scale) {
            factors.insert((moe.experts, moe.router.scale.to_bits()), grains(4 * moe.experts as u64));
        }
        let host = [
            Part::SelectionBias,
            Part::ExpertGateUpBias,
            Part::ExpertDownBias,
            Part::LayerScalar,
            Part::RotaryFrequencies,
        ];
        let host = host.map(|part| name(part, at));
        for part in host.into_iter().flatten().chain(scale.filter(|_| by_kernel.is_none())) {
            wanted.remove(&part);
        }
    }
    let routers: BTreeSet<String> =
        (0..spec.layers.len()).filter_map(|layer| name(Part::Router, Some(layer))).collect();
    let (mut weights, mut rotations) = (factors.into_values().sum::<u64>(), BTreeMap::new());
    for (name, shape, storage) in tensors {
        if !wanted.contains(name) {
            continue;
        }
        let elements: u64 = shape.iter().product();
        let Some(matrix) = MatrixShape::of_tensor(shape).filter(|_| shape.len() > 1) else {
            weights += grains(4 * elements);
            continue;
        };
        let precise = routers.contains(name);
        weights += weight_bytes(storage, matrix, precise);
        if let Some(key) = rotation_of(storage, matrix.cols, precise) {
            rotations.entry(key).or_insert_with(|| {
                RotationTables::new(key.0, key.1).map_or(0, |tables| rotation_bytes(&tables))
            });
        }
    }
    DevicePlan::new(spec, weights + rotations.values().sum::<u64>(), context, kv)
}

/// A rotation of one seed and width.
pub(super) type RotationKey = (u64, usize);

/// What activations are rotated by on a device before they meet such weights.
pub(super) fn rotation_of(storage: Storage, cols: usize, precise: bool) -> Option<RotationKey> {
    let coded = matches!(Form::of(storage, cols, precise), Form::Planes(..) | Form::Trellis(_));
    (coded && storage.rotation.kind != RotationKind::None).then_some((storage.rotation.seed, cols))
}

/// Bytes of what undoes a rotation of rows of `cols` elements.
pub(super) fn rotation_bytes(tables: &RotationTables) -> u64 {
    tables.bytes().iter().map(|bytes| grains(bytes.len() as u64)).sum()
}

/// Bytes of keys and values of one sequence of `tokens` tokens. Layers with a window keep a batch more than it.
fn cache_bytes(spec: &ModelSpec, tokens: usize, kind: KvType) -> u64 {
    let own = spec.layers.iter().filter(|layer| layer.attention.kv_shared_with.is_none());
    own.map(|layer| layer_bytes(DeviceShape::new(&layer.attention, tokens, BATCH), kept_as(kind))).sum()
}

/// How kernels keep keys and values of a kind.
pub(super) fn kept_as(kind: KvType) -> Kept {
    match kind {
        KvType::F32 => Kept::F32,
        KvType::F16 => Kept::F16,
        KvType::Q8 => Kept::Q8,
    }
}

/// Bytes of a layer's keys and values.
pub(super) fn layer_bytes(shape: DeviceShape, kept: Kept) -> u64 {
    let (rows, scales) = CacheRows::bytes(kept, shape.heads, shape.slots, shape.dim);
    2 * (grains(rows) + grains(scales))
}

/// Tokens of queries whose partial sums fit, and bytes of a token's.
pub(super) fn queries(attention: &AttentionSpec, longest: usize) -> (usize, u64) {
    let splits = longest.div_ceil(attention_chunk(longest)) as u64;
    let each = 4 * attention.heads as u64 * splits * (attention.head_dim as u64 + 2);
    (((PARTIAL / each.max(1)) as usize).max(1), each)
}

/// Positions that a query may see at most.
pub(super) fn longest(attention: &AttentionSpec, tokens: usize) -> usize {
    attention.window.map_or(tokens, |window| window.min(tokens)).max(1)
}

/// Bytes of what a batch computes at the widest layer.
pub(super) fn scratch_bytes(spec: &ModelSpec, context: usize) -> u64 {
    let tokens = context.clamp(1, BATCH);
    let all = |width: usize| tokens as u64 * width as u64;
    // Few tokens of a trellis code come in parts: up to 16, while those of a matrix are at most 128 strips of 256 rows.
    let product = |rows: usize| {
        let few = tokens.min(8) as u64 * (16 * rows as u64).min(rows.max(128 * 256) as u64);
        all(rows).max(few)
    };
    // Int8 and a scale per 32 elements, in units of f32.
    let rounded = |width: usize| {
        let between = if RotationTables::is_wide(width) { all(width) } else { 0 };
        all(width) * 9 / 32 + GRAIN + between
    };
    let layers = spec.layers.iter().map(|layer| {
        let attention = &layer.attention;
        let (q, kv) = (attention.q_width(), attention.kv_width());
        let (turn, each) = queries(attention, longest(attention, context));
        let gates = if attention.output_gate { 2 * all(q) } else { 0 };
        let attending = product(q)
            + 2 * product(kv)
            + 3 * all(q)
            + gates
            + rounded(q.max(spec.hidden_size))
            + each * turn.min(tokens) as u64 / 4;
        let width = layer.dense_width();
        // Few tokens' parts are added up side by side.
        let side_by_side = 2 * (tokens.min(8) * width) as u64;
        let dense = 2 * product(width) + side_by_side + all(width) + rounded(width.max(spec.hidden_size));
        let experts = layer.moe.map_or(0, |moe| {
            let top = moe.router.top_k;
            let slots = |width: usize| (all(width) * top as u64).max(128 * 256);
            2 * slots(2 * moe.width)
                + slots(moe.width)
                + 2 * slots(spec.hidden_size)
                + rounded(top * moe.width.max(spec.hidden_size))
                + all(moe.experts + 2 * top)
        });
        attending.max(dense).max(experts)
    });
    let layers = layers.max().unwrap_or(0);
    // Vectors of all layers: as they are made, and while a layer computes.
    let (making, kept) = spec.per_layer_embedding.map_or((0, 0), |ple| {
        let vectors = ple.width * spec.layers.len();
        (4 * product(vectors), all(vectors) + 4 * product(ple.width))
    });
    let logits =
        2 * (tokens.min(LOGIT_ROWS) as u64 * spec.vocab_size as u64).max(product(spec.vocab_size.min(2048)));
    let stream = 4 * product(spec.hidden_size);
    // A quarter more: what comes back between blocks that are in use serves only what is as small.
    grains(5 * (stream + making.max(kept + layers).max(logits))) + 128 * GRAIN
}

/// Bytes of what every batch brings: rows of tables, positions, angles.
pub(super) fn input_bytes(spec: &ModelSpec) -> u64 {
    let vectors = spec.per_layer_embedding.map_or(0, |ple| ple.width * spec.layers.len());
    let angles: usize = spec.ropes.iter().map(|rope| rope.head_dim).sum();
    4 * BATCH as u64 * (1 + spec.hidden_size + vectors + angles) as u64 + 16 * GRAIN
}
