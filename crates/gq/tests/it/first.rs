//! The first command: a conversion without options, what it is called, and what it says.

use crate::run::{Gq, testdata};
use serde_json::Value;

/// Little of everything, where what is measured does not matter.
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

/// Divergence on text that was not calibrated on.
fn divergence(gq: &Gq, file: &str, reference: &str) -> f64 {
    let text = testdata("demo/eval.txt");
    let options = ["--text", &text, "--ctx", "128", "--windows", "16", "--activations", "f32"];
    let report = gq.json(&[&["eval", file, "--reference", reference][..], &options].concat());
    report["kld"]["mean"].as_f64().unwrap()
}

/// What a conversion says on standard error, and the document on standard output.
fn convert(gq: &Gq, args: &[&str]) -> (String, Value) {
    let output = gq.run(&[&["convert"][..], args, &["--json"]].concat());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    (said, serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn without_options_a_budget_is_spent_by_calibration() {
    let gq = Gq::new();
    let demo = testdata("demo");
    let (said, made) = convert(&gq, &[&demo]);
    assert_eq!(made["output"], "demo-4.25bpw.gq");
    assert_eq!(made["uncalibrated"], Value::Null);
    assert!(said.contains("on this machine"), "the estimate comes first: {said}");
    assert!(!gq.path("demo-4.25bpw.gq.measurements").exists());
    // The budget: 4.25 bits of the body and 6.5 of tables together, all of it spent.
    let tensors = made["report"]["tensors"].as_array().unwrap();
    let sum = |wanted: &dyn Fn(&Value) -> bool, field: &dyn Fn(&Value) -> f64| -> f64 {
        tensors.iter().filter(|tensor| wanted(tensor)).map(field).sum()
    };
    let exact = |tensor: &Value| {
        tensor["encoding"].as_str().unwrap().starts_with("bf16")
            || tensor["encoding"].as_str().unwrap().starts_with('f')
    };
    let table =
        |tensor: &Value| ["embedding", "head", "per_layer_table"].contains(&tensor["role"].as_str().unwrap());
    let weights = |tensor: &Value| -> f64 {
        tensor["shape"].as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).product()
    };
    let bytes = |tensor: &Value| tensor["bytes"].as_f64().unwrap();
    let body = sum(&|t| !exact(t) && !table(t), &weights);
    let tables = sum(&|t| !exact(t) && table(t), &weights);
    let spent = sum(&|t| !exact(t), &bytes);
    let budget = (4.25 * body + 6.5 * tables) / 8.0;
    assert!(spent <= budget && spent > 0.99 * budget, "{spent} of {budget}");
    let encodings: std::collections::BTreeSet<&str> =
        tensors.iter().filter(|t| !exact(t)).map(|t| t["encoding"].as_str().unwrap()).collect();
    assert!(encodings.len() > 3, "codes compete: {encodings:?}");
    // What is expected is about what is measured, on other text; and much less than without calibration.
    let close = divergence(&gq, "demo-4.25bpw.gq", &demo);
    let expected = made["expected_divergence"].as_f64().unwrap();
    assert!(expected > 0.2 * close && expected < 5.0 * close, "{expected} {close}");
    let (said, none) = convert(&gq, &[&demo, "--calibration", "none"]);
    assert_eq!(none["output"], "demo-4.25bpw-uncalibrated.gq");
    assert_eq!(none["uncalibrated"], "asked");
    assert!(said.contains("not calibrated"), "{said}");
    assert_eq!(none["expected_divergence"], Value::Null);
    let far = divergence(&gq, "demo-4.25bpw-uncalibrated.gq", &demo);
    assert!(close < 0.7 * far, "{close} {far}");
    // The same bytes on one thread, and named.
    let same = ["--threads", "1", "--calibration", "builtin", "-o", "same.gq"];
    convert(&gq, &[&[demo.as_str()][..], &same].concat());
    let read = |name: &str| std::fs::read(gq.path(name)).unwrap();
    assert!(read("demo-4.25bpw.gq") == read("same.gq"));
}

#[test]
fn measurements_are_removed_or_kept_and_it_is_said() {
    let gq = Gq::new();
    let demo = testdata("demo");
    let said = gq.ok(&[&["convert", &demo][..], &FAST].concat());
    assert!(said.contains("expected divergence from the original"), "{said}");
    assert!(said.contains("measurements removed") && said.contains("gq calibrate"), "{said}");
    let said = gq.ok(&[&["convert", &demo, "-o", "kept.gq", "--keep-measurements"][..], &FAST].concat());
    assert!(said.contains("--measurements kept.gq.measurements"), "{said}");
    let read = |name: &str| std::fs::read(gq.path(name)).unwrap();
    gq.ok(&["convert", &demo, "--measurements", "kept.gq.measurements", "-o", "again.gq"]);
    assert!(read("again.gq") == read("kept.gq"));
    // Quick encodings say what they are; asked for, they are calibrated too.
    let (said, quick) = convert(&gq, &[&demo, "--bits", "4"]);
    assert_eq!((&quick["output"], &quick["uncalibrated"]), (&"demo-tq4.gq".into(), &"encoding".into()));
    assert!(said.contains("not calibrated: --bits and --encoding"), "{said}");
    let (_, asked) =
        convert(&gq, &[&[demo.as_str(), "--bits", "4", "--calibration", "builtin"][..], &FAST].concat());
    assert_eq!(asked["output"], "demo-tq4-calibrated.gq");
    assert!(read("demo-tq4.gq") != read("demo-tq4-calibrated.gq"));
}

#[test]
fn names_say_what_was_asked_for() {
    let gq = Gq::new();
    let demo = testdata("demo");
    for (options, name) in [
        (&["--size", "1.5MB"][..], "demo-1.5MB-uncalibrated.gq"),
        (&["--bpw", "3.5", "--codes", "scalar"], "demo-3.5bpw-scalar-emb-tq8-uncalibrated.gq"),
        (&["--fit", "117MiB", "--ctx", "1k"], "demo-fit-117MiB-1k-uncalibrated.gq"),
        (&["--encoding", "tt3"], "demo-tt3.gq"),
        (&[], "demo-4.25bpw-uncalibrated.gq"),
    ] {
        let quick = if options.contains(&"--encoding") { &[][..] } else { &["--calibration", "none"] };
        let made = gq.json(&[&["convert", &demo], options, quick].concat());
        assert_eq!(made["output"], name);
    }
    let text = testdata("demo/eval.txt");
    let made = gq.json(&[&["convert", &demo, "--bpw", "3", "--calibration", &text][..], &FAST].concat());
    assert_eq!(made["output"], "demo-3bpw-emb-tq8-eval.gq");
}

#[test]
fn tables_that_are_named_keep_their_encoding_in_a_budget() {
    let gq = Gq::new();
    let demo = testdata("demo");
    for budget in [&["--size", "1.6MB"][..], &[]] {
        let options =
            ["--embedding", "tq5", "--per-layer-table", "tt4", "--calibration", "none", "-o", "m.gq"];
        let made = gq.json(&[&["convert", &demo], budget, &options].concat());
        let of = |role: &str| {
            let tensors = made["report"]["tensors"].as_array().unwrap();
            tensors.iter().find(|tensor| tensor["role"] == role).unwrap()["encoding"].clone()
        };
        assert_eq!((of("embedding"), of("per_layer_table")), ("tq5".into(), "tt4".into()));
        std::fs::remove_file(gq.path("m.gq")).unwrap();
    }
}

#[test]
fn a_plan_takes_the_same_options_and_measures_nothing() {
    let gq = Gq::new();
    let demo = testdata("demo");
    let plan = gq.ok(&["plan", &demo]);
    assert!(plan.contains("draft") && plan.contains("tokens of the built-in text"), "{plan}");
    // Stages that take less than a second here are not named.
    assert!(plan.contains("time    about"), "{plan}");
    let none = gq.ok(&["plan", &demo, "--calibration", "none"]);
    assert!(none.contains("not calibrated"), "{none}");
    let shown = gq.fails(2, &["plan", &demo, "--target-kld", "0.05"]);
    assert!(shown.contains("gq calibrate SRC -o DIR"), "{shown}");
    gq.fails(2, &["convert", &demo, "--target-kld", "0.05", "--calibration", "none"]);
    gq.fails(2, &["convert", &demo, "--calibration", "builtin", "--measurements", "t"]);
    gq.fails(2, &["calibrate", &demo, "-o", "t", "--calibration", "none"]);
}

#[test]
fn what_sits_on_grids_is_not_measured() {
    let gq = Gq::new();
    // bf16 weights that a Q4_1 file was decoded to.
    let demo = testdata("demo");
    gq.ok(&["export", "--no-measure", &demo, "--gguf", "--type", "Q4_1", "-o", "q.gguf"]);
    gq.ok(&["export", "--no-measure", "q.gguf", "--safetensors", "-o", "grid"]);
    let (said, made) = convert(&gq, &["grid", "-o", "all.gq"]);
    assert!(said.contains("every weight is stored without loss: nothing is measured"), "{said}");
    assert_eq!((&made["report"]["relative_mse"], &made["uncalibrated"]), (&0.0.into(), &Value::Null));
    // What is rounded after all is measured, and nothing else.
    let rounded = ["grid", "-o", "some.gq", "--override", "q_proj=tq4"];
    let (said, made) = convert(&gq, &[&rounded[..], &FAST].concat());
    assert!(said.contains("matrices are stored without loss: they are not measured"), "{said}");
    let tensors = made["report"]["tensors"].as_array().unwrap();
    for tensor in tensors.iter().filter(|tensor| tensor["shape"].as_array().unwrap().len() > 1) {
        let calibrated = tensor["name"].as_str().unwrap().contains("q_proj");
        assert_eq!(tensor["output_error"].is_number(), calibrated, "{tensor}");
    }
    // Grids found are kept, and taken up by whatever needs them next.
    let cache = gq.path("cache");
    let run = || {
        let output =
            gq.command().env("XDG_CACHE_HOME", &cache).args(["plan", "grid", "--json"]).output().unwrap();
        (String::from_utf8(output.stderr).unwrap(), output.stdout)
    };
    let (_, first) = run();
    let kept: Vec<_> =
        std::fs::read_dir(cache.join("gq/grids")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(kept.len(), 1);
    let found = std::fs::read_to_string(&kept[0]).unwrap();
    assert!(found.contains("grid"), "{found}");
    // What is there is used: without it, nothing would sit on a grid.
    std::fs::write(&kept[0], "{}").unwrap();
    let lossless = |plan: &[u8]| String::from_utf8_lossy(plan).contains("on this grid already");
    assert!(lossless(&first) && !lossless(&run().1));
}

#[test]
fn options_of_measuring_are_refused_where_nothing_is_measured() {
    let gq = Gq::new();
    let demo = testdata("demo");
    gq.ok(&[&["calibrate", &demo, "-o", "t"][..], &FAST].concat());
    let without = [&["--bits", "4"][..], &["--calibration", "none"], &["--measurements", "t"]];
    let options = [
        ("--calibration-tokens", "99999"),
        ("--calibration-ctx", "64"),
        ("--gradient-tokens", "0"),
        ("--trial-tokens", "7"),
        ("--expert-moments", "layer"),
    ];
    for without in without {
        for (option, value) in options {
            for command in [&["convert", &demo, "-o", "m.gq"][..], &["plan", &demo]] {
                let said = gq.fails(2, &[command, without, &[option, value]].concat());
                let expected =
                    format!("{option} is an option of --calibration, and nothing is measured here");
                assert!(said.contains(&expected), "{without:?}: {said}");
            }
        }
    }
    assert_eq!(std::fs::read_dir(gq.dir.path()).unwrap().count(), 1);
}
