//! What does not fit on the disk is refused before anything is looked at, measured or written.
#![cfg(target_os = "linux")]

use crate::checkpoints::{Shape, write_hollow, write_llama};
use crate::live::{names, shown, started, until};
use crate::run::{Gq, testdata};
use std::fs;

/// Runs a command that must refuse at once: what it would read takes days.
fn refused(gq: &Gq, args: &[&str]) {
    let mut child = started(gq, args);
    // Ends by itself, or this fails after a minute.
    assert!(!until(&mut child, || false));
    let output = child.wait_with_output().unwrap();
    let said = shown(&output);
    assert_eq!(output.status.code(), Some(4), "gq {args:?}: {said}");
    assert!(said.contains("are needed") && said.contains("are free on this disk"), "gq {args:?}: {said}");
    assert_eq!(names(gq.dir.path()), ["model"], "gq {args:?}");
}

#[test]
fn what_does_not_fit_is_refused_before_any_work() {
    let gq = Gq::new();
    let Some(free) = gq_files::free_bytes(gq.dir.path()) else {
        eprintln!("not tested: nobody can tell how much is free");
        return;
    };
    // Four times what is free, of which the smallest code here leaves more than is free.
    let vocab = 1 << 24;
    let hidden = usize::try_from(2 * free / vocab as u64).unwrap().next_multiple_of(64);
    let shape = Shape { hidden, width: 64, layers: 1, vocab };
    if !write_hollow(&gq.path("model"), shape) {
        eprintln!("not tested: no file is so large here");
        return;
    }
    refused(
        &gq,
        &["convert", "model", "-o", "m.gq", "-e", "tq8", "--embedding", "tq8", "--calibration", "none"],
    );
    refused(&gq, &["convert", "model", "-o", "m.gq", "--bpw", "8", "--calibration", "none"]);
    // Matrices of the only layer would fit; the embedding does not.
    let format = [
        "convert",
        "model",
        "--format",
        "compressed-tensors",
        "--bpw",
        "5",
        "--calibration",
        "none",
        "-o",
        "m",
    ];
    refused(&gq, &format);
    refused(&gq, &["export", "model", "--safetensors", "-o", "m", "--no-measure"]);
    fs::remove_dir_all(gq.path("model")).unwrap();
    // Moments of an input that is as wide as this take more than is free.
    let width = ((free as f64).sqrt() as usize).next_multiple_of(64);
    if !write_hollow(&gq.path("model"), Shape { hidden: 64, width, layers: 1, vocab: 1536 }) {
        eprintln!("not tested: no file is so large here");
        return;
    }
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(testdata(&format!("demo/{name}")), gq.path("model").join(name)).unwrap();
    }
    refused(&gq, &["calibrate", "model", "-o", "t"]);
    refused(&gq, &["convert", "model", "-o", "m.gq", "--bpw", "4", "--calibration", "builtin"]);
}

#[test]
fn what_fits_is_not_refused() {
    let gq = Gq::new();
    write_llama(&gq.path("model"), Shape { hidden: 64, width: 64, layers: 1, vocab: 300 }, |x| x);
    gq.ok(&["convert", "model", "-o", "m.gq", "--bpw", "8", "--calibration", "none"]);
}

/// A plan says what measuring takes, and refuses what the conversion would refuse.
#[test]
fn a_plan_counts_what_is_measured_first() {
    let gq = Gq::new();
    let demo = testdata("demo");
    let plan = gq.json(&["plan", &demo]);
    let of = |what: &str| plan["measuring"][what].as_u64().unwrap();
    let (peak, saved) = (of("peak_memory_bytes"), of("saved_bytes"));
    let coding = plan["memory"]["peak"].as_u64().unwrap().max(plan["check_memory_bytes"].as_u64().unwrap());
    assert!(peak > coding && saved > 1_000_000, "{peak} {coding} {saved}");
    let shown = gq.ok(&["plan", &demo]);
    assert!(shown.contains("\nmeasure at most ") && shown.contains("its moments take "), "{shown}");
    assert_eq!(gq.ok(&["convert", &demo, "--dry-run"]).matches("\nmeasure at most ").count(), 1);
    // Enough for the conversion, and for nothing that is measured.
    let limit = (coding + 1_000_000).to_string();
    let refusals =
        [&["plan", &demo][..], &["convert", &demo, "--dry-run"], &["convert", &demo, "-o", "m.gq"]].map(
            |command| {
                let said = gq.fails(4, &[command, &["--max-memory", &limit]].concat());
                said.lines().find(|line| line.contains("error:")).unwrap().to_owned()
            },
        );
    assert!(refusals[0].contains("measuring needs "), "{refusals:?}");
    assert!(refusals.iter().all(|line| *line == refusals[0]), "{refusals:?}");
    gq.ok(&["plan", &demo, "--max-memory", &limit, "--calibration", "none"]);
    assert!(gq.json(&["plan", &demo, "--calibration", "none"])["measuring"].is_null());
    assert!(names(gq.dir.path()).is_empty(), "{:?}", names(gq.dir.path()));
}
