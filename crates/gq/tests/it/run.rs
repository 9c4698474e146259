//! Runs the program in tests.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The program with its own scratch directory as current directory.
pub struct Gq {
    /// Scratch directory.
    pub dir: tempfile::TempDir,
}

impl Gq {
    /// A fresh scratch directory.
    pub fn new() -> Gq {
        interruptible();
        Gq { dir: tempfile::tempdir().unwrap() }
    }

    /// The program, not yet started.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gq"));
        command.current_dir(self.dir.path()).env_clear();
        command
    }

    /// Runs the program.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command().args(args).output().unwrap()
    }

    /// Runs the program, which must succeed; gives standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let shown = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "gq {args:?}: {shown}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs the program with `--json`, which must succeed.
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.ok(&[args, &["--json"]].concat())).unwrap()
    }

    /// Runs the program, which must fail with this code; gives standard error.
    pub fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        let shown = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "gq {args:?}: {shown}");
        shown
    }

    /// A path in the scratch directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Lets Ctrl-C end children also where whoever started this process wants it to be ignored, as shells do behind `&`: a
/// signal that is handled here is the default again in a program that is started.
fn interruptible() {
    static DONE: std::sync::Once = std::sync::Once::new();
    DONE.call_once(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
        let interrupt = signal_hook::consts::SIGINT;
        if mask & (1 << (interrupt - 1)) != 0 {
            signal_hook::flag::register(interrupt, Default::default()).unwrap();
        }
    });
}

/// A path below `testdata/`.
pub fn testdata(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name);
    path.to_str().unwrap().to_owned()
}

impl Gq {
    /// Runs the program until it says `wanted` on standard error, then ends it; gives what it said until then, and fails
    /// when it never does.
    pub fn until(&self, wanted: &str, args: &[&str]) -> String {
        let mut command = self.command();
        let mut child = command.args(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        for line in BufReader::new(child.stderr.take().unwrap()).lines() {
            said += &(line.unwrap() + "\n");
            if said.contains(wanted) {
                break;
            }
        }
        // It may have ended by itself.
        let _ = child.kill();
        child.wait().unwrap();
        assert!(said.contains(wanted), "gq {args:?} never said {wanted:?}: {said}");
        said
    }
}
