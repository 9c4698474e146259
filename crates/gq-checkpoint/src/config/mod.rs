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
    "attention_probs_dropout_prob",
    "attn_implementation",
    "attn_pdrop",
    "bad_words_ids",
    "begin_suppress_tokens",
    "cache_implementation",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "cross_attention_hidden_size",
    "custom_pipelines",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "embd_pdrop",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "hidden_dropout",
    "hidden_dropout_prob",
    "id2label",
    "initializer_range",
    "is_decoder",
    "is_llama_config",
    "label2id",
    "length_penalty",
    "max_length",
    "max_window_layers",
    "min_length",
    "mlp_dropout",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "output_router_logits",
    "output_scores",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "pruned_heads",
    "remove_invalid_values",
    "repetition_penalty",
    "resid_pdrop",
    "residual_dropout",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tokenizer_class",
    "tokenizer_name",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "typical_p",
    "use_bfloat16",
    "use_cache",
    "use_return_dict",
];

/// Switches that would change a graph; none of the families has them on.
pub(crate) const MUST_BE_OFF: &[&str] =
    &["add_cross_attention", "is_encoder_decoder", "rope_interleaved", "use_qk_norm", "use_sliding_window"];

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
