//! Runs a model and its reference over the same tokens and compares what they say.

use crate::divergence::{Divergence, compare};
use crate::error::EvalError;
use crate::outputs::{OutputsReader, OutputsWriter};
use crate::report::EvalReport;
use crate::sizes::Sizes;
use crate::windows::Windows;
use gq_model::{KvType, LogitRows, Model, RunOptions};
use rayon::prelude::*;
use std::path::Path;

/// Windows on which the noise floor is measured.
const FLOOR_WINDOWS: usize = 2;

/// What to do besides comparing.
#[derive(Clone, Copy, Debug, Default)]
pub struct TextOptions<'a> {
    /// Write the model's logits here, all positions of every window.
    pub save_outputs: Option<&'a Path>,
}

/// Compares `model` with `reference` on windows of text. `progress` gets windows done and windows in all.
///
/// # Errors
/// When the vocabularies differ, a model refuses the tokens, or outputs cannot be written.
pub fn evaluate_text(
    model: &Model,
    reference: &mut Model,
    windows: &Windows,
    sizes: Sizes,
    options: TextOptions<'_>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<EvalReport, EvalError> {
    let (limit, actual) = (reference.vocab_size(), model.vocab_size());
    if limit != actual {
        return Err(EvalError::Vocabulary { limit, actual });
    }
    let rows = windows.windows();
    let mut saved = options.save_outputs.map(|path| OutputsWriter::create(path, rows, actual)).transpose()?;
    let scored = windows.scored();
    let mut positions = Vec::with_capacity(rows.len());
    let (mut ours, mut theirs, mut floor) = (Vec::new(), Vec::new(), Vec::new());
    for (index, tokens) in rows.iter().enumerate() {
        let wanted = match saved {
            Some(_) => LogitRows::All,
            None => LogitRows::Range(scored.clone()),
        };
        model.forward(tokens, &mut model.new_cache(tokens.len()), wanted, &mut ours)?;
        if let Some(saved) = &mut saved {
            saved.append(&ours)?;
            ours.drain(..scored.start * actual);
        }
        run(reference, tokens, &scored, &mut theirs)?;
        positions.push(compare_all(&ours, &theirs, actual, |i| tokens.get(scored.start + i + 1).copied()));
        if index < FLOOR_WINDOWS {
            let exact = reference.options();
            reference.set_options(RunOptions { kv: KvType::F16, ..exact });
            run(reference, tokens, &scored, &mut ours)?;
            reference.set_options(exact);
            floor.extend(compare_all(&ours, &theirs, actual, |_| None).iter().map(|d| d.kld));
        }
        progress(index + 1, rows.len());
    }
    if let Some(saved) = saved {
        saved.finish()?;
    }
    let noise_floor = floor.iter().sum::<f64>() / floor.len().max(1) as f64;
    Ok(EvalReport::new(&positions, |_| true, sizes, None, Some(noise_floor)))
}

fn run(
    model: &Model,
    tokens: &[u32],
    rows: &std::ops::Range<usize>,
    out: &mut Vec<f32>,
) -> Result<(), EvalError> {
    Ok(model.forward(tokens, &mut model.new_cache(tokens.len()), LogitRows::Range(rows.clone()), out)?)
}

/// Every position of a window, in parallel; each by itself, so threads do not change the result.
fn compare_all(
    ours: &[f32],
    theirs: &[f32],
    vocab: usize,
    target: impl Fn(usize) -> Option<u32> + Sync,
) -> Vec<Divergence> {
    let pairs = theirs.par_chunks_exact(vocab).zip(ours.par_chunks_exact(vocab)).enumerate();
    pairs
        .map(|(i, (theirs, ours))| {
            let theirs: Vec<f64> = theirs.iter().map(|&x| f64::from(x)).collect();
            compare(ours, &theirs, target(i).map(|token| token as usize))
        })
        .collect()
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
    let (limit, actual) = (reference.vocab(), model.vocab_size());
    if limit != actual {
        return Err(EvalError::Vocabulary { limit, actual });
    }
    let rows = reference.input_ids();
    let mut saved = options.save_outputs.map(|path| OutputsWriter::create(path, rows, actual)).transpose()?;
    let mut positions = Vec::with_capacity(rows.len());
    let mut ours = Vec::new();
    for (row, tokens) in rows.iter().enumerate() {
        model.forward(tokens, &mut model.new_cache(tokens.len()), LogitRows::All, &mut ours)?;
        if let Some(saved) = &mut saved {
            saved.append(&ours)?;
        }
        let window = ours.par_chunks_exact(actual).enumerate().map(|(col, ours)| {
            let theirs = reference.logits(row, col)?;
            Ok(compare(ours, &theirs, tokens.get(col + 1).map(|&token| token as usize)))
        });
        positions.push(window.collect::<Result<Vec<_>, EvalError>>()?);
        progress(row + 1, rows.len());
    }
    if let Some(saved) = saved {
        saved.finish()?;
    }
    let last = rows.first().map_or(0, |tokens| tokens.len().saturating_sub(1));
    Ok(EvalReport::new(&positions, |i| i < last, sizes, Some(actual), None))
}
