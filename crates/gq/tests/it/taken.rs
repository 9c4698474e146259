//! Names that something else takes while a command makes its output, and names next to it that are in the way.
#![cfg(target_os = "linux")]

use crate::checkpoints::{Shape, write_llama};
use crate::live::{is_mapped, names, shown, started, until};
use crate::run::{Gq, testdata};
use std::fs;
use std::os::unix::fs::symlink;

#[test]
fn what_appears_meanwhile_is_kept_and_so_is_what_was_made() {
    let gq = Gq::new();
    let (demo, text) = (testdata("demo"), testdata("demo/eval.txt"));
    let slow = ["--threads", "1", "--isa", "scalar"];
    let recipe = ["--encoding", "tt4", "--no-grid"];
    let convert = [&["convert", &demo, "-o", "out"][..], &recipe].concat();
    gq.ok(&["convert", &demo, "-o", "m.gq", "--encoding", "tq3", "--no-grid"]);
    let export = |kind| ["export", "m.gq", kind, "-o", "out", "--no-measure"].to_vec();
    let eval = [
        "eval",
        "m.gq",
        "--reference",
        &demo,
        "--text",
        &text,
        "--ctx",
        "64",
        "--windows",
        "4",
        "--cache-limit",
        "0",
    ];
    let saved = [&eval[..], &["--save-outputs", "out"]].concat();
    let page = [&eval[..], &["--html", "out"]].concat();
    let again =
        ["m.gq", "--reference", &demo, "--calibration", &text, "-o", "out", "--calibration-ctx", "64"];
    let scales = [&["improve", "--scales"][..], &again, &["--steps", "1", "--batch", "1"]].concat();
    let rounds = [&["improve", "--rounds"][..], &again, &["--calibration-tokens", "1024"]].concat();
    let weights = std::path::PathBuf::from(testdata("demo/model.safetensors"));
    for args in [&convert, &export("--gguf"), &export("--safetensors"), &saved, &page, &scales, &rounds] {
        let args = [&args[..], if args[0] == "improve" { &slow[..2] } else { &slow[..] }].concat();
        let mut child = started(&gq, &args);
        let victim = if args[0] == "convert" { weights.clone() } else { gq.path("m.gq") };
        let mapped = is_mapped(&child, &victim);
        // A conversion looks at its output's name again when it knows what it measures.
        let begun = || args[0] != "convert" && mapped() || names(gq.dir.path()).len() > 1;
        assert!(until(&mut child, begun), "gq {args:?} ended by itself");
        fs::write(gq.path("out"), "mine").unwrap();
        let output = child.wait_with_output().unwrap();
        let said = shown(&output);
        assert_eq!(output.status.code(), Some(4), "gq {args:?}: {said}");
        let expected = "out: something took this name meanwhile; the finished file is out.finished";
        assert!(said.contains(expected) && said.contains("hint:"), "gq {args:?}: {said}");
        assert_eq!(fs::read(gq.path("out")).unwrap(), b"mine");
        // What was measured is shown all the same.
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(args[0] != "eval" || shown.contains("KL divergence"), "gq {args:?}: {shown}");
        assert_eq!(names(gq.dir.path()), ["m.gq", "out", "out.finished"], "gq {args:?}");
        let made = gq.path("out.finished");
        fs::remove_file(gq.path("out")).unwrap();
        match args[0] {
            "export" => drop(gq.ok(&["inspect", "out.finished"])),
            "eval" => assert!(fs::metadata(&made).unwrap().len() > 1000),
            _ => drop(gq.ok(&["verify", "out.finished"])),
        }
        let _ = fs::remove_file(&made).or_else(|_| fs::remove_dir_all(&made));
    }
    // What was asked to be replaced is replaced.
    let args = [&convert[..], &slow, &["--force"]].concat();
    let mut child = started(&gq, &args);
    assert!(until(&mut child, || gq.path("out.journal").exists()), "gq {args:?} ended by itself");
    fs::write(gq.path("out"), "mine").unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
    gq.ok(&["verify", "out"]);
}

/// Every output whose name was taken is told, next to the figures; a document has all of them.
#[test]
fn every_name_that_is_taken_is_told() {
    let gq = Gq::new();
    let (demo, text) = (testdata("demo"), testdata("demo/eval.txt"));
    gq.ok(&["convert", &demo, "-o", "m.gq", "--encoding", "tq3", "--no-grid"]);
    let measured = ["--text", &text, "--ctx", "64", "--windows", "4", "--cache-limit", "0"];
    let saved = ["--save-outputs", "out", "--html", "page", "--fail-above", "kld=0"];
    let eval = [&["eval", "m.gq", "--reference", &demo][..], &measured, &saved].concat();
    let export = ["export", "m.gq", "--gguf", "-o", "out", "--no-measure"];
    let taken = |args: &[&str]| {
        let args = [args, &["--threads", "1", "--isa", "scalar"]].concat();
        let mut child = started(&gq, &args);
        let mapped = is_mapped(&child, &gq.path("m.gq"));
        assert!(until(&mut child, mapped), "gq {args:?} ended by itself");
        for name in ["out", "page"] {
            fs::write(gq.path(name), "mine").unwrap();
        }
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(4), "gq {args:?}: {}", shown(&output));
        for name in ["out", "page"] {
            assert_eq!(fs::read(gq.path(name)).unwrap(), b"mine");
            fs::remove_file(gq.path(name)).unwrap();
            let _ = fs::remove_file(gq.path(&format!("{name}.finished")));
        }
        output
    };
    let document = |args: &[&str]| -> serde_json::Value {
        serde_json::from_slice(&taken(&[args, &["--json"]].concat()).stdout).unwrap()
    };
    let said = shown(&taken(&eval));
    let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
    assert!(errors.len() == 3, "{said}");
    assert!(errors[0].starts_with("error: out: something took this name meanwhile"), "{said}");
    assert!(errors[1].starts_with("error: page: something took this name meanwhile"), "{said}");
    assert!(errors[2].starts_with("error: kld is "), "{said}");
    let told = document(&eval);
    assert_eq!(told["error"], told["errors"][0]);
    let of = |field: &str| -> Vec<_> {
        told["errors"].as_array().unwrap().iter().map(|error| error[field].clone()).collect()
    };
    assert_eq!(of("code"), ["output.taken", "output.taken"]);
    assert_eq!(of("actual"), ["out.finished", "page.finished"]);
    assert!(told["kld"]["mean"].is_number() && told["failed"].as_array().unwrap().len() == 1, "{told}");
    let told = document(&export);
    assert_eq!(told["error"]["code"], "output.taken");
    assert_eq!(told["error"]["actual"], "out.finished");
}

#[test]
fn what_is_in_the_way_beside_an_output_is_said_before_any_work() {
    let gq = Gq::new();
    write_llama(&gq.path("model"), Shape { hidden: 64, width: 64, layers: 1, vocab: 300 }, |x| x);
    let (demo, text) = (testdata("demo"), testdata("demo/eval.txt"));
    gq.ok(&["convert", "model", "-o", "m.gq", "--encoding", "tq3", "--no-grid"]);
    let convert = ["convert", &demo, "-o", "out"];
    let export = ["export", "m.gq", "--gguf", "-o", "out"];
    let measured = [&convert[..], &["--calibration", &text]].concat();
    let search = [&measured[..], &["--target-kld", "0.1"]].concat();
    let rounds = ["improve", "--rounds", "m.gq", "--reference", "model", "--calibration", &text, "-o", "out"];
    let folder = |name: &str| {
        fs::create_dir(gq.path(name)).unwrap();
        fs::write(gq.path(name).join("mine"), "mine").unwrap();
    };
    fs::create_dir(gq.path("elsewhere")).unwrap();
    let link = |name: &str| symlink(gq.path("elsewhere"), gq.path(name)).unwrap();
    type Plant<'a> = &'a dyn Fn(&str);
    let cases: [(&[&str], &str, Plant<'_>, i32, &str); 9] = [
        (&convert, "out.partial", &folder, 4, "a folder is in the way"),
        (&convert, "out.journal", &folder, 4, "a folder is in the way"),
        (&export, "out.unchecked.partial", &folder, 4, "a folder is in the way"),
        (&rounds, "out.unchecked.codes.partial", &folder, 4, "a folder is in the way"),
        (&rounds, "out.unchecked.trial", &link, 4, "a link is in the way"),
        (&measured, "out.measurements", &folder, 2, "holds something else than measurements: mine"),
        (&measured, "out.measurements", &link, 2, "is a link"),
        (&search, "out.target-kld", &folder, 3, "is not what a search left behind"),
        (&search, "out.target-kld", &link, 2, "is a link"),
    ];
    for (args, name, plant, code, said) in cases {
        plant(name);
        let before = names(gq.dir.path());
        let shown = gq.fails(code, args);
        assert!(shown.contains(name) && shown.contains(said), "gq {args:?}: {shown}");
        assert_eq!(names(gq.dir.path()), before, "gq {args:?}");
        let _ = fs::remove_file(gq.path(name)).or_else(|_| fs::remove_dir_all(gq.path(name)));
    }
    assert!(names(&gq.path("elsewhere")).is_empty());
}
