//! GGUF in and out on the command line.

use crate::run::{Gq, testdata};
use serde_json::Value;

fn measured(gq: &Gq, model: &str, reference: &str) -> Value {
    let text = testdata("demo/eval.txt");
    gq.json(&[
        "eval",
        model,
        "--reference",
        reference,
        "--text",
        &text,
        "--ctx",
        "128",
        "--windows",
        "2",
        "--cache-limit",
        "0",
    ])
}

#[test]
fn a_gguf_is_a_checkpoint() {
    let gq = Gq::new();
    let demo = testdata("demo");
    gq.ok(&["export", "--no-measure", &demo, "--gguf", "--type", "BF16", "-o", "demo.gguf"]);
    let seen = gq.json(&["inspect", "demo.gguf"]);
    assert_eq!((seen["family"].as_str(), &seen["quantized"]), (Some("Gemma4"), &Value::Null));
    let report = measured(&gq, "demo.gguf", &demo);
    assert_eq!(report["kld"]["mean"].as_f64(), Some(0.0), "{report}");
    assert_eq!(measured(&gq, &demo, "demo.gguf")["kld"]["mean"].as_f64(), Some(0.0));
    let say = |model: &str| gq.ok(&["run", model, "-p", "It is", "-n", "4", "--temp", "0"]);
    assert_eq!(say("demo.gguf"), say(&demo));
    // The same weights give the same codes, whatever file they come from.
    gq.ok(&["convert", "demo.gguf", "-o", "a.gq", "--bits", "4"]);
    gq.ok(&["convert", &demo, "-o", "b.gq", "--bits", "4"]);
    let codes = |file: &str| {
        let tensors = gq.json(&["inspect", file])["tensors"].clone();
        let list = tensors.as_array().unwrap().iter().filter(|t| t["shape"].as_array().unwrap().len() > 1);
        let mut list: Vec<_> = list.map(|t| (t["name"].to_string(), t["sha256"].to_string())).collect();
        list.sort();
        list
    };
    assert_eq!(codes("a.gq"), codes("b.gq"));
    assert_eq!(gq.json(&["inspect", "a.gq"])["provenance"]["source"].get("quantized"), None);
}

#[test]
fn what_is_quantized_is_quantized_again_only_when_asked() {
    let gq = Gq::new();
    gq.ok(&["export", "--no-measure", &testdata("demo"), "--gguf", "--type", "Q8_0", "-o", "demo.gguf"]);
    for command in [&["convert", "demo.gguf", "-o", "m.gq"][..], &["plan", "demo.gguf"]] {
        let shown = gq.fails(2, command);
        assert!(
            shown.contains("quantized already (Q8_0 x ") && shown.contains("--allow-requantize"),
            "{shown}"
        );
    }
    assert!(!gq.path("m.gq").exists());
    gq.ok(&[
        "convert",
        "demo.gguf",
        "-o",
        "m.gq",
        "--bits",
        "4",
        "--allow-requantize",
        "--override",
        "q_proj=exact",
    ]);
    let told = gq.json(&["inspect", "m.gq"])["provenance"]["source"]["quantized"].clone();
    assert!(told.as_str().unwrap().starts_with("Q8_0 x "), "{told}");
    let report = measured(&gq, "m.gq", "demo.gguf");
    assert!(report["kld"]["mean"].as_f64().unwrap() < 0.1, "{report}");
    gq.ok(&["verify", "m.gq"]);
}

#[test]
fn a_file_goes_out_in_types_of_its_own_sizes_with_a_modelfile() {
    let gq = Gq::new();
    let demo = testdata("demo");
    gq.ok(&["convert", &demo, "-o", "m.gq", "--bits", "8"]);
    let told = gq.json(&["export", "--no-measure", "m.gq", "--gguf", "--ollama", "-o", "out.gguf"]);
    let types: Vec<_> =
        told["types"].as_array().unwrap().iter().map(|t| t["type"].as_str().unwrap()).collect();
    assert!(types.contains(&"Q8_0") && types.contains(&"F32"), "{told}");
    assert_eq!(told["file_bytes"].as_u64(), Some(std::fs::metadata(gq.path("out.gguf")).unwrap().len()));
    let kld = measured(&gq, "out.gguf", "m.gq")["kld"]["mean"].as_f64().unwrap();
    assert!(kld < 0.01, "{kld}");
    let modelfile = std::fs::read_to_string(gq.path("out.Modelfile")).unwrap();
    assert!(modelfile.starts_with("FROM ./out.gguf\n"), "{modelfile}");
    gq.ok(&["export", "--no-measure", "m.gq", "--safetensors", "-o", "out"]);
    let kld = measured(&gq, "out", "m.gq")["kld"]["mean"].as_f64().unwrap();
    assert!(kld < 0.01, "{kld}");
    let shown = gq.fails(2, &["export", "--no-measure", "m.gq", "--safetensors", "-o", "out"]);
    assert!(shown.contains("exists already"), "{shown}");
    let left =
        std::fs::read_dir(gq.dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    assert!(left.into_iter().all(|name| !name.ends_with(".partial")));
}

#[test]
fn shards_hold_what_one_file_does_and_threads_change_nothing() {
    let gq = Gq::new();
    let demo = testdata("demo");
    // Codes of single rows and of strips.
    gq.ok(&["convert", &demo, "-o", "m.gq", "--encoding", "tt3", "--override", "o_proj=tq4-g32"]);
    gq.ok(&["export", "--no-measure", "m.gq", "--safetensors", "-o", "one", "--threads", "1"]);
    gq.ok(&[
        "export",
        "--no-measure",
        "m.gq",
        "--safetensors",
        "-o",
        "more",
        "--threads",
        "3",
        "--max-shard-size",
        "300KB",
    ]);
    let read = |path: &str| std::fs::read(gq.path(path)).unwrap();
    let index: Value = serde_json::from_slice(&read("more/model.safetensors.index.json")).unwrap();
    let map = index["weight_map"].as_object().unwrap();
    let mut payload = Vec::new();
    let count = map.values().collect::<std::collections::HashSet<_>>().len();
    assert!(count > 2, "{index}");
    for n in 1..=count {
        let name = format!("model-{n:05}-of-{count:05}.safetensors");
        let bytes = read(&format!("more/{name}"));
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let tensors: Value = serde_json::from_slice(&bytes[8..header]).unwrap();
        let tensors: Vec<_> = tensors.as_object().unwrap().keys().filter(|k| *k != "__metadata__").collect();
        assert!(tensors.iter().all(|tensor| map[*tensor] == name.as_str()), "{name}");
        assert!(bytes.len() - header <= 300_000 || tensors.len() == 1, "{name}: {}", bytes.len());
        payload.extend_from_slice(&bytes[header..]);
    }
    assert_eq!(index["metadata"]["total_size"].as_u64(), Some(payload.len() as u64));
    let whole = read("one/model.safetensors");
    assert!(whole[8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize..] == payload);
    assert!(!gq.path("one/model.safetensors.index.json").exists());
    assert_eq!(measured(&gq, "more", "one")["kld"]["mean"].as_f64(), Some(0.0));
    gq.ok(&["export", "--no-measure", "m.gq", "--gguf", "-o", "1.gguf", "--threads", "1", "--name", "m"]);
    gq.ok(&["export", "--no-measure", "m.gq", "--gguf", "-o", "3.gguf", "--threads", "3", "--name", "m"]);
    assert!(read("1.gguf") == read("3.gguf"));
}

#[test]
fn a_folder_stands_for_the_gguf_in_it() {
    let gq = Gq::new();
    gq.ok(&["export", "--no-measure", &testdata("demo"), "--gguf", "-o", "a.gguf"]);
    std::fs::create_dir(gq.path("folder")).unwrap();
    std::fs::copy(gq.path("a.gguf"), gq.path("folder/a.gguf")).unwrap();
    std::fs::write(gq.path("folder/mmproj-a.gguf"), b"not looked at").unwrap();
    gq.ok(&["convert", "folder", "-o", "folder.gq", "--bits", "4"]);
    gq.ok(&["convert", "a.gguf", "-o", "file.gq", "--bits", "4"]);
    assert!(std::fs::read(gq.path("folder.gq")).unwrap() == std::fs::read(gq.path("file.gq")).unwrap());
    // Parts of one split are one model, two models are not.
    std::fs::rename(gq.path("folder/a.gguf"), gq.path("folder/a-00001-of-00002.gguf")).unwrap();
    std::fs::copy(gq.path("a.gguf"), gq.path("folder/a-00002-of-00002.gguf")).unwrap();
    gq.ok(&["inspect", "folder"]);
    std::fs::copy(gq.path("a.gguf"), gq.path("folder/b.gguf")).unwrap();
    let shown = gq.fails(3, &["inspect", "folder"]);
    assert!(shown.contains("several GGUFs") && shown.contains("b.gguf"), "{shown}");
}

#[test]
fn a_gguf_is_calibrated_as_a_checkpoint_is() {
    let gq = Gq::new();
    let (demo, text) = (testdata("demo"), testdata("demo/eval.txt"));
    gq.ok(&["export", "--no-measure", &demo, "--gguf", "--type", "BF16", "-o", "a.gguf"]);
    gq.ok(&[
        "calibrate",
        "a.gguf",
        "--calibration",
        &text,
        "--calibration-tokens",
        "4096",
        "--gradient-tokens",
        "512",
        "-o",
        "a.measurements",
    ]);
    gq.ok(&["convert", "a.gguf", "--measurements", "a.measurements", "--bits", "3", "-o", "tuned.gq"]);
    gq.ok(&["convert", "a.gguf", "--bits", "3", "-o", "plain.gq"]);
    let kld = |model: &str| measured(&gq, model, "a.gguf")["kld"]["mean"].as_f64().unwrap();
    let (tuned, plain) = (kld("tuned.gq"), kld("plain.gq"));
    assert!(tuned < plain, "{tuned} {plain}");
}

#[test]
fn what_cannot_be_exported_or_read_is_one_error() {
    let gq = Gq::new();
    let demo = testdata("demo");
    let shown = gq.fails(2, &["export", "--no-measure", &demo, "--gguf", "--type", "IQ4_XS", "-o", "x.gguf"]);
    assert!(shown.contains("expected nearest, F32"), "{shown}");
    gq.fails(2, &["export", "--no-measure", &demo, "-o", "x.gguf"]);
    let shown =
        gq.fails(2, &["export", "--no-measure", &demo, "--gguf", "--max-shard-size", "1GB", "-o", "x.gguf"]);
    assert!(shown.contains("--max-shard-size"), "{shown}");
    std::fs::write(gq.path("cut.gguf"), b"GGUF\x03\0\0\0").unwrap();
    let shown = gq.fails(3, &["inspect", "cut.gguf"]);
    assert!(shown.contains("cut.gguf: the file ends at byte"), "{shown}");
    std::fs::write(gq.path("other.bin"), b"abc").unwrap();
    let shown = gq.fails(3, &["convert", "other.bin", "-o", "x.gq"]);
    assert!(shown.contains("a checkpoint directory or a GGUF is expected"), "{shown}");
}

#[test]
fn an_export_says_what_it_costs() {
    let gq = Gq::new();
    let (demo, text) = (testdata("demo"), testdata("demo/eval.txt"));
    // The same values cost nothing.
    let shown = gq.ok(&["export", &demo, "--gguf", "--type", "BF16", "-o", "exact.gguf"]);
    assert!(
        shown.contains("cost: KL divergence from demo 0 (99 %: 0.00e0), same top token 100.00 %"),
        "{shown}"
    );
    assert!(shown.contains("1,016 tokens of the built-in text"), "{shown}");
    // Coded ones do, and the figures are those of `gq eval` on the same windows.
    let told = gq.json(&["export", &demo, "--gguf", "--type", "Q4_0", "--text", &text, "-o", "q4.gguf"]);
    let eval = ["eval", "q4.gguf", "--reference", &demo, "--text", &text, "--ctx", "256", "--windows", "8"];
    let again = gq.json(&[&eval[..], &["--cache-limit", "0"]].concat());
    assert_eq!(told["cost"]["kld"], again["kld"]);
    assert_eq!(told["cost"]["names"]["text"].as_str(), Some("eval.txt"));
    assert!(told["cost"]["kld"]["mean"].as_f64().unwrap() > 1e-4, "{told}");
    assert_eq!(told["not_measured"], Value::Null);
    // From codes: against the file, or against what the file was made from, which is more.
    gq.ok(&["convert", &demo, "-o", "m.gq", "--bits", "4"]);
    let cost = |more: &[&str]| {
        let told = gq.json(
            &[&["export", "m.gq", "--gguf", "--type", "F16", "-o", "m.gguf", "--force"], more].concat(),
        );
        told["cost"]["kld"]["mean"].as_f64().unwrap()
    };
    let (export, all) = (cost(&["--windows", "2"]), cost(&["--windows", "2", "--reference", &demo]));
    assert!(export < 1e-4 && all > 10.0 * export, "{export} {all}");
    let told = gq.json(&["export", "m.gq", "--safetensors", "-o", "folder", "--windows", "1"]);
    assert_eq!(told["cost"]["tokens"].as_u64(), Some(127), "{told}");
}

#[test]
fn an_export_that_is_not_measured_says_why() {
    let gq = Gq::new();
    let demo = testdata("demo");
    let told = gq.json(&["export", &demo, "--gguf", "--no-measure", "-o", "a.gguf"]);
    assert_eq!((&told["cost"], told["not_measured"].as_str()), (&Value::Null, Some("not asked for")));
    let shown = gq.ok(&["export", &testdata("tiny/llama"), "--safetensors", "-o", "plain"]);
    assert!(shown.contains("cost: not measured: the model has no tokenizer.json"), "{shown}");
    gq.fails(2, &["export", &demo, "--gguf", "--no-measure", "--windows", "1", "-o", "b.gguf"]);
    // A text that cannot be read is told before anything is written.
    gq.fails(3, &["export", &demo, "--gguf", "--text", "missing.txt", "-o", "b.gguf"]);
    std::fs::write(gq.path("short.txt"), "Too short.").unwrap();
    gq.fails(3, &["export", &demo, "--gguf", "--text", "short.txt", "-o", "b.gguf"]);
    assert!(!gq.path("b.gguf").exists());
}
