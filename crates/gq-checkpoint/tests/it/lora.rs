//! Adapters of every kind merged as PEFT merges them, and refused by name when they cannot be.

use crate::support::testdata;
use gq_checkpoint::safetensors::{Header, header_bytes, parse_header};
use gq_checkpoint::{Adapter, AdapterError, Checkpoint, FileKind, Note, SourceTensor};
use gq_tensor::decode_f32;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Folders with cases that PEFT merged.
const FOLDERS: [&str; 4] = ["lora", "lora-layouts", "lora-experts", "lora-fused"];

fn cases(folder: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(testdata(folder).join("cases.json")).unwrap();
    serde_json::from_str::<Vec<Value>>(&text).unwrap()
}

fn adapters(folder: &str, case: &Value) -> Vec<Adapter> {
    let open = |a: &Value| {
        let dir = testdata(folder).join(a["adapter"].as_str().unwrap());
        Adapter::open(dir, a["weight"].as_f64().unwrap()).unwrap()
    };
    case["adapters"].as_array().unwrap().iter().map(open).collect()
}

fn safetensors(path: &Path) -> (Vec<u8>, Header) {
    let bytes = std::fs::read(path).unwrap();
    let length = header_bytes(&bytes[..8], bytes.len() as u64).unwrap() as usize;
    let header = parse_header(&bytes[..length], bytes.len() as u64).unwrap();
    (bytes, header)
}

/// Canonical names of the tensors that PEFT changes.
fn canonical(name: &str) -> String {
    name.replace("model.language_model.", "model.")
}

#[test]
fn every_kind_of_adapter_is_merged_as_peft_does() {
    for (folder, case) in
        FOLDERS.into_iter().flat_map(|folder| cases(folder).into_iter().map(move |c| (folder, c)))
    {
        let name = case["case"].as_str().unwrap();
        let plain = Checkpoint::open(testdata(case["checkpoint"].as_str().unwrap())).unwrap();
        let merged = Checkpoint::open(plain.dir()).unwrap().with_adapters(adapters(folder, &case)).unwrap();
        let (bytes, header) = safetensors(&testdata(folder).join(format!("merged/{name}.safetensors")));
        let changed: BTreeSet<String> = header.entries.iter().map(|e| canonical(&e.name)).collect();
        let taken = |t: &SourceTensor| merged.files()[t.file].kind == FileKind::Adapter;
        let ours: BTreeSet<String> = merged
            .tensors()
            .iter()
            .filter(|t| merged.is_merged(t) || taken(t))
            .map(|t| t.name.clone())
            .collect();
        assert_eq!(ours, changed, "{name}");
        let rows = case["vocab_size"].as_u64().map_or(plain.spec().vocab_size, |rows| rows as usize);
        assert_eq!(merged.spec().vocab_size, rows, "{name}");
        let spec = gq_checkpoint::parse_config(&merged.texts().unwrap().config).unwrap();
        assert_eq!(spec.vocab_size, rows, "{name}");
        let resized = rows != plain.spec().vocab_size;
        assert_eq!(merged.notes().iter().any(|note| matches!(note, Note::Resized { .. })), resized);
        merged.check_unchanged().unwrap();
        let stride = case["row_stride"].as_u64().unwrap() as usize;
        for entry in &header.entries {
            let tensor = merged.tensor(&canonical(&entry.name)).unwrap();
            let data = &bytes[entry.offset as usize..(entry.offset + entry.bytes) as usize];
            let mut expected = vec![0.0; entry.shape.iter().product()];
            decode_f32(entry.dtype, data, &mut expected);
            let mut actual = vec![0.0; tensor.rows() * tensor.cols()];
            merged.read_rows_f32(tensor, 0..tensor.rows(), &mut actual).unwrap();
            let (step, width) = match tensor.shape.len() {
                1 => (1, 1), // rows of a vector are its elements
                _ => (tensor.cols(), tensor.cols()),
            };
            let rows = actual.chunks(step).step_by(stride).flat_map(|row| &row[..width]);
            let mut compared = 0;
            for (actual, expected) in rows.zip(&expected) {
                let close = (actual - expected).abs() <= 1e-6 * expected.abs();
                assert!(close, "{name}: {}: {actual} is not {expected}", entry.name);
                compared += 1;
            }
            assert_eq!(compared, expected.len(), "{name}: {}", entry.name);
            // One row at a time, in any order, gives the same bits.
            let last = tensor.rows() - 1;
            let mut row = vec![0.0; tensor.cols()];
            merged.read_rows_f32(tensor, last..last + 1, &mut row).unwrap();
            assert_eq!(row, actual[last * tensor.cols()..], "{name}");
        }
        let changed =
            |t: &&SourceTensor| merged.tensor(&t.name).is_some_and(|t| merged.is_merged(t) || taken(t));
        for tensor in plain.tensors().iter().filter(|t| !changed(t)) {
            let read = |checkpoint: &Checkpoint| {
                let mut values = vec![0.0; tensor.rows() * tensor.cols()];
                checkpoint.read_rows_f32(tensor, 0..tensor.rows(), &mut values).unwrap();
                values
            };
            assert_eq!(read(&plain), read(&merged), "{name}: {}", tensor.name);
        }
        assert!(merged.merge_bytes(2) > 0 && plain.merge_bytes(2) == 0);
    }
}

/// A copy of an adapter with its configuration changed.
fn altered(adapter: &str, change: impl Fn(&mut Value)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let source: PathBuf = testdata("lora").join(adapter);
    std::fs::copy(source.join("adapter_model.safetensors"), dir.path().join("adapter_model.safetensors"))
        .unwrap();
    let text = std::fs::read_to_string(source.join("adapter_config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    change(&mut config);
    std::fs::write(dir.path().join("adapter_config.json"), config.to_string()).unwrap();
    dir
}

fn merge(checkpoint: &str, adapter: &Path, weight: f64) -> Result<Checkpoint, AdapterError> {
    let checkpoint = Checkpoint::open(testdata("tiny").join(checkpoint)).unwrap();
    checkpoint.with_adapters(vec![Adapter::open(adapter, weight)?])
}

#[test]
fn what_cannot_be_merged_is_refused_by_name() {
    type Change = fn(&mut Value);
    let cases: [(&str, &str, Change, &str); 11] = [
        ("llama", "plain", |c| c["bias"] = "some".into(), "option \"bias\" is \"\\\"some\\\"\""),
        ("llama", "plain", |c| c["peft_type"] = "IA3".into(), "option \"peft_type\""),
        ("llama", "plain", |c| c["new_trick"] = true.into(), "option \"new_trick\" is \"true\""),
        ("llama", "plain", |c| c["r"] = 8.into(), "has shape [4, 160], expected [8, 160]"),
        ("llama", "plain", |c| c["use_dora"] = true.into(), "has no lora_magnitude_vector"),
        (
            "llama",
            "dora",
            |c| c["use_dora"] = false.into(),
            "has both lora_magnitude_vector and use_dora false",
        ),
        (
            "llama",
            "rslora",
            |c| c["target_modules"] = serde_json::json!(["q_proj", "k_proj", "v_proj", "o_proj", "up_proj"]),
            "\"model.layers.0.mlp.up_proj\" is a target",
        ),
        (
            "llama",
            "modules-to-save",
            |c| c["modules_to_save"] = Value::Null,
            "input_layernorm.weight\" is not one",
        ),
        ("llama", "embedding", |c| c["use_dora"] = true.into(), "lora_magnitude_vector"),
        ("llama3", "plain", |c| c["r"] = 4.into(), "expected"),
        ("gemma3", "modules-to-save", |c| c["r"] = 4.into(), "layers.2.self_attn.o_proj\" is a target"),
    ];
    for (checkpoint, adapter, change, message) in cases {
        let dir = altered(adapter, change);
        let error = merge(checkpoint, dir.path(), 1.0).unwrap_err().to_string();
        assert!(error.contains(message), "{adapter}: {error}");
    }
    let error = merge("llama", &testdata("lora/modules-to-save"), 0.5).unwrap_err();
    assert!(matches!(error, AdapterError::SavedModule { .. }), "{error}");
    let error = merge("gemma3", &testdata("lora/regex"), 1.0).unwrap_err();
    assert!(matches!(error, AdapterError::NoTensor { .. } | AdapterError::Shape { .. }), "{error}");
    let error = merge("llama", &testdata("tiny/llama"), 1.0).unwrap_err();
    assert!(matches!(error, AdapterError::NoFile { file: "adapter_config.json", .. }), "{error}");
    assert!(matches!(Adapter::open(testdata("lora/plain"), f64::NAN), Err(AdapterError::Weight { .. })));
}

#[test]
fn a_tied_head_does_not_come_loose() {
    // Only the embedding is saved: the head would keep the old values.
    let dir = altered("tied-to-save", |c| c["ensure_weight_tying"] = false.into());
    let path = dir.path().join("adapter_model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let without_head: Vec<_> =
        tensors.tensors().into_iter().filter(|(name, _)| !name.contains("lm_head")).collect();
    std::fs::write(&path, safetensors::serialize(without_head, None).unwrap()).unwrap();
    let error = merge("gemma3", dir.path(), 1.0).unwrap_err();
    assert!(matches!(error, AdapterError::Untied { other: "lm_head", .. }), "{error}");
    // A head that was trained apart from the embedding.
    let mut torn = bytes.clone();
    let (_, header) = safetensors(&testdata("lora/tied-to-save/adapter_model.safetensors"));
    let head = header.entries.iter().find(|e| e.name.contains("lm_head")).unwrap();
    torn[head.offset as usize] ^= 1;
    std::fs::write(&path, torn).unwrap();
    let error = merge("gemma3", dir.path(), 1.0).unwrap_err();
    assert!(matches!(error, AdapterError::Untied { .. }), "{error}");
}

#[test]
fn what_peft_cannot_give_back_is_refused_by_name() {
    let open = |adapters: &[(&str, f64)], base: &str| {
        let adapters = adapters
            .iter()
            .map(|(name, weight)| Adapter::open(testdata("lora-layouts").join(name), *weight).unwrap());
        let adapters = adapters.collect();
        Checkpoint::open(testdata("lora-layouts").join(base)).unwrap().with_adapters(adapters).map(|_| ())
    };
    // The head was resized with the embedding, and is not in the folder.
    let error = open(&[("resized-embedding", 1.0)], "base").unwrap_err();
    assert!(matches!(error, AdapterError::HalfResized { rows: 43, other: "lm_head", .. }), "{error}");
    for adapters in [
        &[("token-rows", 0.5)][..],
        &[("resized", 0.5)],
        &[("token-rows", 1.0), ("token-rows", 1.0)],
        &[("token-rows", 1.0), ("resized", 1.0)],
        &[("fan-in-fan-out", 1.0), ("token-rows", 1.0)],
        &[("bias-all", 2.0)],
    ] {
        let error = open(adapters, "base").unwrap_err();
        assert!(matches!(error, AdapterError::SavedModule { .. }), "{adapters:?}: {error}");
    }
    assert!(open(&[("resized", 1.0), ("token-rows", 1.0)], "base").is_ok());
    let error = open(&[("token-rows-both", 1.0)], "tied").unwrap_err();
    assert!(matches!(error, AdapterError::Untied { .. }), "{error}");
}

/// The adapter of experts with its configuration changed.
#[test]
fn experts_factors_are_matched_by_shape_and_version() {
    let moe = |change: fn(&mut Value)| {
        let dir = altered("../lora-layouts/experts-other-order", change);
        merge("gemma4-moe", dir.path(), 1.0).map(|_| ())
    };
    assert!(moe(|_| {}).is_ok());
    let error = moe(|c| c["target_parameters"] = serde_json::json!(["experts.gate_up_proj"])).unwrap_err();
    assert!(matches!(error, AdapterError::Shape { .. } | AdapterError::Untrained { .. }), "{error}");
    let error = moe(|c| c["target_parameters"] = Value::Null).unwrap_err();
    assert!(matches!(error, AdapterError::Untargeted { .. }), "{error}");
    let error = moe(|c| c["r"] = 2.into()).unwrap_err();
    assert!(matches!(error, AdapterError::Shape { .. }), "{error}");
    let error = moe(|c| c["target_parameters"] = serde_json::json!(["experts.down_proj"])).unwrap_err();
    assert!(matches!(error, AdapterError::Untrained { .. }), "{error}");
}

#[test]
fn files_are_the_identity() {
    let adapter = Adapter::open(testdata("lora/plain"), 1.0).unwrap();
    assert_eq!(adapter.name(), "plain");
    let names: Vec<&str> = adapter.files().iter().map(|f| f.name.as_str()).collect();
    assert_eq!(names, ["adapter_config.json", "adapter_model.safetensors"]);
    for file in adapter.files() {
        let path = testdata("lora/plain").join(&file.name);
        assert_eq!(file.bytes, std::fs::metadata(path).unwrap().len());
        assert_eq!(file.sha256.len(), 64);
    }
}
