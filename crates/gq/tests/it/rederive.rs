//! Files that are encoded again from their source.

use crate::run::{Gq, testdata};
use gq_container::{Container, StoredText, TextKind, Writer};
use std::path::Path;

/// The file with one byte of one tensor's payload changed and every digest made to fit.
fn forge(from: &Path, to: &Path, name: &str, at: usize) {
    let container = Container::open(from).unwrap();
    let mut writer = Writer::create(to).unwrap();
    for tensor in container.tensors() {
        let mut payload = container.payload(tensor).to_vec();
        if tensor.name == name {
            payload[at] ^= 1;
        }
        writer.write_tensor(tensor.spec(), &payload).unwrap();
    }
    let texts = container.texts().iter().filter_map(|text| TextKind::from_code(text.kind));
    let texts = texts.map(|kind| StoredText::new(kind, &container.text(kind).unwrap().unwrap()).unwrap());
    writer.finish(texts.collect()).unwrap();
}

fn copy(from: &str, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[test]
fn a_file_derives_from_its_source_and_from_no_other() {
    let gq = Gq::new();
    let demo = testdata("demo");
    gq.ok(&["convert", &demo, "-o", "m.gq", "--bits", "4"]);
    let verify = ["verify", "m.gq", "--rederive", &demo];
    let found = gq.json(&verify);
    let tensors = found["tensors"].as_u64().unwrap();
    assert_eq!((found["ok"].as_bool(), found["rederived"]["same"].as_u64()), (Some(true), Some(tensors)));
    let sampled = gq.json(&[&verify[..], &["--sample", "3"]].concat());
    let names = |found: &serde_json::Value| {
        let tensors = found["rederived"]["tensors"].as_array().unwrap().clone();
        tensors.iter().map(|tensor| tensor["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!((sampled["rederived"]["same"].as_u64(), names(&sampled).len()), (Some(3), 3));
    assert!(names(&sampled).iter().all(|name| !name.contains("norm")), "{sampled}");
    let shown = gq.ok(&[&verify[..], &["--sample", "3"]].concat());
    assert!(shown.contains("encoded again   3 tensors of 3 chosen from"), "{shown}");
    // A byte of the codes, and one of the scales; both files are whole by their own digests.
    let container = Container::open(&gq.path("m.gq")).unwrap();
    let tensor = container.tensors().iter().find(|tensor| tensor.name.contains("layers.1.mlp.up")).unwrap();
    for at in [17, tensor.bytes as usize - 1] {
        forge(&gq.path("m.gq"), &gq.path("f.gq"), &tensor.name, at);
        gq.ok(&["verify", "f.gq"]);
        let shown = gq.fails(1, &["verify", "f.gq", "--rederive", &demo]);
        assert!(
            shown.contains(&format!("1 tensors are not what the source gives: {}", tensor.name)),
            "{shown}"
        );
        let output = gq.run(&["verify", "f.gq", "--rederive", &demo, "--json"]);
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((output.status.code(), found["ok"].as_bool()), (Some(1), Some(false)));
        let tensors = found["rederived"]["tensors"].as_array().unwrap();
        let differing: Vec<_> = tensors.iter().filter(|tensor| tensor["verdict"] == "differs").collect();
        assert_eq!(differing.len(), 1);
        assert_eq!(differing[0]["at"].as_u64(), Some(at as u64));
    }
    // A byte of the source, its lowest bit: codes may well be the same.
    copy(&demo, &gq.path("other"));
    let weights = gq.path("other/model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let shown = gq.fails(1, &["verify", "m.gq", "--rederive", "other"]);
    assert!(shown.contains("not made from this source: model.safetensors differs"), "{shown}");
    gq.fails(2, &["verify", "m.gq", "--sample", "3"]);
}

#[test]
fn tensors_rounded_by_measurements_take_those() {
    let gq = Gq::new();
    let (demo, text) = (testdata("demo"), testdata("demo/eval.txt"));
    let fast = ["--calibration-ctx", "128", "--calibration-tokens", "2048", "--gradient-tokens", "512"];
    gq.ok(&[&["calibrate", &demo, "-o", "t", "--calibration", &text][..], &fast].concat());
    gq.ok(&["convert", &demo, "--measurements", "t", "--size", "1.5MB", "-o", "m.gq"]);
    let verify = ["verify", "m.gq", "--rederive", &demo];
    let found = gq.json(&verify);
    let left = found["rederived"]["not_compared"].as_u64().unwrap();
    let tensors = found["tensors"].as_u64().unwrap();
    assert!(left > 20, "{found}");
    assert_eq!(found["rederived"]["same"].as_u64(), Some(tensors - left));
    let shown = gq.ok(&verify);
    assert!(shown.contains("--measurements DIR encodes them again"), "{shown}");
    let found = gq.json(&[&verify[..], &["--measurements", "t"]].concat());
    assert_eq!(found["rederived"]["same"].as_u64(), Some(tensors), "{found}");
    // One code of a calibrated tensor.
    let container = Container::open(&gq.path("m.gq")).unwrap();
    let tensor = container.tensors().iter().find(|tensor| tensor.name.contains("layers.1.mlp.up")).unwrap();
    forge(&gq.path("m.gq"), &gq.path("f.gq"), &tensor.name, 5);
    let shown = gq.fails(1, &["verify", "f.gq", "--rederive", &demo, "--measurements", "t"]);
    assert!(shown.contains(&tensor.name), "{shown}");
    // Others than those of the file are refused.
    gq.ok(&["convert", &demo, "--encoding", "tt4", "-o", "n.gq"]);
    gq.fails(3, &["verify", "n.gq", "--rederive", &demo, "--measurements", "t"]);
    assert_eq!(gq.json(&["verify", "n.gq", "--rederive", &demo])["rederived"]["not_compared"], 0);
}

#[test]
fn adapters_are_part_of_the_source() {
    let gq = Gq::new();
    let (base, adapter) = (testdata("demo"), testdata("lora/demo"));
    gq.ok(&["convert", &base, "--lora", &adapter, "--bits", "4", "-o", "m.gq"]);
    let found = gq.json(&["verify", "m.gq", "--rederive", &base, "--lora", &adapter]);
    assert_eq!(found["rederived"]["same"], found["tensors"], "{found}");
    let shown = gq.fails(1, &["verify", "m.gq", "--rederive", &base]);
    assert!(shown.contains("adapter demo"), "{shown}");
}
