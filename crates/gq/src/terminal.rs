//! The terminal as it was before a line editor changed it: whatever ends the program gives it back like that.

use crate::output::Output;

/// While it lives, the end of the program by a signal gives the terminal back as it was.
#[must_use = "the terminal is left as it is when it is dropped"]
pub struct Kept(());

/// Keeps what the terminal is now.
pub fn keep() -> Kept {
    unix::keep(true);
    Kept(())
}

impl Drop for Kept {
    fn drop(&mut self) {
        unix::keep(false);
    }
}

/// Columns of the terminal, or of `COLUMNS` where none is at hand.
pub fn columns() -> Option<usize> {
    let told = || std::env::var("COLUMNS").ok()?.parse().ok();
    unix::columns().or_else(told).filter(|&columns| columns > 0)
}

/// Gives the terminal back as it was kept, unless another program has it meanwhile.
pub fn restore(output: Output) {
    if unix::restore() {
        output.leave_editor();
    }
}

#[cfg(unix)]
mod unix {
    use rustix::process::getpgrp;
    use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr};
    use std::sync::{Mutex, PoisonError};

    static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

    pub(super) fn keep(kept: bool) {
        let found = if kept { tcgetattr(std::io::stdin()).ok() } else { None };
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }

    pub(super) fn columns() -> Option<usize> {
        let size = tcgetwinsize(std::io::stdout())
            .or_else(|_| tcgetwinsize(std::io::stderr()))
            .or_else(|_| tcgetwinsize(std::io::stdin()));
        Some(usize::from(size.ok()?.ws_col))
    }

    /// Whether there was something to give back.
    pub(super) fn restore() -> bool {
        let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
        // In the background the terminal is another's, and setting it would stop the program instead of ending it.
        let in_front = || tcgetpgrp(std::io::stdin()).is_ok_and(|group| group == getpgrp());
        before
            .as_ref()
            .filter(|_| in_front())
            .is_some_and(|before| tcsetattr(std::io::stdin(), OptionalActions::Now, before).is_ok())
    }
}

/// There, line editors change nothing that outlives the program.
#[cfg(not(unix))]
mod unix {
    pub(super) fn keep(_: bool) {}

    pub(super) fn columns() -> Option<usize> {
        None
    }

    pub(super) fn restore() -> bool {
        false
    }
}
