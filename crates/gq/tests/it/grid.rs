//! A model whose weights sit on a grid, from planning to measuring.

use crate::run::{Gq, testdata};

#[test]
fn weights_on_a_grid_are_stored_without_loss() {
    let gq = Gq::new();
    let (demo, text) = (testdata("demo"), testdata("demo/eval.txt"));
    // bf16 weights that a Q4_1 file was decoded to.
    gq.ok(&["export", "--no-measure", &demo, "--gguf", "--type", "Q4_1", "-o", "q.gguf"]);
    gq.ok(&["export", "--no-measure", "q.gguf", "--safetensors", "-o", "grid"]);
    let body = |file: &str| {
        let tensors = gq.json(&["inspect", file, "--tensors"]);
        let shown = tensors.to_string();
        (shown.contains("grid4m-bf16"), shown)
    };
    let made = gq.json(&["convert", "grid", "--bits", "6", "-o", "m.gq"]);
    let coded = made["report"]["tensors"].as_array().unwrap().clone();
    let encoding = |name: &str| {
        let found = coded.iter().find(|tensor| tensor["name"].as_str().unwrap().contains(name)).unwrap();
        (found["encoding"].as_str().unwrap().to_owned(), found["relative_mse"].as_f64().unwrap())
    };
    assert_eq!(encoding("q_proj"), ("grid4m-bf16".to_owned(), 0.0));
    assert_eq!(encoding("down_proj"), ("grid4m-bf16".to_owned(), 0.0));
    assert!(body("m.gq").0, "{}", body("m.gq").1);
    gq.json(&["convert", "grid", "--bits", "6", "--no-grid", "-o", "n.gq"]);
    assert!(!body("n.gq").0);
    let measure = |file: &str, reference: &str, activations: &str| {
        let options = ["--text", &text, "--ctx", "128", "--windows", "2", "--activations", activations];
        let report = gq.json(&[&["eval", file, "--reference", reference][..], &options].concat());
        report["kld"]["mean"].as_f64().unwrap()
    };
    // Tables too: nothing is lost at all, whatever the source is.
    let tables = ["embedding", "head", "per-layer-table", "per-layer-projection"];
    let tables = tables.map(|table| format!("--{table}=grid"));
    let tables = tables.each_ref().map(String::as_str);
    for (source, file) in [("grid", "all.gq"), ("q.gguf", "gguf.gq")] {
        let convert = ["convert", source, "--encoding", "grid", "-o", file, "--allow-requantize"];
        let made = gq.json(&[&convert[..], &tables].concat());
        assert_eq!(made["report"]["relative_mse"].as_f64(), Some(0.0), "{source}");
        let exact = measure(file, source, "f32");
        assert!(exact.abs() < 1e-9, "{source}: {exact}");
        let int8 = measure(file, source, "int8");
        assert!(int8 < 0.01, "{source}: {int8}");
    }
    let (near, far) = (measure("m.gq", "grid", "int8"), measure("n.gq", "grid", "int8"));
    assert!(near < 2.0 * far, "{near} {far}");
    let greedy = ["--prompt", "It is", "-n", "4", "--temp", "0"];
    gq.ok(&[&["run", "all.gq"][..], &greedy].concat());
    let plan = gq.ok(&["plan", "grid", "--bits", "6", "--tensors"]);
    assert!(plan.contains("on this grid already"), "{plan}");
    let plan = gq.ok(&["plan", "grid", "--bits", "4"]);
    assert!(plan.contains("--encoding grid stores them without loss, for "), "{plan}");
    // The plain model is on none.
    let shown = gq.fails(2, &["convert", &demo, "--encoding", "grid", "-o", "x.gq"]);
    assert!(shown.contains("does not sit on any grid"), "{shown}");
    assert!(!gq.path("x.gq").exists());
}

#[test]
fn a_budget_takes_grids_for_nothing_lost() {
    let gq = Gq::new();
    let (demo, text) = (testdata("demo"), testdata("demo/eval.txt"));
    gq.ok(&["export", "--no-measure", &demo, "--gguf", "--type", "Q4_1", "-o", "q.gguf"]);
    gq.ok(&["export", "--no-measure", "q.gguf", "--safetensors", "-o", "grid"]);
    let measurements = ["calibrate", "grid", "-o", "t", "--calibration", &text, "--calibration-ctx", "128"];
    gq.ok(&[&measurements[..], &["--calibration-tokens", "2048", "--gradient-tokens", "256"]].concat());
    let expected = |more: &[&str]| {
        let plan = gq.json(&[&["plan", "grid", "--measurements", "t", "--bpw", "5.2"][..], more].concat());
        (plan["expected_divergence"].as_f64().unwrap(), plan.to_string().contains("grid4m-bf16"))
    };
    let (with, without) = (expected(&[]), expected(&["--no-grid"]));
    assert!(with.1 && !without.1 && with.0 < 0.5 * without.0, "{with:?} {without:?}");
}

/// Nothing could be closer: it is neither measured nor said to be worse than what is.
#[test]
fn what_a_budget_has_room_for_without_loss_is_not_measured() {
    let gq = Gq::new();
    let demo = testdata("demo");
    gq.ok(&["export", "--no-measure", &demo, "--gguf", "--type", "Q4_1", "-o", "q.gguf"]);
    gq.ok(&["export", "--no-measure", "q.gguf", "--safetensors", "-o", "grid"]);
    let nothing = "every weight is stored without loss: nothing is measured";
    let said = |args: &[&str]| {
        let output = gq.run(args);
        assert!(output.status.success(), "gq {args:?}");
        let parts = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        parts.concat()
    };
    let text = said(&["convert", "grid", "--size", "4MB", "--per-layer-projection", "grid", "-o", "m.gq"]);
    assert!(text.contains(nothing) && !text.contains("measurements removed"), "{text}");
    let made = gq.json(&[
        "convert",
        "grid",
        "--size",
        "4MB",
        "--per-layer-projection",
        "grid",
        "-o",
        "n.gq",
        "--calibration",
        "none",
    ]);
    assert_eq!(made["report"]["relative_mse"].as_f64(), Some(0.0));
    assert!(made["uncalibrated"].is_null(), "{made}");
    assert_eq!(std::fs::read(gq.path("m.gq")).unwrap(), std::fs::read(gq.path("n.gq")).unwrap());
    let text = said(&["plan", "grid", "--size", "4MB", "--per-layer-projection", "grid"]);
    assert!(text.contains(nothing) && !text.contains("draft") && !text.contains("measure "), "{text}");
    for command in [&["plan", "grid"][..], &["convert", "grid", "-o", "o.gq"]] {
        let text = said(
            &[command, &["--size", "4MB", "--per-layer-projection", "grid", "--calibration", "none"]]
                .concat(),
        );
        assert!(!text.contains("not calibrated") && !text.contains("diverges"), "{text}");
    }
    // With less room something is lost.
    let text = said(&["plan", "grid", "--size", "1.6MB"]);
    assert!(!text.contains(nothing) && text.contains("is a draft") && text.contains("\nmeasure "), "{text}");
    let text = said(&["plan", "grid", "--size", "1.6MB", "--calibration", "none"]);
    assert!(text.contains("not calibrated"), "{text}");
}
