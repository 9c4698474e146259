//! Pre-tokenizers of byte-level BPE that `tokenizer.ggml.pre` names: what they split on, both ways.

use serde_json::{Value, json};

/// A pre-tokenizer with a name in GGUF. Others are refused: with the wrong one, text falls into other tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PreTokenizer {
    Gpt2,
    SmolLm,
    Llama3,
    Qwen2,
}

const LLAMA3: &str = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}\
                      | ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const QWEN2: &str = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}\
                     | ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

impl PreTokenizer {
    const ALL: [PreTokenizer; 4] =
        [PreTokenizer::Gpt2, PreTokenizer::SmolLm, PreTokenizer::Llama3, PreTokenizer::Qwen2];

    /// Names in files, the one to be written first.
    const fn names_of(self) -> &'static [&'static str] {
        match self {
            PreTokenizer::Gpt2 => &["gpt-2", "default"],
            PreTokenizer::SmolLm => &["smollm"],
            PreTokenizer::Llama3 => &["llama-bpe", "llama3", "llama-v3"],
            PreTokenizer::Qwen2 => &["qwen2"],
        }
    }

    /// The one with this name.
    pub(super) fn from_name(name: &str) -> Option<PreTokenizer> {
        PreTokenizer::ALL.into_iter().find(|pre| pre.names_of().contains(&name))
    }

    /// Every name.
    pub(super) fn names() -> String {
        PreTokenizer::ALL.iter().flat_map(|pre| pre.names_of()).copied().collect::<Vec<_>>().join(", ")
    }

    /// The name to be written.
    pub(super) fn name(self) -> &'static str {
        self.names_of()[0]
    }

    /// Whether text begins with the first token when the file does not say.
    pub(super) fn adds_bos(self) -> bool {
        self == PreTokenizer::Llama3
    }

    /// Whether a word that is a token is taken whole, whatever the merges say.
    pub(super) fn ignores_merges(self) -> bool {
        self == PreTokenizer::Llama3
    }

    /// As `tokenizer.json` has it.
    pub(super) fn json(self) -> Value {
        let bytes = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
        let split = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        let digits = json!({"type": "Digits", "individual_digits": true});
        match self {
            PreTokenizer::Gpt2 => bytes(true),
            PreTokenizer::SmolLm => json!({"type": "Sequence", "pretokenizers": [digits, bytes(true)]}),
            PreTokenizer::Llama3 => {
                json!({"type": "Sequence", "pretokenizers": [split(LLAMA3), bytes(false)]})
            }
            PreTokenizer::Qwen2 => json!({"type": "Sequence", "pretokenizers": [split(QWEN2), bytes(false)]}),
        }
    }

    /// The one that a `tokenizer.json` has, if it is one of these.
    pub(super) fn recognize(pre_tokenizer: &Value) -> Option<PreTokenizer> {
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
        let wanted = essence(pre_tokenizer);
        PreTokenizer::ALL.into_iter().find(|pre| essence(&pre.json()) == wanted)
    }
}
