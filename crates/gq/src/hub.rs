//! The Hub as the environment configures it, with progress on standard error.

use crate::failure::Failure;
use crate::global::Global;
use crate::output::Output;
use crate::progress::{Progress, Unit};
use crate::units;
use gq_hub::{Event, Hub, HubConfig, PullOptions, PullPlan, Snapshot};
use std::sync::Mutex;

/// The Hub that the Hub's own tools would use: `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN`, `HF_ENDPOINT`, `HF_HUB_OFFLINE`, …
pub fn connect() -> Result<Hub, Failure> {
    Ok(Hub::new(HubConfig::from_vars(|name| std::env::var(name).ok()))?)
}

/// Talk of a transfer that is not a number of bytes, on standard error: retries, waits, files that are fetched again.
pub fn chatter(event: &Event<'_>, output: Output) {
    match event {
        Event::Retrying { path, wait, asked: true, reason, .. } => {
            let (path, wait) = (units::printable(path), units::seconds(wait.as_secs_f64()));
            output.note(&format!("{path}: the Hub asked to wait {wait} ({reason})"));
        }
        Event::Retrying { path, attempt, wait, reason, .. } => {
            let (path, wait) = (units::printable(path), units::seconds(wait.as_secs_f64()));
            output.note(&format!("{path}: {reason}; again in {wait} (failure {attempt})"));
        }
        Event::Unanswered { url } => {
            output.note(&format!("{}: no answer yet; still waiting", units::printable(url)));
        }
        Event::Waiting { path, lock } => {
            let (path, lock) = (units::printable(path), units::printable(&lock.display().to_string()));
            output.note(&format!("{path}: another process is fetching it; waiting for its lock, {lock}"));
        }
        Event::Damaged { path } => {
            let path = units::printable(path);
            output.note(&format!(
                "{path}: the cache has other bytes than the Hub promises; it is fetched again"
            ));
        }
        _ => {}
    }
}

/// One bar over all files of a transfer, fed from several threads.
pub struct Bar {
    progress: Mutex<(Progress, u64)>,
    output: Output,
}

impl Bar {
    /// A bar over `total` bytes that are still to be moved.
    pub fn new(label: &'static str, total: u64, global: &Global) -> Bar {
        let output = global.output();
        let progress = Progress::new(global.progress, output, label, Unit::Bytes, total);
        Bar { progress: Mutex::new((progress, 0)), output }
    }

    /// Takes in what happened.
    pub fn event(&self, event: &Event<'_>) {
        chatter(event, self.output);
        let mut guard = self.progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (progress, done) = &mut *guard;
        match event {
            Event::Moved { path, bytes } => {
                *done += bytes;
                progress.set(*done, path);
            }
            Event::Verifying { path } => progress.set(*done, &format!("verifying {path}")),
            _ => {}
        }
    }

    /// Removes the bar and gives back the seconds and the bytes moved.
    pub fn finish(self) -> (f64, u64) {
        let (progress, done) = self.progress.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        (progress.finish(), done)
    }
}

/// Executes a plan with a bar. Gives the snapshot, and the seconds and bytes it took.
pub fn pull(
    hub: &Hub,
    plan: &PullPlan,
    options: &PullOptions,
    global: &Global,
) -> Result<(Snapshot, f64, u64), Failure> {
    let bar = Bar::new("pull", plan.fetch_bytes(), global);
    let outcome = hub.pull(plan, options, &|event| bar.event(&event));
    let (seconds, bytes) = bar.finish();
    Ok((outcome?, seconds, bytes))
}
