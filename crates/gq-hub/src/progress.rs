//! What a transfer reports while it runs, and how it is stopped.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Something that happened in a transfer. Paths are those inside the repository.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<'a> {
    /// A file begins; `have` of its `size` bytes are already here.
    Started {
        /// Path in the repository.
        path: &'a str,
        /// Bytes of the whole file.
        size: u64,
        /// Bytes that need not be moved again.
        have: u64,
    },
    /// `bytes` more of a file moved.
    Moved {
        /// Path in the repository.
        path: &'a str,
        /// Bytes since the last event.
        bytes: u64,
    },
    /// A request failed and will be made again after `wait`.
    Retrying {
        /// Path in the repository, or the address of an API call.
        path: &'a str,
        /// How many times this request has failed without getting any further.
        attempt: u32,
        /// Time until the next try.
        wait: Duration,
        /// Whether the server asked for that wait.
        asked: bool,
        /// What went wrong.
        reason: &'a str,
    },
    /// A question to the Hub has no whole answer yet, and is waited for. Told once for each try.
    Unanswered {
        /// The address, without its query.
        url: &'a str,
    },
    /// Another process fetches the same file: it is waited for. Told once.
    Waiting {
        /// Path in the repository.
        path: &'a str,
        /// The lock that the other process holds.
        lock: &'a Path,
    },
    /// All bytes are here and are being hashed.
    Verifying {
        /// Path in the repository.
        path: &'a str,
    },
    /// The cache's bytes are not those of the file: they are fetched again.
    Damaged {
        /// Path in the repository.
        path: &'a str,
    },
    /// The file is in place.
    Finished {
        /// Path in the repository.
        path: &'a str,
    },
}

/// Called from several threads.
pub type Progress<'a> = dyn Fn(Event<'_>) + Sync + 'a;

/// Stops a transfer from another thread or a signal handler; what is finished stays for the next run.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A token that nobody has used.
    pub fn new() -> CancelToken {
        CancelToken::default()
    }

    /// Asks the transfer to stop at the next buffer.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
