//! The one boundary at which panics of other people's crates become errors.
//!
//! Tokenizers and chat templates come with a checkpoint and are run by crates that were not written against hostile
//! files. Whatever they do inside of [`guarded`] ends as an [`OutsidePanic`] of the caller, without a trace on
//! standard error. What aborts the process (a full stack or memory) is beyond this; limits are set before the call.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

/// A panic inside of another crate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{part} cannot be used: the library that runs it stopped with {message:?}")]
pub struct OutsidePanic {
    /// What was run, such as `tokenizer.json`.
    pub part: &'static str,
    /// What the panic said.
    pub message: String,
}

#[cfg(not(panic = "unwind"))]
compile_error!("panics of outside crates are caught, which needs `panic = \"unwind\"`");

thread_local! {
    /// Calls of [`guarded`] that this thread is in.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Runs `work`; a panic in it is an error. `part` says what is run, for the message.
///
/// What `work` was changing when it panicked may be half done: use it no more, or make sure that it does not matter.
///
/// # Errors
/// When `work` panics.
pub fn guarded<T>(part: &'static str, work: impl FnOnce() -> T) -> Result<T, OutsidePanic> {
    quiet_hook();
    let _inside = Inside::enter();
    panic::catch_unwind(AssertUnwindSafe(work))
        .map_err(|payload| OutsidePanic { part, message: message(&*payload) })
}

/// Counts while it lives, also when it goes by a panic.
struct Inside;

impl Inside {
    fn enter() -> Inside {
        DEPTH.set(DEPTH.get() + 1);
        Inside
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Sync + Send>;

/// Keeps the report of a panic from standard error where it is caught; elsewhere it is made as before.
fn quiet_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| panic::set_hook(quiet(panic::take_hook())));
}

fn quiet(report: Hook) -> Hook {
    Box::new(move |info| {
        // A thread that is being torn down has no counter any more; it is not inside.
        if DEPTH.try_with(Cell::get).unwrap_or(0) == 0 {
            report(info);
        }
    })
}

/// What a panic said, in one line.
fn message(payload: &(dyn Any + Send)) -> String {
    const LONGEST: usize = 200;
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic without words");
    text.lines().next().unwrap_or_default().chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_words() {
        let error =
            guarded("tokenizer.json", || -> usize { panic!("no entry for {}\nsecond line", 7) }).unwrap_err();
        assert_eq!(error, OutsidePanic { part: "tokenizer.json", message: "no entry for 7".to_owned() });
        assert_eq!(
            error.to_string(),
            "tokenizer.json cannot be used: the library that runs it stopped with \"no entry for 7\""
        );
        let error = guarded("x", || panic!("plain")).unwrap_err();
        assert_eq!(error.message, "plain");
        let error = guarded("x", || panic::panic_any(5u8)).unwrap_err();
        assert_eq!(error.message, "a panic without words");
    }

    #[test]
    fn what_does_not_panic_is_handed_through() {
        assert_eq!(guarded("x", || 5), Ok(5));
        assert_eq!(
            guarded("x", || guarded("y", || -> u8 { panic!("inner") })).unwrap().unwrap_err().part,
            "y"
        );
        // After both, this thread reports its panics again.
        assert_eq!(DEPTH.get(), 0);
    }

    /// Counts what reaches the hook that was there before: nothing of a guarded thread, everything of another.
    #[test]
    fn only_guarded_panics_are_quiet() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static SEEN: AtomicUsize = AtomicUsize::new(0);
        guarded("x", || ()).unwrap();
        let ours = panic::take_hook();
        panic::set_hook(quiet(Box::new(|info| {
            if info.payload().downcast_ref::<&str>().is_some_and(|text| text.starts_with("counted")) {
                SEEN.fetch_add(1, Ordering::SeqCst);
            }
        })));
        let _ = guarded("x", || panic!("counted inside"));
        let outside = std::thread::spawn(|| panic!("counted outside")).join();
        panic::set_hook(ours);
        assert!(outside.is_err());
        assert_eq!(SEEN.load(Ordering::SeqCst), 1);
    }
}
