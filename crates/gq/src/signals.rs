//! Signals: what an interruption leaves and how to go on, and files that are cut while they are read.

use crate::failure::{Exit, Failure};
use crate::output::{Output, terminal};
use crate::units;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

/// What shells expect of a process that a signal ended: this and the signal's number.
const BY_SIGNAL: i32 = 128;

/// What is being done, innermost last.
static WORK: Mutex<Vec<Work>> = Mutex::new(Vec::new());

/// What an interruption leaves.
#[derive(Clone, Debug, Default)]
pub struct Work {
    /// Files and folders that the same command goes on from.
    kept: Vec<PathBuf>,
    /// Files and folders that are of no use without the rest.
    useless: Vec<PathBuf>,
    /// What stays as it was.
    untouched: Option<PathBuf>,
    /// Whether the same command goes on where this one stopped.
    continues: bool,
}

impl Work {
    /// Work that the same command takes up again.
    pub fn that_continues(kept: impl IntoIterator<Item = PathBuf>) -> Work {
        Work { kept: kept.into_iter().collect(), continues: true, ..Work::default() }
    }

    /// Work that is begun again; what it made until then is removed.
    pub fn begun_again(useless: impl IntoIterator<Item = PathBuf>) -> Work {
        Work { useless: useless.into_iter().collect(), ..Work::default() }
    }

    /// The same, on a file that only a finished run changes.
    pub fn leaving(self, untouched: &Path) -> Work {
        Work { untouched: Some(untouched.to_owned()), ..self }
    }
}

/// While it lives, an interruption is about its work.
#[must_use = "the work is over when it is dropped"]
pub struct During(());

/// Says what an interruption from now on leaves.
pub fn during(work: Work) -> During {
    WORK.lock().unwrap_or_else(PoisonError::into_inner).push(work);
    During(())
}

impl Drop for During {
    fn drop(&mut self) {
        WORK.lock().unwrap_or_else(PoisonError::into_inner).pop();
    }
}

/// What Ctrl-C sets in the place of ending the program.
static CAUGHT: Mutex<Option<Arc<AtomicBool>>> = Mutex::new(None);

/// While it lives, Ctrl-C ends nothing.
#[must_use = "Ctrl-C ends the program again when it is dropped"]
pub struct Catching(());

/// From now on Ctrl-C sets `pressed` and ends nothing.
pub fn catch(pressed: &Arc<AtomicBool>) -> Catching {
    *CAUGHT.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(pressed));
    Catching(())
}

impl Drop for Catching {
    fn drop(&mut self) {
        *CAUGHT.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn is_caught() -> bool {
    let caught = CAUGHT.lock().unwrap_or_else(PoisonError::into_inner);
    caught.iter().for_each(|pressed| pressed.store(true, Ordering::Relaxed));
    caught.is_some()
}

/// Begins to watch. Without it signals do what they do in any program, which is no reason not to go on.
pub fn watch(output: Output) {
    let ignored = ignored();
    let wanted = [SIGINT, SIGTERM].into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0);
    if let Ok(mut signals) = Signals::new(wanted) {
        let watch = move || {
            for signal in signals.forever() {
                if signal != SIGINT || !is_caught() {
                    interrupted(signal, output);
                }
            }
        };
        let _ = std::thread::Builder::new().name("signals".to_owned()).spawn(watch);
    }
    if let Ok(mut bus) = gq_files::watch_bus_errors() {
        let watch = move || {
            if bus.read(&mut [0]).is_ok() {
                end(unreadable(), Exit::Environment as i32, output);
            }
        };
        let _ = std::thread::Builder::new().name("bus errors".to_owned()).spawn(watch);
    }
}

/// Signals that the parent wants to be ignored, such as Ctrl-C behind `&` in a script; a bit each.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn interrupted(signal: i32, output: Output) {
    let work = WORK.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let exit = BY_SIGNAL + signal;
    if work.is_empty() && !output.json {
        std::process::exit(exit);
    }
    for path in work.iter().flat_map(|work| &work.useless) {
        // What cannot be removed is found by whoever looks.
        let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    }
    end(stopped(&work, &command_line()), exit, output);
}

/// One sentence for what is left and how to go on.
fn stopped(work: &[Work], command: &str) -> Failure {
    let kept: Vec<String> = work
        .iter()
        .flat_map(|work| &work.kept)
        .filter(|path| path.exists())
        .map(|path| sized(path))
        .collect();
    let untouched: Vec<String> = work
        .iter()
        .filter_map(|work| work.untouched.as_deref())
        .filter(|path| path.exists())
        .map(|path| path.display().to_string())
        .collect();
    let continues = work.iter().any(|work| work.continues && work.kept.iter().any(|path| path.exists()));
    let mut message = "interrupted".to_owned();
    message += &match (kept.is_empty(), untouched.is_empty()) {
        (false, _) => format!(": what is done is kept in {}", kept.join(", ")),
        (true, false) => format!(": {} is as it was", untouched.join(", ")),
        (true, true) if work.is_empty() => String::new(),
        (true, true) => ": nothing is kept".to_owned(),
    };
    if !work.is_empty() {
        let how = if continues { "continues" } else { "begins again" };
        message += &format!("; the same command {how}: {command}");
    }
    let failure = Failure::new(Exit::Environment, "interrupted", message);
    failure.at(command).actual(if continues { "continues" } else { "begins again" })
}

/// A path with its size.
fn sized(path: &Path) -> String {
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() => format!("{} ({})", path.display(), units::bytes(found.len())),
        _ => path.display().to_string(),
    }
}

/// What was typed, as a shell would take it again.
fn command_line() -> String {
    let quoted = |arg: String| match !arg.is_empty()
        && arg.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./=:,@%+".contains(&b))
    {
        true => arg,
        false => format!("'{}'", arg.replace('\'', r"'\''")),
    };
    let args = std::env::args_os().skip(1).map(|arg| quoted(arg.to_string_lossy().into_owned()));
    ["gq".to_owned()].into_iter().chain(args).collect::<Vec<_>>().join(" ")
}

/// Which mapped file cannot be read any more.
fn unreadable() -> Failure {
    let cut = gq_files::cut();
    if let Some(cut) = cut.first() {
        let (was, place) = (units::count(cut.was), cut.path.display());
        let is = cut.is.map_or_else(|| "unknown".to_owned(), units::count);
        let message = format!("{place}: was cut from {was} to {is} bytes while it was in use");
        return Failure::new(Exit::Environment, "file.cut", message).at(place).limit(was).actual(is);
    }
    let mapped = gq_files::mapped().iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
    let message = format!("the system cannot read a file that is in use: {}", mapped.join(", "));
    Failure::new(Exit::Environment, "file.unreadable", message).at(mapped.join(", "))
}

/// Says it and ends the process, whatever the other threads do; they may hold what speaking needs.
fn end(failure: Failure, exit: i32, output: Output) {
    let (said, heard) = mpsc::channel();
    let speak = move || {
        if terminal() && !output.json {
            output.clear_line();
        }
        output.failure(&failure);
        let _ = said.send(());
    };
    if std::thread::Builder::new().spawn(speak).is_ok() {
        let _ = heard.recv_timeout(Duration::from_secs(2));
    }
    std::process::exit(exit);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let (partial, missing) = (dir.path().join("m.gq.partial"), dir.path().join("m.gq"));
        std::fs::write(&partial, [0; 1000]).unwrap();
        let said = |work: &[Work]| stopped(work, "gq convert m").message;
        let kept = Work::that_continues([partial.clone(), missing.clone()]);
        let text = said(&[kept]);
        assert!(text.contains("m.gq.partial (1.00 kB); the same command continues: gq convert m"), "{text}");
        let text = said(&[Work::that_continues([missing.clone()])]);
        assert!(text.contains("nothing is kept; the same command begins again"), "{text}");
        let text = said(&[Work::begun_again([missing.clone()]).leaving(&partial)]);
        assert!(text.contains("m.gq.partial is as it was; the same command begins again"), "{text}");
        assert_eq!(said(&[]), "interrupted");
    }
}
