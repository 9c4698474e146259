//! What scripts rely on: exit codes, streams, and the shape of every JSON document.

use crate::run::{Gq, testdata};
use serde_json::Value;
use std::process::Stdio;

/// The error object of a command that must fail with `code`; nothing may be on standard error.
fn refusal(gq: &Gq, code: i32, args: &[&str]) -> Value {
    let output = gq.run(&[args, &["--json"]].concat());
    assert_eq!(output.status.code(), Some(code), "gq {args:?}: {}", String::from_utf8_lossy(&output.stdout));
    assert!(output.stderr.is_empty(), "gq {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let error = document["error"].as_object().unwrap();
    let keys: Vec<&str> = error.keys().map(String::as_str).collect();
    assert_eq!(keys, ["code", "message", "where", "limit", "actual", "hint"], "gq {args:?}");
    document["error"].clone()
}

#[test]
fn errors_are_objects_with_where_limit_actual_and_hint() {
    let gq = Gq::new();
    let llama = testdata("tiny/llama");
    let cases: [(&[&str], i32, &str, [&str; 3]); 7] = [
        (&["convert"], 2, "usage", ["command line", "", ""]),
        (&["inspect", "nowhere"], 3, "path.missing", ["nowhere", "", ""]),
        (
            &["convert", &llama, "--override", "x{9}=tq4"],
            2,
            "override.unmatched",
            ["x{9}", "1 match", "0 of"],
        ),
        (&["convert", &llama, "--max-memory", "1MiB"], 4, "plan.memory", ["--max-memory", "1048576", ""]),
        (
            &["convert", &testdata("malformed/checkpoint/config-unknown-key")],
            3,
            "config.unknown_key",
            ["", "", ""],
        ),
        (
            // Quiet: that nothing is measured is said first.
            &["convert", &testdata("malformed/checkpoint/tensor-nan"), "-q"],
            3,
            "tensor.not_finite",
            ["", "finite", "NaN"],
        ),
        (&["run", &llama, "-p", "x"], 3, "tokenizer.missing", ["", "", ""]),
    ];
    for (args, exit, code, parts) in cases {
        let error = refusal(&gq, exit, args);
        assert_eq!(error["code"], code, "gq {args:?}");
        for (key, part) in ["where", "limit", "actual"].into_iter().zip(parts) {
            let text = error[key].as_str().unwrap_or_default();
            assert!(text.contains(part), "gq {args:?}: {key} is {text:?}");
        }
        let message = error["message"].as_str().unwrap();
        assert!(!message.is_empty() && !message.ends_with('.') && !message.contains('\n'), "{message:?}");
    }
    let hints = refusal(&gq, 3, &["inspect", "nowhere"]);
    assert!(hints["hint"].as_str().unwrap().contains("path"));
}

#[test]
fn a_person_reads_one_sentence_and_a_hint() {
    let gq = Gq::new();
    let shown = gq.fails(3, &["inspect", "nowhere"]);
    let expected = "error: nowhere: No such file or directory (os error 2)\n\
                    hint: check the path; relative paths start at the current directory\n";
    assert_eq!(shown, expected);
    let shown = gq.fails(4, &["convert", &testdata("tiny/llama"), "--max-memory", "1 MiB"]);
    assert!(shown.starts_with("error: the conversion needs "), "{shown}");
    assert!(shown.contains("--max-memory allows 1.05 MB\nhint: raise --max-memory"), "{shown}");
}

#[test]
fn data_goes_to_standard_output_and_talk_to_standard_error() {
    let gq = Gq::new();
    let llama = testdata("tiny/llama");
    let output = gq.run(&["convert", &llama, "-o", "m.gq", "--bits", "4"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("no tokenizer.json"));
    assert!(String::from_utf8_lossy(&output.stdout).contains("m.gq: "));
    let quiet = gq.run(&["convert", &llama, "-o", "n.gq", "--bits", "4", "-q"]);
    assert!(quiet.stderr.is_empty() && quiet.status.success());
    // A reader that goes away is no failure.
    let mut child = gq.command().args(["man", "--markdown"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn every_command_has_json() {
    let gq = Gq::new();
    let demo = testdata("demo");
    let mut plan = gq.json(&["plan", &demo, "--bits", "3"]);
    let mut dry = gq.json(&["convert", &demo, "--bits", "3", "--dry-run"]);
    // Two trials never take equally long.
    for plan in [&mut plan, &mut dry] {
        assert!(plan["estimate"].take()["seconds"].as_f64().unwrap() > 0.0);
    }
    assert_eq!(dry, plan);
    let made = gq.json(&["convert", &demo, "-o", "m.gq", "--bits", "3"]);
    assert_eq!(made["report"]["payload_bytes"], plan["payload_bytes"]);
    assert_eq!(made["file_bytes"].as_u64(), Some(std::fs::metadata(gq.path("m.gq")).unwrap().len()));
    let inspected = gq.json(&["inspect", "m.gq"]);
    assert_eq!(inspected["provenance"]["tool"], "gq");
    assert!(inspected["report"]["tensors"].as_array().unwrap().iter().all(|t| t["reason"].is_string()));
    assert_eq!(
        gq.json(&["inspect", &demo])["family"].as_str().map(str::to_lowercase).as_deref(),
        Some("gemma4")
    );
    let machine = gq.json(&["inspect", "--machine"]);
    assert!(machine["levels"].as_array().unwrap().contains(&machine["level"]));
    let bench = gq.json(&["bench", "m.gq", "--pp", "16", "--tg", "4", "--repetitions", "1"]);
    assert!(bench["tg"]["tokens_per_second"][0].as_f64().unwrap() > 0.0);
    let products = bench["profile"]["products"].as_array().unwrap();
    let read =
        |role: &str| products.iter().find(|part| part["role"] == role).unwrap()["bytes"].as_u64().unwrap();
    assert!(read("query") > 0 && read("down") > read("query"));
    assert!(
        !products.iter().any(|part| part["role"] == "per_layer_table"),
        "rows are looked up, not multiplied"
    );
    assert!(gq.json(&["verify", "m.gq"]).is_object());
    assert!(gq.json(&["completions", "bash"])["script"].as_str().unwrap().contains("gq"));
    assert!(gq.json(&["man", "convert"])["text"].as_str().unwrap().contains("gq"));
}

#[test]
fn reference_logits_are_kept_and_a_page_is_written() {
    let gq = Gq::new();
    let (demo, text) = (testdata("demo"), testdata("demo/eval.txt"));
    gq.ok(&["convert", &demo, "-o", "m.gq", "--bits", "4"]);
    let arguments = |more: &[&'static str]| {
        let given = ["eval", "m.gq", "--reference", &demo, "--text", &text, "--ctx", "64", "--windows", "2"];
        let all = given.into_iter().chain(more.iter().copied());
        all.map(str::to_owned).collect::<Vec<String>>()
    };
    let eval = |more: &[&'static str]| {
        let arguments = arguments(more);
        gq.json(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let fresh = eval(&["--cache", "kept", "--html", "page.html"]);
    let again = eval(&["--cache", "kept"]);
    assert_eq!(
        (&fresh["reference_logits"], &again["reference_logits"]),
        (&"stored".into(), &"cached".into())
    );
    assert_eq!(fresh["kld"], again["kld"]);
    assert_eq!(fresh["noise_floor"], again["noise_floor"]);
    let none = eval(&["--cache", "other", "--cache-limit", "0"]);
    assert_eq!((&none["reference_logits"], none["kld"] == fresh["kld"]), (&"computed".into(), true));
    assert!(!gq.path("other").exists());
    let page = std::fs::read_to_string(gq.path("page.html")).unwrap();
    assert!(page.contains("m.gq") && page.contains("<svg"), "figures and plots");
}
