//! Queries, keys and values of new tokens on their way to attention, in one launch.

use crate::call::{Call, MOST, MOST_OTHER, bytes};
use crate::heads::MOST_DIM;
use crate::{CacheRows, HeadNorm, Kept, Launch, LaunchError, Module, Parts, Span};

/// Heads within rows.
#[derive(Clone, Copy, Debug)]
pub struct HeadsIn {
    /// `[tokens, width]`.
    pub x: Parts,
    /// Elements of a token.
    pub width: usize,
    /// The first of them that belongs to these heads.
    pub first: usize,
    /// Norm.
    pub norm: Option<HeadNorm>,
}

/// [`Heads`](crate::Heads) three times: queries to rows, keys and values to their caches.
#[derive(Clone, Copy, Debug)]
pub struct AllHeads {
    /// Queries.
    pub q: HeadsIn,
    /// Keys.
    pub k: HeadsIn,
    /// Values.
    pub v: HeadsIn,
    /// Cosines and sines by which queries and keys turn, f32 `[tokens, dim / 2]` each.
    pub turns: Option<[Span; 2]>,
    /// Queries, f32 `[tokens, heads * dim]`.
    pub rows: Span,
    /// Where keys go.
    pub keys: CacheRows,
    /// Where values go: kept as keys, in as many slots.
    pub values: CacheRows,
    /// u32 `[tokens]`, no two of them in one slot.
    pub positions: Span,
    /// Tokens.
    pub tokens: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Elements of a head, even and at most 512.
    pub dim: usize,
}

impl AllHeads {
    /// The launch.
    ///
    /// # Errors
    /// When a range of memory is too short or a number out of range.
    pub fn launch(&self) -> Result<Launch, LaunchError> {
        let name = match self.keys.kept {
            Kept::F32 => "all_heads_f32",
            Kept::F16 => "all_heads_f16",
            Kept::Q8 => "all_heads_q8",
        };
        let mut call = Call::new(Module::Heads, name);
        let tokens = call.check("tokens", self.tokens, 1, MOST_OTHER)?;
        let heads = call.check("heads", self.heads, 1, MOST_OTHER)?;
        let kv_heads = call.check("kv heads", self.kv_heads, 1, MOST_OTHER)?;
        call.check("dim", self.dim, 2, MOST_DIM)?;
        call.multiple("dim", self.dim, 2)?;
        for (what, of, heads) in
            [("q", self.q, self.heads), ("k", self.k, self.kv_heads), ("v", self.v, self.kv_heads)]
        {
            call.parts(what, of.x, self.tokens, of.width)?;
            call.number("width", of.width, of.first.saturating_add(heads * self.dim), MOST)?;
            call.u32(of.first as u32);
            call.u32(u32::from(of.norm.is_some()));
            call.optional("norm", of.norm.and_then(|norm| norm.weight), bytes(&[self.dim], 4), 4)?;
            call.f32(of.norm.map_or(0.0, |norm| norm.eps));
        }
        let turns = bytes(&[self.tokens, self.dim / 2], 4);
        call.optional("cosines", self.turns.map(|turns| turns[0]), turns, 4)?;
        call.optional("sines", self.turns.map(|turns| turns[1]), turns, 4)?;
        call.span("positions", self.positions, bytes(&[self.tokens], 4), 4)?;
        call.u32(heads);
        call.u32(kv_heads);
        call.u32(self.dim as u32);
        let slots = self.keys.slots;
        call.number("slots", slots, 1, MOST)?;
        call.check("slots of values", self.values.slots, slots, slots)?;
        call.check("values kept as keys", usize::from(self.values.kept == self.keys.kept), 1, 1)?;
        call.span("rows", self.rows, bytes(&[self.tokens, self.heads, self.dim], 4), 4)?;
        for cache in [self.keys, self.values] {
            let (rows, scales) = CacheRows::bytes(cache.kept, self.kv_heads, slots, self.dim);
            call.span("cache", cache.rows, rows, 16)?;
            let none = Span { address: 0, bytes: 0 };
            call.span("scales", cache.scales.unwrap_or(none), scales, 2)?;
        }
        let blocks = heads.div_ceil(4) + 2 * kv_heads.div_ceil(4);
        Ok(call.on([blocks, tokens, 1], 128, 0))
    }
}
