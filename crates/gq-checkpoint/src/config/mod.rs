//! `config.json` to [`ModelSpec`]: which family, and that nothing in the file is left unread.

mod fields;
mod rope;

pub(crate) use fields::Fields;
pub(crate) use rope::{RopeParameters, rope_spec};

use crate::{ConfigError, ModelSpec, family, json};
use serde_json::Value;

/// Keys that do not change what the graph computes, for every family; null is fine for any other key.
///
/// Training, generation and bookkeeping of the tools that wrote the file.
pub(crate) const IRRELEVANT: &[&str] = &[
    "architectures",
    "attention_dropout",
    "attn_implementation",
    "bad_words_ids",
    "begin_suppress_tokens",
    "cache_implementation",
    "chunk_size_feed_forward",
    "custom_pipelines",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "embd_pdrop",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "hidden_dropout",
    "id2label",
    "initializer_range",
    "is_llama_config",
    "label2id",
    "length_penalty",
    "max_length",
    "max_window_layers",
    "min_length",
    "mlp_dropout",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "output_scores",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "repetition_penalty",
    "resid_pdrop",
    "return_dict",
    "return_dict_in_generate",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tokenizer_class",
    "tokenizer_name",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "use_cache",
    "use_bfloat16",
];

/// Beginnings of keys that only tools read.
pub(crate) const IRRELEVANT_PREFIXES: &[&str] =
    &["unsloth_", "transformers.js", "_attn_implementation", "_experts_implementation", "_name_or_path"];

/// Reads a `config.json`; also the one inside a converted file.
///
/// # Errors
/// When it is not JSON, a key is unknown, or a value is missing, out of range or not supported: see [`ConfigError`].
pub fn parse_config(json: &str) -> Result<ModelSpec, ConfigError> {
    let value = json::parse(json.as_bytes()).map_err(|source| ConfigError::Json { source })?;
    let Value::Object(map) = &value else {
        return Err(ConfigError::WrongType {
            field: "config".to_owned(),
            expected: "an object",
            actual: fields::shown(&value),
        });
    };
    let top = Fields::new("", map);
    let model_type = top.string("model_type")?;
    top.irrelevant(&["model_type"]);
    match model_type {
        "llama" => family::llama::spec(&top),
        "gemma3_text" => family::gemma3::text_spec(&top),
        "gemma3" => family::gemma3::wrapper_spec(&top),
        "gemma4_text" | "gemma4_unified_text" => family::gemma4::text_spec(&top),
        "gemma4" | "gemma4_unified" => family::gemma4::wrapper_spec(&top),
        other => Err(ConfigError::Unsupported {
            field: "model_type".to_owned(),
            value: other.to_owned(),
            supported: "llama, gemma3_text, gemma3, gemma4_text, gemma4, gemma4_unified_text, gemma4_unified",
        }),
    }
}
