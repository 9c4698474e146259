//! The program while it runs: started, waited for, interrupted.
#![cfg(target_os = "linux")]

use crate::run::Gq;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Starts the program with both streams piped.
pub fn started(gq: &Gq, args: &[&str]) -> Child {
    gq.command().args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until something is so while the program runs; gives whether it still ran.
pub fn until(child: &mut Child, so: impl Fn() -> bool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if so() {
            return true;
        }
        std::thread::yield_now();
    }
    panic!("nothing happened in a minute");
}

/// What was said on standard error.
pub fn shown(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Sends Ctrl-C's signal, or the one of `kill` where this process ignores the former and so do its children.
pub fn interrupt(child: &Child) -> i32 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let ignored = u64::from_str_radix(mask.trim(), 16).unwrap() & 2 != 0;
    let (name, code) = if ignored { ("TERM", 143) } else { ("INT", 130) };
    // The shell's own: not every machine has the program.
    let sent = Command::new("sh").args(["-c", &format!("kill -s {name} {}", child.id())]).status().unwrap();
    assert!(sent.success());
    code
}

/// Whether a running program has mapped a file.
pub fn is_mapped(child: &Child, path: &Path) -> impl Fn() -> bool + use<> {
    let maps = format!("/proc/{}/maps", child.id());
    let name = path.canonicalize().unwrap().to_str().unwrap().to_owned();
    move || fs::read_to_string(&maps).unwrap_or_default().contains(&name)
}

/// Names in a folder, sorted.
pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
