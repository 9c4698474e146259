//! What an interruption leaves, and files that are cut while they are read.
#![cfg(target_os = "linux")]

use crate::live::{interrupt, is_mapped, names, shown, started, until};
use crate::run::{Gq, testdata};
use std::fs;
use std::path::Path;

#[test]
fn a_file_that_is_cut_while_it_is_read_is_named() {
    let gq = Gq::new();
    fs::create_dir(gq.path("model")).unwrap();
    for entry in fs::read_dir(testdata("demo")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, gq.path("model").join(path.file_name().unwrap())).unwrap();
    }
    gq.ok(&["convert", "model", "-o", "m.gq", "--encoding", "tq8", "--no-grid"]);
    let text = testdata("demo/eval.txt");
    for (model, victim, more) in
        [("m.gq", "m.gq", &[][..]), ("m.gq", "m.gq", &["--json"]), ("model", "model/model.safetensors", &[])]
    {
        let path = gq.path(victim);
        let whole = fs::read(&path).unwrap();
        let args = ["eval", model, "--reference", &testdata("demo"), "--text", &text, "--threads", "1"];
        let args = [&args[..], &["--isa", "scalar", "--cache-limit", "0"], more].concat();
        let mut child = started(&gq, &args);
        let mapped = is_mapped(&child, &path);
        assert!(until(&mut child, mapped), "gq {args:?} ended by itself");
        fs::File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
        let output = child.wait_with_output().unwrap();
        let said =
            if more.is_empty() { shown(&output) } else { String::from_utf8_lossy(&output.stdout).into() };
        assert_eq!(output.status.code(), Some(4), "gq {args:?}: {said}");
        assert!(said.contains(victim) && said.contains("was cut from"), "gq {args:?}: {said}");
        if !more.is_empty() {
            let document: serde_json::Value = serde_json::from_str(&said).unwrap();
            assert_eq!(document["error"]["code"], "file.cut");
            assert_eq!(document["error"]["actual"], "4,096");
        }
        fs::write(&path, whole).unwrap();
    }
}

#[test]
fn an_interruption_says_what_is_kept_and_what_continues() {
    let gq = Gq::new();
    let demo = testdata("demo");
    // Slow enough to be interrupted between two tensors.
    let args =
        ["convert", &demo, "-o", "m.gq", "-e", "tt5", "--no-grid", "--threads", "1", "--isa", "scalar"];
    let journal = gq.path("m.gq.journal");
    let begun = |path: &Path| fs::read_to_string(path).is_ok_and(|text| text.lines().count() > 3);
    let mut child = started(&gq, &args);
    assert!(until(&mut child, || begun(&journal)), "it was over before it could be interrupted");
    let code = interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let said = shown(&output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains("kept in m.gq.partial (") && said.contains("m.gq.journal ("), "{said}");
    let again = format!("the same command continues: gq {}", args.join(" "));
    assert!(said.contains(&again), "{said}");
    // It is true.
    let resumed = gq.run(&args);
    assert!(shown(&resumed).contains("taking up an interrupted conversion"), "{}", shown(&resumed));
    assert_eq!(resumed.status.code(), Some(0));
    assert!(!journal.exists() && !gq.path("m.gq.partial").exists());
    // Under --json it is the one document.
    fs::remove_file(gq.path("m.gq")).unwrap();
    let mut child = started(&gq, &[&args[..], &["--json"]].concat());
    assert!(until(&mut child, || begun(&journal)));
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["error"]["code"], "interrupted");
    assert_eq!(document["error"]["actual"], "continues");
}

#[test]
fn what_cannot_be_taken_up_is_removed_and_the_old_file_stays() {
    let gq = Gq::new();
    let demo = testdata("demo");
    gq.ok(&["convert", &demo, "-o", "m.gq", "-e", "tq3", "--no-grid"]);
    let before = fs::read(gq.path("m.gq")).unwrap();
    let text = testdata("demo/eval.txt");
    let args =
        ["improve", "--rounds", "m.gq", "--reference", &demo, "--calibration", &text, "--threads", "1"];
    let codes = gq.path("m.gq.unchecked.codes.partial");
    let mut child = started(&gq, &args);
    assert!(until(&mut child, || codes.exists()), "it was over before it could be interrupted");
    let code = interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let said = shown(&output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(
        said.contains("m.gq is as it was; the same command begins again: gq improve --rounds m.gq"),
        "{said}"
    );
    assert_eq!(fs::read(gq.path("m.gq")).unwrap(), before);
    let left: Vec<_> = fs::read_dir(gq.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["m.gq"]);
}

/// What is begun when the signal comes is of no use, and goes.
#[test]
fn a_file_that_is_cut_while_outputs_are_saved_leaves_none_of_them() {
    let gq = Gq::new();
    let (demo, text) = (testdata("demo"), testdata("demo/eval.txt"));
    gq.ok(&["convert", &demo, "-o", "m.gq", "--encoding", "tq8", "--no-grid"]);
    let path = gq.path("m.gq");
    let whole = fs::read(&path).unwrap();
    for more in [&[][..], &["--json"]] {
        let args = ["eval", "m.gq", "--reference", &demo, "--text", &text, "--cache-limit", "0"];
        let saved = ["--save-outputs", "out", "--html", "out.html", "--threads", "1", "--isa", "scalar"];
        let args = [&args[..], &saved, more].concat();
        let mut child = started(&gq, &args);
        let begun = gq.path("out.unchecked.partial");
        assert!(until(&mut child, || begun.exists()), "gq {args:?} ended by itself");
        // To whole pages: what is beyond them cannot be read.
        fs::File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
        let output = child.wait_with_output().unwrap();
        let (said, data) = (shown(&output), String::from_utf8_lossy(&output.stdout).into_owned());
        assert_eq!(output.status.code(), Some(4), "{said}{data}");
        if more.is_empty() {
            let errors: Vec<&str> = said.lines().filter(|line| line.contains("error:")).collect();
            assert!(errors.len() == 1 && errors[0].contains("m.gq: was cut from"), "{said}");
            assert_eq!(data, "");
        } else {
            let document: serde_json::Value = serde_json::from_str(&data).unwrap();
            assert_eq!(document["error"]["code"], "file.cut");
        }
        assert_eq!(names(gq.dir.path()), ["m.gq"]);
        fs::write(&path, &whole).unwrap();
    }
}
