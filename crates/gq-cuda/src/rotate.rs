//! Rotations and activations to int8.

use crate::call::{Call, MOST, MOST_OTHER, bytes};
use crate::{Launch, LaunchError, Module, Parts, Span};
use gq_tensor::SplitMix64;

/// What a Hadamard rotation of one seed and width needs on the device (`formats/encodings.md`, "Rotations").
#[derive(Clone, Debug, PartialEq)]
pub struct RotationTables {
    /// Width.
    pub cols: usize,
    /// Size of the Walsh-Hadamard blocks.
    pub block: usize,
    /// What every element is multiplied by, with its sign.
    pub factor: f32,
    /// A bit for each element: whether its sign is minus.
    pub signs: Vec<u32>,
    /// The number of primes, the primes, and `p` entries as f32 for each.
    pub factors: Vec<u32>,
}

impl RotationTables {
    /// The tables of a seed and a width; `None` where the width is no multiple of 32.
    pub fn new(seed: u64, cols: usize) -> Option<RotationTables> {
        if cols == 0 || !cols.is_multiple_of(32) {
            return None;
        }
        let k = cols.trailing_zeros();
        let half = 1.0 / f64::from(1u32 << (k / 2));
        let factor = if k.is_multiple_of(2) { half } else { half * std::f64::consts::FRAC_1_SQRT_2 };
        let primes = prime_factors(cols >> k);
        let mut factors = vec![primes.len() as u32];
        factors.extend(primes.iter().map(|p| *p as u32));
        for p in &primes {
            factors.extend(hartley_entries(*p).into_iter().map(f32::to_bits));
        }
        Some(RotationTables {
            cols,
            block: 1 << k,
            factor: factor as f32,
            signs: sign_bits(seed, cols),
            factors,
        })
    }

    /// Whether kernels rotate rows of this width: multiples of 32 up to 24,576, and those wider ones whose largest power of
    /// two leaves at most 768 parts.
    pub fn has_kernels(cols: usize) -> bool {
        let is_row = cols > 0 && cols.is_multiple_of(32);
        is_row && (cols <= MOST_ROTATED || cols / chunk(cols) <= MOST_ROTATED / 32)
    }

    /// Whether rows of this width take two launches, with f32 `[rows, cols]` between them ([`RotateWide`]).
    pub fn is_wide(cols: usize) -> bool {
        cols > MOST_ROTATED
    }

    /// [`signs`](Self::signs) and [`factors`](Self::factors) as bytes to upload.
    pub fn bytes(&self) -> [Vec<u8>; 2] {
        [&self.signs, &self.factors].map(|words| words.iter().flat_map(|word| word.to_le_bytes()).collect())
    }
}

/// Bits of the signs stream: SplitMix64 with random access.
fn sign_bits(seed: u64, cols: usize) -> Vec<u32> {
    const SIGNS: u64 = 1;
    let label = SIGNS << 56 | cols as u64;
    let stream = SplitMix64::new(SplitMix64::mix(SplitMix64::new(seed).word(0) ^ label));
    let words = (0..cols.div_ceil(64) as u64).map(|i| stream.word(i));
    words.flat_map(|word| [word as u32, (word >> 32) as u32]).take(cols / 32).collect()
}

/// Ascending, with multiplicity.
fn prime_factors(mut n: usize) -> Vec<usize> {
    let (mut factors, mut p) = (Vec::new(), 2);
    while p * p <= n {
        while n.is_multiple_of(p) {
            factors.push(p);
            n /= p;
        }
        p += 1;
    }
    if n > 1 {
        factors.push(n);
    }
    factors
}

/// `cas(2 pi t / p) / sqrt(p)` for t < p, in the arithmetic of the format.
fn hartley_entries(p: usize) -> Vec<f32> {
    let root = (p as f64).sqrt();
    let cas = |t: usize| {
        let (octant, rest) = (8 * t / p, 8 * t % p);
        let part = if octant % 2 == 0 { rest } else { p - rest };
        let angle = std::f64::consts::FRAC_PI_4 * (part as f64 / p as f64);
        let square = angle * angle;
        let (mut sin, mut cos) = (1.0, 1.0);
        for k in (1..=8).rev() {
            let k = f64::from(k);
            sin = 1.0 - square / (2.0 * k * (2.0 * k + 1.0)) * sin;
            cos = 1.0 - square / (2.0 * k * (2.0 * k - 1.0)) * cos;
        }
        let sin = angle * sin;
        match octant {
            0 => cos + sin,
            1 => sin + cos,
            2 => -sin + cos,
            3 => -cos + sin,
            4 => -cos + -sin,
            5 => -sin + -cos,
            6 => sin + -cos,
            _ => cos + -sin,
        }
    };
    (0..p).map(|t| (cas(t) / root) as f32).collect()
}

/// Elements that one block keeps in shared memory.
pub(crate) const MOST_ROTATED: usize = 24 * 1024;
/// Most neighbors that a block takes of a row that is wider.
const MOST_CHUNK: usize = 4096;

/// Neighbors that a block takes of a row that is wider than [`MOST_ROTATED`].
fn chunk(cols: usize) -> usize {
    (1 << cols.trailing_zeros().min(usize::BITS - 1)).min(MOST_CHUNK)
}

pub(crate) fn threads(width: usize) -> u32 {
    (width / 8).next_multiple_of(32).clamp(32, 1024) as u32
}

/// `R x` of rows `[rows, cols]`, to int8 with a scale per 32 elements.
#[derive(Clone, Copy, Debug)]
pub struct Rotate {
    /// f32.
    pub x: Parts,
    /// [`RotationTables::signs`].
    pub signs: Span,
    /// [`RotationTables::factors`].
    pub factors: Span,
    /// Int8 `[rows, cols]`.
    pub values: Span,
    /// f32 `[rows, cols / 32]`.
    pub steps: Span,
    /// Rows.
    pub rows: usize,
}

impl Rotate {
    /// The launch.
    ///
    /// # Errors
    /// When a range of memory is too short or a number out of range.
    pub fn launch(&self, tables: &RotationTables) -> Result<Launch, LaunchError> {
        let (mut call, cols) = (Call::new(Module::Rotate, "rotate_quantize"), tables.cols);
        let rows = call.check("rows", self.rows, 1, MOST)?;
        call.check("cols", cols, 32, MOST_ROTATED)?;
        call.multiple("cols", cols, 32)?;
        call.parts("x", self.x, self.rows, cols)?;
        call.span("signs", self.signs, bytes(&[tables.signs.len()], 4), 4)?;
        call.f32(tables.factor);
        call.span("factors", self.factors, bytes(&[tables.factors.len()], 4), 4)?;
        call.u32(cols as u32);
        call.u32(tables.block as u32);
        call.span("values", self.values, bytes(&[self.rows, cols], 1), 16)?;
        call.span("steps", self.steps, bytes(&[self.rows, cols / 32], 4), 4)?;
        Ok(call.on([rows, 1, 1], threads(cols), 4 * cols as u32))
    }
}

/// The same of rows that are wider than 24,576 ([`RotationTables::is_wide`]).
#[derive(Clone, Copy, Debug)]
pub struct RotateWide {
    /// What is rotated, and to where.
    pub rotate: Rotate,
    /// f32 `[rows, cols]`, written and read.
    pub between: Span,
}

impl RotateWide {
    /// The launches.
    ///
    /// # Errors
    /// When a range of memory is too short or a number out of range.
    pub fn launches(&self, tables: &RotationTables) -> Result<[Launch; 2], LaunchError> {
        let RotateWide { rotate: Rotate { x, signs, factors, values, steps, rows }, between } = *self;
        let cols = tables.cols;
        let (chunk, mut call) = (chunk(cols), Call::new(Module::Rotate, "rotate_chunks"));
        let tokens = call.check("rows", rows, 1, MOST_OTHER)?;
        call.multiple("cols", cols, 32)?;
        let parts = cols / chunk;
        call.check("parts of a row", parts, 1, MOST_ROTATED / 32)?;
        call.parts("x", x, rows, cols)?;
        call.span("signs", signs, bytes(&[tables.signs.len()], 4), 4)?;
        call.f32(tables.factor);
        call.number("cols", cols, 32, MOST)?;
        call.u32(chunk as u32);
        call.span("between", between, bytes(&[rows, cols], 4), 4)?;
        let first = call.on([parts as u32, tokens, 1], threads(chunk), 4 * chunk as u32);
        let mut call = Call::new(Module::Rotate, "rotate_across");
        call.span("between", between, bytes(&[rows, cols], 4), 4)?;
        call.span("factors", factors, bytes(&[tables.factors.len()], 4), 4)?;
        call.u32(cols as u32);
        call.u32(chunk as u32);
        call.u32(tables.block as u32);
        call.span("values", values, bytes(&[rows, cols], 1), 16)?;
        call.span("steps", steps, bytes(&[rows, cols / 32], 4), 4)?;
        let columns = 32 * parts;
        Ok([first, call.on([(chunk / 32) as u32, tokens, 1], threads(columns), 4 * columns as u32)])
    }
}

/// Rows `[rows, cols]` that are not rotated, to int8 with a scale per 32 elements.
#[derive(Clone, Copy, Debug)]
pub struct Quantize {
    /// f32.
    pub x: Parts,
    /// Int8 `[rows, cols]`.
    pub values: Span,
    /// f32 `[rows, cols / 32]`.
    pub steps: Span,
    /// Rows.
    pub rows: usize,
    /// Elements of a row, a multiple of 32.
    pub cols: usize,
}

impl Quantize {
    /// The launch.
    ///
    /// # Errors
    /// When a range of memory is too short or a number out of range.
    pub fn launch(&self) -> Result<Launch, LaunchError> {
        let mut call = Call::new(Module::Rotate, "quantize_rows");
        let rows = call.check("rows", self.rows, 1, MOST_OTHER)?;
        call.multiple("cols", self.cols, 32)?;
        call.parts("x", self.x, self.rows, self.cols)?;
        let cols = call.number("cols", self.cols, 32, MOST)?;
        call.span("values", self.values, bytes(&[self.rows, self.cols], 1), 16)?;
        call.span("steps", self.steps, bytes(&[self.rows, self.cols / 32], 4), 4)?;
        Ok(call.on([cols.div_ceil(256), rows, 1], 256, 0))
    }
}

/// `R^T x` of rows `[rows, cols]` of f32: rows that were decoded, such as embeddings, as they were before.
#[derive(Clone, Copy, Debug)]
pub struct RotateBack {
    /// f32.
    pub x: Span,
    /// [`RotationTables::signs`].
    pub signs: Span,
    /// [`RotationTables::factors`].
    pub factors: Span,
    /// f32, another range than `x`.
    pub y: Span,
    /// Rows.
    pub rows: usize,
}

impl RotateBack {
    /// The launch.
    ///
    /// # Errors
    /// When a range of memory is too short or a number out of range.
    pub fn launch(&self, tables: &RotationTables) -> Result<Launch, LaunchError> {
        let (mut call, cols) = (Call::new(Module::Rotate, "rotate_back"), tables.cols);
        let rows = call.check("rows", self.rows, 1, MOST)?;
        call.check("cols", cols, 32, MOST_ROTATED)?;
        call.multiple("cols", cols, 32)?;
        call.span("x", self.x, bytes(&[self.rows, cols], 4), 4)?;
        call.span("signs", self.signs, bytes(&[tables.signs.len()], 4), 4)?;
        call.f32(tables.factor);
        call.span("factors", self.factors, bytes(&[tables.factors.len()], 4), 4)?;
        call.u32(cols as u32);
        call.u32(tables.block as u32);
        call.span("y", self.y, bytes(&[self.rows, cols], 4), 4)?;
        Ok(call.on([rows, 1, 1], threads(cols), 4 * cols as u32))
    }
}
