//! Pre-tokenizers of byte-level BPE that `tokenizer.ggml.pre` names: what they split on, both ways.

use serde_json::{Value, json};

/// A pre-tokenizer with a name in GGUF. Others are refused: with the wrong one, text falls into other tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PreTokenizer {
    /// What llama.cpp splits on where a file says nothing, or says `default`.
    Default,
    Gpt2,
    SmolLm,
    Llama3,
    /// Llama 3's splitting, merges obeyed.
    Smaug,
    Qwen2,
    Falcon,
    DeepSeekCoder,
    /// Of o200k: GPT-OSS, Phi-4-mini, Llama 4. Words by case, digits in threes.
    Gpt4o,
    /// Of Mistral since NeMo: the same with single digits.
    Tekken,
}

const LLAMA3: &str = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}\
                      | ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const QWEN2: &str = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}\
                     | ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const GPT4O: &str = "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?\
                     |[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?\
                     |\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const TEKKEN: &str = "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+\
                      |[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|\\p{N}\
                      | ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const GPT2: &str = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)";

/// Splits, one after the other, each within the pieces of the last.
const DEFAULT_SPLITS: [&str; 4] = ["[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"];
const FALCON_SPLITS: [&str; 3] = ["[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]"];
const DEEPSEEK_CODER_SPLITS: [&str; 5] = [
    "[\\r\\n]",
    "\\s?\\p{L}+",
    "\\s?\\p{P}+",
    "[\u{4E00}-\u{9FA5}\u{800}-\u{4E00}\u{AC00}-\u{D7FF}]+",
    "\\p{N}",
];

impl PreTokenizer {
    const ALL: [PreTokenizer; 10] = [
        PreTokenizer::Gpt2,
        PreTokenizer::SmolLm,
        PreTokenizer::Llama3,
        PreTokenizer::Smaug,
        PreTokenizer::Qwen2,
        PreTokenizer::Falcon,
        PreTokenizer::DeepSeekCoder,
        PreTokenizer::Gpt4o,
        PreTokenizer::Tekken,
        PreTokenizer::Default,
    ];

    /// Names in files, the one to be written first.
    const fn names_of(self) -> &'static [&'static str] {
        match self {
            PreTokenizer::Default => &["default"],
            PreTokenizer::Gpt2 => &["gpt-2", "phi-2", "mpt", "olmo", "exaone4"],
            PreTokenizer::SmolLm => {
                &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"]
            }
            PreTokenizer::Llama3 => &["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral"],
            PreTokenizer::Smaug => &["smaug-bpe", "dbrx"],
            PreTokenizer::Qwen2 => &["qwen2", "deepseek-r1-qwen", "stablelm2", "megrez"],
            PreTokenizer::Falcon => &["falcon"],
            PreTokenizer::DeepSeekCoder => &["deepseek-coder"],
            PreTokenizer::Gpt4o => &["gpt-4o", "llama4"],
            PreTokenizer::Tekken => &["tekken"],
        }
    }

    /// The one with this name.
    pub(super) fn from_name(name: &str) -> Option<PreTokenizer> {
        PreTokenizer::ALL.into_iter().find(|pre| pre.names_of().contains(&name))
    }

    /// Every name.
    pub(super) fn names() -> String {
        pre_tokenizer_names().join(", ")
    }

    /// The name to be written.
    pub(super) fn name(self) -> &'static str {
        self.names_of()[0]
    }

    /// Whether text begins with the first token when the file does not say.
    pub(super) fn adds_bos(self) -> bool {
        matches!(self, PreTokenizer::Llama3 | PreTokenizer::Tekken)
    }

    /// Whether a word that is a token is taken whole, whatever the merges say.
    pub(super) fn ignores_merges(self) -> bool {
        matches!(self, PreTokenizer::Llama3 | PreTokenizer::Tekken)
    }

    /// As `tokenizer.json` has it.
    pub(super) fn json(self) -> Value {
        let bytes = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
        let split = |pattern: &&str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        let splits = |patterns: &[&str]| {
            let steps: Vec<Value> = patterns.iter().map(split).chain([bytes(false)]).collect();
            json!({"type": "Sequence", "pretokenizers": steps})
        };
        match self {
            PreTokenizer::Default => splits(&DEFAULT_SPLITS),
            PreTokenizer::Gpt2 => bytes(true),
            PreTokenizer::SmolLm => {
                let digits = json!({"type": "Digits", "individual_digits": true});
                json!({"type": "Sequence", "pretokenizers": [digits, bytes(true)]})
            }
            PreTokenizer::Llama3 | PreTokenizer::Smaug => splits(&[LLAMA3]),
            PreTokenizer::Qwen2 => splits(&[QWEN2]),
            PreTokenizer::Falcon => splits(&FALCON_SPLITS),
            PreTokenizer::DeepSeekCoder => splits(&DEEPSEEK_CODER_SPLITS),
            PreTokenizer::Gpt4o => splits(&[GPT4O]),
            PreTokenizer::Tekken => splits(&[TEKKEN]),
        }
    }

    /// The one that a `tokenizer.json` has, if it is one of these.
    pub(super) fn recognize(pre_tokenizer: &Value, ignores_merges: bool) -> Option<PreTokenizer> {
        // What does not change tokens may differ.
        fn essence(value: &Value) -> Value {
            match value {
                Value::Object(map) => {
                    let kept = map.iter().filter(|(key, _)| !matches!(key.as_str(), "trim_offsets"));
                    kept.map(|(key, value)| (key.clone(), essence(value))).collect()
                }
                Value::Array(list) if list.len() == 1 => essence(&list[0]),
                Value::Array(list) => list.iter().map(essence).collect(),
                other => other.clone(),
            }
        }
        // The same where every character is matched, as these patterns do: pieces are kept, or what is between is dropped.
        fn kept(mut value: Value) -> Value {
            let steps = value.get_mut("pretokenizers").and_then(Value::as_array_mut);
            for step in steps.into_iter().flatten().filter(|step| step["type"] == "Split") {
                if step["behavior"] == "Removed" && step["invert"] == true {
                    (step["behavior"], step["invert"]) = (json!("Isolated"), json!(false));
                }
            }
            value
        }
        let wanted = essence(&kept(pre_tokenizer.clone()));
        let mut fitting = PreTokenizer::ALL.into_iter().filter(|pre| essence(&pre.json()) == wanted);
        let first = fitting.clone().next();
        fitting.find(|pre| pre.ignores_merges() == ignores_merges).or(first)
    }
}

/// Names of pre-tokenizers of byte-level BPE that are known.
pub fn pre_tokenizer_names() -> Vec<&'static str> {
    PreTokenizer::ALL.iter().flat_map(|pre| pre.names_of()).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama_3s_splits_with_and_without_merges() {
        let pre = PreTokenizer::Llama3.json();
        assert_eq!(PreTokenizer::recognize(&pre, true), Some(PreTokenizer::Llama3));
        assert_eq!(PreTokenizer::recognize(&pre, false), Some(PreTokenizer::Smaug));
        assert_eq!(PreTokenizer::recognize(&PreTokenizer::Gpt2.json(), true), Some(PreTokenizer::Gpt2));
        assert_eq!(PreTokenizer::from_name("default"), Some(PreTokenizer::Default));
        // As Phi-4-mini has it.
        let mut pre = PreTokenizer::Gpt4o.json();
        (pre["pretokenizers"][0]["behavior"], pre["pretokenizers"][0]["invert"]) =
            (json!("Removed"), json!(true));
        assert_eq!(PreTokenizer::recognize(&pre, false), Some(PreTokenizer::Gpt4o));
        pre["pretokenizers"][0]["invert"] = json!(false);
        assert_eq!(PreTokenizer::recognize(&pre, false), None);
    }
}
