//! `/metrics`: what is counted, in Prometheus' text format.

use crate::engine::{Metrics, Outcome, read};
use std::fmt::Write;
use std::sync::atomic::AtomicU64;

/// Counts of the HTTP side.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Responses by the hundreds of their status, from 200 on.
    pub(super) responses: [AtomicU64; 4],
    /// Connections that were closed at once, since there were as many as may be.
    pub(super) refused: AtomicU64,
}

/// What does not change, and what is so now.
pub(super) struct Facts {
    pub(super) slots: usize,
    pub(super) context: usize,
    pub(super) cache_bytes: u64,
    pub(super) connections: usize,
}

/// All of it.
pub(super) fn page(metrics: &Metrics, counts: &Counts, facts: &Facts) -> String {
    let mut page = Page(String::new());
    let ended: Vec<(String, f64)> = Outcome::ALL
        .iter()
        .map(|(outcome, name)| {
            (format!("outcome=\"{name}\""), read(&metrics.outcomes[*outcome as usize]) as f64)
        })
        .collect();
    page.add("gq_requests_total", "counter", "Requests by how their answers ended.", &ended);
    let responses: Vec<(String, f64)> = (2..)
        .zip(&counts.responses)
        .map(|(hundreds, count)| (format!("status=\"{hundreds}xx\""), read(count) as f64))
        .collect();
    page.add("gq_http_responses_total", "counter", "Responses by status.", &responses);
    let seconds = |nanos: &AtomicU64| read(nanos) as f64 * 1e-9;
    let count = |sum: &AtomicU64| read(sum) as f64;
    for (name, kind, help, value) in [
        (
            "gq_requests_refused_total",
            "counter",
            "Requests refused since the queue was full.",
            count(&metrics.full),
        ),
        (
            "gq_connections_refused_total",
            "counter",
            "Connections closed since there were too many.",
            count(&counts.refused),
        ),
        ("gq_prompt_tokens_total", "counter", "Tokens of prompts.", count(&metrics.prompt_tokens)),
        (
            "gq_prompt_tokens_cached_total",
            "counter",
            "Tokens of prompts that a cache had already.",
            count(&metrics.cached_tokens),
        ),
        ("gq_answer_tokens_total", "counter", "Tokens of answers that ended.", count(&metrics.answer_tokens)),
        ("gq_steps_total", "counter", "Passes through the model.", count(&metrics.steps)),
        ("gq_step_tokens_total", "counter", "Tokens of all passes.", count(&metrics.step_tokens)),
        ("gq_step_seconds_total", "counter", "Seconds of all passes.", seconds(&metrics.step_nanos)),
        ("gq_first_tokens_total", "counter", "Answers that have a token.", count(&metrics.first_tokens)),
        (
            "gq_first_token_seconds_total",
            "counter",
            "Seconds from a request to its first token, all requests.",
            seconds(&metrics.first_token_nanos),
        ),
        (
            "gq_answer_seconds_total",
            "counter",
            "Seconds from a request to its end, all requests.",
            seconds(&metrics.answer_nanos),
        ),
        ("gq_requests_running", "gauge", "Answers that are generated.", count(&metrics.running)),
        ("gq_requests_waiting", "gauge", "Requests that wait for a cache.", count(&metrics.waiting)),
        ("gq_connections", "gauge", "Open connections.", facts.connections as f64),
        ("gq_cache_tokens", "gauge", "Tokens in caches.", count(&metrics.cache_tokens)),
        ("gq_cache_slots", "gauge", "Caches.", facts.slots as f64),
        ("gq_cache_context_tokens", "gauge", "Tokens that each of them holds.", facts.context as f64),
        ("gq_cache_bytes", "gauge", "Bytes planned for all of them.", facts.cache_bytes as f64),
    ] {
        page.add(name, kind, help, &[(String::new(), value)]);
    }
    page.0
}

struct Page(String);

impl Page {
    fn add(&mut self, name: &str, kind: &str, help: &str, values: &[(String, f64)]) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (label, value) in values {
            let _ = match label.is_empty() {
                true => writeln!(self.0, "{name} {value}"),
                false => writeln!(self.0, "{name}{{{label}}} {value}"),
            };
        }
    }
}
