//! What runs leave, however they end: what an earlier one was asked to keep stays, what a killed one left goes.
#![cfg(target_os = "linux")]

use crate::checkpoints::{Shape, write_llama};
use crate::live::{interrupt, names, shown, started, until};
use crate::run::{Gq, testdata};
use std::fs;

/// So that there is time to be ended.
const SLOW: [&str; 4] = ["--threads", "1", "--isa", "scalar"];

const FAST: [&str; 8] = [
    "--calibration-ctx",
    "64",
    "--calibration-tokens",
    "1024",
    "--gradient-tokens",
    "128",
    "--trial-tokens",
    "128",
];

#[test]
fn measurements_that_were_kept_stay_when_they_are_taken_up() {
    let gq = Gq::new();
    let demo = testdata("demo");
    let convert = [&["convert", &demo, "-o", "a.gq"][..], &FAST].concat();
    gq.ok(&[&convert[..], &["--keep-measurements"]].concat());
    let before = names(&gq.path("a.gq.measurements"));
    fs::rename(gq.path("a.gq"), gq.path("first.gq")).unwrap();
    let said = gq.ok(&convert);
    assert!(
        said.contains("measurements in a.gq.measurements stay: an earlier command kept some there"),
        "{said}"
    );
    assert_eq!(names(&gq.path("a.gq.measurements")), before);
    assert!(fs::read(gq.path("a.gq")).unwrap() == fs::read(gq.path("first.gq")).unwrap());
    gq.ok(&["convert", &demo, "--measurements", "a.gq.measurements", "-o", "again.gq"]);
    // What was asked for otherwise takes their place only when told to.
    let other =
        [&["convert", &demo, "-o", "a.gq", "--force", "--gradient-tokens", "64"][..], &FAST[..4], &FAST[6..]];
    let other = other.concat();
    let said = gq.fails(2, &other);
    assert!(
        said.contains("a.gq.measurements holds measurements already, measured with other options"),
        "{said}"
    );
    assert!(said.contains("--restart"), "{said}");
    gq.ok(&["convert", &demo, "--measurements", "a.gq.measurements", "-o", "third.gq"]);
    gq.ok(&[&other[..], &["--restart"]].concat());
    assert!(!gq.path("a.gq.measurements").exists());
    // Those of one conversion go with it.
    let said = gq.ok(&[&["convert", &demo, "-o", "b.gq"][..], &FAST].concat());
    assert!(said.contains("measurements removed"), "{said}");
    assert!(!gq.path("b.gq.measurements").exists());
}

/// Measured by a run that was ended while it wrote: of its own command's.
#[test]
fn measurements_of_an_interrupted_conversion_go_with_it_or_are_kept() {
    let gq = Gq::new();
    let demo = testdata("demo");
    let convert = [&["convert", &demo, "-o", "a.gq"][..], &FAST].concat();
    for keep in [false, true] {
        let more: &[&str] = if keep { &["--keep-measurements"] } else { &[] };
        let convert = [&convert[..], more].concat();
        let mut child = started(&gq, &convert);
        assert!(until(&mut child, || gq.path("a.gq.journal").exists()), "it was over before it was killed");
        child.kill().unwrap();
        child.wait().unwrap();
        gq.ok(&convert);
        let left = if keep { &["a.gq", "a.gq.measurements"][..] } else { &["a.gq"] };
        assert_eq!(names(gq.dir.path()), left);
        fs::remove_file(gq.path("a.gq")).unwrap();
    }
    // From now on they are for further sizes.
    gq.ok(&convert);
    assert!(gq.path("a.gq.measurements").exists());
}

#[test]
fn what_was_not_looked_at_when_a_run_was_killed_is_replaced() {
    let gq = Gq::new();
    write_llama(&gq.path("model"), Shape { hidden: 512, width: 1024, layers: 6, vocab: 8192 }, |x| x);
    for (kind, out) in [("--gguf", "m.gguf"), ("--safetensors", "m")] {
        let args = [&["export", "model", kind, "-o", out, "--no-measure"][..], &SLOW].concat();
        let unchecked = gq.path(&format!("{out}.unchecked"));
        let mut child = started(&gq, &args);
        assert!(until(&mut child, || unchecked.exists()), "it was over before it was killed");
        // Another run stays away meanwhile.
        let said = gq.fails(4, &args);
        assert!(said.contains("another gq is writing this output"), "{said}");
        assert!(unchecked.exists(), "it was over before it was killed");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(unchecked.exists() && !gq.path(out).exists(), "it was over before it was killed");
        gq.ok(&args);
        assert!(gq.path(out).exists());
    }
    assert_eq!(names(gq.dir.path()), ["m", "m.gguf", "model"]);
}

#[test]
fn what_was_not_looked_at_of_an_improved_file_is_replaced() {
    let gq = Gq::new();
    let (demo, text) = (testdata("demo"), testdata("demo/eval.txt"));
    gq.ok(&["convert", &demo, "-o", "m.gq", "-e", "tq3", "--no-grid"]);
    let improve =
        ["improve", "--scales", "m.gq", "--reference", &demo, "--calibration", &text, "-o", "new.gq"];
    let args = [&improve[..], &["--calibration-ctx", "64", "--steps", "2", "--batch", "1"]].concat();
    let [unchecked, mark] = ["new.gq.unchecked", "new.gq.unchecked.mark"].map(|name| gq.path(name));
    fs::write(&unchecked, "of a run that was killed").unwrap();
    fs::write(&mark, "").unwrap();
    let held = fs::File::open(&mark).unwrap();
    held.lock().unwrap();
    let said = gq.fails(4, &args);
    assert!(said.contains("another gq is writing this output") && unchecked.exists(), "{said}");
    drop(held);
    // A link is not what a run leaves.
    fs::rename(&unchecked, gq.path("mine")).unwrap();
    std::os::unix::fs::symlink(gq.path("mine"), &unchecked).unwrap();
    let said = gq.fails(2, &args);
    assert!(said.contains("new.gq.unchecked: exists already"), "{said}");
    fs::rename(gq.path("mine"), &unchecked).unwrap();
    gq.ok(&args);
    assert_eq!(names(gq.dir.path()), ["m.gq", "new.gq"]);
}

#[test]
fn a_demo_that_is_interrupted_leaves_nothing_and_says_so() {
    let gq = Gq::new();
    for there in [false, true] {
        if there {
            fs::create_dir(gq.path("d")).unwrap();
        }
        let args = ["demo", "-o", "d"];
        let mut child = started(&gq, &[&args[..], &SLOW].concat());
        let begun = gq.path("d/measurements");
        assert!(until(&mut child, || begun.exists()), "it was over before it could be interrupted");
        let code = interrupt(&child);
        let output = child.wait_with_output().unwrap();
        let said = shown(&output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        let expected = "interrupted: nothing is kept; the same command begins again: gq demo -o d";
        assert!(said.contains(expected), "{said}");
        match there {
            false => assert!(names(gq.dir.path()).is_empty()),
            true => assert!(names(&gq.path("d")).is_empty()),
        }
    }
}
