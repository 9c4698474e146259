//! What the engine counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How answers end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Stop,
    Length,
    Cancelled,
    Late,
    Failed,
}

impl Outcome {
    pub(crate) const ALL: [(Outcome, &'static str); 5] = [
        (Outcome::Stop, "stop"),
        (Outcome::Length, "length"),
        (Outcome::Cancelled, "cancelled"),
        (Outcome::Late, "late"),
        (Outcome::Failed, "failed"),
    ];
}

/// Sums since the engine began, and what is so now.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) outcomes: [AtomicU64; 5],
    pub(crate) full: AtomicU64,
    pub(crate) prompt_tokens: AtomicU64,
    pub(crate) cached_tokens: AtomicU64,
    pub(crate) answer_tokens: AtomicU64,
    pub(crate) steps: AtomicU64,
    pub(crate) step_tokens: AtomicU64,
    pub(crate) step_nanos: AtomicU64,
    pub(crate) first_tokens: AtomicU64,
    pub(crate) first_token_nanos: AtomicU64,
    pub(crate) answer_nanos: AtomicU64,
    pub(crate) running: AtomicU64,
    pub(crate) waiting: AtomicU64,
    pub(crate) cache_tokens: AtomicU64,
}

/// Adds to a sum.
pub(crate) fn add(sum: &AtomicU64, amount: u64) {
    sum.fetch_add(amount, Ordering::Relaxed);
}

/// Reads one.
pub(crate) fn read(sum: &AtomicU64) -> u64 {
    sum.load(Ordering::Relaxed)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Metrics {
    /// An answer ended, so long after it was asked for.
    pub(super) fn ended(&self, outcome: Outcome, after: Duration) {
        add(&self.outcomes[outcome as usize], 1);
        add(&self.answer_nanos, nanos(after));
    }

    /// A prompt was begun.
    pub(super) fn prompt(&self, tokens: usize, cached: usize) {
        add(&self.prompt_tokens, tokens as u64);
        add(&self.cached_tokens, cached as u64);
    }

    /// An answer's tokens.
    pub(super) fn answered(&self, tokens: usize) {
        add(&self.answer_tokens, tokens as u64);
    }

    /// The first token of an answer, so long after it was asked for.
    pub(super) fn first_token(&self, after: Duration) {
        add(&self.first_tokens, 1);
        add(&self.first_token_nanos, nanos(after));
    }

    /// A step with so many tokens.
    pub(super) fn step(&self, tokens: usize, took: Duration) {
        add(&self.steps, 1);
        add(&self.step_tokens, tokens as u64);
        add(&self.step_nanos, nanos(took));
    }

    /// Answers that ended.
    pub(crate) fn all_ended(&self) -> u64 {
        self.outcomes.iter().map(read).sum()
    }
}
