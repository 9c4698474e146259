//! `gq improve --rounds`: the layers are rounded again, each with the inputs that it gets from the layers before it.

use super::Original;
use crate::failure::Failure;
use crate::jobs::calibration_text::TextSequences;
use crate::jobs::measuring_memory;
use crate::options::amounts;
use crate::progress::Progress;
use crate::table::Table;
use crate::{expected, units};
use gq_calibrate::{MeasuringMemory, MeasuringSize};
use gq_container::Container;
use gq_convert::{Effort, RoundAgain, RoundAgainEvent, RoundAgainOptions, RoundedAgainOutcome};
use gq_model::Model;
use std::path::Path;

/// Tokens to measure inputs on.
pub fn tokens(original: &Original<'_>) -> usize {
    let asked = original.args.calibration_tokens;
    asked.unwrap_or_else(|| amounts::default_tokens(&original.checkpoint))
}

/// Bytes of hidden states that are kept in a file meanwhile, of `tokens` tokens. How long the text really is is known
/// later.
///
/// # Errors
/// When `--max-memory` is too little.
pub fn spilled(original: &Original<'_>, tokens: usize) -> Result<u64, Failure> {
    let ctx = original.args.calibration_ctx;
    Ok(needed(original, tokens.div_ceil(ctx.max(1)), ctx)?.spilled)
}

/// Memory that rounding again takes on this text, and the bytes of freed buffers that are kept within that.
///
/// # Errors
/// When `--max-memory` is too little.
pub fn memory(original: &Original<'_>, text: &TextSequences) -> Result<(MeasuringMemory, u64), Failure> {
    let (args, global, checkpoint) = (original.args, original.global, &original.checkpoint);
    let ctx = text.sequences.iter().map(Vec::len).max().unwrap_or(0);
    let mut memory = needed(original, text.sequences.len(), ctx)?;
    let (text, left) = (args.calibration.as_deref(), original.memory_left());
    let writing = measuring_memory::Writing::of(text, checkpoint.spec(), args.calibration_ctx, left, global)?;
    memory.peak = memory.peak.max(writing.peak + checkpoint.held_bytes(global.threads()));
    let kept = measuring_memory::kept_buffers(memory.peak, args.max_memory);
    memory.peak += kept;
    Ok((memory, kept))
}

fn needed(original: &Original<'_>, sequences: usize, ctx: usize) -> Result<MeasuringMemory, Failure> {
    let (checkpoint, threads) = (&original.checkpoint, original.global.threads());
    let held = checkpoint.held_bytes(threads);
    let size = MeasuringSize { sequences, ctx, gradients: false, trial_tokens: 0, threads, held };
    Ok(MeasuringMemory::rounding_again(checkpoint.spec(), size, original.args.max_memory)?)
}

/// Rounds again. The file is at `path` when it got closer.
pub fn run(
    original: &Original<'_>,
    container: &Container,
    model: &Model,
    text: &TextSequences,
    path: &Path,
) -> Result<RoundedAgainOutcome, Failure> {
    let (global, checkpoint) = (original.global, &original.checkpoint);
    let options = RoundAgainOptions {
        level: original.options.level,
        measurements: original.measurements.as_ref(),
        text_sha256: gq_calibrate::texts_digest(&text.texts),
        max_memory: original.args.max_memory,
    };
    let of = checkpoint.spec().layers.len() as u64 + 1;
    let tokens = text.sequences.iter().map(Vec::len).sum();
    let effort = Effort::new(checkpoint, &|_| true).rounding_again(tokens);
    let mut progress = Progress::staged(global, "improve", expected::single("layers", of, effort, global)?);
    let what = RoundAgain { checkpoint, reference: &original.model, container, model };
    let outcome = what.run(&text.sequences, &options, path, &mut |event| {
        let RoundAgainEvent::Layers { done, .. } = event;
        progress.set(done as u64, "layers");
    });
    // A file that changed meanwhile explains whatever was met in it.
    container.check_unchanged()?;
    progress.finish();
    Ok(outcome?)
}

/// What came of it, in JSON.
pub fn document(outcome: &RoundedAgainOutcome, peak: Option<u64>) -> serde_json::Value {
    let tensors = outcome.tensors.iter().map(|tensor| {
        serde_json::json!({
            "name": tensor.name,
            "strength": tensor.strength,
            "held_out": {"before": tensor.held_out.0, "after": tensor.held_out.1},
            "in_sample": tensor.in_sample,
            "taken": tensor.taken,
        })
    });
    serde_json::json!({
        "helped": outcome.helps(),
        "held_out": {
            "before": outcome.before,
            "after": outcome.after,
            "tokens": outcome.compared_tokens,
        },
        "chosen_on_tokens": outcome.held_out_tokens,
        "tokens": outcome.tokens,
        "tensors": tensors.collect::<Vec<_>>(),
        "peak_memory_bytes": peak,
    })
}

/// Sums over the tensors of one role.
#[derive(Default)]
struct OfRole {
    role: String,
    count: usize,
    taken: usize,
    strength: f64,
    before: f64,
    after: f64,
}

/// What came of the tensors, by role.
pub fn summary(outcome: &RoundedAgainOutcome, checkpoint: &gq_checkpoint::Checkpoint) -> Table {
    let mut roles: Vec<OfRole> = Vec::new();
    for tensor in &outcome.tensors {
        let Some(source) = checkpoint.tensor(&tensor.name) else { continue };
        let role = source.role.to_string();
        let index = roles.iter().position(|other| other.role == role).unwrap_or_else(|| {
            roles.push(OfRole { role, ..OfRole::default() });
            roles.len() - 1
        });
        let Some(sums) = roles.get_mut(index) else { continue };
        sums.count += 1;
        sums.taken += usize::from(tensor.taken);
        sums.strength += tensor.strength;
        sums.before += tensor.held_out.0;
        sums.after += if tensor.taken { tensor.held_out.1 } else { tensor.held_out.0 };
    }
    let mut table =
        Table::new(&["<tensors of", "count", "new codes", "mean strength", "held-out error", "now"]);
    for OfRole { role, count, taken, strength, before, after } in roles {
        let each = count as f64;
        table.row([
            role,
            units::count(count as u64),
            units::count(taken as u64),
            format!("{:.2}", strength / each),
            format!("{:.4}", before / each),
            format!("{:.4}", after / each),
        ]);
    }
    table
}
