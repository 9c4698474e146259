//! A stand-in for NVIDIA's driver library: the functions of `libcuda.so.1` that this workspace calls, with an interpreter
//! of PTX as the device.
//!
//! Tests run programs that load the driver as they always do, without a change: a child process with [`folder`] in
//! `LD_LIBRARY_PATH` finds this library under the driver's names, and the library greets on standard error ([`GREETING`]), so
//! that nobody takes a card for it. Launches run at once, one after the other. The first fault of a kernel is written to
//! standard error; as on a GPU, the next call that waits for the device fails, and every call after that.
//!
//! `GQ_STAND_IN` sets what the device is and where it fails, as `key=number` separated by commas ([`Settings`]).
//!
//! This crate does not know what a kernel is for, and is never shipped.
#![allow(clippy::print_stderr, clippy::panic)] // it serves tests: a fault is told where they look

#[allow(unsafe_code)]
mod calls;
mod device;
mod settings;

pub use settings::Settings;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

/// What the library writes to standard error when it is first called.
pub const GREETING: &str = "stand-in of the driver: its device is the PTX interpreter";

/// Names of the driver's library, in the order in which programs ask for it.
const NAMES: [&str; 2] = ["libcuda.so", "libcuda.so.1"];

/// A folder in which this library has the driver's names, to be put in `LD_LIBRARY_PATH` of a child process; made in `dir`.
/// `None` where the library is not next to the running test: on systems that load no `libcuda.so.1`.
///
/// # Panics
/// When the folder cannot be written.
pub fn folder(dir: &Path) -> Option<PathBuf> {
    let test = std::env::current_exe().ok()?;
    let library = test.parent()?.join("libgq_stand_in.so");
    if !library.is_file() {
        return None;
    }
    let folder = dir.join("stand-in");
    let name = |name: &&str| named(&library, &folder.join(name));
    let made = std::fs::create_dir_all(&folder).and_then(|()| NAMES.iter().try_for_each(name));
    match made {
        Ok(()) => Some(folder),
        Err(error) => panic!("{}: {error}", folder.display()),
    }
}

/// Runs a test of this binary again (or here, on the machine's own driver, where `GQ_REAL_DRIVER` is set and the stand-in
/// is not asked to fail), in a process that finds this library as its driver; `None` in that process, where the
/// test goes on to its work, and where the library cannot be loaded, which is said.
///
/// ```ignore
/// #[test]
/// fn it_works() {
///     let Some(()) = gq_stand_in::inside("module::it_works", "memory=1000000") else { return };
///     // in the other process
/// }
/// ```
///
/// # Panics
/// When the test fails there.
pub fn inside(test: &str, settings: &str) -> Option<()> {
    if std::env::var_os("GQ_STAND_IN").is_some() {
        return Some(());
    }
    if std::env::var_os("GQ_REAL_DRIVER").is_some() {
        // On the machine's own driver, where the test asks for nothing that only the stand-in does.
        return settings
            .split(',')
            .all(|setting| ["", "count=1", "races=0"].contains(&setting))
            .then_some(());
    }
    let output = again(test, settings)?;
    let [said, errors] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{test} with {settings:?}:\n{said}\n{errors}"
    );
    assert!(errors.contains(GREETING), "{test} with {settings:?} did not meet the stand-in:\n{errors}");
    eprint!("{errors}");
    None
}

/// Runs one test of this binary in a process that finds this library as its driver.
fn again(test: &str, settings: &str) -> Option<Output> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("gq-stand-in-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let dir = std::env::temp_dir().join(name);
    let Some(folder) = folder(&dir) else {
        eprintln!("no library of the stand-in next to this test, so not tested: {test}");
        return None;
    };
    let mut command = Command::new(std::env::current_exe().ok()?);
    command
        .args([test, "--exact", "--nocapture"])
        .env("LD_LIBRARY_PATH", folder)
        .env("GQ_STAND_IN", settings);
    let output = command.output();
    let removed = std::fs::remove_dir_all(&dir);
    match (output, removed) {
        (Ok(output), Ok(())) => Some(output),
        (output, removed) => panic!("{test}: {output:?}, {removed:?}"),
    }
}

fn named(library: &Path, name: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::symlink(library, name);
    #[cfg(not(unix))]
    return std::fs::copy(library, name).map(drop);
}
