//! The main job end to end: convert, verify, eval, run, and what goes wrong.

use crate::run::{Gq, testdata};
use sha2::{Digest, Sha256};
use std::time::Duration;

fn sha256(path: &std::path::Path) -> Vec<u8> {
    Sha256::digest(std::fs::read(path).unwrap()).to_vec()
}

#[test]
fn a_converted_model_is_verified_measured_and_run() {
    let gq = Gq::new();
    let demo = testdata("demo");
    let report = gq.json(&["convert", &demo, "-o", "m.gq", "--bits", "4"]);
    assert_eq!(report["file_bytes"].as_u64().unwrap(), std::fs::metadata(gq.path("m.gq")).unwrap().len());
    assert_eq!(gq.json(&["verify", "m.gq"])["ok"], true);
    let text = testdata("demo/eval.txt");
    let measure = ["eval", "m.gq", "--reference", &demo, "--text", &text, "--ctx", "128", "--windows", "4"];
    let report = gq.json(&measure);
    let kld = report["kld"]["mean"].as_f64().unwrap();
    assert!((0.001..0.05).contains(&kld), "{kld}");
    let ratio = report["ppl"]["model"].as_f64().unwrap() / report["ppl"]["reference"].as_f64().unwrap();
    assert!((0.95..1.1).contains(&ratio), "{ratio}");
    assert!(report["top1"].as_f64().unwrap() > 0.85);
    assert_eq!(report["tokens"], 4 * 63);
    assert!((4.0..5.2).contains(&report["bpw"]["body"].as_f64().unwrap()));
    assert!(report["noise_floor"].as_f64().unwrap() < 1e-4);
    // The same evaluation as a gate: kept, then broken.
    gq.ok(&[&measure[..], &["--fail-above", "kld=0.5,ppl-ratio=1.5"]].concat());
    gq.fails(1, &[&measure[..], &["--fail-above", "kld=0.0001"]].concat());
    let answer = gq.json(&["run", "m.gq", "-p", "It is a truth", "-n", "8"]);
    assert_eq!(answer["tokens"].as_array().unwrap().len(), 8);
    assert!(!answer["text"].as_str().unwrap().trim().is_empty());
    let chat = gq.json(&["run", "m.gq", "--chat", "-p", "Who are you?", "-n", "4"]);
    assert!(chat["prompt_tokens"].as_array().unwrap().len() > 8);
    let inspected = gq.json(&["inspect", "m.gq"]);
    let sum = ["payload_bytes", "text_bytes", "table_and_padding_bytes"]
        .map(|key| inspected[key].as_u64().unwrap());
    assert_eq!(sum.iter().sum::<u64>(), inspected["file_bytes"].as_u64().unwrap());
}

#[test]
fn checkpoints_agree_with_the_reference_outputs_of_every_family() {
    let gq = Gq::new();
    let qwens = [
        "qwen2",
        "qwen3",
        "qwen3-moe",
        "qwen3-moe-mixed",
        "gpt-oss",
        "gpt-oss-resaved",
        "mistral",
        "ministral3",
        "phi3",
        "phi3-long",
    ];
    let others = ["llama", "llama3", "gemma3", "gemma4-e2b", "gemma4-e4b", "gemma4-moe", "gemma4-dense"];
    for name in others.into_iter().chain(qwens) {
        let dir = testdata(&format!("tiny/{name}"));
        let outputs = format!("{dir}/reference.safetensors");
        let report = gq.json(&["eval", &dir, "--reference", &outputs]);
        let error = report["logits"]["max_abs_error"].as_f64().unwrap();
        assert!(error < 3e-4, "{name}: {error}");
        assert!(report["noise_floor"].is_null());
        assert_eq!(report["top1"], 1.0, "{name}");
    }
}

#[test]
fn outputs_that_were_saved_are_a_reference() {
    let gq = Gq::new();
    let dir = testdata("tiny/llama");
    let outputs = format!("{dir}/reference.safetensors");
    gq.ok(&["eval", &dir, "--reference", &outputs, "--save-outputs", "own.safetensors"]);
    let report = gq.json(&["eval", &dir, "--reference", "own.safetensors"]);
    assert_eq!(report["logits"]["max_abs_error"], 0.0);
    assert_eq!(report["kld"]["max"], 0.0);
}

#[test]
fn bytes_do_not_depend_on_threads_or_cpu_level() {
    let gq = Gq::new();
    for encoding in ["tq3", "tq4-g32", "tq7", "tqp3", "polar4222"] {
        let make = |file: &str, options: &[&str]| {
            let dir = testdata("tiny/gemma4-e2b");
            gq.ok(&[&["convert", &dir, "-o", file, "--force", "--encoding", encoding][..], options].concat());
            sha256(&gq.path(file))
        };
        let one = make("1.gq", &["--threads", "1"]);
        assert_eq!(one, make("2.gq", &["--threads", "2"]), "{encoding}: threads");
        assert_eq!(one, make("s.gq", &["--threads", "3", "--isa", "scalar"]), "{encoding}: level");
    }
}

#[test]
fn killed_at_any_moment_and_run_again_gives_the_same_bytes() {
    let gq = Gq::new();
    let demo = testdata("demo");
    let arguments = |file: &'static str| {
        [
            "convert",
            &demo,
            "-o",
            file,
            "--force",
            "--encoding",
            "tq6",
            "--no-grid",
            "--threads",
            "1",
            "--isa",
            "scalar",
        ]
    };
    gq.ok(&arguments("whole.gq"));
    let mut interrupted = 0;
    let journal = gq.path("killed.gq.journal");
    for delay in 0..24 {
        let mut child =
            gq.command().args(arguments("killed.gq")).stderr(std::process::Stdio::null()).spawn().unwrap();
        // After some time, and every other time when there is something to lose, however busy the machine is.
        std::thread::sleep(Duration::from_millis(2 + 40 * delay));
        while delay % 2 == 1 && !journal.exists() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        interrupted += usize::from(journal.exists());
    }
    assert!(interrupted > 0, "no conversion was interrupted");
    gq.ok(&arguments("killed.gq"));
    assert_eq!(sha256(&gq.path("whole.gq")), sha256(&gq.path("killed.gq")));
    assert!(!gq.path("killed.gq.journal").exists() && !gq.path("killed.gq.partial").exists());
}

#[test]
fn bad_input_is_one_error_with_its_exit_code() {
    let gq = Gq::new();
    let llama = testdata("tiny/llama");
    let mut seen = 0;
    for kind in ["checkpoint", "container"] {
        for entry in std::fs::read_dir(testdata(&format!("malformed/{kind}"))).unwrap() {
            let path = entry.unwrap().path();
            let file = path.file_name().unwrap().to_str().unwrap();
            // Shards whose index is not theirs are read with a note where they are whole without it.
            let read = [
                "index-tensor-nowhere",
                "index-tensor-unlisted",
                "index-wrong-shard",
                "shards-without-index",
                // Both are used, with a warning.
                "tensor-tied-head-differs",
            ];
            let valid = file.starts_with("valid") || read.contains(&file);
            if valid || path.extension().is_some_and(|e| e == "md" || e == "json" || e == "txt") {
                continue;
            }
            let name = path.to_str().unwrap();
            let output = format!("{seen}.gq");
            // Values and payloads are only looked at by the commands that read them all.
            let shown = match (path.is_dir(), name.ends_with("payload-sha256.gq")) {
                (true, _) => gq.fails(3, &["convert", name, "-o", &output]),
                (false, false) => gq.fails(3, &["inspect", name]),
                (false, true) => gq.fails(1, &["verify", name]),
            };
            assert!(!gq.path(&output).exists(), "{name}");
            assert_eq!(shown.matches("error:").count(), 1, "{}: {shown}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 40, "{seen} malformed inputs");
    gq.fails(3, &["convert", "nowhere", "-o", "x.gq"]);
    gq.fails(2, &["convert", &llama, "-o", "x.gq", "--bits", "9"]);
    gq.fails(2, &["convert", &llama, "-o", "x.gq", "--override", "no_such_tensor=tq8"]);
    gq.fails(4, &["convert", &llama, "-o", "x.gq", "--max-memory", "1KiB"]);
    gq.ok(&["convert", &llama, "-o", "m.gq", "--bits", "4"]);
    let shown = gq.fails(3, &["run", "m.gq", "-p", "hello"]);
    assert!(shown.contains("tokenizer"), "{shown}");
    assert!(!gq.path("x.gq").exists());
}

#[test]
fn a_flipped_bit_fails_verification() {
    let gq = Gq::new();
    gq.ok(&["convert", &testdata("tiny/llama"), "-o", "m.gq", "--bits", "4"]);
    let mut bytes = std::fs::read(gq.path("m.gq")).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 1;
    std::fs::write(gq.path("bad.gq"), bytes).unwrap();
    gq.fails(1, &["verify", "bad.gq"]);
}
