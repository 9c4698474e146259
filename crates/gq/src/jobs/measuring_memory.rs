//! What measuring takes of memory and disk, and writing its text.

use crate::failure::Failure;
use crate::global::Global;
use crate::options::amounts::{Measuring, TextSource};
use crate::{guard, units};
use gq_calibrate::{CalibrateError, MOST_CONVERSATIONS, MeasuringMemory, MeasuringSize, conversation_bytes};
use gq_checkpoint::{Checkpoint, ModelSpec};
use gq_model::{KvType, work_bytes};
use std::path::Path;

/// Bytes for conversations that a model writes side by side, where there is room.
const CONVERSATIONS: u64 = 1 << 30;

/// What measuring writes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Room {
    /// Bytes that stay, less those that are there already.
    saved: u64,
    /// Bytes that are gone when it is done.
    spilled: u64,
}

impl Room {
    /// Refuses what does not fit on the disk of `path`, with `after` bytes that are written when it is done.
    pub fn refuse(self, path: &Path, after: u64) -> Result<(), Failure> {
        guard::space(&path.join("measurements.json"), self.needed(after))
    }

    /// Bytes at most, with `after` bytes that are written when it is done.
    pub fn needed(self, after: u64) -> u64 {
        self.saved.saturating_add(self.spilled.max(after))
    }
}

/// What measuring in `dir` is going to write. Refuses what needs more memory than is allowed.
pub fn room(
    checkpoint: &Checkpoint,
    how: &Measuring,
    dir: &Path,
    max_memory: Option<u64>,
    global: &Global,
) -> Result<Room, Failure> {
    let memory = promised(checkpoint, how, max_memory, global)?;
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let there: u64 = entries.filter_map(|entry| entry.metadata().ok()).map(|found| found.len()).sum();
    Ok(Room { saved: memory.saved.saturating_sub(there), spilled: memory.spilled })
}

/// What measuring so many sequences of so many tokens takes, and the bytes of freed buffers that are kept within that.
///
/// # Errors
/// When that is more memory than is allowed.
pub fn memory(
    checkpoint: &Checkpoint,
    how: &Measuring,
    sequences: usize,
    ctx: usize,
    limit: Option<u64>,
    global: &Global,
) -> Result<(MeasuringMemory, u64), Failure> {
    let (gradients, threads) = (how.gradient_tokens > 0, global.threads());
    let trial_tokens = how.trial_tokens;
    let held = checkpoint.held_bytes(threads);
    let size = MeasuringSize { sequences, ctx, gradients, trial_tokens, threads, held };
    let mut memory = MeasuringMemory::new(checkpoint.spec(), size, how.expert_moments(), limit)?;
    let left = limit.map(|limit| limit.saturating_sub(held));
    let writing = Writing::of(how.text.as_deref(), checkpoint.spec(), ctx, left, global)?;
    memory.peak = memory.peak.max(writing.peak + held);
    let kept = kept_buffers(memory.peak, limit);
    memory.peak += kept;
    Ok((memory, kept))
}

/// Most bytes of freed buffers that are kept for the next ones.
const KEPT_BUFFERS: u64 = 256 << 20;

/// Bytes of freed buffers that are kept by work that takes `peak` bytes: an eighth of that, within `limit`.
pub fn kept_buffers(peak: u64, limit: Option<u64>) -> u64 {
    let room = limit.map_or(u64::MAX, |limit| limit.saturating_sub(peak));
    (peak / 8).min(KEPT_BUFFERS).min(room)
}

/// Freed buffers are kept until this is dropped.
#[must_use]
pub struct KeepingBuffers;

/// Keeps at most `bytes` of freed buffers for the next ones of the same size.
pub fn keep_buffers(bytes: u64) -> KeepingBuffers {
    crate::ALLOCATOR.keep(usize::try_from(bytes).unwrap_or(usize::MAX));
    KeepingBuffers
}

impl Drop for KeepingBuffers {
    fn drop(&mut self) {
        crate::ALLOCATOR.keep(0);
    }
}

/// What measuring takes, from what is asked for.
///
/// # Errors
/// When that is more memory than is allowed.
pub fn promised(
    checkpoint: &Checkpoint,
    how: &Measuring,
    limit: Option<u64>,
    global: &Global,
) -> Result<MeasuringMemory, Failure> {
    Ok(memory(checkpoint, how, how.sequences(), how.ctx, limit, global)?.0)
}

pub fn memory_line(memory: MeasuringMemory) -> String {
    format!("measuring takes {}", memory_words(memory))
}

/// Memory and disk, in words.
pub fn memory_words(memory: MeasuringMemory) -> String {
    let mut line = format!("at most {} of memory", units::bytes(memory.peak));
    if memory.spilled > 0 {
        line += &format!(" and {} on the disk meanwhile", units::bytes(memory.spilled));
    }
    if memory.saved > 0 {
        line += &format!("; its moments take {} on the disk", units::bytes(memory.saved));
    }
    line
}

/// Memory of a model that writes its own text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Writing {
    /// Bytes for conversations side by side.
    pub conversations: u64,
    /// With everything else; 0 where nothing is written.
    pub peak: u64,
}

impl Writing {
    /// What writing `calibration` takes, with answers of `answer` tokens; nothing for text that is there.
    ///
    /// # Errors
    /// When one conversation at a time is above the limit.
    pub fn of(
        calibration: Option<&Path>,
        spec: &ModelSpec,
        answer: usize,
        limit: Option<u64>,
        global: &Global,
    ) -> Result<Writing, Failure> {
        match TextSource::of(calibration) {
            TextSource::SelfText => Writing::new(spec, answer, limit, global),
            TextSource::Builtin | TextSource::Files(_) => Ok(Writing::default()),
        }
    }

    pub fn new(
        spec: &ModelSpec,
        answer: usize,
        limit: Option<u64>,
        global: &Global,
    ) -> Result<Writing, Failure> {
        // A prompt is short next to the answer.
        let tokens = 2 * answer;
        let (work, one) =
            (work_bytes(spec, tokens, KvType::F32, global.threads()), conversation_bytes(spec, tokens));
        if let Some(limit) = limit.filter(|limit| work + one > *limit) {
            return Err(CalibrateError::Memory { limit, actual: work + one }.into());
        }
        let most = CONVERSATIONS.min(MOST_CONVERSATIONS as u64 * one);
        let conversations = limit.map_or(most, |limit| most.min(limit - work)).max(one);
        Ok(Writing { conversations, peak: work + conversations })
    }
}
