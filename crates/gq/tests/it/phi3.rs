//! Phi through conversion, GGUF and safetensors: projections that files have in one tensor, and two lists of frequencies.

use crate::adapters::tensors;
use crate::run::{Gq, testdata};
use gq_checkpoint::gguf::{Imatrix, SquaredInputs};
use gq_checkpoint::gguf_model::gguf_names;
use std::collections::BTreeSet;
use std::path::Path;

/// Largest error of the logits, by the reference of a tiny checkpoint.
fn error(gq: &Gq, model: &str, of: &str) -> f64 {
    let outputs = format!("{}/reference.safetensors", testdata(of));
    let report = gq.json(&["eval", model, "--reference", &outputs, "--activations", "f32"]);
    report["logits"]["max_abs_error"].as_f64().unwrap()
}

const EXACT: [&str; 6] = ["--encoding", "exact", "--embedding", "exact", "--head", "exact"];

#[test]
fn projections_in_one_tensor_go_to_a_gguf_and_back() {
    let gq = Gq::new();
    let source = testdata("tiny/phi3");
    gq.ok(&[&["convert", &source, "-o", "exact.gq"][..], &EXACT].concat());
    gq.ok(&["export", "exact.gq", "--gguf", "--type", "F32", "--no-measure", "-o", "m.gguf"]);
    gq.ok(&[&["convert", "m.gguf", "-o", "back.gq"][..], &EXACT].concat());
    for file in [&source, "exact.gq", "m.gguf", "back.gq"] {
        assert!(error(&gq, file, "tiny/phi3") < 1e-4, "{file}");
    }
    let shown = gq.json(&["inspect", "m.gguf"]).to_string();
    assert!(shown.contains("\"family\":\"Phi3\""), "{shown}");
    // Types of parts that stand in one tensor are one: that of the most bits.
    gq.ok(&["export", &source, "--gguf", "--type", "Q8_0", "--no-measure", "-o", "q8.gguf"]);
    gq.ok(&[&["convert", "q8.gguf", "-o", "q8.gq", "--allow-requantize"][..], &EXACT].concat());
    let (q8, again) = (error(&gq, "q8.gguf", "tiny/phi3"), error(&gq, "q8.gq", "tiny/phi3"));
    assert!(q8 > 1e-3 && q8 < 1.0 && (q8 - again).abs() < 1e-3, "{q8} {again}");
}

#[test]
fn a_gguf_under_a_budget_has_one_type_for_what_stands_together() {
    let gq = Gq::new();
    let source = testdata("tiny/phi3");
    let said = gq.json(&["convert", &source, "-o", "b.gguf", "--format", "gguf", "--bpw", "6", "--no-check"]);
    assert!(said["file_bytes"].as_u64().unwrap() > 0, "{said}");
    let matrices: u64 = said["types"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["type"] != "F32")
        .map(|row| row["tensors"].as_u64().unwrap())
        .sum();
    // An embedding, and four matrices in each of two layers.
    assert_eq!(matrices, 9, "{said}");
    let error = error(&gq, "b.gguf", "tiny/phi3");
    assert!(error > 1e-3 && error < 12.0, "{error}");
}

#[test]
fn safetensors_have_them_in_one_again() {
    let gq = Gq::new();
    for name in ["phi3", "phi3-long"] {
        let source = testdata(&format!("tiny/{name}"));
        let (file, folder) = (format!("{name}.gq"), format!("{name}.out"));
        gq.ok(&[&["convert", &source, "-o", &file][..], &EXACT].concat());
        gq.ok(&["export", &file, "--safetensors", "--no-measure", "-o", &folder]);
        let ours = tensors(&gq.path(&folder).join("model.safetensors"));
        let theirs = Path::new(&source);
        let files = std::fs::read_dir(theirs).unwrap().map(|entry| entry.unwrap().path());
        let files = files.filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with("model") && name.ends_with(".safetensors")
        });
        let mut theirs: Vec<_> = files.flat_map(|path| tensors(&path)).collect();
        theirs.sort();
        let mut ours: Vec<_> = ours.into_iter().collect();
        ours.sort();
        assert_eq!(ours, theirs, "{name}");
        assert!(error(&gq, &folder, &format!("tiny/{name}")) < 1e-4, "{name}");
    }
}

#[test]
fn a_window_that_llama_cpp_does_not_apply_is_refused() {
    let gq = Gq::new();
    let source = testdata("tiny/phi3-long");
    let shown = gq.fails(3, &["export", &source, "--gguf", "--no-measure", "-o", "m.gguf"]);
    assert!(shown.contains("sliding_window") && shown.contains("has no windows"), "{shown}");
}

#[test]
fn a_plan_knows_the_model() {
    let gq = Gq::new();
    let source = testdata("tiny/phi3");
    let plan = gq.json(&["plan", &source, "--bits", "4"]);
    gq.ok(&["convert", &source, "-o", "m.gq", "--bits", "4", "--no-check"]);
    let written = gq.json(&["inspect", "m.gq"]);
    assert_eq!(plan["payload_bytes"], written["payload_bytes"]);
    // Every byte of the source is one of a part, or of what stands by itself.
    let parts = plan["steps"].as_array().unwrap().iter().map(|step| step["source_bytes"].as_u64().unwrap());
    assert_eq!(plan["source_bytes"].as_u64(), Some(parts.sum()));
    assert!(error(&gq, "m.gq", "tiny/phi3") < 12.0);
}

/// Which list of frequencies counts is decided by the context: that of short texts without a word, else it is said.
#[test]
fn a_long_context_is_said() {
    let gq = Gq::new();
    std::fs::create_dir(gq.path("m")).unwrap();
    for (folder, names) in [
        ("tiny/phi3", &["config.json", "model.safetensors.index.json"][..]),
        ("gguf/tokenizers/llama", &["tokenizer.json", "tokenizer_config.json"]),
    ] {
        for name in names {
            std::fs::copy(testdata(&format!("{folder}/{name}")), gq.path("m").join(name)).unwrap();
        }
    }
    for shard in 1..=3 {
        let name = format!("model-{shard:05}-of-00003.safetensors");
        std::fs::copy(testdata(&format!("tiny/phi3/{name}")), gq.path("m").join(name)).unwrap();
    }
    let said = |args: &[&str]| {
        let output = gq.run(&[&["run", "m", "-n", "2", "-p"][..], args].concat());
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let long = "It is a truth. ".repeat(20);
    let (done, shown) = said(&["It is"]);
    assert!(done && !shown.contains("long contexts"), "{shown}");
    let (done, shown) = said(&[&long]);
    assert!(!done && shown.contains("the context holds 128") && shown.contains("--ctx"), "{shown}");
    for prompt in ["It is", &long] {
        let (done, shown) = said(&[prompt, "--ctx", "256"]);
        assert!(done && shown.contains("--ctx 256 is beyond 128 tokens"), "{shown}");
    }
}

/// llama.cpp has one entry for matrices that stand in one tensor, and every matrix is read by it.
#[test]
fn importances_are_of_what_stands_together() {
    let (gq, source) = (Gq::new(), testdata("tiny/phi3"));
    let checkpoint = gq_checkpoint::Checkpoint::open(&source).unwrap();
    let spec = checkpoint.spec();
    let names: BTreeSet<_> = checkpoint
        .tensors()
        .iter()
        .filter(|tensor| tensor.name.contains(".layers.") && tensor.shape.len() == 2)
        .flat_map(|tensor| {
            gguf_names(spec, &tensor.name, &tensor.shape).into_iter().map(|name| (name, tensor.cols()))
        })
        .collect();
    let of_layer = names.iter().filter_map(|(name, _)| name.strip_prefix("blk.0."));
    let expected = ["attn_output.weight", "attn_qkv.weight", "ffn_down.weight", "ffn_up.weight"];
    assert!(of_layer.eq(expected), "{names:?}");
    let mut imatrix = Imatrix { chunks: 1, chunk_size: 1, ..Imatrix::default() };
    let inputs = |cols| SquaredInputs { sums: vec![1.0; cols], counts: vec![1.0] };
    imatrix.tensors.extend(names.iter().map(|(name, cols)| (name.clone(), inputs(*cols))));
    let path = gq.path("imatrix.gguf");
    imatrix.write(&path).unwrap();
    let convert =
        ["convert", &source, "--format", "gguf", "--bpw", "6", "--no-check", "--force", "-o", "b.gguf"];
    let convert = [&convert[..], &["--imatrix", "imatrix.gguf"]].concat();
    let said = |output: &std::process::Output| String::from_utf8(output.stderr.clone()).unwrap();
    let whole = gq.run(&convert);
    assert!(whole.status.success() && !said(&whole).contains("says nothing of"), "{}", said(&whole));
    // What it lacks is named; a layer of which it has nothing is refused.
    let mut partial = imatrix.clone();
    partial.tensors.remove("blk.0.attn_qkv.weight").unwrap();
    partial.write(&path).unwrap();
    let noted = gq.run(&convert);
    assert!(noted.status.success() && said(&noted).contains("nothing of 3 of"), "{}", said(&noted));
    partial.tensors.retain(|name, _| !name.starts_with("blk.1."));
    partial.write(&path).unwrap();
    let refused = gq.fails(3, &convert);
    assert!(refused.contains("no matrix of layer 1"), "{refused}");
}
