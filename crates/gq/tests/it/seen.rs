//! What is written is seen to work, and what cannot be written as asked for is not written wrongly.

use crate::run::{Gq, testdata};
use gq_container::{Container, StoredText, TextKind, Writer};
use std::fs;
use std::path::Path;

/// A copy of a checkpoint of one bf16 file below the scratch directory.
fn copy(gq: &Gq, from: &str, to: &str) {
    fs::create_dir_all(gq.path(to)).unwrap();
    for entry in fs::read_dir(testdata(from)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, gq.path(to).join(path.file_name().unwrap())).unwrap();
    }
}

/// The bf16 elements of a tensor of a safetensors file, changed in place; gives its bytes.
fn change(path: &Path, tensor: &str, change: impl Fn(usize, f32) -> f32) -> Vec<u8> {
    let mut bytes = fs::read(path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    assert_eq!(json[tensor]["dtype"], "BF16", "{tensor}");
    let place = |end: usize| 8 + header + json[tensor]["data_offsets"][end].as_u64().unwrap() as usize;
    let data = &mut bytes[place(0)..place(1)];
    for (index, element) in data.chunks_exact_mut(2).enumerate() {
        let value = f32::from_bits(u32::from(u16::from_le_bytes([element[0], element[1]])) << 16);
        let new = (change(index, value).to_bits() >> 16) as u16;
        element.copy_from_slice(&new.to_le_bytes());
    }
    let data = data.to_vec();
    fs::write(path, bytes).unwrap();
    data
}

fn contains(path: &Path, bytes: &[u8]) -> bool {
    let file = fs::read(path).unwrap();
    file.windows(bytes.len()).any(|window| window == bytes)
}

const DOWN: &str = "model.layers.0.mlp.down_proj.weight";

#[test]
fn weights_beyond_half_precision_get_a_type_that_holds_them() {
    let gq = Gq::new();
    let weights = |name: &str| gq.path(name).join("model.safetensors");
    copy(&gq, "tiny/llama", "big");
    let big = change(&weights("big"), DOWN, |at, value| if at == 3 * 160 + 5 { 1e5 } else { value });
    copy(&gq, "tiny/llama", "small");
    let small = change(&weights("small"), DOWN, |_, value| value * 1e-8);
    for (name, bytes, largest) in [("big", &big, 99840.0), ("small", &small, 0.0)] {
        let out = format!("{name}.gguf");
        let report = gq.json(&["export", name, "--gguf", "-o", &out, "--no-measure"]);
        let widened = report["widened"].as_array().unwrap();
        assert_eq!(widened.len(), 1, "{report}");
        assert_eq!((&widened[0]["tensor"], &widened[0]["type"]), (&DOWN.into(), &"BF16".into()));
        assert_eq!(widened[0]["instead_of"], "F16");
        assert!(largest == 0.0 || widened[0]["largest"].as_f64() == Some(largest), "{report}");
        let types: Vec<&str> =
            report["types"].as_array().unwrap().iter().map(|kind| kind["type"].as_str().unwrap()).collect();
        assert!(types.contains(&"F16") && types.contains(&"BF16"), "{report}");
        // The source's own bytes: nothing was rounded.
        assert!(contains(&gq.path(&out), bytes), "{name}");
        assert_eq!(report["seen"]["checked"], true);
        let said = gq.ok(&["export", name, "--gguf", "-o", &out, "--no-measure", "--force"]);
        assert!(said.contains(&format!("{DOWN} is BF16 instead of F16")), "{said}");
    }
    // A block's scale holds it.
    let report = gq.json(&["export", "big", "--gguf", "-o", "q.gguf", "--type", "Q8_0", "--no-measure"]);
    assert_eq!(report["widened"].as_array().unwrap().len(), 0);
    // Nothing is beyond half precision here.
    copy(&gq, "tiny/llama", "plain");
    let report = gq.json(&["export", "plain", "--gguf", "-o", "plain.gguf", "--no-measure"]);
    assert_eq!(report["widened"].as_array().unwrap().len(), 0);
}

#[test]
fn scales_beyond_their_range_are_errors_that_name_the_tensor() {
    let gq = Gq::new();
    for (name, factor) in [("large", 1e25), ("tiny", 1e-20)] {
        copy(&gq, "tiny/llama", name);
        change(&gq.path(name).join("model.safetensors"), DOWN, |_, value| value * factor);
        for encoding in ["tq4", "tt3"] {
            let out = format!("{name}-{encoding}.gq");
            let shown = gq.fails(3, &["convert", name, "-o", &out, "-e", encoding, "--no-grid"]);
            assert!(shown.contains(DOWN) && shown.contains("--override"), "{shown}");
            assert!(!gq.path(&out).exists());
        }
    }
    gq.ok(&[
        "convert",
        "tiny",
        "-o",
        "t.gq",
        "-e",
        "tq4",
        "--no-grid",
        "--override",
        "0.mlp.down_proj=exact",
    ]);
}

#[test]
fn texts_that_cannot_be_read_are_named_before_and_after() {
    let gq = Gq::new();
    let pointer = format!(
        "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 9085657\n",
        "4d7a".repeat(16)
    );
    gq.ok(&["convert", &testdata("demo"), "-o", "whole.gq", "-e", "tq4", "--no-grid"]);
    let whole = Container::open(&gq.path("whole.gq")).unwrap();
    for (kind, text, why) in [
        (TextKind::Tokenizer, pointer.as_str(), "Git LFS pointer"),
        (TextKind::Tokenizer, "{\"version\": \"1.0\"}", "tokenizer"),
        (TextKind::TokenizerConfig, "<html>", "not JSON"),
        (TextKind::GenerationConfig, "[1]", "not an object"),
        (TextKind::ChatTemplate, "{% for m in messages %}", "template"),
        (TextKind::Config, "{}", "model_type"),
    ] {
        // With every digest right.
        let texts = TextKind::ALL.into_iter().filter_map(|other| {
            let old = whole.text(other).unwrap();
            let text = if other == kind { Some(text.to_owned()) } else { old };
            Some(StoredText::new(other, &text?).unwrap())
        });
        whole.with_texts(&gq.path("bad.gq"), texts.collect()).unwrap();
        let shown = gq.fails(1, &["verify", "bad.gq"]);
        assert!(shown.contains(kind.name()) && shown.contains(why), "{kind}: {shown}");
    }
    let shown = gq.ok(&["verify", "whole.gq"]);
    assert!(shown.contains("ok, "), "{shown}");
    gq.ok(&["convert", &testdata("tiny/llama"), "-o", "none.gq", "-e", "tq4"]);
    assert!(gq.ok(&["verify", "none.gq"]).contains("(no tokenizer)"));
    assert_eq!(gq.json(&["verify", "none.gq"])["has_tokenizer"], false);
    // A checkpoint is refused before it is converted.
    copy(&gq, "demo", "model");
    fs::write(gq.path("model/chat_template.jinja"), "{% for m in messages %}").unwrap();
    let shown = gq.fails(3, &["convert", "model", "-o", "m.gq", "-e", "tq4", "--no-grid"]);
    assert!(shown.contains("chat_template"), "{shown}");
    assert!(!gq.path("m.gq").exists() && !gq.path("m.gq.partial").exists());
    let said = gq.ok(&["convert", "model", "-o", "m.gq", "-e", "tq4", "--no-grid", "--no-check"]);
    assert!(said.contains("not seen: that the file works"), "{said}");
    gq.fails(1, &["verify", "m.gq"]);
}

#[test]
fn a_file_that_computes_nothing_gets_no_name() {
    let gq = Gq::new();
    copy(&gq, "tiny/llama", "model");
    change(&gq.path("model/model.safetensors"), "model.norm.weight", |_, _| 3e38);
    let convert = ["convert", "model", "-o", "m.gq", "-e", "tq4", "--no-grid"];
    let shown = gq.fails(3, &convert);
    assert!(
        shown.contains("does not work") && shown.contains("logit") && shown.contains("--no-check"),
        "{shown}"
    );
    assert!(!gq.path("m.gq").exists() && gq.path("m.gq.partial").exists());
    // What was done is kept for whoever wants it all the same.
    let output = gq.run(&[&convert[..], &["--no-check"]].concat());
    assert!(output.status.success() && gq.path("m.gq").exists());
    assert!(String::from_utf8_lossy(&output.stderr).contains("taking up"), "{output:?}");
    for args in [
        &["export", "model", "--gguf", "-o", "m.gguf", "--no-measure"][..],
        &["export", "model", "--safetensors", "-o", "folder", "--no-measure"],
    ] {
        let shown = gq.fails(3, args);
        assert!(shown.contains("does not work"), "{shown}");
    }
    let mut left: Vec<_> =
        fs::read_dir(gq.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["m.gq", "model"]);
}

#[test]
fn what_takes_too_much_memory_is_not_looked_at_and_said() {
    let gq = Gq::new();
    let demo = testdata("demo");
    copy(&gq, "demo", "model");
    // A limit that the conversion keeps and the tokenizer would not.
    let plan = gq.json(&["plan", &demo, "-e", "tq4", "--no-grid"]);
    let peak = plan["memory"]["peak"].as_u64().unwrap();
    assert!(plan["check_memory_bytes"].as_u64().unwrap() > peak, "{plan}");
    let limit = peak.to_string();
    let convert = ["convert", "model", "-o", "m.gq", "-e", "tq4", "--no-grid", "--max-memory", &limit];
    let report = gq.json(&convert);
    let not_seen = report["seen"]["not_seen"][0].as_str().unwrap();
    assert!(not_seen.contains("--max-memory allows"), "{not_seen}");
    assert!(report["seen"]["token"].is_u64());
}

#[test]
fn scales_in_a_file_are_finite() {
    let gq = Gq::new();
    gq.ok(&["convert", &testdata("tiny/llama"), "-o", "m.gq", "-e", "tq4", "--no-grid"]);
    let whole = Container::open(&gq.path("m.gq")).unwrap();
    let mut writer = Writer::create_once(&gq.path("bad.gq")).unwrap();
    for entry in whole.tensors() {
        let mut payload = whole.payload(entry).to_vec();
        if entry.name == DOWN {
            let end = payload.len();
            payload[end - 2..].copy_from_slice(&[0x00, 0x7C]);
        }
        writer.write_tensor(entry.spec(), &payload).unwrap();
    }
    let texts = TextKind::ALL
        .into_iter()
        .filter_map(|kind| Some(StoredText::new(kind, &whole.text(kind).unwrap()?).unwrap()));
    writer.finish(texts.collect()).unwrap();
    let shown = gq.fails(1, &["verify", "bad.gq"]);
    assert!(shown.contains(DOWN) && shown.contains("not finite"), "{shown}");
    for way in [&["--gguf"][..], &["--safetensors"]] {
        let shown = gq.fails(3, &[&["export", "bad.gq", "-o", "out", "--no-measure"], way].concat());
        assert!(shown.contains(DOWN), "{shown}");
        assert!(!gq.path("out").exists());
    }
}

#[test]
fn without_a_tokenizer_numbers_stand_in_for_text() {
    let gq = Gq::new();
    let report = gq.json(&["convert", &testdata("tiny/llama"), "-o", "m.gq", "-e", "tq4"]);
    assert_eq!((&report["seen"]["checked"], &report["seen"]["tokenizes"]), (&true.into(), &().into()));
    assert!(report["seen"]["token"].is_u64() && report["seen"]["layers"] == report["seen"]["of_layers"]);
    assert!(report["seen"]["not_seen"][0].as_str().unwrap().contains("no tokenizer"));
    let report = gq.json(&["convert", &testdata("demo"), "-o", "d.gq", "-e", "tq4"]);
    assert_eq!(
        (&report["seen"]["tokenizes"], report["seen"]["not_seen"].as_array().unwrap().len()),
        (&true.into(), 0)
    );
}
