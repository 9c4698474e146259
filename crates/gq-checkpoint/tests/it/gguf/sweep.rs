//! What a sweep with llama.cpp found right, held without llama.cpp: `scripts/sweep_gguf.py --pin` wrote the file.
//!
//! Each case is a configuration with one key changed, and either the keys and rotary factors of a GGUF from which
//! llama.cpp computed what transformers computes, or a part of the refusal.

use super::support::fixture;
use gq_checkpoint::gguf::{Array, GgmlType, Gguf, Value};
use gq_checkpoint::gguf_model::{ExportOptions, ExportPlan, ExportSource};
use gq_checkpoint::{Checkpoint, ModelSpec, ReadError, Texts, parse_config};
use serde_json::Value as Json;

fn sweep() -> Json {
    serde_json::from_str(&std::fs::read_to_string(fixture("sweep.json")).unwrap()).unwrap()
}

fn config(sweep: &Json, case: &Json) -> String {
    let mut config = sweep["bases"][case["family"].as_str().unwrap()].clone();
    let config = config.as_object_mut().unwrap();
    for (key, value) in case["set"].as_object().unwrap() {
        config.insert(key.clone(), value.clone());
    }
    for key in case["absent"].as_array().unwrap() {
        config.remove(key.as_str().unwrap());
    }
    Json::Object(config.clone()).to_string()
}

fn plan(spec: &ModelSpec, config: String) -> Result<ExportPlan, String> {
    let texts = Texts { config, ..Texts::default() };
    let tensors: Vec<_> = spec.expected_tensors().into_iter().map(|t| (t.name, t.shape)).collect();
    let source = ExportSource { spec, texts: &texts, tensors: &tensors };
    ExportPlan::new(source, &ExportOptions::new(GgmlType::F32, "swept")).map_err(|error| error.to_string())
}

fn json(value: &Value) -> Json {
    match value {
        Value::Array(Array::Bool(list)) => list.clone().into(),
        Value::Array(array) => array.to_u64s().unwrap().into(),
        Value::Bool(value) => (*value).into(),
        Value::String(text) => text.as_str().into(),
        other => other.as_u64().map_or_else(|| other.as_f64().unwrap().into(), Json::from),
    }
}

fn close(actual: f64, expected: f64) -> bool {
    (actual - expected).abs() <= 1e-6 * expected.abs()
}

/// Equal, numbers but for rounding.
fn alike(actual: &Json, expected: &Json) -> bool {
    match (actual.as_f64(), expected.as_f64()) {
        (Some(actual), Some(expected)) => close(actual, expected),
        _ => actual == expected,
    }
}

#[test]
fn exports_have_the_keys_that_llama_cpp_was_right_about() {
    let sweep = sweep();
    let (mut exported, mut refused) = (0, 0);
    for case in sweep["cases"].as_array().unwrap() {
        let name = format!("{}: {}", case["family"], case["key"]);
        let spec = parse_config(&config(&sweep, case)).map_err(|e| e.to_string());
        let architecture =
            spec.as_ref().map_or_else(|_| String::new(), |spec| format!("{}.", spec.family.name()));
        let plan = spec.and_then(|mut spec| {
            // Of two tensors the checkpoint knows, not the configuration.
            spec.tied_head &= !name.contains("two tensors");
            plan(&spec, config(&sweep, case))
        });
        if let Some(reason) = case["refused"].as_str() {
            let error = plan.err().unwrap_or_else(|| panic!("{name}: exported"));
            assert!(error.contains(reason), "{name}: {error}");
            refused += 1;
            continue;
        }
        let plan = plan.unwrap_or_else(|error| panic!("{name}: {error}"));
        let ours = plan.metadata().iter().filter(|(key, _)| key.starts_with(&architecture));
        let expected = case["keys"].as_object().unwrap();
        let mut count = 0;
        for (key, value) in ours {
            let theirs = expected.get(key).unwrap_or_else(|| panic!("{name}: {key} is new"));
            assert!(alike(&json(value), theirs), "{name}: {key} is {value:?}, was {theirs}");
            count += 1;
        }
        assert_eq!(count, expected.len(), "{name}");
        exported += 1;
    }
    assert!(exported >= 50 && refused >= 10, "{exported} exported, {refused} refused");
}

/// The way there and back: the same frequencies and factors, whatever they are called.
#[test]
fn exports_come_back_as_the_same_graph() {
    let sweep = sweep();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.gguf");
    let mut with_factors = 0;
    for case in sweep["cases"].as_array().unwrap().iter().filter(|case| case["refused"].is_null()) {
        let name = format!("{}: {}", case["family"], case["key"]);
        let mut spec = parse_config(&config(&sweep, case)).unwrap();
        spec.tied_head &= !name.contains("two tensors");
        let mut zeros = |_: &str, _: std::ops::Range<usize>, out: &mut [f32]| -> Result<(), ReadError> {
            out.fill(0.0);
            Ok(())
        };
        plan(&spec, config(&sweep, case)).unwrap().write(&path, &mut zeros, &|_| {}).unwrap();
        let gguf = Gguf::open(&path).unwrap();
        let factors = gguf.tensor("rope_freqs.weight").map(|tensor| {
            let mut values = vec![0.0; tensor.info.cols()];
            gguf.read_rows_f32(tensor, 0..1, &mut values).unwrap();
            values
        });
        let expected: Option<Vec<f64>> = serde_json::from_value(case["factors"].clone()).unwrap();
        assert_eq!(factors.as_ref().map(Vec::len), expected.as_ref().map(Vec::len), "{name}");
        for (ours, theirs) in factors.iter().flatten().zip(expected.iter().flatten()) {
            assert!(close(f64::from(*ours), *theirs), "{name}: {ours}, was {theirs}");
        }
        with_factors += usize::from(factors.is_some());

        let back = Checkpoint::open(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut back = back.spec().clone();
        for (ours, theirs) in back.layers.iter().zip(&spec.layers) {
            let (a, b) = (&back.ropes[ours.attention.rope], &spec.ropes[theirs.attention.rope]);
            assert!(close(a.attention_factor.into(), b.attention_factor.into()), "{name}: {a:?}\n{b:?}");
            // Of short contexts and of long ones.
            for context in [0, usize::MAX] {
                let [a, b] = [a, b].map(|rope| rope.frequencies(context));
                assert_eq!(a.len(), b.len(), "{name}");
                for (a, b) in a.iter().zip(b) {
                    // A pair that does not turn comes back as one that turns once in 1e30.
                    assert!(close((*a).into(), (*b).into()) || *b == 0.0 && *a < 1e-20, "{name}: {a} {b}");
                }
            }
        }
        back.ropes.clone_from(&spec.ropes);
        for (ours, theirs) in back.layers.iter_mut().zip(&spec.layers) {
            ours.attention.rope = theirs.attention.rope;
            // Layers that are all full have no window to be told.
            assert!(close(ours.attention.scale.into(), theirs.attention.scale.into()), "{name}");
            ours.attention.scale = theirs.attention.scale;
        }
        (back.bos, back.eos, back.pad) = (spec.bos, spec.eos.clone(), spec.pad);
        if let (Some(ours), Some(theirs)) = (&mut back.per_layer_embedding, &spec.per_layer_embedding) {
            assert_eq!(ours.width, theirs.width, "{name}");
            ours.vocab_size = theirs.vocab_size;
        }
        // A window that no position is beyond is none.
        for layer in back.layers.iter_mut().chain(&mut spec.layers) {
            layer.attention.window = layer.attention.window.filter(|window| *window < spec.max_positions);
        }
        assert_eq!(back, spec, "{name}");
    }
    assert!(with_factors > 10, "{with_factors}");
}
