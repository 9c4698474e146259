//! What long commands say of their time: an estimate first, and in the end all of it.

use crate::checkpoints::{Shape, write_hollow};
use crate::run::{Gq, testdata};
use crate::server::LoopbackHub;
use crate::tidy::{root, with_extension};
use std::time::{Duration, Instant};

/// 315 million weights.
const SHAPE: Shape = Shape { hidden: 2048, width: 8192, layers: 5, vocab: 1536 };

/// A model in `model` with the demo's tokenizer, of which no weights lie on the disk.
fn folder() -> Option<Gq> {
    let gq = Gq::new();
    if !write_hollow(&gq.path("model"), SHAPE) {
        return None;
    }
    for name in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
        std::fs::copy(testdata(&format!("demo/{name}")), gq.path("model").join(name)).unwrap();
    }
    Some(gq)
}

#[test]
fn long_commands_say_their_estimate_first() {
    let Some(gq) = folder() else { return };
    let demo = testdata("demo");
    let measured = ["--windows", "16"];
    for format in [&["--gguf", "-o", "m.gguf"][..], &["--safetensors", "-o", "m"]] {
        let said = gq.until("export takes about", &[&["export", "model"], format, &measured].concat());
        assert!(said.contains("writing ") && said.contains("measuring "), "{said}");
    }
    let text = testdata("demo/eval.txt");
    let outputs = ["--text", &text, "--ctx", "128", "--windows", "16", "--save-outputs", "o.safetensors"];
    gq.ok(&[&["eval", &demo, "--reference", &demo][..], &outputs].concat());
    gq.until("eval takes about", &["eval", "model", "--reference", "o.safetensors"]);
    let own = ["eval", "model", "--reference", "model", "--self", "--cache-limit", "0"];
    gq.until("writing text takes about", &own);
}

#[test]
fn a_measurement_of_speed_says_its_time_first() {
    let gq = Gq::new();
    gq.until("bench takes about", &["bench", "--codec", "--isa", "scalar"]);
    let model = testdata("demo");
    gq.until("bench takes about", &["bench", &model, "--isa", "scalar", "--pp", "2048", "--tg", "512"]);
}

/// Nothing is known of work that begins without stages: only a transfer's rate is nobody's to know.
#[test]
fn work_begins_with_what_is_expected_of_it() {
    for (path, text) in with_extension("rs") {
        let Ok(inner) = path.strip_prefix(root().join("crates/gq/src")) else { continue };
        let known = ["hub.rs", "progress.rs"].iter().any(|name| inner.as_os_str() == *name);
        assert!(known || !text.contains("Progress::new("), "{}: no estimate", inner.display());
    }
}

#[test]
fn the_time_of_an_export_counts_measuring_it() {
    let gq = Gq::new();
    let began = Instant::now();
    let options = ["--gguf", "-o", "m.gguf", "--windows", "16", "--isa", "scalar", "--threads", "1"];
    let made = gq.json(&[&["export", &testdata("demo")][..], &options].concat());
    let all = began.elapsed().as_secs_f64();
    let said = made["seconds"].as_f64().unwrap();
    assert!(said <= all && said > 0.5 * all, "{said} of {all}");
}

#[test]
fn the_time_of_a_conversion_counts_the_transfer() {
    let (gq, hub) = (Gq::new(), LoopbackHub::start());
    let file = |name: &str| std::fs::read(testdata(&format!("tiny/llama/{name}"))).unwrap();
    let files =
        [("config.json", file("config.json"), false), ("model.safetensors", file("model.safetensors"), true)];
    hub.commit("org/tiny", "main", &files);
    hub.faults().slow = Some(Duration::from_millis(100));
    let mut command = gq.command();
    command.env("HF_HOME", gq.path("hf")).env("HF_ENDPOINT", hub.endpoint());
    let began = Instant::now();
    let output = command.args(["convert", "hf://org/tiny", "--bits", "4", "--json"]).output().unwrap();
    let all = began.elapsed().as_secs_f64();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let said = made["seconds"].as_f64().unwrap();
    assert!(said <= all && said > 0.75 * all, "{said} of {all}");
}
