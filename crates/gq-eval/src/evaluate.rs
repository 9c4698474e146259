//! Runs a model and its reference over the same tokens and compares what they say.

use crate::cache::{CacheReader, CacheWriter, LogitCache};
use crate::error::EvalError;
use crate::identity::Identity;
use crate::logit_source::{LogitSource, ModelLogits};
use crate::outputs::OutputsReader;
use crate::pieces::{Piece, pieces};
use crate::report::{EvalReport, Kld, LogitError, NoiseFloor, Observations, ReferenceLogits, Scored, top1};
use crate::save::OutputsWriter;
use crate::sizes::Sizes;
use crate::windows::Windows;
use gq_model::{KvType, Model};
use gq_tensor::divergence::{Divergence, compare};
use rayon::prelude::*;
use std::ops::Range;
use std::path::Path;

/// Windows on which the noise floor is measured: a second run of the reference, so a few must do.
pub const FLOOR_WINDOWS: usize = 4;

/// What to do besides comparing.
#[derive(Clone, Copy, Debug, Default)]
pub struct TextOptions<'a> {
    /// Write the model's logits here, all positions of every window.
    pub save_outputs: Option<&'a Path>,
    /// Take the reference's logits from here, or keep them here. Not used against a file of reference outputs.
    pub cache: Option<CachedReference<'a>>,
}

/// Where the reference's logits are kept, and what stands for the reference.
#[derive(Clone, Copy, Debug)]
pub struct CachedReference<'a> {
    /// The cache.
    pub cache: &'a LogitCache,
    /// The reference's files and arithmetic.
    pub identity: &'a Identity,
}

/// A reference that can be asked again.
pub struct ReferenceRun<'a> {
    /// Its logits.
    pub logits: &'a mut dyn LogitSource,
    /// The same reference in another arithmetic, and the name of that: for the noise floor.
    pub again: Option<(&'a str, &'a mut dyn LogitSource)>,
}

/// Compares `model` with `reference` on windows of text. `progress` gets windows done and windows in all.
///
/// The noise floor is the reference's distance from itself on the first windows, run with keys and values rounded to
/// half precision (or not rounded, where the reference rounds them).
///
/// # Errors
/// When the vocabularies differ, a model refuses the tokens, or outputs cannot be written.
pub fn evaluate_text(
    model: &Model,
    reference: &Model,
    windows: &Windows,
    sizes: Sizes,
    options: TextOptions<'_>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<EvalReport, EvalError> {
    let (name, kv) = match reference.options().kv {
        KvType::F32 => ("keys and values rounded to f16", KvType::F16),
        KvType::F16 | KvType::Q8 => ("keys and values in f32", KvType::F32),
    };
    let mut again = ModelLogits::with_kv(reference, kv);
    let reference =
        ReferenceRun { logits: &mut ModelLogits::new(reference), again: Some((name, &mut again)) };
    compare_on_text(&mut ModelLogits::new(model), reference, windows, sizes, options, progress)
}

/// As [`evaluate_text`], with logits from anywhere.
///
/// # Errors
/// As [`evaluate_text`].
pub fn compare_on_text(
    model: &mut dyn LogitSource,
    reference: ReferenceRun<'_>,
    windows: &Windows,
    sizes: Sizes,
    options: TextOptions<'_>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<EvalReport, EvalError> {
    let vocab = model.vocab_size();
    check_vocabulary(reference.logits.vocab_size(), vocab)?;
    let (rows, scored) = (windows.windows(), windows.scored());
    let mut saved = options.save_outputs.map(|path| OutputsWriter::create(path, rows, vocab)).transpose()?;
    let mut reference = Reference::new(reference, rows, &scored, options.cache);
    let mut seen = Observations {
        windows: Vec::with_capacity(rows.len()),
        targets: scored.len(),
        scored: Scored { ctx: rows.first().map_or(0, Vec::len), begin: scored.start, end: scored.end },
        vocab,
    };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for (index, tokens) in rows.iter().enumerate() {
        let mut window = Vec::with_capacity(scored.len());
        model.begin(tokens.len());
        for piece in pieces(tokens.len(), &scored) {
            let scored = run(model, tokens, &piece, saved.as_mut(), &mut ours)?;
            if piece.rows.is_empty() {
                continue;
            }
            reference.logits(index, tokens, &piece, &mut theirs)?;
            window.extend(compare_all(scored, &theirs, vocab, &piece.rows, tokens));
            reference.measure_floor(index, tokens, &piece, &theirs)?;
        }
        seen.windows.push(window);
        progress(index + 1, rows.len());
    }
    if let Some(saved) = saved {
        saved.finish()?;
    }
    let (noise, source) = reference.finish();
    Ok(EvalReport { reference_logits: source, ..EvalReport::new(&seen, sizes, noise) })
}

/// Compares `model` with a file of reference outputs, every position of every row.
///
/// # Errors
/// When the vocabularies differ, the model refuses the tokens, or a file cannot be read or written.
pub fn evaluate_outputs(
    model: &Model,
    reference: &OutputsReader,
    sizes: Sizes,
    options: TextOptions<'_>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<EvalReport, EvalError> {
    compare_with_outputs(&mut ModelLogits::new(model), reference, sizes, options, progress)
}

/// As [`evaluate_outputs`], with logits from anywhere.
///
/// # Errors
/// As [`evaluate_outputs`].
pub fn compare_with_outputs(
    model: &mut dyn LogitSource,
    reference: &OutputsReader,
    sizes: Sizes,
    options: TextOptions<'_>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<EvalReport, EvalError> {
    let vocab = model.vocab_size();
    check_vocabulary(reference.vocab(), vocab)?;
    let rows = reference.input_ids();
    let mut saved = options.save_outputs.map(|path| OutputsWriter::create(path, rows, vocab)).transpose()?;
    let len = rows.first().map_or(0, Vec::len);
    let mut seen = Observations {
        windows: Vec::with_capacity(rows.len()),
        targets: len.saturating_sub(1),
        scored: Scored { ctx: len, begin: 0, end: len },
        vocab,
    };
    let mut ours = Vec::new();
    for (row, tokens) in rows.iter().enumerate() {
        let mut window = Vec::with_capacity(len);
        model.begin(len);
        for piece in pieces(len, &(0..len)) {
            let scored = run(model, tokens, &piece, saved.as_mut(), &mut ours)?;
            let compared = scored.par_chunks_exact(vocab).zip(piece.rows.clone()).map(|(ours, col)| {
                let theirs = reference.logits(row, col)?;
                Ok(compare(ours, &theirs, target(tokens, col)))
            });
            window.extend(compared.collect::<Result<Vec<_>, EvalError>>()?);
        }
        seen.windows.push(window);
        progress(row + 1, rows.len());
    }
    if let Some(saved) = saved {
        saved.finish()?;
    }
    let logits = Some(LogitError::new(&seen));
    let reference_logits = ReferenceLogits::Outputs;
    Ok(EvalReport { logits, reference_logits, ..EvalReport::new(&seen, sizes, None) })
}

fn check_vocabulary(limit: usize, actual: usize) -> Result<(), EvalError> {
    match limit == actual {
        true => Ok(()),
        false => Err(EvalError::Vocabulary { limit, actual }),
    }
}

/// Runs a piece; all its logits where they are saved, and gives back those that are scored.
fn run<'a>(
    model: &mut dyn LogitSource,
    tokens: &[u32],
    piece: &Piece,
    saved: Option<&mut OutputsWriter>,
    out: &'a mut Vec<f32>,
) -> Result<&'a [f32], EvalError> {
    let (tokens, rows, vocab) = (&tokens[piece.tokens.clone()], piece.local_rows(), model.vocab_size());
    let Some(saved) = saved else {
        model.forward(tokens, rows, out)?;
        return Ok(out);
    };
    model.forward(tokens, 0..tokens.len(), out)?;
    saved.append(out)?;
    Ok(&out[rows.start * vocab..rows.end * vocab])
}

/// Logits of neighboring positions, in parallel; each by itself, so threads do not change the result.
fn compare_all(
    ours: &[f32],
    theirs: &[f32],
    vocab: usize,
    rows: &Range<usize>,
    tokens: &[u32],
) -> Vec<Divergence> {
    let pairs = ours.par_chunks_exact(vocab).zip(theirs.par_chunks_exact(vocab)).zip(rows.clone());
    pairs.map(|((ours, theirs), position)| compare(ours, theirs, target(tokens, position))).collect()
}

/// What the logits at `position` predict.
fn target(tokens: &[u32], position: usize) -> Option<usize> {
    tokens.get(position + 1).map(|&token| token as usize)
}

/// A reference whose logits may be in the cache.
struct Reference<'a> {
    run: ReferenceRun<'a>,
    cached: Option<CacheReader>,
    keep: Option<CacheWriter>,
    /// Where the running sequence stands: window and next position.
    at: Option<(usize, usize)>,
    /// The same for the second run.
    again_at: Option<(usize, usize)>,
    floor: Vec<Divergence>,
    floor_windows: usize,
    /// The noise floor, where an earlier run measured it.
    noise: Option<NoiseFloor>,
}

impl<'a> Reference<'a> {
    fn new(
        run: ReferenceRun<'a>,
        rows: &[Vec<u32>],
        scored: &Range<usize>,
        cache: Option<CachedReference<'_>>,
    ) -> Reference<'a> {
        let vocab = run.logits.vocab_size();
        let blocks = rows.iter().flat_map(|tokens| pieces(tokens.len(), scored));
        let blocks = blocks.filter(|piece| !piece.rows.is_empty()).map(|piece| piece.rows.len() * vocab);
        let blocks: Vec<usize> = blocks.collect();
        let named = cache.map(|used| (used.cache, used.identity.key(rows, scored)));
        let cached = named.as_ref().and_then(|(cache, key)| cache.open(key, &blocks));
        let create = |(cache, key): &(&LogitCache, String)| cache.create(key, &blocks);
        let keep = named.as_ref().filter(|_| cached.is_none()).and_then(create);
        let floor_windows = rows.len().min(FLOOR_WINDOWS);
        let noise = cached.as_ref().and_then(|cached| cached.noise.clone());
        Reference { run, cached, keep, at: None, again_at: None, floor: Vec::new(), floor_windows, noise }
    }

    /// Replaces `out` by the logits of a piece.
    fn logits(
        &mut self,
        window: usize,
        tokens: &[u32],
        piece: &Piece,
        out: &mut Vec<f32>,
    ) -> Result<(), EvalError> {
        if let Some(cached) = &mut self.cached {
            if cached.next(piece.rows.len() * self.run.logits.vocab_size(), out) {
                return Ok(());
            }
            self.cached = None;
        }
        advance(self.run.logits, &mut self.at, window, tokens, piece, out)?;
        if self.keep.as_mut().is_some_and(|keep| !keep.append(out)) {
            self.keep = None;
        }
        Ok(())
    }

    /// Runs a piece again in the other arithmetic and compares it with `logits` of the first run.
    fn measure_floor(
        &mut self,
        window: usize,
        tokens: &[u32],
        piece: &Piece,
        logits: &[f32],
    ) -> Result<(), EvalError> {
        let known = self.noise.is_some();
        let Some((_, again)) = self.run.again.as_mut().filter(|_| window < self.floor_windows && !known)
        else {
            return Ok(());
        };
        let mut second = Vec::new();
        advance(&mut **again, &mut self.again_at, window, tokens, piece, &mut second)?;
        self.floor.extend(compare_all(&second, logits, again.vocab_size(), &piece.rows, tokens));
        Ok(())
    }

    fn finish(self) -> (Option<NoiseFloor>, ReferenceLogits) {
        let Reference { run, cached, keep, floor, floor_windows, noise, .. } = self;
        let measured = run.again.filter(|_| !floor.is_empty()).map(|(arithmetic, _)| {
            let klds: Vec<f64> = floor.iter().map(|d| d.kld).collect();
            NoiseFloor {
                arithmetic: arithmetic.to_owned(),
                windows: floor_windows,
                tokens: floor.len(),
                kld: Kld::new(&klds),
                top1: top1(&floor.iter().collect::<Vec<_>>()).value,
            }
        });
        if cached.is_some() {
            return (noise.or(measured), ReferenceLogits::Cached);
        }
        let kept = keep.is_some_and(|keep| keep.finish(measured.clone()));
        (noise.or(measured), if kept { ReferenceLogits::Stored } else { ReferenceLogits::Computed })
    }
}

/// Brings a running sequence to a piece, from the window's beginning if need be, and runs that.
fn advance(
    source: &mut dyn LogitSource,
    at: &mut Option<(usize, usize)>,
    window: usize,
    tokens: &[u32],
    piece: &Piece,
    out: &mut Vec<f32>,
) -> Result<(), EvalError> {
    let start = piece.tokens.start;
    let begun = at.filter(|&(running, position)| running == window && position <= start);
    let from = begun.map_or(0, |(_, position)| position);
    if begun.is_none() {
        source.begin(tokens.len());
    }
    for before in
        pieces(tokens.len(), &(0..0)).iter().filter(|p| p.tokens.start >= from && p.tokens.end <= start)
    {
        source.forward(&tokens[before.tokens.clone()], 0..0, out)?;
    }
    source.forward(&tokens[piece.tokens.clone()], piece.local_rows(), out)?;
    *at = Some((window, piece.tokens.end));
    Ok(())
}
