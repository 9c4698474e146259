//! What commands promise to take in memory, and what they take.
#![cfg(target_os = "linux")]

use crate::run::{Gq, testdata};
use std::process::Stdio;
use std::time::Duration;

/// Most anonymous memory of a run, looked at every millisecond, in bytes. A lower bound of the peak.
fn taken(gq: &Gq, args: &[&str]) -> u64 {
    let mut child = gq.command().args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    let finished = loop {
        if let Some(finished) = child.try_wait().unwrap() {
            break finished;
        }
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        most = most.max(kilobytes.unwrap_or(0) << 10);
        std::thread::sleep(Duration::from_millis(1));
    };
    assert!(finished.success(), "gq {args:?}");
    assert!(most > 1 << 20, "gq {args:?}: {most} bytes seen");
    most
}

#[test]
fn no_more_memory_is_taken_than_was_promised() {
    let gq = Gq::new();
    let (demo, text) = (testdata("demo"), testdata("demo/eval.txt"));
    let threads = ["--threads", "2"];
    let fast = ["--calibration-ctx", "128", "--calibration-tokens", "4096", "--gradient-tokens", "512"];
    let tune = [&["tune", &demo, "-o", "t", "--calibration", &text][..], &fast, &threads].concat();
    let promise = gq.json(&[&tune[..], &["--dry-run"]].concat())["peak_memory_bytes"].as_u64().unwrap();
    let most = taken(&gq, &tune);
    assert!(most <= promise, "gq tune: {most} bytes taken, {promise} promised");
    let own = [&["tune", &demo, "-o", "own", "--calibration", "self"][..], &fast, &threads].concat();
    for limit in [&[][..], &["--max-memory", "125MB"]] {
        let own = [&own[..], limit].concat();
        let promise = gq.json(&[&own[..], &["--dry-run"]].concat())["peak_memory_bytes"].as_u64().unwrap();
        let most = taken(&gq, &own);
        assert!(most <= promise, "gq {own:?}: {most} bytes taken, {promise} promised");
        assert!(limit.is_empty() || promise <= 125_000_000);
        std::fs::remove_dir_all(gq.path("own")).unwrap();
    }
    for (file, recipe) in [
        ("scalar.gq", &["--bits", "4"][..]),
        ("trellis.gq", &["--encoding", "tt3"]),
        ("calibrated.gq", &["--tune", "t", "--encoding", "tt3"]),
        ("groups.gq", &["--tune", "t", "--encoding", "tq4-g32"]),
        ("budget.gq", &["--tune", "t", "--size", "1.8MB"]),
        ("largest.gq", &["--tune", "t", "--encoding", "tt2-s14"]),
    ] {
        let recipe = [&[demo.as_str()][..], recipe, &threads].concat();
        let plan = gq.json(&[&["plan"][..], &recipe].concat());
        let promise = plan["memory"]["peak"].as_u64().unwrap();
        let most = taken(&gq, &[&["convert"][..], &recipe, &["-o", file]].concat());
        assert!(most <= promise, "gq convert {recipe:?}: {most} bytes taken, {promise} promised");
    }
    let again = [
        &["reround", "scalar.gq", "-o", "again.gq", "--reference", &demo, "--calibration", &text][..],
        &fast[..4],
    ];
    let again = [&again.concat()[..], &threads].concat();
    let most = taken(&gq, &again);
    let promise = gq.json(&again)["peak_memory_bytes"].as_u64().unwrap();
    assert!(most <= promise, "gq reround: {most} bytes taken, {promise} promised");
}
