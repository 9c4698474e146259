//! One answer at work: its cache, its random numbers, its text.

use super::Ticket;
use super::answer::Answer;
use super::logprobs::logprob;
use super::metrics::{Metrics, Outcome};
use super::slots::Slot;
use super::task::{EngineError, Event, Finish, Task, Usage};
use gq_model::{Sampler, Turn};
use gq_text::{Part, Tokenizer, TokenizerError};
use std::time::Instant;
use tokio::sync::mpsc::UnboundedSender;

/// A task in the queue.
pub(super) struct Job {
    pub(super) task: Task,
    pub(super) events: UnboundedSender<Event>,
    pub(super) since: Instant,
    /// Its place among those that were admitted, which is free when this is dropped.
    pub(super) _ticket: Ticket,
}

impl Job {
    /// Why it is not to be begun any more.
    pub(super) fn over(&self, now: Instant) -> Option<Over> {
        match self.events.is_closed() {
            true => Some(Over::Left),
            false => (now >= self.task.deadline).then_some(Over::Failed(EngineError::Late)),
        }
    }

    /// Tells why, and forgets it.
    pub(super) fn end(self, over: Over, metrics: &Metrics) {
        if let Over::Failed(error) = &over {
            // Whoever asked may have gone.
            let _ = self.events.send(Event::Failed(error.clone()));
        }
        metrics.ended(over.outcome(), self.since.elapsed());
    }
}

/// How an answer ended.
#[derive(Clone, Debug)]
pub(super) enum Over {
    /// Whole.
    Done(Finish),
    /// Nobody waits for it.
    Left,
    /// It cannot go on.
    Failed(EngineError),
}

impl Over {
    fn outcome(&self) -> Outcome {
        match self {
            Over::Done(Finish::Stop) => Outcome::Stop,
            Over::Done(Finish::Length) => Outcome::Length,
            Over::Left => Outcome::Cancelled,
            Over::Failed(EngineError::Late) => Outcome::Late,
            Over::Failed(_) => Outcome::Failed,
        }
    }
}

/// An answer with a cache.
pub(super) struct Running<'a> {
    job: Job,
    slot: Slot,
    tokenizer: &'a Tokenizer,
    answer: Answer<'a>,
    sampler: Sampler,
    /// Of prompt and answer; the cache has the first of them.
    tokens: Vec<u32>,
    usage: Usage,
    left: usize,
    over: Option<Over>,
}

impl<'a> Running<'a> {
    /// Begins a task in a cache that has some of its prompt already.
    pub(super) fn begin(mut job: Job, slot: Slot, tokenizer: &'a Tokenizer, context: usize) -> Running<'a> {
        let tokens = std::mem::take(&mut job.task.prompt);
        let stop = std::mem::take(&mut job.task.stop);
        Running {
            answer: Answer::new(tokenizer, job.task.parts, stop),
            sampler: Sampler::new(job.task.sampling),
            usage: Usage { prompt: tokens.len(), cached: slot.cache.len(), ..Usage::default() },
            left: job.task.max_tokens.min(context.saturating_sub(tokens.len())),
            over: None,
            job,
            slot,
            tokenizer,
            tokens,
        }
    }

    /// Tokens of its prompt, and those of them that were in the cache.
    pub(super) fn prompt(&self) -> (usize, usize) {
        (self.usage.prompt, self.usage.cached)
    }

    /// Tokens that are to be run.
    pub(super) fn pending(&self) -> usize {
        self.tokens.len() - self.slot.cache.len()
    }

    /// Tokens in its cache.
    pub(super) fn held(&self) -> usize {
        self.slot.cache.len()
    }

    /// The next `count` of them; with the last one, the next token can be chosen.
    pub(super) fn turn(&mut self, count: usize) -> Turn<'_> {
        let from = self.slot.cache.len();
        let tokens = self.tokens.get(from..from + count).unwrap_or(&[]);
        Turn { tokens, cache: &mut self.slot.cache, logits: from + count == self.tokens.len() }
    }

    /// Chooses the next token by its logits.
    pub(super) fn choose(&mut self, logits: &[f32], metrics: &Metrics) {
        if !logits.iter().all(|logit| logit.is_finite()) {
            self.over = Some(Over::Failed(EngineError::NotFinite));
            return;
        }
        if let Err(error) = self.go_on(logits, metrics) {
            self.over = Some(Over::Failed(EngineError::Text { why: error.to_string() }));
        }
    }

    fn go_on(&mut self, logits: &[f32], metrics: &Metrics) -> Result<(), TokenizerError> {
        if self.left == 0 {
            return self.finish(Finish::Length);
        }
        let token = self.sampler.sample_after(logits, &self.tokens);
        if self.job.task.stop_tokens.contains(&token) {
            return self.finish(Finish::Stop);
        }
        let part = self.answer.part(token);
        let wanted = self.job.task.logprobs.filter(|_| part == Some(Part::Content));
        let before = self.tokens.last().copied().filter(|_| self.usage.answer > 0);
        let logprob = wanted.map(|top| logprob(self.tokenizer, before, token, logits, top)).transpose()?;
        if self.usage.answer == 0 {
            metrics.first_token(self.job.since.elapsed());
        }
        let (delta, stopped) = self.answer.push(token, logprob)?;
        self.tokens.push(token);
        self.left -= 1;
        self.usage.answer += 1;
        self.usage.thinking += usize::from(part == Some(Part::Thinking));
        if let Some(delta) = delta {
            self.tell(Event::Delta(delta));
        }
        match (stopped, self.left) {
            (true, _) => {
                self.over = Some(Over::Done(Finish::Stop));
                Ok(())
            }
            (false, 0) => self.finish(Finish::Length),
            (false, _) => Ok(()),
        }
    }

    fn finish(&mut self, finish: Finish) -> Result<(), TokenizerError> {
        for delta in self.answer.finish()? {
            self.tell(Event::Delta(delta));
        }
        self.over = Some(Over::Done(finish));
        Ok(())
    }

    /// A client that has gone is noticed between steps.
    fn tell(&self, event: Event) {
        let _ = self.job.events.send(event);
    }

    /// How it ended, if it did.
    pub(super) fn over(&self, now: Instant) -> Option<Over> {
        self.over.clone().or_else(|| self.job.over(now))
    }

    /// Tells how it ended and gives its cache back, with the tokens that it has.
    pub(super) fn end(self, over: Over, metrics: &Metrics) -> Slot {
        let Running { job, mut slot, mut tokens, usage, .. } = self;
        metrics.answered(usage.answer);
        if let Over::Done(finish) = over {
            let _ = job.events.send(Event::End(finish, usage));
        }
        job.end(over, metrics);
        tokens.truncate(slot.cache.len());
        slot.seen = tokens;
        slot
    }
}
