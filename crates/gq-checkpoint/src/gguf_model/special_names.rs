//! Tokens whose type llama.cpp takes from their spelling, whatever the file says.

use super::token_types::{CONTROL, NORMAL, USER_DEFINED};
use crate::gguf::{Array, Metadata, Value};
use std::collections::{BTreeSet, HashMap};

/// Ends of generation.
const ENDS: [&str; 22] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// Parts of a text to be filled in, unless the key names another token.
const INFILL: [(&str, &[&str]); 6] = [
    (
        "fim_pre",
        &[
            "<|fim_prefix|>",
            "<fim-prefix>",
            "<fim_prefix>",
            "<｜fim▁begin｜>",
            "<PRE>",
            "▁<PRE>",
            "<|code_prefix|>",
            "<|prefix|>",
        ],
    ),
    (
        "fim_suf",
        &[
            "<|fim_suffix|>",
            "<fim-suffix>",
            "<fim_suffix>",
            "<｜fim▁hole｜>",
            "<SUF>",
            "▁<SUF>",
            "<|code_suffix|>",
            "<|suffix|>",
        ],
    ),
    (
        "fim_mid",
        &[
            "<|fim_middle|>",
            "<fim-middle>",
            "<fim_middle>",
            "<｜fim▁end｜>",
            "<MID>",
            "▁<MID>",
            "<|code_middle|>",
            "<|middle|>",
        ],
    ),
    ("fim_pad", &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"]),
    ("fim_rep", &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"]),
    ("fim_sep", &["<|file_sep|>"]),
];

/// Shown always.
const SHOWN: [&str; 4] = ["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/// Ids of the tokens at which llama.cpp ends an answer: those of three keys, and those that are spelled like one.
pub fn ends_of_generation(metadata: &Metadata) -> BTreeSet<u32> {
    let keyed = ["eos", "eot", "eom"].map(|name| format!("tokenizer.ggml.{name}_token_id"));
    let keyed = keyed.iter().filter_map(|key| u32::try_from(metadata.get(key)?.as_u64()?).ok());
    let tokens = metadata.get("tokenizer.ggml.tokens").and_then(Value::as_array).and_then(Array::as_strings);
    let tokens = tokens.unwrap_or_default();
    let spelled = (0u32..).zip(tokens).filter(|(_, token)| ENDS.contains(&token.as_str()));
    let mut ends: BTreeSet<u32> = keyed.chain(spelled.map(|(id, _)| id)).collect();
    if is_harmony(|token| tokens.iter().any(|there| there == token)) {
        // It ends a message, after which the answer goes on.
        let end = (0u32..).zip(tokens).find(|(_, token)| *token == "<|end|>");
        ends.retain(|id| end.is_none_or(|(end, _)| *id != end));
    }
    ends
}

/// Whether a vocabulary is that of OpenAI's Harmony format or of one like it.
pub(super) fn is_harmony(has: impl Fn(&str) -> bool) -> bool {
    let both = |one: &str, other: &str| has(one) && has(other);
    both("<|return|>", "<|call|>") || both("<|call|>", "<|flush|>") || both("<|calls|>", "<|flush|>")
}

/// Sets the types that spellings decide.
pub(super) fn apply(metadata: &Metadata, ids: &HashMap<&str, usize>, types: &mut [u64]) {
    let has = |token: &str| ids.contains_key(token);
    let mut set = |token: &str, kind: i32| {
        if let Some(kept) = ids.get(token).and_then(|&id| types.get_mut(id)) {
            *kept = kind as u64;
        }
    };
    for (key, names) in INFILL {
        if metadata.get(&format!("tokenizer.ggml.{key}_token_id")).is_none() {
            names.iter().for_each(|name| set(name, CONTROL));
        }
    }
    ENDS.iter().for_each(|name| set(name, CONTROL));
    SHOWN.iter().for_each(|name| set(name, USER_DEFINED));
    if is_harmony(has) {
        set("<|end|>", USER_DEFINED);
    }
    if has("<|tool_response>") || has("<|plamo:eos|>") {
        set("</s>", NORMAL);
    }
}
