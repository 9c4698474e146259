//! F8 weights with scales, written here and read back.

use gq_checkpoint::{Checkpoint, Note};
use gq_tensor::{DType, f8_e4m3_to_f32};
use std::path::Path;

const HIDDEN: usize = 256;
const WIDTH: usize = 384;
const UP: &str = "model.layers.0.mlp.up_proj.weight";

/// A llama of one layer in bf16, but the up projection in F8 with the given scales.
fn write(dir: &Path, suffix: &str, scale_shape: &[usize], scales: &[f32]) -> Vec<u8> {
    let config = serde_json::json!({
        "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": WIDTH, "num_hidden_layers": 1,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 32, "tie_word_embeddings": true,
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    });
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let spec = gq_checkpoint::parse_config(&config.to_string()).unwrap();
    let codes: Vec<u8> = (0..WIDTH * HIDDEN).map(|i| (i * 7 % 120) as u8).collect();
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    let mut add = |name: String, dtype: DType, shape: &[usize], bytes: Vec<u8>| {
        let begin = data.len();
        data.extend(bytes);
        let entry =
            serde_json::json!({"dtype": dtype.name(), "shape": shape, "data_offsets": [begin, data.len()]});
        header.insert(name, entry);
    };
    for tensor in spec.expected_tensors() {
        let elements: usize = tensor.shape.iter().product();
        match tensor.name.as_str() {
            UP => add(UP.to_owned(), DType::F8E4M3, &tensor.shape, codes.clone()),
            _ => add(tensor.name, DType::BF16, &tensor.shape, [0x80, 0x3F].repeat(elements)),
        }
    }
    let bytes = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
    add(format!("{UP}{suffix}"), DType::F32, scale_shape, bytes);
    let header = serde_json::Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    std::fs::write(dir.join("model.safetensors"), file).unwrap();
    codes
}

#[test]
fn scales_of_every_convention_multiply() {
    let blocks: Vec<f32> = (1..=6).map(|block| block as f32).collect();
    let rows: Vec<f32> = (0..WIDTH).map(|row| 0.5 + row as f32).collect();
    type ScaleOf = fn(usize, usize) -> f32;
    let of_block: ScaleOf = |row, col| (row / 128 * 2 + col / 128 + 1) as f32;
    let of_row: ScaleOf = |row, _| 0.5 + row as f32;
    let of_all: ScaleOf = |_, _| 0.25;
    for (suffix, shape, scales, scale_of) in [
        ("_scale_inv", vec![3, 2], blocks, of_block),
        ("_scale", vec![WIDTH, 1], rows.clone(), of_row),
        ("_scale", vec![WIDTH], rows, of_row),
        ("_scale", vec![], vec![0.25], of_all),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let codes = write(dir.path(), suffix, &shape, &scales);
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        let tensor = checkpoint.tensor(UP).unwrap();
        assert!(tensor.scaled);
        for range in [0..WIDTH, 127..129, 383..384] {
            let mut values = vec![0.0; range.len() * HIDDEN];
            checkpoint.read_rows_f32(tensor, range.clone(), &mut values).unwrap();
            for (row, values) in range.zip(values.chunks(HIDDEN)) {
                for (col, value) in values.iter().enumerate() {
                    let expected = f8_e4m3_to_f32(codes[row * HIDDEN + col]) * scale_of(row, col);
                    assert_eq!(*value, expected, "{suffix} {shape:?} at {row}, {col}");
                }
            }
        }
    }
}

/// A part of a fused projection (Phi) begins in the middle of a block of 128 rows.
#[test]
fn scales_of_a_fused_projection_are_those_of_its_parts() {
    let (width, hidden, dir) = (200, 96, tempfile::tempdir().unwrap());
    let folder = crate::support::testdata("tiny/phi3");
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    config["intermediate_size"] = width.into();
    config["quantization_config"] =
        serde_json::json!({"quant_method": "fp8", "weight_block_size": [128, 128]});
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    let mut add = |name: &str, dtype: &str, shape: &[usize], bytes: Vec<u8>| {
        let begin = data.len();
        data.extend(bytes);
        let entry = serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, data.len()]});
        header.insert(name.to_owned(), entry);
    };
    let scales: Vec<u8> = [1f32, 2.0, 4.0, 8.0].iter().flat_map(|scale| scale.to_le_bytes()).collect();
    let spec = gq_checkpoint::parse_config(&config.to_string()).unwrap();
    let ones = |shape: &[usize]| [0x80, 0x3F].repeat(shape.iter().product());
    for tensor in spec.expected_tensors() {
        let Some(fused) = spec.fused(&tensor.name) else {
            add(&tensor.name, "BF16", &tensor.shape, ones(&tensor.shape));
            continue;
        };
        let (name, shape) = (&fused.hub, fused.shape());
        if fused.first() == tensor.name && name.ends_with("gate_up_proj.weight") {
            assert_eq!(shape, [2 * width, hidden]);
            add(name, "F8_E4M3", &shape, vec![0x38; 2 * width * hidden]); // 1.0 everywhere
            add(&format!("{name}_scale_inv"), "F32", &[4, 1], scales.clone());
        } else if fused.first() == tensor.name {
            add(name, "BF16", &shape, ones(&shape));
        }
    }
    let header = serde_json::Value::Object(header).to_string();
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.extend(data);
    std::fs::write(dir.path().join("model.safetensors"), out).unwrap();
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    for (part, first) in [("gate", 0), ("up", width)] {
        let tensor = checkpoint.tensor(&format!("model.layers.1.mlp.{part}_proj.weight")).unwrap();
        let mut values = vec![0.0; width * hidden];
        checkpoint.read_rows_f32(tensor, 0..width, &mut values).unwrap();
        for (row, values) in values.chunks(hidden).enumerate() {
            let expected = [1.0, 2.0, 4.0, 8.0][(first + row) / 128];
            assert!(values.iter().all(|value| *value == expected), "{part} {row}");
        }
    }
}

/// As Ministral 3 and Devstral are published: transformers' FP8 with activations of a fixed scale, one scale for a tensor,
/// in bf16.
#[test]
fn scales_of_activations_change_no_weight() {
    let dir = tempfile::tempdir().unwrap();
    let codes = write(dir.path(), "_scale_inv", &[], &[0.0]);
    let path = dir.path().join("model.safetensors");
    let file = std::fs::read(&path).unwrap();
    let length = u64::from_le_bytes(*file.first_chunk::<8>().unwrap()) as usize;
    let mut header: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&file[8..8 + length]).unwrap();
    let mut data = file[8 + length..file.len() - 4].to_vec();
    // 0.00115966796875, a value of bf16.
    let scale = f32::from_bits(0x3A98_0000);
    for name in [format!("{UP}_scale_inv"), UP.replace("weight", "activation_scale")] {
        let begin = data.len();
        data.extend([0x98, 0x3A]);
        let entry = serde_json::json!({"dtype": "BF16", "shape": [], "data_offsets": [begin, data.len()]});
        header.insert(name, entry);
    }
    let text = serde_json::Value::Object(header).to_string();
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes.extend(data);
    std::fs::write(path, bytes).unwrap();
    let config = dir.path().join("config.json");
    let mut edited: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&config).unwrap()).unwrap();
    edited["quantization_config"] = serde_json::json!({"activation_scheme": "static", "dequantize": false,
        "modules_to_not_convert": ["lm_head"], "quant_method": "fp8", "weight_block_size": null});
    std::fs::write(config, edited.to_string()).unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let mut values = vec![0.0; WIDTH * HIDDEN];
    checkpoint.read_rows_f32(checkpoint.tensor(UP).unwrap(), 0..WIDTH, &mut values).unwrap();
    for (value, code) in values.iter().zip(codes) {
        assert_eq!(*value, f8_e4m3_to_f32(code) * scale);
    }
    let name = UP.replace("weight", "activation_scale");
    assert_eq!(checkpoint.notes(), [Note::ActivationScales { count: 1, name }]);
}

#[test]
fn every_float_dtype_reads_as_f32() {
    let file = std::fs::read(crate::support::testdata("malformed/checkpoint/valid-single/model.safetensors"))
        .unwrap();
    let length = u64::from_le_bytes(*file.first_chunk::<8>().unwrap()) as usize;
    let header: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&file[8..8 + length]).unwrap();
    for (name, one) in [
        ("F64", &1.5f64.to_le_bytes()[..]),
        ("F32", &1.5f32.to_le_bytes()[..]),
        ("F16", &[0x00, 0x3E][..]),
        ("BF16", &[0xC0, 0x3F][..]),
        ("F8_E4M3", &[0x3C][..]),
        ("F8_E5M2", &[0x3E][..]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut header = header.clone();
        let mut at = 0;
        for entry in header.values_mut() {
            let elements: usize =
                entry["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap() as usize).product();
            let end = at + elements * one.len();
            entry["dtype"] = name.into();
            entry["data_offsets"] = serde_json::json!([at, end]);
            at = end;
        }
        let text = serde_json::Value::Object(header).to_string();
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text.as_bytes());
        bytes.extend(one.repeat(at / one.len()));
        std::fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
        let config = crate::support::testdata("malformed/checkpoint/valid-single/config.json");
        std::fs::copy(config, dir.path().join("config.json")).unwrap();
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        for tensor in checkpoint.tensors() {
            let mut values = vec![0.0; tensor.rows() * tensor.cols()];
            checkpoint.read_rows_f32(tensor, 0..tensor.rows(), &mut values).unwrap();
            assert!(values.iter().all(|value| *value == 1.5), "{name}");
        }
    }
}
