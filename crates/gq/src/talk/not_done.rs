//! Keys of `generation_config.json` that change what transformers generates, and that `gq run` does not have.

use serde_json::Value;

/// Numbers and truth values, and those that change nothing.
const NEUTRAL: [(&str, f64); 20] = [
    ("num_beams", 1.0),
    ("num_beam_groups", 1.0),
    ("num_return_sequences", 1.0),
    ("diversity_penalty", 0.0),
    ("no_repeat_ngram_size", 0.0),
    ("encoder_no_repeat_ngram_size", 0.0),
    ("encoder_repetition_penalty", 1.0),
    ("typical_p", 1.0),
    ("epsilon_cutoff", 0.0),
    ("eta_cutoff", 0.0),
    ("top_h", 1.0),
    ("penalty_alpha", 0.0),
    ("guidance_scale", 1.0),
    ("min_new_tokens", 0.0),
    ("min_length", 0.0),
    ("token_healing", 0.0),
    ("remove_invalid_values", 0.0),
    ("assistant_ensemble_weight", f64::NAN),
    ("max_time", f64::NAN),
    ("forced_eos_token_id", f64::NAN),
];

/// Lists and objects; empty ones change nothing.
const LISTS: [&str; 12] = [
    "bad_words_ids",
    "suppress_tokens",
    "begin_suppress_tokens",
    "sequence_bias",
    "stop_strings",
    "exponential_decay_length_penalty",
    "watermarking_config",
    "dola_layers",
    "constraints",
    "force_words_ids",
    "forced_decoder_ids",
    "forced_bos_token_id",
];

/// Keys that are done, or that change how fast, in how much memory or in which company the same is generated.
const KNOWN: [&str; 53] = [
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "max_new_tokens",
    "max_length",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    // Of beams, which are named by their own key.
    "early_stopping",
    "length_penalty",
    // The same distribution, normalized once more.
    "renormalize_logits",
    "use_cache",
    "cache_implementation",
    "cache_config",
    "max_cache_len",
    "prefill_chunk_size",
    "low_memory",
    "compile_config",
    "disable_compile",
    "continuous_batching_config",
    "return_legacy_cache",
    // Drafts that the model itself decides about.
    "use_mtp",
    "is_assistant",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "assistant_confidence_threshold",
    "assistant_early_exit",
    "assistant_lookbehind",
    "target_lookbehind",
    "speculation_type",
    "prompt_lookup_num_tokens",
    "max_matching_ngram_size",
    // What is given back besides the tokens.
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "output_logits",
    "return_dict_in_generate",
    // Notes.
    "_from_model_config",
    "_name_or_path",
    "transformers_version",
    "_commit_hash",
    "_attn_implementation",
    "trust_remote_code",
    "generation_kwargs",
    "chat_format",
    "max_window_size",
    "user_token_id",
    "assistant_token_id",
    "transformers.js_config",
];

/// Keys of the file that change what is generated and are not done, as `key=value`, and keys that are not known here.
pub(super) fn ignored(config: &Value) -> Vec<String> {
    const LONGEST: usize = 60;
    let mut found = Vec::new();
    for (key, value) in config.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
        if KNOWN.contains(&key.as_str()) {
            continue;
        }
        if let Some((_, neutral)) = NEUTRAL.iter().find(|(name, _)| name == key) {
            let number = value.as_f64().or_else(|| value.as_bool().map(|flag| f64::from(u8::from(flag))));
            if number != Some(*neutral) {
                found.push(format!("{key}={value}"));
            }
            continue;
        }
        let empty = value.as_array().is_some_and(Vec::is_empty)
            || value.as_object().is_some_and(|map| map.is_empty());
        match LISTS.contains(&key.as_str()) {
            true if empty => {}
            true => found.push(key.clone()),
            false => {
                let value: String = value.to_string().chars().take(LONGEST).collect();
                found.push(format!("{key}={value}"));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_changes_the_text_is_named_and_nothing_else() {
        let named = |config: Value| ignored(&config);
        let quiet = json!({"do_sample": true, "num_beams": 1, "use_cache": true, "guidance_scale": 1, "max_time": null,
            "token_healing": false, "stop_strings": [], "sequence_bias": {}, "transformers_version": "5.0",
            "renormalize_logits": true, "length_penalty": 2.0, "pad_token_id": 0});
        assert_eq!(named(quiet), [""; 0]);
        for (config, expected) in [
            (json!({"num_beams": 4}), "num_beams=4"),
            (json!({"token_healing": true}), "token_healing=true"),
            (json!({"max_time": 1.5}), "max_time=1.5"),
            (json!({"forced_eos_token_id": 0}), "forced_eos_token_id=0"),
            (json!({"exponential_decay_length_penalty": [5, 1.1]}), "exponential_decay_length_penalty"),
            (json!({"watermarking_config": {"bias": 2.5}}), "watermarking_config"),
            (json!({"dola_layers": "low"}), "dola_layers"),
            (json!({"of_a_later_version": 1}), "of_a_later_version=1"),
        ] {
            assert_eq!(named(config), [expected]);
        }
    }

    #[test]
    fn no_key_stands_twice() {
        let mut keys: Vec<&str> = KNOWN.to_vec();
        keys.extend(NEUTRAL.iter().map(|(key, _)| *key));
        keys.extend(LISTS);
        let count = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), count);
    }
}
