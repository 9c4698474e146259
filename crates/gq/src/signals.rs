//! Signals: what an interruption leaves and how to go on, and files that are cut while they are read.

use crate::failure::{Exit, Failure};
use crate::output::{self, Output};
use crate::{terminal, typed, units};
use gq_files::{Held, Identity};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, mpsc};
use std::time::{Duration, Instant};

/// What shells expect of a process that a signal ended: this and the signal's number.
const BY_SIGNAL: i32 = 128;

/// What an interruption would be about.
static STATE: Mutex<State> = Mutex::new(State { work: Vec::new(), whole: Vec::new(), coming: Vec::new() });

/// What the program is at.
struct State {
    /// What is being done, innermost last.
    work: Vec<Work>,
    /// Files that are whole, under whatever name they have by now.
    whole: Vec<Identity>,
    /// Names of files that are whole when they get others.
    coming: Vec<PathBuf>,
}

/// Waits for ever once an interruption is being told: nothing begins, ends or gets its name from then on.
fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

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
    /// What is made: once the first has its name, there is nothing to go on with.
    outputs: Vec<PathBuf>,
    /// What is not done when the first has its name, in a clause.
    missing: String,
    /// Folders that the same command goes on from.
    folders: Vec<Folder>,
    /// Where finished parts are kept for whatever command needs them.
    cache: Option<PathBuf>,
}

/// A folder that work is kept in.
#[derive(Clone, Debug)]
struct Folder {
    path: PathBuf,
    /// Files one of which is there when something can be gone on from; without, nothing in it is of use.
    marks: Vec<PathBuf>,
    /// Whether it was there before.
    was_there: bool,
    /// What the names of files end with that are of no use.
    end: &'static str,
}

impl Folder {
    fn is_of_use(&self) -> bool {
        self.marks.iter().any(|mark| mark.exists())
    }

    /// Its path with what is in it.
    fn sized(&self) -> String {
        let files = std::fs::read_dir(&self.path).into_iter().flatten().flatten();
        let files: Vec<u64> = files.filter_map(|file| Some(file.metadata().ok()?.len())).collect();
        let bytes = units::bytes(files.iter().sum());
        format!("{} ({bytes} in {} files)", self.path.display(), files.len())
    }

    /// Removes what this process made, where that is of no use.
    fn clean(&self) {
        if self.is_of_use() {
            return;
        }
        for file in std::fs::read_dir(&self.path).into_iter().flatten().flatten() {
            if file.file_name().to_string_lossy().ends_with(self.end) {
                let _ = gq_files::remove_begun(&file.path());
            }
        }
        if !self.was_there {
            // What others put there stays, and the folder with it.
            let _ = std::fs::remove_dir(&self.path);
        }
    }
}

impl Work {
    /// Work that the same command takes up again.
    pub fn that_continues(kept: impl IntoIterator<Item = PathBuf>) -> Work {
        Work { kept: kept.into_iter().collect(), continues: true, ..Work::default() }
    }

    /// Work that is begun again; what this process made until then is removed, and nothing of another process, which may
    /// be writing the same output.
    pub fn begun_again(useless: impl IntoIterator<Item = PathBuf>) -> Work {
        Work { useless: useless.into_iter().collect(), ..Work::default() }
    }

    /// The same, with files that are of no use to another run; this process removes what it made of them.
    pub fn removing(mut self, useless: impl IntoIterator<Item = PathBuf>) -> Work {
        self.useless.extend(useless);
        self
    }

    /// The same, on a file that only a finished run changes.
    pub fn leaving(self, untouched: &Path) -> Work {
        Work { untouched: Some(untouched.to_owned()), ..self }
    }

    /// The same, with work that is kept in a folder once one of `marks` is there; `scratch` is of no use afterwards.
    pub fn keeping_in(
        mut self,
        folder: &Path,
        marks: impl IntoIterator<Item = PathBuf>,
        scratch: impl IntoIterator<Item = PathBuf>,
    ) -> Work {
        let (marks, was_there) = (marks.into_iter().collect(), folder.exists());
        self.folders.push(Folder { path: folder.to_owned(), marks, was_there, end: "" });
        self.useless.extend(scratch);
        self
    }

    /// The same, with a folder in which results of commands are kept; what is begun there is of no use.
    pub fn with_cache(mut self, folder: &Path) -> Work {
        let folder = folder.to_owned();
        self.cache = Some(folder.clone());
        self.folders.push(Folder { path: folder, marks: Vec::new(), was_there: true, end: ".partial" });
        self
    }

    /// Paths and sizes of what is kept.
    fn shown_kept(&self) -> impl Iterator<Item = (&Path, String)> {
        let files = self.kept.iter().filter(|path| path.exists());
        let files = files.map(|path| (path.as_path(), sized(path)));
        let folders = self.folders.iter().filter(|folder| folder.is_of_use());
        files.chain(folders.map(|folder| (folder.path.as_path(), folder.sized())))
    }

    /// The same, with what is made of it: after the first has its name, only `missing` is not done.
    pub fn making(self, outputs: impl IntoIterator<Item = PathBuf>, missing: impl Into<String>) -> Work {
        Work { outputs: outputs.into_iter().collect(), missing: missing.into(), ..self }
    }
}

/// While it lives, an interruption is about its work.
#[must_use = "the work is over when it is dropped"]
pub struct During(());

/// Says what an interruption from now on leaves.
pub fn during(work: Work) -> During {
    state().work.push(work);
    During(())
}

impl Drop for During {
    fn drop(&mut self) {
        state().work.pop();
    }
}

/// Notes that the file or folder at `path` is whole and is about to get its name. An interruption later finds out by
/// itself whether it has it.
pub fn whole(path: &Path) {
    let mut state = state();
    if let Ok(identity) = Identity::of(path) {
        state.whole.push(identity);
    }
}

/// The same of a file that is still to be written at `path`.
pub fn whole_when_named(path: &Path) {
    state().coming.push(path.to_owned());
}

/// Keeps an interruption from being told until the file at `path` has its name: what is told then is so when the program
/// ends.
fn naming(path: &Path) -> Held {
    let mut state = state();
    if state.coming.iter().any(|coming| coming == path)
        && let Ok(identity) = Identity::of(path)
    {
        state.whole.push(identity);
    }
    Box::new(state)
}

/// Waits for the end of the program where that is near: what an interruption removed must not be taken for a failure.
pub fn wait_if_ending() {
    drop(state());
}

/// What signals set in the place of ending the program.
static CAUGHT: Mutex<Option<Caught>> = Mutex::new(None);

/// What is set, and by what.
#[derive(Clone)]
enum Caught {
    /// By Ctrl-C, however often.
    Pressed(Arc<AtomicBool>),
    /// By the first signal that would end the program.
    Told(Arc<AtomicBool>),
}

/// While it lives, signals end nothing.
#[must_use = "signals end the program again when it is dropped"]
pub struct Catching(());

/// From now on Ctrl-C sets `pressed` and ends nothing.
pub fn catch(pressed: &Arc<AtomicBool>) -> Catching {
    catching(Caught::Pressed(Arc::clone(pressed)))
}

/// From now on the first signal that would end the program sets `told`; the second ends it.
pub fn catch_first(told: &Arc<AtomicBool>) -> Catching {
    catching(Caught::Told(Arc::clone(told)))
}

fn catching(caught: Caught) -> Catching {
    *CAUGHT.lock().unwrap_or_else(PoisonError::into_inner) = Some(caught);
    Catching(())
}

impl Drop for Catching {
    fn drop(&mut self) {
        *CAUGHT.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn is_caught(signal: i32) -> bool {
    match &*CAUGHT.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(Caught::Pressed(pressed)) if signal == SIGINT => {
            pressed.store(true, Ordering::Relaxed);
            true
        }
        Some(Caught::Told(told)) => !told.swap(true, Ordering::Relaxed),
        _ => false,
    }
}

/// Begins to watch. Without it signals do what they do in any program, which is no reason not to go on.
pub fn watch(output: Output) {
    gq_files::hold_while_naming(naming);
    let ignored = ignored();
    let wanted = [SIGINT, SIGTERM].into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0);
    if let Ok(mut signals) = Signals::new(wanted) {
        let watch = move || {
            for signal in signals.forever() {
                if !is_caught(signal) {
                    interrupted(signal, output);
                }
            }
        };
        let _ = std::thread::Builder::new().name("signals".to_owned()).spawn(watch);
    }
    if let Ok(mut bus) = gq_files::watch_bus_errors() {
        let watch = move || {
            if bus.read(&mut [0]).is_ok() {
                // Held until the program has ended, as for an interruption.
                let state = state_soon();
                let work = state.as_deref().map_or(&[][..], |state| state.work.as_slice());
                clean(work);
                end(unreadable(work), Exit::Environment as i32, output, || clean(work));
            }
        };
        let _ = std::thread::Builder::new().name("bus errors".to_owned()).spawn(watch);
    }
}

/// The state unless somebody holds it for long: the thread that failed may.
fn state_soon() -> Option<MutexGuard<'static, State>> {
    let begun = Instant::now();
    loop {
        match STATE.try_lock() {
            Ok(state) => return Some(state),
            Err(TryLockError::Poisoned(state)) => return Some(state.into_inner()),
            Err(TryLockError::WouldBlock) if begun.elapsed() < Duration::from_secs(1) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(TryLockError::WouldBlock) => return None,
        }
    }
}

/// Removes what is of no use without the rest, where this process made it.
fn clean(work: &[Work]) {
    for path in work.iter().flat_map(|work| &work.useless) {
        // What cannot be removed is found by whoever looks.
        let _ = gq_files::remove_begun(path);
    }
    work.iter().flat_map(|work| &work.folders).for_each(Folder::clean);
}

/// Signals that the parent wants to be ignored, such as Ctrl-C behind `&` in a script; a bit each.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn interrupted(signal: i32, output: Output) {
    // Held until the program has ended.
    let state = state();
    let exit = BY_SIGNAL + signal;
    if state.work.is_empty() && !output.json {
        terminal::restore(output);
        std::process::exit(exit);
    }
    clean(&state.work);
    // Other threads went on meanwhile.
    end(stopped(&state.work, &state.whole, &typed::command()), exit, output, || clean(&state.work));
}

/// One sentence for what is left and how to go on.
fn stopped(work: &[Work], whole: &[Identity], command: &str) -> Failure {
    let there = |path: &Path| Identity::of(path).is_ok_and(|identity| whole.contains(&identity));
    let kept: Vec<(&Path, String)> = work.iter().flat_map(Work::shown_kept).collect();
    let failure = |message: String, actual| {
        Failure::new(Exit::Environment, "interrupted", message).at(command).actual(actual)
    };
    if let Some(done) = work.iter().find(|work| work.outputs.first().is_some_and(|path| there(path))) {
        let (made, lacking): (Vec<&PathBuf>, Vec<&PathBuf>) =
            done.outputs.iter().partition(|path| there(path));
        let made: Vec<String> = made.into_iter().map(|path| sized(path)).collect();
        let lacking: Vec<String> = lacking.into_iter().map(|path| path.display().to_string()).collect();
        let mut message = format!("interrupted: {} is finished", made.join(", "));
        if !lacking.is_empty() {
            message += &format!(", {} is not", lacking.join(", "));
        }
        if !done.missing.is_empty() {
            message += &format!("; {}", done.missing);
        }
        let left: Vec<String> =
            kept.into_iter().filter(|(path, _)| !there(path)).map(|(_, shown)| shown).collect();
        if !left.is_empty() {
            message += &format!("; left next to it, no longer of use: {}", left.join(", "));
        }
        return failure(message, "finished");
    }
    let untouched: Vec<String> = work
        .iter()
        .filter_map(|work| work.untouched.as_deref())
        .filter(|path| path.exists())
        .map(|path| path.display().to_string())
        .collect();
    let continues = work.iter().any(|work| work.continues && work.shown_kept().next().is_some());
    let mut message = "interrupted".to_owned();
    message += &match (kept.is_empty(), untouched.is_empty()) {
        (false, _) => {
            let kept: Vec<String> = kept.into_iter().map(|(_, shown)| shown).collect();
            format!(": what is done is kept in {}", kept.join(", "))
        }
        (true, false) => format!(": {} is as it was", untouched.join(", ")),
        (true, true) if work.is_empty() => String::new(),
        (true, true) => {
            let cache = work.iter().filter_map(|work| work.cache.as_deref()).find(|dir| dir.exists());
            let but = cache.map_or_else(String::new, |dir| format!(" but what {} holds", dir.display()));
            format!(": nothing is kept{but}")
        }
    };
    let how = if continues { "continues" } else { "begins again" };
    if !work.is_empty() {
        message += &format!("; the same command {how}: {command}");
    }
    failure(message, how)
}

/// A path with its size.
fn sized(path: &Path) -> String {
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() => format!("{} ({})", path.display(), units::bytes(found.len())),
        _ => path.display().to_string(),
    }
}

/// Which mapped file cannot be read any more, and what is kept of the work.
fn unreadable(work: &[Work]) -> Failure {
    let kept: Vec<String> = work.iter().flat_map(Work::shown_kept).map(|(_, shown)| shown).collect();
    let mut failure = which_unreadable();
    if !kept.is_empty() {
        failure.message += &format!("; what is done is kept in {}", kept.join(", "));
    }
    failure
}

fn which_unreadable() -> Failure {
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

/// Says it and ends the process, whatever the other threads do; they may hold what speaking needs. `last` is what is done
/// right before.
fn end(failure: Failure, exit: i32, output: Output, last: impl Fn()) -> ! {
    terminal::restore(output);
    let (said, heard) = mpsc::channel();
    let speak = move || {
        if output::terminal() && !output.json {
            output.clear_line();
        }
        output.failure(&failure);
        let _ = said.send(());
    };
    if std::thread::Builder::new().spawn(speak).is_ok() {
        let _ = heard.recv_timeout(Duration::from_secs(2));
    }
    last();
    std::process::exit(exit);
}

#[cfg(test)]
mod tests;
