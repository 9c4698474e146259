//! The time that one rendering may take.
//!
//! Steps bound most of what a template can make the engine do, but a single step may look through a large value. Every
//! rendering has a thread of its own, and what walks through values asks here whether its time is over.

use minijinja::{Error, ErrorKind};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// Detail of the error that a rendering beyond its time ends in.
pub(super) const OVER: &str = "the time is over";

thread_local! {
    static END: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Lets this thread work for `time` from now on.
pub(super) fn start(time: Duration) {
    END.set(Instant::now().checked_add(time));
}

/// # Errors
/// When the time is over.
pub(super) fn check() -> Result<(), Error> {
    match END.get().is_some_and(|end| Instant::now() > end) {
        true => Err(Error::new(ErrorKind::OutOfFuel, OVER)),
        false => Ok(()),
    }
}
