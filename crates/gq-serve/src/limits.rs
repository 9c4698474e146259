//! How much a server takes on.

use std::time::Duration;

/// Bounds of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Answers that are generated at once, each with a cache of its own.
    pub parallel: usize,
    /// Tokens of a prompt and its answer together.
    pub context: usize,
    /// Requests that wait for a cache; one more is refused.
    pub queue: usize,
    /// Most tokens of an answer.
    pub answer: usize,
    /// Bytes of a request's body.
    pub body: usize,
    /// Connections at once; one more is told so and closed.
    pub connections: usize,
    /// From a request's admission to its answer's last token.
    pub time: Duration,
    /// For a request's head, for its body, and for a client that does not read.
    pub idle: Duration,
    /// For answers that are not finished when the server is told to stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            parallel: 4,
            context: 8192,
            queue: 64,
            answer: usize::MAX,
            body: 4 << 20,
            connections: 256,
            time: Duration::from_secs(600),
            idle: Duration::from_secs(30),
            drain: Duration::from_secs(30),
        }
    }
}
