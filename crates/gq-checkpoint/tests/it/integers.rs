//! Matrices of integer codes of other quantizers (`scripts/make_quantized.py`) in a checkpoint: values to the last bit.

use crate::support::testdata;
use gq_checkpoint::{Checkpoint, CheckpointError};
use gq_tensor::DType;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use std::path::Path;

const STORED: [&str; 9] = [
    "weight_packed",
    "weight_scale",
    "weight_zero_point",
    "weight_shape",
    "weight_g_idx",
    "qweight",
    "qzeros",
    "scales",
    "g_idx",
];

fn fixtures() -> Vec<u8> {
    std::fs::read(testdata("sources/integers.safetensors")).unwrap()
}

/// The values `[rows, cols]` that a fixture has, and its shape.
fn decoded(file: &SafeTensors<'_>, name: &str) -> (Vec<f32>, [usize; 2]) {
    let tensor = file.tensor(&format!("{name}.decoded")).unwrap();
    let mut values = vec![0.0; tensor.data().len() / 4];
    gq_tensor::decode_f32(DType::F32, tensor.data(), &mut values);
    (values, [tensor.shape()[0], tensor.shape()[1]])
}

/// A model of one layer in bf16, but the module in the codes of a fixture.
fn write(dir: &Path, config: &Value, module: &str, parts: &[&str], fixture: &str) {
    let (bytes, spec) = (fixtures(), gq_checkpoint::parse_config(&config.to_string()).unwrap());
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    let mut add = |name: String, dtype: &str, shape: &[usize], bytes: &[u8]| {
        let begin = data.len();
        data.extend_from_slice(bytes);
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, data.len()]});
        header.insert(name, entry);
    };
    for end in STORED {
        let Ok(tensor) = file.tensor(&format!("{fixture}.{end}")) else { continue };
        let dtype = format!("{:?}", tensor.dtype());
        add(format!("{module}.{end}"), &dtype, tensor.shape(), tensor.data());
    }
    for tensor in spec.expected_tensors() {
        // Fused ones have the name of their file only.
        if let Some(fused) = spec.fused(&tensor.name).filter(|_| !parts.contains(&tensor.name.as_str())) {
            if fused.first() == tensor.name {
                let shape = fused.shape();
                add(fused.hub.clone(), "BF16", &shape, &[0x80, 0x3F].repeat(shape[0] * shape[1]));
            }
        } else if !parts.contains(&tensor.name.as_str()) {
            let elements: usize = tensor.shape.iter().product();
            add(tensor.name, "BF16", &tensor.shape, &[0x80, 0x3F].repeat(elements));
        }
    }
    let header = Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    std::fs::write(dir.join("model.safetensors"), file).unwrap();
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
}

fn compressed(bits: usize, symmetric: bool, strategy: &str) -> Value {
    json!({"quant_method": "compressed-tensors", "format": "pack-quantized", "kv_cache_scheme": {"num_bits": 8},
        "config_groups": {"group_0": {"targets": ["Linear"], "input_activations": null, "weights": {"type": "int",
            "num_bits": bits, "symmetric": symmetric, "strategy": strategy, "actorder": null}}}})
}

fn gptq(bits: usize, format: &str) -> Value {
    json!({"quant_method": "gptq", "bits": bits, "group_size": 16, "checkpoint_format": format, "sym": false})
}

/// Each fixture and the configuration that goes with it.
fn cases() -> Vec<(&'static str, Value)> {
    let mut ordered = compressed(4, false, "group");
    ordered["config_groups"]["group_0"]["weights"]["actorder"] = "group".into();
    vec![
        ("ct-int4", compressed(4, true, "group")),
        ("ct-int4-zeros", compressed(4, false, "group")),
        ("ct-int4-channel", compressed(4, true, "channel")),
        ("ct-int8-channel", compressed(8, false, "channel")),
        ("ct-int8", compressed(8, true, "group")),
        ("ct-order", ordered),
        ("gptq", gptq(4, "gptq")),
        ("gptq-order", gptq(4, "gptq")),
        ("gptq-8", gptq(8, "gptq")),
        ("gptq_v2", gptq(4, "gptq_v2")),
        ("awq", json!({"quant_method": "awq", "bits": 4, "version": "gemm", "group_size": 16})),
    ]
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// All rows of a tensor, some of them by themselves, and by a mapped file.
fn check(checkpoint: &Checkpoint, tensor: &str, expected: &[f32]) {
    let tensor = checkpoint.tensor(tensor).unwrap();
    let (rows, cols, mapped) = (tensor.rows(), tensor.cols(), checkpoint.map().unwrap());
    for range in [0..rows, 3..5, 7..9, rows - 1..rows] {
        let expected = &expected[range.start * cols..range.end * cols];
        let mut values = vec![0.0; expected.len()];
        checkpoint.read_rows_f32(tensor, range.clone(), &mut values).unwrap();
        assert_eq!(bits(&values), bits(expected), "{} {range:?}", tensor.source_name);
        values.fill(0.0);
        checkpoint.decode_mapped_rows_f32(&mapped, tensor, range, &mut values).unwrap();
        assert_eq!(bits(&values), bits(expected));
    }
}

#[test]
fn values_are_those_of_the_quantizers() {
    let bytes = fixtures();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for (fixture, quantization) in cases() {
        let (expected, [rows, cols]) = decoded(&file, fixture);
        let config = json!({"model_type": "llama", "hidden_size": cols, "intermediate_size": rows,
            "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 2,
            "vocab_size": 32, "tie_word_embeddings": true, "quantization_config": quantization});
        let (dir, module) = (tempfile::tempdir().unwrap(), "model.layers.0.mlp.up_proj");
        let weight = format!("{module}.weight");
        write(dir.path(), &config, module, &[&weight], fixture);
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        check(&checkpoint, &weight, &expected);
        let label = checkpoint.quantized().unwrap();
        assert!(label.starts_with(if fixture.contains('8') { "int8" } else { "int4" }), "{label}");
    }
}

#[test]
fn matrices_that_stand_in_one_have_their_rows_of_it() {
    let bytes = fixtures();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for (fixture, quantization) in cases() {
        let (expected, shape) = decoded(&file, fixture);
        if shape != [48, 64] {
            continue;
        }
        let text = std::fs::read_to_string(testdata("tiny/phi3/config.json")).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        for (key, value) in [("hidden_size", 64), ("intermediate_size", 24), ("num_hidden_layers", 1)] {
            config[key] = value.into();
        }
        for (key, value) in [("num_attention_heads", 2), ("num_key_value_heads", 1)] {
            config[key] = value.into();
        }
        config["quantization_config"] = quantization;
        config.as_object_mut().unwrap().remove("layer_types");
        let (dir, module) = (tempfile::tempdir().unwrap(), "model.layers.0.mlp.gate_up_proj");
        let parts = ["gate", "up"].map(|part| format!("model.layers.0.mlp.{part}_proj.weight"));
        write(dir.path(), &config, module, &parts.each_ref().map(String::as_str), fixture);
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        for (part, expected) in parts.iter().zip(expected.chunks(24 * 64)) {
            check(&checkpoint, part, expected);
        }
    }
}

#[test]
fn other_forms_are_refused_by_name() {
    let config = |quantization: Value| {
        json!({"model_type": "llama", "hidden_size": 64, "intermediate_size": 48, "num_hidden_layers": 1,
            "num_attention_heads": 1, "num_key_value_heads": 1, "vocab_size": 32, "head_dim": 2,
            "quantization_config": quantization})
    };
    for (quantization, said) in [
        (gptq(3, "gptq"), "quantization_config.bits"),
        (gptq(4, "marlin"), "quantization_config.checkpoint_format"),
        (json!({"quant_method": "awq", "bits": 4, "version": "gemv"}), "quantization_config.version"),
        (json!({"quant_method": "awq", "bits": 8}), "quantization_config.bits"),
    ] {
        let error = gq_checkpoint::parse_config(&config(quantization).to_string()).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
    // Zero points of another packing: a file of AWQ is none of GPTQ.
    let (dir, module) = (tempfile::tempdir().unwrap(), "model.layers.0.mlp.up_proj");
    write(dir.path(), &config(gptq(4, "gptq")), module, &["model.layers.0.mlp.up_proj.weight"], "awq");
    let error = Checkpoint::open(dir.path()).unwrap_err();
    assert!(
        matches!(&error, CheckpointError::Tensors(_)) && error.to_string().contains("qweight"),
        "{error}"
    );
}
