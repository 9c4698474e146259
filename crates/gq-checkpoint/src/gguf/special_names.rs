//! Tokens whose type llama.cpp takes from their spelling, whatever the file says.

use super::Metadata;
use super::tokenizer::{CONTROL, NORMAL, USER_DEFINED};
use std::collections::HashMap;

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
    let harmony = has("<|return|>") && has("<|call|>")
        || has("<|call|>") && has("<|flush|>")
        || has("<|calls|>") && has("<|flush|>");
    if harmony {
        set("<|end|>", USER_DEFINED);
    }
    if has("<|tool_response>") || has("<|plamo:eos|>") {
        set("</s>", NORMAL);
    }
}
