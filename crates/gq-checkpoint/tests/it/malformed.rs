//! One tiny checkpoint per broken rule, and the one sentence it is refused with.

use crate::support::testdata;
use gq_checkpoint::{Checkpoint, CheckpointError, Note};
use std::path::Path;

const FOLDER: &str = "malformed/checkpoint";

/// Folder and message; file names in messages are relative to the folder.
const CASES: &[(&str, &str)] = &[
    ("config-absent", r#".: no config.json"#),
    (
        "config-activation",
        r#"config.json: field "hidden_act" is "relu2", supported: silu, gelu_pytorch_tanh"#,
    ),
    ("config-head-groups", r#"config.json: layer 0: 4 query heads are not a multiple of 3 key-value heads"#),
    (
        "config-heads-disagree",
        r#"config.json: field "global_head_dim" says 8, field "per_layer_config.1.head_dim" says 4"#,
    ),
    ("config-layer-types", r#"config.json: field "layer_types" has 1 entries for 2 layers"#),
    ("config-missing-field", r#"config.json: field "hidden_size" is missing"#),
    (
        "config-model-type",
        r#"config.json: field "model_type" is "gpt5", supported: llama, mistral, qwen2, qwen3, qwen3_moe, ministral3, mistral3, phi3, gpt_oss, gemma3_text, gemma3, gemma4_text, gemma4, gemma4_unified_text, gemma4_unified"#,
    ),
    ("config-negative", r#"config.json: field "vocab_size" is -6, allowed are 1 to 16777216"#),
    (
        "config-no-shared-cache",
        r#"config.json: layer 1 shares keys and values, but no earlier "full_attention" layer makes them"#,
    ),
    ("config-not-an-object", r#"config.json: field "config" is "[]", expected an object"#),
    ("config-not-utf8", r#"config.json: not UTF-8 at byte 194"#),
    (
        "config-out-of-range",
        r#"config.json: field "num_hidden_layers" is 1000000000000, allowed are 1 to 1024"#,
    ),
    (
        "config-quantization",
        r#"config.json: field "quantization_config.quant_method" is "hqq", supported: fp8, compressed-tensors, gptq, awq"#,
    ),
    (
        "config-repeated-key",
        r#"config.json: not valid JSON: key "hidden_size" appears twice at line 1 column 206"#,
    ),
    (
        "config-rope-disagrees",
        r#"config.json: field "rope_theta" says 10000, field "rope_parameters.rope_theta" says 5000"#,
    ),
    ("config-rope-type", r#"config.json: field "rope_scaling.short_factor" is missing"#),
    ("config-truncated", r#"config.json: not valid JSON: EOF while parsing an object at line 1 column 40"#),
    ("config-unknown-key", r#"config.json: unknown key "sparse\u{1b}[31m_attention" for model type "llama""#),
    ("config-wrong-type", r#"config.json: field "hidden_size" is "8", expected a whole number"#),
    ("data-trailing", r#"model.safetensors: 3 bytes follow the last tensor"#),
    (
        "data-truncated",
        r#"model.safetensors: tensor "model.norm.weight" ends at byte 912 of the data, which has 905"#,
    ),
    ("header-beyond-file", r#"model.safetensors: header of 1099511627776 bytes in a file of 1940 bytes"#),
    (
        "header-deep",
        r#"model.safetensors: header is not valid: invalid type: sequence, expected a string at line 1 column 6"#,
    ),
    ("header-empty", r#"model.safetensors: header begins with byte 0x00, expected 0x7b (an opening brace)"#),
    ("header-empty-name", r#"model.safetensors: tensor name "" has 0 bytes, allowed are 1 to 1024"#),
    (
        "header-gap",
        r#"model.safetensors: bytes 896..898 before tensor "model.norm.weight" belong to no tensor"#,
    ),
    (
        "header-gap-at-start",
        r#"model.safetensors: bytes 0..96 before tensor "model.layers.0.input_layernorm.weight" belong to no tensor"#,
    ),
    (
        "header-length-maximal",
        r#"model.safetensors: header of 18446744073709551615 bytes in a file of 1940 bytes"#,
    ),
    (
        "header-metadata",
        r#"model.safetensors: header is not valid: invalid type: integer `1`, expected a string at line 1 column 27"#,
    ),
    (
        "header-negative-dimension",
        r#"model.safetensors: header is not valid: invalid value: integer `-8`, expected u64 at line 1 column 426"#,
    ),
    (
        "header-not-an-object",
        r#"model.safetensors: header begins with byte 0x5b, expected 0x7b (an opening brace)"#,
    ),
    (
        "header-not-json",
        r#"model.safetensors: header is not valid: EOF while parsing an object at line 1 column 1019"#,
    ),
    (
        "header-not-utf8",
        r#"model.safetensors: header is not valid: invalid unicode code point at line 1 column 384"#,
    ),
    (
        "header-offsets-maximal",
        r#"model.safetensors: tensor "model.norm.weight" has offsets 18446744073709551599..18446744073709551615, shape and dtype call for 16 bytes"#,
    ),
    (
        "header-offsets-reversed",
        r#"model.safetensors: tensor "model.layers.0.mlp.up_proj.weight" has offsets 496..368, shape and dtype call for 128 bytes"#,
    ),
    (
        "header-overlap",
        r#"model.safetensors: tensor "model.layers.0.mlp.up_proj.weight" begins at byte 366, tensor "model.layers.0.mlp.gate_proj.weight" ends at 368"#,
    ),
    (
        "header-rank",
        r#"model.safetensors: header is not valid: invalid length 9, expected a list of at most 8 dimensions at line 1 column 442"#,
    ),
    (
        "header-repeated-tensor",
        r#"model.safetensors: tensor "model.layers.0.mlp.up_proj.weight" appears twice"#,
    ),
    (
        "header-shape-beyond-bytes",
        r#"model.safetensors: tensor "model.layers.0.mlp.up_proj.weight" has offsets 368..496, shape and dtype call for 144 bytes"#,
    ),
    (
        "header-shape-overflow",
        r#"model.safetensors: tensor "model.layers.0.mlp.up_proj.weight" has shape [1099511627776, 1099511627776], whose bytes overflow"#,
    ),
    (
        "header-unknown-dtype",
        r#"model.safetensors: tensor "model.layers.0.mlp.up_proj.weight" has dtype "F4", which is not supported"#,
    ),
    (
        "header-unknown-entry-key",
        r#"model.safetensors: header is not valid: unknown field `strides`, expected one of `dtype`, `shape`, `data_offsets` at line 1 column 463"#,
    ),
    (
        "index-absolute-path",
        r#"model.safetensors.index.json: weight_map names the file "/etc/model.safetensors", expected a plain name that ends in .safetensors"#,
    ),
    (
        "index-drive-letter",
        r#"model.safetensors.index.json: weight_map names the file "C:model.safetensors", expected a plain name that ends in .safetensors"#,
    ),
    ("index-empty", r#"model.safetensors.index.json: weight_map is empty"#),
    (
        "index-file-absent",
        r#"model.safetensors.index.json: weight_map names the file "model-00002-of-00002.safetensors", which does not exist"#,
    ),
    (
        "index-not-json",
        r#"model.safetensors.index.json: not valid: EOF while parsing an object at line 1 column 866"#,
    ),
    (
        "index-other-file",
        r#"model.safetensors.index.json: weight_map names the file "config.json", expected a plain name that ends in .safetensors"#,
    ),
    (
        "index-parent-directory",
        r#"model.safetensors.index.json: weight_map names the file "../model-00002-of-00002.safetensors", expected a plain name that ends in .safetensors"#,
    ),
    (
        "index-repeated-tensor",
        r#"model.safetensors.index.json: not valid: tensor "model.norm.weight" appears twice at line 1 column 923"#,
    ),
    (
        "scale-absent",
        r#"tensor "model.layers.0.mlp.up_proj.weight" is F8_E4M3 without weight_scale or weight_scale_inv"#,
    ),
    ("scale-not-finite", r#"tensor "model.layers.0.mlp.up_proj.weight_scale": row 0, column 0 is NaN"#),
    (
        "scale-shape",
        r#"scales "model.layers.0.mlp.up_proj.weight_scale_inv" have shape [2, 2] for a weight of shape [8, 8], supported: one value, one per row, one per block of 128 x 128"#,
    ),
    (
        "scale-twice",
        r#"tensor "model.layers.0.mlp.up_proj.weight" has scales "model.layers.0.mlp.up_proj.weight_scale" and "model.layers.0.mlp.up_proj.weight_scale_inv""#,
    ),
    (
        "scale-without-weight",
        r#"tensor "model.norm.weight_scale" are scales, but there is no F8 tensor "model.norm.weight""#,
    ),
    (
        "shard-repeats-tensor",
        r#"tensor "model.norm.weight" is in "model-00001-of-00002.safetensors" and in "model-00002-of-00002.safetensors""#,
    ),
    (
        "shard-stray",
        r#"model-00003-of-00003.safetensors: a weight file that model.safetensors.index.json does not name"#,
    ),
    (
        "single-beside-index",
        r#"model.safetensors: a weight file that model.safetensors.index.json does not name"#,
    ),
    ("tensor-infinite", r#"tensor "model.embed_tokens.weight": row 5, column 7 is -inf"#),
    (
        "tensor-integers",
        r#"tensor "model.layers.0.mlp.up_proj.weight" has dtype I32, weights are F64, F32, F16, BF16, F8_E4M3 or F8_E5M2"#,
    ),
    (
        "tensor-layer-beyond-last",
        r#"tensor "model.layers.1.mlp.up_proj.weight" is not part of a llama model with this configuration"#,
    ),
    ("tensor-missing", r#"tensor "model.layers.0.mlp.up_proj.weight" is missing"#),
    ("tensor-nan", r#"tensor "model.layers.0.mlp.up_proj.weight": row 2, column 3 is NaN"#),
    (
        "tensor-shape",
        r#"tensor "model.layers.0.mlp.up_proj.weight" has shape [8, 16], the configuration calls for [8, 8]"#,
    ),
    (
        "tensor-transposed",
        r#"tensor "model.layers.0.self_attn.k_proj.weight" has shape [8, 4], the configuration calls for [4, 8]"#,
    ),
    (
        "tensor-two-spellings",
        r#"tensors "model.norm.weight" and "language_model.model.norm.weight" both are "model.norm.weight""#,
    ),
    (
        "tensor-unexpected",
        r#"tensor "model.layers.0.self_attn.q_norm\n\u{202e}.weight" is not part of a llama model with this configuration"#,
    ),
    ("weights-absent", r#".: neither model.safetensors nor model.safetensors.index.json"#),
    ("weights-empty", r#"model.safetensors: empty: 0 bytes"#),
    ("weights-five-bytes", r#"model.safetensors: 5 bytes, a weight file has at least 8"#),
];

/// Folders whose index is not of their shards, which are whole without it; and one with a head of its own.
const READ_WITH_A_NOTE: [&str; 5] = [
    "index-tensor-nowhere",
    "index-tensor-unlisted",
    "index-wrong-shard",
    "shards-without-index",
    "tensor-tied-head-differs",
];

/// Opens a checkpoint and reads every row of every tensor.
fn read_all(dir: &Path) -> Result<(), CheckpointError> {
    let checkpoint = Checkpoint::open(dir)?;
    for tensor in checkpoint.tensors() {
        let mut rows = vec![0.0; tensor.rows() * tensor.cols()];
        checkpoint.read_rows_f32(tensor, 0..tensor.rows(), &mut rows)?;
    }
    Ok(())
}

#[test]
fn each_is_refused_with_one_sentence() {
    for (name, expected) in CASES {
        let dir = testdata(&format!("{FOLDER}/{name}"));
        let error = read_all(&dir).expect_err(name).to_string();
        let error =
            error.replace(&format!("{}/", dir.display()), "").replace(&dir.display().to_string(), ".");
        assert_eq!(error, *expected, "{name}");
    }
}

#[test]
fn every_folder_is_in_the_table_or_valid() {
    for entry in std::fs::read_dir(testdata(FOLDER)).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if READ_WITH_A_NOTE.contains(&name.as_str()) {
            let checkpoint = Checkpoint::open(entry.path()).unwrap();
            assert!(
                matches!(
                    checkpoint.notes(),
                    [Note::StaleIndex { .. } | Note::NoIndex { .. } | Note::Untied { .. }]
                ),
                "{name}: {:?}",
                checkpoint.notes()
            );
        } else if name.starts_with("valid-") {
            read_all(&entry.path()).unwrap_or_else(|error| panic!("{name}: {error}"));
        } else {
            assert_eq!(CASES.iter().filter(|(case, _)| *case == name).count(), 1, "{name}");
        }
    }
}
