//! Causal attention over a cache.

use crate::call::{Call, MOST, MOST_OTHER, bytes};
use crate::heads::MOST_DIM;
use crate::{CacheRows, Kept, Launch, LaunchError, Module, Span};

/// Query heads of a block.
const BLOCK_HEADS: usize = 4;
/// Positions in shared memory at a time.
const TILE: usize = 32;

/// Positions of one split: 256, and as many more as keep splits at 64. Chosen by the longest run of positions that a query
/// of a graph may see, never by the card.
pub fn attention_chunk(longest: usize) -> usize {
    longest.div_ceil(64).next_multiple_of(TILE).max(256)
}

/// Attention of tokens; [`define::attention`](crate::define::attention).
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// f32 `[tokens, heads * dim]`.
    pub q: Span,
    /// Keys.
    pub keys: CacheRows,
    /// Values, kept as keys are.
    pub values: CacheRows,
    /// u32 `[tokens]`: a token sees the positions up to its own.
    pub positions: Span,
    /// f32 of [`partial_bytes`](Attention::partial_bytes).
    pub partial: Span,
    /// f32 `[heads]`: a score without a value.
    pub sinks: Option<Span>,
    /// f32 `[tokens, heads * dim]`.
    pub y: Span,
    /// Tokens.
    pub tokens: usize,
    /// Query heads.
    pub heads: usize,
    /// Key-value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements of a head, a multiple of 4 and at most 512.
    pub dim: usize,
    /// Positions that a query sees at most, its own included; none: all. A cache has `tokens - 1` slots more.
    pub window: Option<usize>,
    /// Positions that any of the queries may see at most.
    pub longest: usize,
    /// Factor on products.
    pub scale: f32,
    /// `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
}

impl Attention {
    fn splits(&self) -> usize {
        self.longest.div_ceil(attention_chunk(self.longest))
    }

    /// Bytes of [`partial`](Attention::partial).
    pub fn partial_bytes(&self) -> u64 {
        bytes(&[self.tokens, self.heads, self.splits(), self.dim + 2], 4)
    }

    fn names(&self) -> [&'static str; 4] {
        match self.keys.kept {
            Kept::F32 => ["attention_f32_64", "attention_f32_128", "attention_f32_256", "attention_f32_512"],
            Kept::F16 => ["attention_f16_64", "attention_f16_128", "attention_f16_256", "attention_f16_512"],
            Kept::Q8 => ["attention_q8_64", "attention_q8_128", "attention_q8_256", "attention_q8_512"],
        }
    }

    /// The launches: every split, then the join.
    ///
    /// # Errors
    /// When a range of memory is too short or a number out of range.
    pub fn launches(&self) -> Result<[Launch; 2], LaunchError> {
        let place = [64, 128, 256].iter().filter(|most| self.dim > **most).count();
        let mut call = Call::new(Module::Attention, self.names()[place]);
        let tokens = call.check("tokens", self.tokens, 1, MOST_OTHER)?;
        call.check("dim", self.dim, 4, MOST_DIM)?;
        call.multiple("dim", self.dim, 4)?;
        call.check("kv heads", self.kv_heads, 1, MOST_OTHER)?;
        call.multiple("heads", self.heads, self.kv_heads)?;
        let heads = call.check("heads", self.heads, 1, MOST_OTHER)?;
        let queries = bytes(&[self.tokens, self.heads, self.dim], 4);
        call.span("q", self.q, queries, 16)?;
        let slots = self.keys.slots;
        call.check("slots of values", self.values.slots, slots, slots)?;
        let (rows, scales) = CacheRows::bytes(self.keys.kept, self.kv_heads, slots, self.dim);
        for (names, cache) in [(["keys", "key scales"], self.keys), (["values", "value scales"], self.values)]
        {
            call.check("values kept as keys", usize::from(cache.kept == self.keys.kept), 1, 1)?;
            call.span(names[0], cache.rows, rows, 16)?;
            let none = Span { address: 0, bytes: 0 };
            call.span(names[1], cache.scales.unwrap_or(none), scales, 2)?;
        }
        let positions = bytes(&[self.tokens], 4);
        call.span("positions", self.positions, positions, 4)?;
        call.span("partial", self.partial, self.partial_bytes(), 4)?;
        call.u32(heads);
        call.u32(self.kv_heads as u32);
        call.u32(self.dim as u32);
        call.number("slots", slots, 1, MOST)?;
        // The keys of a batch are all there before its first query looks.
        let window =
            call.check("window", self.window.unwrap_or(0), 0, (slots + 1).saturating_sub(self.tokens))?;
        call.u32(window);
        call.check("longest", self.longest, 1, slots)?;
        call.u32(attention_chunk(self.longest) as u32);
        call.f32(self.scale);
        call.f32(self.softcap.unwrap_or(0.0));
        let splits = self.splits() as u32;
        let blocks = self.kv_heads * (self.heads / self.kv_heads).div_ceil(BLOCK_HEADS);
        let shared = 4 * (BLOCK_HEADS * self.dim + TILE * (self.dim + 4));
        let all = call.on([splits, blocks as u32, tokens], 128, shared as u32);

        let mut call = Call::new(Module::Attention, "attention_join");
        call.span("partial", self.partial, self.partial_bytes(), 4)?;
        call.optional("sinks", self.sinks, bytes(&[self.heads], 4), 4)?;
        call.span("y", self.y, queries, 4)?;
        call.u32(splits);
        call.u32(self.dim as u32);
        Ok([all, call.on([heads, tokens, 1], 128, 0)])
    }
}
