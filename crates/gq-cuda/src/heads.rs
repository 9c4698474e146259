//! Heads of queries, keys and values: norm, rotary embedding, and where they go.

use crate::call::{Call, MOST, MOST_OTHER, bytes};
use crate::{Launch, LaunchError, Module, Parts, Span};

/// Largest head.
pub(crate) const MOST_DIM: usize = 512;

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// As they are.
    F32,
    /// Rounded to f16.
    F16,
    /// Int8 with an f16 scale per 32 elements.
    Q8,
}

/// Keys or values of one layer, `[kv heads, slots, dim]`; position p is in slot `p % slots`.
#[derive(Clone, Copy, Debug)]
pub struct CacheRows {
    /// How they are kept.
    pub kept: Kept,
    /// f32, f16 or int8.
    pub rows: Span,
    /// f16 `[kv heads, slots, dim / 32 rounded up]` of [`Kept::Q8`].
    pub scales: Option<Span>,
    /// Positions that are kept.
    pub slots: usize,
}

impl CacheRows {
    /// Bytes of rows and of scales.
    pub fn bytes(kept: Kept, kv_heads: usize, slots: usize, dim: usize) -> (u64, u64) {
        let size = match kept {
            Kept::F32 => 4,
            Kept::F16 => 2,
            Kept::Q8 => 1,
        };
        let groups = if kept == Kept::Q8 { dim.div_ceil(32) } else { 0 };
        (bytes(&[kv_heads, slots, dim], size), bytes(&[kv_heads, slots, groups], 2))
    }
}

/// Where heads go.
#[derive(Clone, Copy, Debug)]
pub enum HeadsTo {
    /// f32 `[tokens, heads * dim]`.
    Rows(Span),
    /// To the slots of the tokens' positions, u32 `[tokens]`, no two of them in one slot.
    Cache {
        /// Keys or values.
        cache: CacheRows,
        /// u32 `[tokens]`.
        positions: Span,
    },
}

/// An RMS norm over each head.
#[derive(Clone, Copy, Debug)]
pub struct HeadNorm {
    /// f32 `[dim]`; none: 1.
    pub weight: Option<Span>,
    /// Added to the mean square.
    pub eps: f32,
}

/// Heads of tokens; [`define::head`](crate::define::head).
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// `[tokens, width]`.
    pub x: Parts,
    /// Elements of a token.
    pub width: usize,
    /// The first of them that belongs to these heads.
    pub first: usize,
    /// Norm.
    pub norm: Option<HeadNorm>,
    /// Cosines and sines of the tokens' positions, f32 `[tokens, dim / 2]` each.
    pub turns: Option<[Span; 2]>,
    /// Where they go.
    pub to: HeadsTo,
    /// Tokens.
    pub tokens: usize,
    /// Heads.
    pub heads: usize,
    /// Elements of a head, even and at most 512.
    pub dim: usize,
}

impl Heads {
    /// The launch.
    ///
    /// # Errors
    /// When a range of memory is too short or a number out of range.
    pub fn launch(&self) -> Result<Launch, LaunchError> {
        let name = match self.to {
            HeadsTo::Rows(_) => "heads_f32",
            HeadsTo::Cache { cache, .. } => match cache.kept {
                Kept::F32 => "heads_cache_f32",
                Kept::F16 => "heads_cache_f16",
                Kept::Q8 => "heads_cache_q8",
            },
        };
        let mut call = Call::new(Module::Heads, name);
        let tokens = call.check("tokens", self.tokens, 1, MOST_OTHER)?;
        let heads = call.check("heads", self.heads, 1, MOST_OTHER)?;
        call.check("dim", self.dim, 2, MOST_DIM)?;
        call.multiple("dim", self.dim, 2)?;
        call.parts("x", self.x, self.tokens, self.width)?;
        let used = self.first.saturating_add(self.heads * self.dim);
        call.number("width", self.width, used, MOST)?;
        call.u32(self.first as u32);
        call.u32(u32::from(self.norm.is_some()));
        let weight = self.norm.and_then(|norm| norm.weight);
        call.optional("norm", weight, bytes(&[self.dim], 4), 4)?;
        call.f32(self.norm.map_or(0.0, |norm| norm.eps));
        let turns = bytes(&[self.tokens, self.dim / 2], 4);
        call.optional("cosines", self.turns.map(|turns| turns[0]), turns, 4)?;
        call.optional("sines", self.turns.map(|turns| turns[1]), turns, 4)?;
        let (positions, slots) = match self.to {
            HeadsTo::Rows(_) => (None, 1),
            HeadsTo::Cache { cache, positions } => (Some(positions), cache.slots),
        };
        call.optional("positions", positions, bytes(&[self.tokens], 4), 4)?;
        call.u32(heads);
        call.u32(self.dim as u32);
        call.number("slots", slots, 1, MOST)?;
        match self.to {
            HeadsTo::Rows(span) => {
                call.span("rows", span, bytes(&[self.tokens, self.heads, self.dim], 4), 4)?;
                call.optional("scales", None, 0, 2)?;
            }
            HeadsTo::Cache { cache, .. } => {
                let (rows, scales) = CacheRows::bytes(cache.kept, self.heads, cache.slots, self.dim);
                call.span("cache", cache.rows, rows, 16)?;
                match cache.kept {
                    Kept::Q8 => {
                        let none = Span { address: 0, bytes: 0 };
                        call.span("scales", cache.scales.unwrap_or(none), scales, 2)?;
                    }
                    Kept::F32 | Kept::F16 => call.optional("scales", None, 0, 2)?,
                }
            }
        }
        Ok(call.on([heads.div_ceil(4), tokens, 1], 128, 0))
    }
}
