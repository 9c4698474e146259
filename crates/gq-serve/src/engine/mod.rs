//! Many answers at once: a queue, caches, and one thread that runs step after step.
//!
//! A step runs the next tokens of every answer through the model together: one token of each that goes on, and pieces of
//! prompts. Answers join and leave between steps.

mod answer;
mod logprobs;
mod metrics;
mod running;
mod share;
mod slots;
mod stops;
mod task;

pub use answer::Delta;
pub use logprobs::TokenLogprob;
pub use task::{EngineError, Event, Finish, SubmitError, Task, Usage};

pub(crate) use metrics::{Metrics, Outcome, add, read};

use crate::limits::Limits;
use gq_model::cpu::Sums;
use gq_model::{Matrix, Model, Turn};
use gq_text::Tokenizer;
use rayon::prelude::*;
use running::{Job, Over, Running};
use share::share;
use slots::Slots;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// What an engine runs, and how.
pub struct Setup {
    /// The model, on the CPU or on a GPU.
    pub model: Model,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// Order of sums: the fastest, or the one in which an answer does not depend on who else is served.
    pub sums: Sums,
    /// Of these: caches, context and queue.
    pub limits: Limits,
    /// Threads that it computes with.
    pub pool: rayon::ThreadPool,
}

/// A model at work for many. Dropped, it gives up what is not finished.
pub struct Engine {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the engine's thread and those that ask have in common.
struct Shared {
    model: Model,
    tokenizer: Arc<Tokenizer>,
    sums: Sums,
    limits: Limits,
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Requests that have a ticket.
    admitted: AtomicUsize,
    abort: AtomicBool,
    metrics: Metrics,
}

struct Queue {
    waiting: VecDeque<Job>,
    open: bool,
}

/// The right to submit one task; what comes of it keeps it.
pub struct Ticket(Arc<Shared>);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.admitted.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Engine {
    /// Plans the caches and starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(setup: Setup) -> Result<Engine, std::io::Error> {
        let Setup { model, tokenizer, sums, limits, pool } = setup;
        let shared = Arc::new(Shared {
            model,
            tokenizer,
            sums,
            limits,
            queue: Mutex::new(Queue { waiting: VecDeque::new(), open: true }),
            wake: Condvar::new(),
            admitted: AtomicUsize::new(0),
            abort: AtomicBool::new(false),
            metrics: Metrics::default(),
        });
        let own = Arc::clone(&shared);
        let work = move || pool.install(|| own.run());
        let thread = std::thread::Builder::new().name("engine".to_owned()).spawn(work)?;
        Ok(Engine { shared, thread: Mutex::new(Some(thread)) })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.shared.model
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.shared.tokenizer
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Whether it takes tasks.
    pub fn is_open(&self) -> bool {
        self.shared.queue().open
    }

    /// A place among those that are answered or wait.
    ///
    /// # Errors
    /// When as many wait as may, and when the engine ends.
    pub fn admit(&self) -> Result<Ticket, SubmitError> {
        let Limits { parallel, queue, .. } = self.shared.limits;
        if !self.shared.queue().open {
            return Err(SubmitError::Stopping);
        }
        let room = |admitted: usize| (admitted < parallel.saturating_add(queue)).then_some(admitted + 1);
        match self.shared.admitted.fetch_update(Ordering::AcqRel, Ordering::Acquire, room) {
            Ok(_) => Ok(Ticket(Arc::clone(&self.shared))),
            Err(admitted) => {
                add(&self.shared.metrics.full, 1);
                let waiting = admitted.saturating_sub(parallel);
                Err(SubmitError::Full { waiting, retry_after: self.shared.retry_after(waiting) })
            }
        }
    }

    /// Takes no more tasks; those that were submitted are finished.
    pub fn close(&self) {
        self.shared.queue().open = false;
        self.shared.wake.notify_all();
    }

    /// Gives up what is not finished.
    pub fn abort(&self) {
        self.shared.abort.store(true, Ordering::Release);
        self.close();
    }

    /// Waits until it has ended, which somebody has asked it to.
    pub fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic of it has been told to those that waited.
            let _ = thread.join();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.abort();
        self.join();
    }
}

impl Ticket {
    /// Puts a task in the queue. Its events come until its last one; when the receiver is dropped, it is given up.
    ///
    /// # Errors
    /// For a prompt that is empty, too long or no prompt of this model, and when the engine ends.
    pub fn submit(self, task: Task) -> Result<UnboundedReceiver<Event>, SubmitError> {
        let shared = Arc::clone(&self.0);
        shared.model.check_tokens(&task.prompt)?;
        let (tokens, limit) = (task.prompt.len(), shared.limits.context);
        if tokens >= limit {
            return Err(SubmitError::Long { tokens, limit });
        }
        let (events, receiver) = unbounded_channel();
        let mut queue = shared.queue();
        if !queue.open {
            return Err(SubmitError::Stopping);
        }
        queue.waiting.push_back(Job { task, events, since: Instant::now(), _ticket: self });
        shared.metrics.waiting.store(queue.waiting.len() as u64, Ordering::Relaxed);
        drop(queue);
        shared.wake.notify_all();
        Ok(receiver)
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seconds until one of so many that wait may have gone, by what answers took so far.
    fn retry_after(&self, waiting: usize) -> u64 {
        let ended = self.metrics.all_ended().max(1);
        let each = read(&self.metrics.answer_nanos) as f64 * 1e-9 / ended as f64;
        (each * (waiting + 1) as f64 / self.limits.parallel.max(1) as f64).ceil().clamp(1.0, 60.0) as u64
    }

    fn run(&self) {
        let mut slots = Slots::new(&self.model, self.limits.parallel, self.limits.context);
        let mut running: Vec<Running<'_>> = Vec::new();
        while self.fill(&mut slots, &mut running) {
            self.step(&mut slots, &mut running);
            self.sweep(&mut slots, &mut running);
            let tokens = slots.tokens() + running.iter().map(Running::held).sum::<usize>();
            self.metrics.cache_tokens.store(tokens as u64, Ordering::Relaxed);
        }
    }

    /// Begins what waits, as far as there are caches; waits where there is nothing to do. Gives whether there is.
    fn fill<'a>(&'a self, slots: &mut Slots, running: &mut Vec<Running<'a>>) -> bool {
        let mut queue = self.queue();
        loop {
            let now = Instant::now();
            let mut kept = VecDeque::with_capacity(queue.waiting.len());
            for job in queue.waiting.drain(..) {
                match job.over(now) {
                    Some(over) => job.end(over, &self.metrics),
                    None if self.abort.load(Ordering::Acquire) => {
                        job.end(Over::Failed(EngineError::Stopping), &self.metrics);
                    }
                    None => kept.push_back(job),
                }
            }
            queue.waiting = kept;
            while slots.any()
                && let Some(job) = queue.waiting.pop_front()
                && let Some(slot) = slots.take(&job.task.prompt)
            {
                let begun = Running::begin(job, slot, &self.tokenizer, self.limits.context);
                let (tokens, cached) = begun.prompt();
                self.metrics.prompt(tokens, cached);
                running.push(begun);
            }
            self.metrics.waiting.store(queue.waiting.len() as u64, Ordering::Relaxed);
            self.metrics.running.store(running.len() as u64, Ordering::Relaxed);
            if !running.is_empty() {
                return true;
            }
            if !queue.open && queue.waiting.is_empty() {
                return false;
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Runs the next tokens of every answer, and chooses what follows.
    fn step(&self, slots: &mut Slots, running: &mut Vec<Running<'_>>) {
        let pending: Vec<usize> = running.iter().map(Running::pending).collect();
        let counts = share(&pending);
        let begun = Instant::now();
        let given = running.iter_mut().zip(&counts).filter(|(_, count)| **count > 0);
        let turns: Vec<Turn<'_>> = given.map(|(one, &count)| one.turn(count)).collect();
        let outcome = catch_unwind(AssertUnwindSafe(|| self.model.forward_together(self.sums, turns)));
        let Matrix { width, data } = match outcome {
            Ok(Ok(logits)) => logits,
            Ok(Err(error)) => return self.fail(slots, running, EngineError::Model(error)),
            Err(panic) => return self.fail(slots, running, EngineError::Defect { message: said(&*panic) }),
        };
        let whole = pending.iter().zip(&counts).map(|(pending, count)| pending == count);
        let ready = running.iter_mut().zip(whole).filter(|(_, whole)| *whole).map(|(one, _)| one);
        let chosen: Vec<_> = ready.zip(data.chunks_exact(width.max(1))).collect();
        let chosen = catch_unwind(AssertUnwindSafe(|| {
            chosen.into_par_iter().for_each(|(one, logits)| one.choose(logits, &self.metrics));
        }));
        if let Err(panic) = chosen {
            return self.fail(slots, running, EngineError::Defect { message: said(&*panic) });
        }
        self.metrics.step(counts.iter().sum(), begun.elapsed());
    }

    /// Takes leave of answers that ended, and of those that nobody waits for.
    fn sweep(&self, slots: &mut Slots, running: &mut Vec<Running<'_>>) {
        let now = Instant::now();
        let aborted = self.abort.load(Ordering::Acquire);
        for one in std::mem::take(running) {
            let stopping = aborted.then_some(Over::Failed(EngineError::Stopping));
            match one.over(now).or(stopping) {
                Some(over) => slots.give(one.end(over, &self.metrics)),
                None => running.push(one),
            }
        }
    }

    /// All answers fail, and their caches are made anew.
    fn fail(&self, slots: &mut Slots, running: &mut Vec<Running<'_>>, error: EngineError) {
        for one in running.drain(..) {
            slots.replace(one.end(Over::Failed(error.clone()), &self.metrics), &self.model);
        }
    }
}

/// What a panic said.
fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message").to_owned()
}
