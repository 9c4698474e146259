//! Keys and values of the tokens seen.

use crate::finite::all_finite;
use gq_checkpoint::{AttentionSpec, ModelSpec};
use half::f16;
use half::slice::HalfFloatSliceExt;
use std::ops::Range;
use std::sync::Arc;

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvType {
    /// As they are computed.
    #[default]
    F32,
    /// Rounded to half precision: half the memory.
    F16,
    /// Rounded to int8 with a half-precision scale per 32 elements of a head: a little over a quarter.
    Q8,
}

/// Elements of a head's key or value that share a scale under [`KvType::Q8`].
pub(crate) const KV_GROUP: usize = 32;

/// Keys and values of one sequence, per layer: a ring of the window's length where the layer has a window, nothing
/// where it reads another layer's.
#[derive(Debug)]
pub struct KvCache {
    max_tokens: usize,
    len: usize,
    kind: KvType,
    layers: Vec<Option<LayerCache>>,
    /// Keys and values that its tokens need were written over by a batch that failed.
    spoilt: bool,
    /// Of a cache whose keys and values are on a device, which frees them when nobody holds this any more.
    token: Option<Arc<Token>>,
}

/// Stands for a cache on a device.
#[derive(Debug)]
pub(crate) struct Token;

/// One layer's keys or values on a device, `[heads, slots, dim]`; position p is in slot `p % slots`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceShape {
    pub(crate) heads: usize,
    pub(crate) slots: usize,
    pub(crate) dim: usize,
}

impl DeviceShape {
    /// For `tokens` tokens that come up to `batch` at a time: with a window, all keys of a batch are there before its first
    /// query looks.
    pub(crate) fn new(spec: &AttentionSpec, tokens: usize, batch: usize) -> DeviceShape {
        let slots = match spec.window.filter(|window| *window < tokens) {
            Some(window) => window + batch.min(tokens) - 1,
            None => tokens,
        };
        DeviceShape { heads: spec.kv_heads, slots: slots.max(1), dim: spec.head_dim }
    }

    /// Bytes of keys and values.
    pub(crate) fn bytes(&self, kind: KvType) -> u64 {
        let row = match kind {
            KvType::F32 => 4 * self.dim,
            KvType::F16 => 2 * self.dim,
            KvType::Q8 => self.dim + 2 * self.dim.div_ceil(KV_GROUP),
        };
        2 * (self.heads * self.slots) as u64 * row as u64
    }
}

/// One layer's keys and values; position p is in slot `p % slots`.
#[derive(Clone, Debug)]
pub(crate) struct LayerCache {
    heads: usize,
    head_dim: usize,
    slots: usize,
    /// `[heads, slots, head_dim]` each.
    keys: Store,
    values: Store,
    /// Keys and values that a long batch needs at once, when they do not fit the ring: positions `start..` of
    /// every head. Kept until the batch has passed all layers, since later layers may read them.
    batch: Option<Batch>,
}

#[derive(Clone, Debug)]
struct Batch {
    start: usize,
    len: usize,
    /// `[heads, len, head_dim]` each.
    keys: Vec<f32>,
    values: Vec<f32>,
}

#[derive(Clone, Debug)]
enum Store {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Q8(Int8Rows),
    /// So many bytes on a device.
    Elsewhere(usize),
}

/// Rows of `dim` elements: `x = code * scale`, `[rows, dim]` and `[rows, groups]`.
#[derive(Clone, Debug)]
struct Int8Rows {
    dim: usize,
    codes: Vec<i8>,
    scales: Vec<f16>,
}

impl Int8Rows {
    fn write(&mut self, row: usize, x: &[f32]) {
        let (dim, groups) = (self.dim, self.dim.div_ceil(KV_GROUP));
        let scales = self.scales.iter_mut().skip(row * groups);
        let codes = self.codes[row * dim..(row + 1) * dim].chunks_mut(KV_GROUP);
        for ((x, codes), scale) in x.chunks(KV_GROUP).zip(codes).zip(scales) {
            let largest = x.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
            *scale = f16::from_f32((largest / 127.0).min(f16::MAX.to_f32()));
            if !all_finite(x) {
                // Codes would be zeros, and what was no number would be one.
                *scale = f16::NAN;
            }
            let inverse = if *scale > f16::ZERO { 1.0 / scale.to_f32() } else { 0.0 };
            for (code, x) in codes.iter_mut().zip(x) {
                *code = (x * inverse).round().clamp(-127.0, 127.0) as i8;
            }
        }
    }

    /// Rows from `row` on, as many as `out` holds.
    fn read(&self, row: usize, out: &mut [f32]) {
        let groups = self.dim.div_ceil(KV_GROUP);
        let codes = self.codes[row * self.dim..].chunks_exact(self.dim.max(1));
        let scales = self.scales[row * groups..].chunks_exact(groups.max(1));
        for ((out, codes), scales) in out.chunks_exact_mut(self.dim.max(1)).zip(codes).zip(scales) {
            for ((out, codes), scale) in out.chunks_mut(KV_GROUP).zip(codes.chunks(KV_GROUP)).zip(scales) {
                let scale = scale.to_f32();
                out.iter_mut().zip(codes).for_each(|(x, &code)| *x = f32::from(code) * scale);
            }
        }
    }
}

/// Keys and values of one head: row i of both `[len, head_dim]` belongs to position `first + i`, unless the rows are
/// a ring in any order, all of which the one query may see.
#[derive(Debug)]
pub(crate) struct HeadRows<'a> {
    pub(crate) keys: &'a [f32],
    pub(crate) values: &'a [f32],
    pub(crate) first: usize,
}

/// Buffers for keys and values that are not stored as f32.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeadScratch {
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl KvCache {
    /// An empty cache for up to `max_tokens` tokens. Memory is touched as tokens come.
    pub fn new(spec: &ModelSpec, max_tokens: usize, kind: KvType) -> KvCache {
        let layers = spec.layers.iter().map(|layer| {
            let attention = &layer.attention;
            attention.kv_shared_with.is_none().then(|| LayerCache::new(attention, max_tokens, kind))
        });
        KvCache { max_tokens, len: 0, kind, layers: layers.collect(), spoilt: false, token: None }
    }

    /// The same on a device, where tokens come up to `batch` at a time.
    pub fn on_device(spec: &ModelSpec, max_tokens: usize, kind: KvType, batch: usize) -> KvCache {
        let layers = spec.layers.iter().map(|layer| {
            let attention = &layer.attention;
            let shape = DeviceShape::new(attention, max_tokens, batch);
            attention.kv_shared_with.is_none().then(|| LayerCache::elsewhere(shape, kind))
        });
        let token = Some(Arc::new(Token));
        KvCache { max_tokens, len: 0, kind, layers: layers.collect(), spoilt: false, token }
    }

    /// What stands for it on a device, when it is there.
    pub(crate) fn token(&self) -> Option<&Arc<Token>> {
        self.token.as_ref()
    }

    /// How keys and values are stored.
    pub(crate) fn kind(&self) -> KvType {
        self.kind
    }

    /// What each layer has there.
    pub(crate) fn device_shapes(&self) -> impl Iterator<Item = Option<DeviceShape>> + '_ {
        self.layers.iter().map(|layer| {
            let layer = layer.as_ref()?;
            Some(DeviceShape { heads: layer.heads, slots: layer.slots, dim: layer.head_dim })
        })
    }

    /// Tokens in the cache; the position of the next one.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tokens that fit.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Bytes of keys and values, all layers.
    pub fn bytes(&self) -> usize {
        self.layers.iter().flatten().map(|layer| layer.keys.bytes() + layer.values.bytes()).sum()
    }

    /// Forgets all tokens; memory is kept.
    pub fn clear(&mut self) {
        (self.len, self.spoilt) = (0, false);
    }

    /// Whether keys and values of its tokens are lost.
    pub(crate) fn is_spoilt(&self) -> bool {
        self.spoilt
    }

    /// Goes back to its first `len` tokens after a batch on a device failed, which may have written keys and values of
    /// positions before `end`; batches are of up to `batch` tokens. Where a ring may have lost what the first tokens need,
    /// nothing more can be run until the cache is cleared.
    pub(crate) fn take_back(&mut self, len: usize, end: usize, batch: usize) {
        // A ring keeps a batch more than its window.
        let overwritten = self.layers.iter().flatten().any(|layer| end > layer.slots);
        self.spoilt = overwritten && end > len + batch && len > 0;
        self.len = len;
    }

    /// Forgets all but the first `len` tokens. Where a ring has overwritten what those would need, all are forgotten.
    /// Gives how many are left.
    pub fn truncate(&mut self, len: usize) -> usize {
        if len == 0 {
            self.clear();
        }
        let overwritten = self.layers.iter().flatten().any(|layer| self.len > layer.slots);
        if len < self.len {
            self.len = if overwritten { 0 } else { len };
        }
        self.len
    }

    /// Whether the cache was made for a model of this specification.
    pub(crate) fn fits(&self, spec: &ModelSpec) -> bool {
        let fits = |(cache, layer): (&Option<LayerCache>, &gq_checkpoint::LayerSpec)| {
            let (attention, cache) = (&layer.attention, cache.as_ref());
            let shape = cache.map(|cache| (cache.heads, cache.head_dim));
            shape == attention.kv_shared_with.is_none().then_some((attention.kv_heads, attention.head_dim))
        };
        self.layers.len() == spec.layers.len() && self.layers.iter().zip(&spec.layers).all(fits)
    }

    /// The cache of a layer that has its own.
    pub(crate) fn layer(&self, layer: usize) -> Option<&LayerCache> {
        self.layers.get(layer)?.as_ref()
    }

    pub(crate) fn layer_mut(&mut self, layer: usize) -> Option<&mut LayerCache> {
        self.layers.get_mut(layer)?.as_mut()
    }

    /// Ends a batch: its tokens have passed all layers.
    pub(crate) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
        for layer in self.layers.iter_mut().flatten() {
            layer.batch = None;
        }
    }
}

impl LayerCache {
    fn new(spec: &AttentionSpec, max_tokens: usize, kind: KvType) -> LayerCache {
        let (heads, head_dim) = (spec.kv_heads, spec.head_dim);
        let slots = spec.window.map_or(max_tokens, |window| window.min(max_tokens)).max(1);
        let store = || Store::new(kind, heads * slots, head_dim);
        LayerCache { heads, head_dim, slots, keys: store(), values: store(), batch: None }
    }

    fn elsewhere(shape: DeviceShape, kind: KvType) -> LayerCache {
        let DeviceShape { heads, slots, dim: head_dim } = shape;
        let store = || Store::Elsewhere((shape.bytes(kind) / 2) as usize);
        LayerCache { heads, head_dim, slots, keys: store(), values: store(), batch: None }
    }

    /// Adds keys and values `[tokens, heads * head_dim]` of positions `start..`.
    pub(crate) fn append(&mut self, start: usize, keys: &[f32], values: &[f32]) {
        let width = self.heads * self.head_dim;
        let tokens = keys.len() / width;
        if tokens > 1 && start + tokens > self.slots {
            self.batch = Some(self.linear(start, keys, values));
        }
        let kept = tokens.saturating_sub(self.slots)..tokens;
        for (token, head) in kept.flat_map(|token| (0..self.heads).map(move |head| (token, head))) {
            let source = token * width + head * self.head_dim;
            let source = source..source + self.head_dim;
            let slot = head * self.slots + (start + token) % self.slots;
            self.keys.write(slot * self.head_dim, keys.get(source.clone()).unwrap_or(&[]));
            self.values.write(slot * self.head_dim, values.get(source).unwrap_or(&[]));
        }
    }

    /// Old positions still in the ring, then the new ones, in order.
    fn linear(&self, start: usize, keys: &[f32], values: &[f32]) -> Batch {
        let (width, dim) = (self.heads * self.head_dim, self.head_dim);
        let old = start.min(self.slots);
        let first = start - old;
        let len = old + keys.len() / width;
        let mut batch = Batch {
            start: first,
            len,
            keys: vec![0.0; self.heads * len * dim],
            values: vec![0.0; self.heads * len * dim],
        };
        for head in 0..self.heads {
            for (store, new, out) in
                [(&self.keys, keys, &mut batch.keys), (&self.values, values, &mut batch.values)]
            {
                for (index, row) in out.chunks_exact_mut(dim).skip(head * len).take(len).enumerate() {
                    match index.checked_sub(old) {
                        None => store.read((head * self.slots + (first + index) % self.slots) * dim, row),
                        Some(token) => {
                            row.copy_from_slice(&new[token * width + head * dim..][..dim]);
                        }
                    }
                }
            }
        }
        batch
    }

    /// Keys and values of a head for queries at positions `queries`, all of which have been appended.
    pub(crate) fn head<'a>(
        &'a self,
        head: usize,
        queries: Range<usize>,
        scratch: &'a mut HeadScratch,
    ) -> HeadRows<'a> {
        let dim = self.head_dim;
        if let Some(batch) = &self.batch {
            let part = head * batch.len * dim..(head + 1) * batch.len * dim;
            let [keys, values] = [&batch.keys, &batch.values].map(|all| all.get(part.clone()).unwrap_or(&[]));
            return HeadRows { keys, values, first: batch.start };
        }
        let range = head * self.slots * dim..(head * self.slots + queries.end.min(self.slots)) * dim;
        HeadRows {
            keys: self.keys.rows(range.clone(), &mut scratch.keys),
            values: self.values.rows(range, &mut scratch.values),
            first: 0,
        }
    }

    /// Whether rows of [`head`](LayerCache::head) are a ring that has wrapped, seen by a single query.
    pub(crate) fn is_wrapped(&self, end: usize) -> bool {
        self.batch.is_none() && end > self.slots
    }
}

impl Store {
    fn new(kind: KvType, rows: usize, dim: usize) -> Store {
        let elements = rows * dim;
        match kind {
            KvType::Q8 => Store::Q8(Int8Rows {
                dim,
                codes: vec![0; elements],
                scales: vec![f16::ZERO; rows * dim.div_ceil(KV_GROUP)],
            }),
            KvType::F32 => Store::F32(vec![0.0; elements]),
            KvType::F16 => Store::F16(vec![f16::ZERO; elements]),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Store::F32(values) => 4 * values.len(),
            Store::F16(values) => 2 * values.len(),
            Store::Q8(rows) => rows.codes.len() + 2 * rows.scales.len(),
            Store::Elsewhere(bytes) => *bytes,
        }
    }

    /// One row, whose first element is number `at`.
    fn write(&mut self, at: usize, row: &[f32]) {
        match self {
            Store::F32(values) => values[at..at + row.len()].copy_from_slice(row),
            Store::F16(values) => values[at..at + row.len()].convert_from_f32_slice(row),
            Store::Q8(rows) => rows.write(at / rows.dim.max(1), row),
            Store::Elsewhere(_) => unreachable!("a cache on a device is refused before a batch begins"),
        }
    }

    fn read(&self, at: usize, row: &mut [f32]) {
        match self {
            Store::F32(values) => row.copy_from_slice(&values[at..at + row.len()]),
            Store::F16(values) => values[at..at + row.len()].convert_to_f32_slice(row),
            Store::Q8(rows) => rows.read(at / rows.dim.max(1), row),
            Store::Elsewhere(_) => unreachable!("a cache on a device is refused before a batch begins"),
        }
    }

    fn rows<'a>(&'a self, range: Range<usize>, scratch: &'a mut Vec<f32>) -> &'a [f32] {
        match self {
            Store::F32(values) => &values[range],
            Store::F16(values) => {
                scratch.resize(range.len(), 0.0);
                values[range].convert_to_f32_slice(scratch);
                scratch
            }
            Store::Q8(rows) => {
                scratch.resize(range.len(), 0.0);
                rows.read(range.start / rows.dim.max(1), scratch);
                scratch
            }
            Store::Elsewhere(_) => unreachable!("a cache on a device is refused before a batch begins"),
        }
    }
}
