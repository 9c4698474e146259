//! Which parts of a `tokenizer.json` a GGUF has a place for. What has none is refused by name: llama.cpp would leave it
//! out, and text would have other tokens than the model was trained with.
//!
//! Flags of added tokens and post-processors are judged by their effect: the tokens of the written file are compared.

use super::token_types::BYTE;
use crate::gguf::GgufError;
use serde_json::Value;

/// Checks every part but the pre-tokenizers of byte-level BPE, which have names of their own.
pub(super) fn check(json: &Value, byte_fallback: bool, types: &[i32]) -> Result<(), GgufError> {
    let refuse = |part: &'static str, value: &Value| -> Result<(), GgufError> {
        Err(GgufError::NotCarried { part, actual: value.to_string() })
    };
    let steps = steps(&json["normalizer"], "normalizers");
    // llama.cpp composes no text. Text that is composed already, as nearly all is, has the same tokens without it, as
    // its own converter takes for granted; whoever exports is told.
    let carried = |step: &&Value| composes(step) || byte_fallback && (is_prefix(step) || is_escape(step));
    if let Some(step) = steps.iter().find(|step| !carried(step)) {
        return refuse("normalizer", step);
    }
    for (part, key) in [
        ("model.continuing_subword_prefix", "continuing_subword_prefix"),
        ("model.end_of_word_suffix", "end_of_word_suffix"),
        ("model.dropout", "dropout"),
    ] {
        let value = &json["model"][key];
        let nothing = value.as_str().is_some_and(str::is_empty) || value.as_f64() == Some(0.0);
        if !value.is_null() && !nothing {
            return refuse(part, value);
        }
    }
    if !byte_fallback {
        return Ok(());
    }
    let bytes = types.iter().filter(|&&kind| kind == BYTE).count();
    if bytes < 256 {
        return refuse(
            "model.byte_fallback",
            &Value::from(format!("true with {bytes} tokens for 256 bytes")),
        );
    }
    let pre_tokenizers = self::steps(&json["pre_tokenizer"], "pretokenizers");
    match pre_tokenizers.iter().find(|step| !is_metaspace(step) && !is_split_at_spaces(step)) {
        Some(step) => refuse("pre_tokenizer", step),
        None => Ok(()),
    }
}

/// Whether text gets a space in front.
pub(super) fn begins_with_space(json: &Value) -> bool {
    let metaspace = |step: &&Value| {
        is_metaspace(step) && step["prepend_scheme"] != "never" && step["add_prefix_space"] != false
    };
    steps(&json["normalizer"], "normalizers").iter().any(|step| is_prefix(step))
        || steps(&json["pre_tokenizer"], "pretokenizers").iter().any(metaspace)
}

/// The parts of a sequence, or the one part that there is.
fn steps<'a>(value: &'a Value, list: &str) -> Vec<&'a Value> {
    match value.get(list).and_then(Value::as_array) {
        Some(parts) => parts.iter().flat_map(|part| steps(part, list)).collect(),
        None if value.is_null() => Vec::new(),
        None => vec![value],
    }
}

/// Qwen's.
fn composes(step: &Value) -> bool {
    *step == serde_json::json!({"type": "NFC"})
}

fn is_prefix(step: &Value) -> bool {
    step["type"] == "Prepend" && step["prepend"] == "\u{2581}"
}

fn is_escape(step: &Value) -> bool {
    step["type"] == "Replace" && step["pattern"]["String"] == " " && step["content"] == "\u{2581}"
}

fn is_metaspace(step: &Value) -> bool {
    step["type"] == "Metaspace" && step["replacement"] == "\u{2581}"
}

/// After spaces have become `\u{2581}` there is nothing left to split.
fn is_split_at_spaces(step: &Value) -> bool {
    step["type"] == "Split" && step["pattern"]["String"] == " "
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(change: &dyn Fn(&mut Value), byte_fallback: bool) -> Option<&'static str> {
        let mut file =
            json!({"normalizer": null, "pre_tokenizer": null, "model": {"end_of_word_suffix": ""}});
        change(&mut file);
        match check(&file, byte_fallback, &[BYTE; 256]) {
            Ok(()) => None,
            Err(GgufError::NotCarried { part, .. }) => Some(part),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn parts_without_a_place_are_named() {
        let escape = json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"});
        let prefix = json!({"type": "Prepend", "prepend": "\u{2581}"});
        assert_eq!(refused(&|_| {}, false), None);
        assert_eq!(
            refused(
                &|file| file["normalizer"] = json!({"type": "Sequence", "normalizers": [prefix, escape]}),
                true
            ),
            None
        );
        assert_eq!(refused(&|file| file["normalizer"] = escape.clone(), false), Some("normalizer"));
        for bytes in [false, true] {
            assert_eq!(refused(&|file| file["normalizer"] = json!({"type": "NFC"}), bytes), None);
            assert_eq!(
                refused(&|file| file["normalizer"] = json!({"type": "NFKC"}), bytes),
                Some("normalizer")
            );
        }
        let twice = json!({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]});
        assert_eq!(refused(&|file| file["normalizer"] = twice.clone(), false), Some("normalizer"));
        assert_eq!(refused(&|file| file["model"]["dropout"] = json!(0.1), false), Some("model.dropout"));
        assert_eq!(
            refused(&|file| file["model"]["end_of_word_suffix"] = json!("</w>"), true),
            Some("model.end_of_word_suffix")
        );
        assert_eq!(
            refused(&|file| file["pre_tokenizer"] = json!({"type": "Whitespace"}), true),
            Some("pre_tokenizer")
        );
        let metaspace = json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "first", "split": false});
        assert_eq!(refused(&|file| file["pre_tokenizer"] = metaspace.clone(), true), None);
        let error = check(&json!({}), true, &[BYTE; 255]).unwrap_err();
        assert!(error.to_string().contains("255 tokens for 256 bytes"), "{error}");
    }

    #[test]
    fn spaces_in_front() {
        let metaspace = |scheme: &str| json!({"pre_tokenizer": {"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme}});
        assert!(begins_with_space(&metaspace("first")) && begins_with_space(&metaspace("always")));
        assert!(!begins_with_space(&metaspace("never")) && !begins_with_space(&json!({})));
    }
}
