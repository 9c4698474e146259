//! Models out and in: key by key and tensor by tensor as llama.cpp's converter writes them, and the same model back.

use super::support::fixture;
use crate::support::scratch;
use gq_checkpoint::gguf::{Array, GgmlType, Gguf, GgufError, Metadata, Value};
use gq_checkpoint::gguf_model::{ExportOptions, ExportPlan, ExportSource};
use gq_checkpoint::{Checkpoint, CheckpointError, ReadError, Role};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use std::path::Path;

/// Tiny checkpoint and the tokenizer it is given.
const MODELS: [(&str, &str); 10] = [
    ("llama", "llama"),
    ("llama3", "llama"),
    ("qwen2", "llama"),
    ("qwen3", "llama"),
    ("qwen3-moe", "llama"),
    ("gemma3", "gemma3"),
    ("gemma4-e2b", "gemma4"),
    ("gemma4-e4b", "gemma4"),
    ("gemma4-moe", "gemma4"),
    ("gemma4-dense", "gemma4"),
];

fn expected(model: &str, kind: &str) -> Json {
    let text = std::fs::read_to_string(fixture(&format!("models/{model}-{kind}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The tiny checkpoint with a tokenizer, and with what GGUF has no place for set to what readers assume.
fn prepared(model: &str, tokenizer: &str) -> (tempfile::TempDir, Checkpoint) {
    let dir = scratch(&format!("tiny/{model}"));
    for name in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
        std::fs::copy(fixture(&format!("tokenizers/{tokenizer}/{name}")), dir.path().join(name)).unwrap();
    }
    let path = dir.path().join("config.json");
    let mut config: Json = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    for (key, value) in expected(model, "f16")["changes"].as_object().unwrap() {
        config[key] = value.clone();
    }
    std::fs::write(&path, config.to_string()).unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    (dir, checkpoint)
}

fn export(checkpoint: &Checkpoint, kind: GgmlType, path: &Path) -> Result<ExportPlan, GgufError> {
    let texts = checkpoint.texts().unwrap();
    let graph = checkpoint.tensors().iter().filter(|t| t.role != Role::Tower);
    let tensors: Vec<_> = graph.map(|t| (t.name.clone(), t.shape.clone())).collect();
    let source = ExportSource { spec: checkpoint.spec(), texts: &texts, tensors: &tensors };
    let options = ExportOptions { threads: 2, ..ExportOptions::new(kind, "tiny-model") };
    let plan = ExportPlan::new(source, &options)?;
    let mut read = |name: &str, rows: std::ops::Range<usize>, out: &mut [f32]| -> Result<(), ReadError> {
        checkpoint.read_rows_f32(checkpoint.tensor(name).unwrap(), rows, out)
    };
    let bytes = plan.write(path, &mut read, &|_| {}).unwrap();
    assert_eq!(bytes, plan.file_bytes());
    assert_eq!(bytes, std::fs::metadata(path).unwrap().len());
    Ok(plan)
}

/// A value with its type, as the fixture spells both.
fn spelled(value: &Value) -> (Vec<&'static str>, Json) {
    match value {
        Value::U32(v) => (vec!["UINT32"], (*v).into()),
        Value::I32(v) => (vec!["INT32"], (*v).into()),
        Value::F32(v) => (vec!["FLOAT32"], f64::from(*v).into()),
        Value::Bool(v) => (vec!["BOOL"], (*v).into()),
        Value::String(v) => (vec!["STRING"], v.as_str().into()),
        Value::Array(Array::I32(v)) => (vec!["ARRAY", "INT32"], v.clone().into()),
        Value::Array(Array::F32(v)) => {
            (vec!["ARRAY", "FLOAT32"], v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>().into())
        }
        Value::Array(Array::Bool(v)) => (vec!["ARRAY", "BOOL"], v.clone().into()),
        Value::Array(Array::String(v)) => (vec!["ARRAY", "STRING"], v.clone().into()),
        other => panic!("{other:?}"),
    }
}

/// Where ours differ from the converter's on purpose.
fn is_known_difference(model: &str, key: &str, ours: Option<&Json>, theirs: Option<&Json>) -> bool {
    match key {
        // A pattern of layers that readers do not assume is said; the converter leaves it out.
        "gemma3.attention.sliding_window_pattern" => model == "gemma3" && theirs.is_none(),
        // Added tokens that are not special are matched before merges: type 4. The converter writes 1.
        "tokenizer.ggml.token_type" => {
            let (Some(Json::Array(ours)), Some(Json::Array(theirs))) = (ours, theirs) else { return false };
            ours.iter().zip(theirs).enumerate().all(|(id, (a, b))| a == b || [6, 7].contains(&id) && *a == 4)
        }
        // Only the order of scores means anything; special tokens have none.
        "tokenizer.ggml.scores" => {
            let (Some(Json::Array(ours)), Some(Json::Array(theirs))) = (ours, theirs) else { return false };
            // Two spaces, which merges make too, have their place among the others.
            let merged = |id: usize| id == 7 && ours[id].as_f64().is_some_and(|score| score > -1000.0);
            ours[8..] == theirs[8..] && (0..8).all(|id| ours[id] == -1000.0 || merged(id))
        }
        _ => false,
    }
}

fn compare_metadata(model: &str, ours: &Metadata, theirs: &Json) {
    let theirs = theirs["metadata"].as_object().unwrap();
    for (key, expected) in theirs {
        let actual = ours.get(key).map(spelled);
        let value = actual.as_ref().map(|(_, value)| value);
        if is_known_difference(model, key, value, Some(&expected["value"])) {
            continue;
        }
        let (kinds, value) = actual.unwrap_or_else(|| panic!("{model}: {key} is missing"));
        assert_eq!(Json::from(kinds), expected["type"], "{model}: {key}");
        assert_eq!(value, expected["value"], "{model}: {key}");
    }
    for (key, value) in ours.iter() {
        let known =
            theirs.contains_key(key) || is_known_difference(model, key, Some(&spelled(value).1), None);
        assert!(known, "{model}: {key} is ours alone");
    }
}

fn compare_tensors(model: &str, gguf: &Gguf, theirs: &Json) {
    let theirs = theirs["tensors"].as_array().unwrap();
    assert_eq!(gguf.tensors().len(), theirs.len(), "{model}");
    for expected in theirs {
        let name = expected["name"].as_str().unwrap();
        let tensor = gguf.tensor(name).unwrap_or_else(|| panic!("{model}: no {name}"));
        assert_eq!(tensor.info.kind.name(), expected["type"], "{model}: {name}");
        assert_eq!(Json::from(tensor.info.shape.clone()), expected["shape"], "{model}: {name}");
        let mut bytes = vec![0; tensor.info.bytes as usize];
        gguf.read_bytes(tensor, 0, &mut bytes).unwrap();
        let digest: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        if name != "rope_freqs.weight" || model.starts_with("gemma4") {
            assert_eq!(digest, expected["sha256"], "{model}: {name}");
        }
    }
}

#[test]
fn exports_are_what_the_converter_writes() {
    for (model, tokenizer) in MODELS {
        let (dir, checkpoint) = prepared(model, tokenizer);
        for (kind, fixture) in [(GgmlType::F16, "f16"), (GgmlType::Q8_0, "q8_0")] {
            let path = dir.path().join("out.gguf");
            let plan = export(&checkpoint, kind, &path).unwrap();
            let theirs = expected(model, fixture);
            compare_metadata(model, plan.metadata(), &theirs);
            compare_tensors(model, &Gguf::open(&path).unwrap(), &theirs);
        }
    }
}

#[test]
fn a_model_comes_back_as_it_went() {
    for (model, tokenizer) in MODELS {
        let (dir, checkpoint) = prepared(model, tokenizer);
        let path = dir.path().join("out.gguf");
        export(&checkpoint, GgmlType::BF16, &path).unwrap();
        let back = Checkpoint::open(&path).unwrap();
        // The original context of stretched frequencies is found again, not only the frequencies.
        assert_eq!(back.spec(), checkpoint.spec(), "{model}");
        assert_eq!(back.tensors().len(), checkpoint.tensors().len(), "{model}");
        assert_eq!(back.quantized(), None);
        let mapped = back.map().unwrap();
        for tensor in back.tensors() {
            let original = checkpoint.tensor(&tensor.name).unwrap();
            assert_eq!(
                (&tensor.shape, tensor.role, tensor.layer),
                (&original.shape, original.role, original.layer)
            );
            let mut values =
                (vec![0.0; tensor.rows() * tensor.cols()], vec![0.0; tensor.rows() * tensor.cols()]);
            back.read_rows_f32(tensor, 0..tensor.rows(), &mut values.0).unwrap();
            checkpoint.read_rows_f32(original, 0..tensor.rows(), &mut values.1).unwrap();
            assert_eq!(values.0, values.1, "{model}: {}", tensor.name);
            // The way of a conversion: a file read in order, rows put in order, decoded one by one.
            let mut bytes = vec![0; tensor.bytes as usize];
            back.read_bytes(tensor, 0..tensor.bytes, &mut bytes).unwrap();
            tensor.order_rows(&mut bytes);
            let mut decoded = vec![0.0; values.0.len()];
            let rows = bytes.chunks_exact(tensor.row_bytes()).zip(decoded.chunks_exact_mut(tensor.cols()));
            for (row, (bytes, values)) in rows.enumerate() {
                back.decode_rows_f32(tensor, row..row + 1, bytes, values).unwrap();
            }
            assert_eq!(decoded, values.1, "{model}: {}", tensor.name);
            // The way of a runtime: mapped bytes, where they are the values.
            if tensor.is_plain() {
                gq_tensor::decode_f32(tensor.dtype, mapped.bytes(tensor), &mut decoded);
                assert_eq!(decoded, values.1, "{model}: {}", tensor.name);
            }
            if tensor.rows() > 2 {
                let mut one = vec![0.0; tensor.cols()];
                back.read_rows_f32(tensor, 2..3, &mut one).unwrap();
                assert_eq!(one, values.1[2 * tensor.cols()..3 * tensor.cols()], "{model}: {}", tensor.name);
            }
        }
    }
}

#[test]
fn tokenizers_give_the_same_ids_after_the_trip() {
    for (model, tokenizer) in [("llama", "llama"), ("gemma3", "gemma3"), ("gemma4-moe", "gemma4")] {
        let (dir, checkpoint) = prepared(model, tokenizer);
        let path = dir.path().join("out.gguf");
        export(&checkpoint, GgmlType::Q8_0, &path).unwrap();
        let back = Checkpoint::open(&path).unwrap();
        assert!(back.quantized().unwrap().starts_with("Q8_0 x "));
        let texts = back.texts().unwrap();
        assert!(back.has_tokenizer());
        assert_eq!(texts.chat_template, checkpoint.texts().unwrap().chat_template);
        let ids: Json = serde_json::from_str(
            &std::fs::read_to_string(fixture(&format!("tokenizers/{tokenizer}/ids.json"))).unwrap(),
        )
        .unwrap();
        let rebuilt = tokenizers::Tokenizer::from_bytes(texts.tokenizer.as_ref().unwrap()).unwrap();
        let text = ids["text"].as_str().unwrap();
        for (key, special) in [("ids", true), ("plain", false)] {
            let actual = rebuilt.encode(text, special).unwrap();
            assert_eq!(Json::from(actual.get_ids()), ids[key], "{tokenizer}");
        }
        let decoded = rebuilt.decode(rebuilt.encode(text, false).unwrap().get_ids(), false).unwrap();
        // A SentencePiece tokenizer cannot tell a written ▁ from a space.
        let seen = if tokenizer == "llama" { text.to_owned() } else { text.replace('▁', " ") };
        assert_eq!(decoded, seen, "{tokenizer}");
        let config: Json = serde_json::from_str(texts.tokenizer_config.as_ref().unwrap()).unwrap();
        assert_eq!((&config["bos_token"], &config["add_bos_token"]), (&"<bos>".into(), &true.into()));
    }
}

#[test]
fn what_gguf_has_no_place_for_is_refused() {
    let (dir, _) = prepared("gemma3", "gemma3");
    let path = dir.path().join("out.gguf");
    let config = dir.path().join("config.json");
    let original = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, original.replace("\"query_pre_attn_scalar\":32", "\"query_pre_attn_scalar\":24"))
        .unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let error = export(&checkpoint, GgmlType::F16, &path).unwrap_err();
    assert!(
        matches!(error, GgufError::Unsupported { ref key, .. } if key == "query_pre_attn_scalar"),
        "{error}"
    );
    std::fs::write(&config, original).unwrap();
    let tokenizer = dir.path().join("tokenizer.json");
    let text = std::fs::read_to_string(&tokenizer).unwrap();
    let bytes = text.replace("\"byte_fallback\":true", "\"byte_fallback\":false");
    std::fs::write(&tokenizer, bytes).unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let error = export(&checkpoint, GgmlType::F16, &path).unwrap_err();
    assert!(matches!(error, GgufError::NotCarried { part: "normalizer", .. }), "{error}");
    let error = export(&checkpoint, GgmlType::IQ4_XS, &path).unwrap_err();
    assert!(matches!(error, GgufError::Unsupported { ref actual, .. } if actual == "IQ4_XS"), "{error}");
    assert!(!path.exists());
}

/// Rewrites the metadata of an exported file.
fn with_metadata(path: &Path, change: impl Fn(&mut Metadata)) -> Result<Checkpoint, GgufError> {
    let gguf = Gguf::open(path).unwrap();
    let mut metadata = gguf.metadata().clone();
    change(&mut metadata);
    let tensors: Vec<_> = gguf
        .tensors()
        .iter()
        .map(|t| gq_checkpoint::gguf::NewTensor {
            name: t.info.name.clone(),
            shape: t.info.shape.clone(),
            kind: t.info.kind,
        })
        .collect();
    let changed = path.with_extension("changed.gguf");
    super::support::write(&changed, &metadata, &tensors, |index| {
        let tensor = &gguf.tensors()[index];
        let mut bytes = vec![0; tensor.info.bytes as usize];
        gguf.read_bytes(tensor, 0, &mut bytes).unwrap();
        bytes
    })
    .unwrap();
    Checkpoint::open(&changed).map_err(|error| match error {
        CheckpointError::Gguf { source, .. } => *source,
        other => panic!("{other:?}"),
    })
}

#[test]
fn metadata_that_could_change_the_graph_is_refused_by_name() {
    let (dir, checkpoint) = prepared("llama", "llama");
    let path = dir.path().join("out.gguf");
    export(&checkpoint, GgmlType::F16, &path).unwrap();
    assert!(with_metadata(&path, |m| m.set("general.description", Value::String("x".into()))).is_ok());
    let refused = |key: &str, value: Value| {
        let error = with_metadata(&path, |m| m.set(key, value.clone())).unwrap_err();
        let message = error.to_string();
        assert!(message.contains(key) || message.contains("head_dim"), "{key}: {message}");
    };
    refused("general.architecture", Value::String("mamba".into()));
    refused("llama.attention.new_thing", Value::F32(1.0));
    refused("llama.attention.causal", Value::Bool(false));
    refused("llama.expert_count", Value::U32(8));
    refused("llama.rope.dimension_count", Value::U32(8));
    refused("llama.attention.value_length", Value::U32(32));
    refused("llama.rope.scaling.", Value::F32(1.0));
    let longrope = |m: &mut Metadata| {
        m.set("llama.rope.scaling.factor", Value::F32(2.0));
        m.set("llama.rope.scaling.type", Value::String("longrope".into()));
    };
    let error = with_metadata(&path, longrope).unwrap_err().to_string();
    assert!(error.contains("longrope") && error.contains("none, linear, yarn"), "{error}");
    refused("llama.block_count", Value::String("2".into()));
    refused("llama.block_count", Value::U32(1 << 30));
    refused("tokenizer.ggml.model", Value::String("rwkv".into()));
    refused("tokenizer.ggml.pre", Value::String("chameleon".into()));
    refused("tokenizer.ggml.bos_token_id", Value::U32(1 << 20));
    refused("tokenizer.ggml.token_type", Value::Array(Array::I32(vec![1])));
    // Of another kind is not the same as absent.
    refused("tokenizer.ggml.token_type", Value::Array(Array::F32(vec![1.0; 288])));
    refused("tokenizer.ggml.token_type", Value::Array(Array::I32(vec![-1; 288])));
    refused("tokenizer.ggml.unknown_token_id", Value::I32(-1));
    refused("tokenizer.ggml.add_bos_token", Value::U32(1));
    refused("tokenizer.ggml.add_eos_token", Value::String("true".into()));
    refused("tokenizer.ggml.tokens", Value::Array(Array::String(vec!["a".into(); 288])));
    refused("tokenizer.ggml.merges", Value::Array(Array::String(vec!["nopair".into()])));
    // One layer more or less than the tensors have.
    let error = with_metadata(&path, |m| m.set("llama.block_count", Value::U32(1))).unwrap_err();
    assert!(
        matches!(error, GgufError::UnknownTensor { ref name, .. } if name.starts_with("blk.1.")),
        "{error}"
    );
    let error = with_metadata(&path, |m| m.set("llama.block_count", Value::U32(3))).unwrap_err();
    assert!(error.to_string().contains("model.layers.2."), "{error}");
    let error = with_metadata(&path, |m| m.set("llama.feed_forward_length", Value::U32(96))).unwrap_err();
    assert!(matches!(error, GgufError::Tensors { .. }), "{error}");
}

#[test]
fn k_quants_fall_back_where_rows_are_short_and_bytes_do_not_depend_on_threads() {
    let (dir, checkpoint) = prepared("gemma4-e2b", "gemma4");
    let (one, two) = (dir.path().join("1.gguf"), dir.path().join("2.gguf"));
    export(&checkpoint, GgmlType::Q4_K, &one).unwrap();
    let model = Gguf::open(&one).unwrap();
    let kinds: std::collections::BTreeSet<_> = model.tensors().iter().map(|t| t.info.kind.name()).collect();
    assert_eq!(
        kinds.into_iter().collect::<Vec<_>>(),
        ["F32", "Q5_0"],
        "rows of 64 and 96 hold no blocks of 256"
    );
    let texts = checkpoint.texts().unwrap();
    let tensors: Vec<_> = checkpoint.tensors().iter().map(|t| (t.name.clone(), t.shape.clone())).collect();
    let source = ExportSource { spec: checkpoint.spec(), texts: &texts, tensors: &tensors };
    let plan = ExportPlan::new(source, &ExportOptions::new(GgmlType::Q4_K, "tiny-model")).unwrap();
    let mut read = |name: &str, rows: std::ops::Range<usize>, out: &mut [f32]| -> Result<(), ReadError> {
        checkpoint.read_rows_f32(checkpoint.tensor(name).unwrap(), rows, out)
    };
    plan.write(&two, &mut read, &|_| {}).unwrap();
    assert!(std::fs::read(one).unwrap() == std::fs::read(two).unwrap());
}
