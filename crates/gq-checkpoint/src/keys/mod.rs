//! Every key that means something: of `config.json` by transformers, of GGUF's metadata by llama.cpp.
//!
//! The tables are data: readers are held to them by tests, what is unknown or null is decided by them, and the tables
//! of `docs/GGUF.md` are made from them. `scripts/sweep_gguf.py` holds the tables to the engines.

mod config;
mod gguf;
mod markdown;

pub use config::{BOOKKEEPING, CONFIG_KEYS, LEFT_BEHIND, NOT_NULL, OFF, ON};
pub use gguf::{GGUF_KEYS, GGUF_UNREAD};
pub use markdown::key_tables;

use crate::Family;

/// Families that have a key.
pub type Families = &'static [Family];

/// All of them.
pub const ALL: Families = &Family::ALL;
/// Llama alone.
pub const LLAMA: Families = &[Family::Llama];
/// Qwen2 alone.
pub const QWEN2: Families = &[Family::Qwen2];
/// Qwen3, dense and with experts.
pub const QWEN3: Families = &[Family::Qwen3, Family::Qwen3Moe];
/// Qwen3 with experts alone.
pub const QWEN3_MOE: Families = &[Family::Qwen3Moe];
/// All Qwens.
pub const QWEN: Families = &[Family::Qwen2, Family::Qwen3, Family::Qwen3Moe];
/// Qwen without experts.
pub const QWEN_DENSE: Families = &[Family::Qwen2, Family::Qwen3];
/// Families with one kind of attention.
pub const LLAMA_QWEN: Families =
    &[Family::Llama, Family::Qwen2, Family::Qwen3, Family::Qwen3Moe, Family::Mistral3];
/// Families whose biases of attention the configuration says.
pub const LLAMA_GEMMA: Families = &[Family::Llama, Family::Gemma3, Family::Gemma4];
/// Ministral 3 alone.
pub const MISTRAL3: Families = &[Family::Mistral3];
/// Mistral (in Llama's files) and Ministral 3.
pub const MISTRALS: Families = &[Family::Llama, Family::Mistral3];
/// Phi alone.
pub const PHI3: Families = &[Family::Phi3];
/// All but Phi, whose rotary keys are LongRoPE's or none and whose weights have no scales.
pub const NOT_PHI3: Families = &[
    Family::Llama,
    Family::Qwen2,
    Family::Qwen3,
    Family::Qwen3Moe,
    Family::Mistral3,
    Family::GptOss,
    Family::Gemma3,
    Family::Gemma4,
];
/// Families whose gate's activation the configuration says by its usual name.
pub const HIDDEN_ACT: Families =
    &[Family::Llama, Family::Qwen2, Family::Qwen3, Family::Qwen3Moe, Family::Mistral3, Family::Phi3];
/// Families that stand in wrappers.
pub const WRAPPED: Families = &[Family::Mistral3, Family::Gemma3, Family::Gemma4];
/// All but Ministral 3.
pub const NOT_MISTRAL3: Families = &[
    Family::Llama,
    Family::Qwen2,
    Family::Qwen3,
    Family::Qwen3Moe,
    Family::Phi3,
    Family::GptOss,
    Family::Gemma3,
    Family::Gemma4,
];
/// GPT-OSS alone.
pub const GPT_OSS: Families = &[Family::GptOss];
/// Families with one kind of attention, and GPT-OSS.
pub const NO_GEMMA: Families = &[
    Family::Llama,
    Family::Qwen2,
    Family::Qwen3,
    Family::Qwen3Moe,
    Family::Mistral3,
    Family::Phi3,
    Family::GptOss,
];
/// Those of them but Phi.
pub const NO_GEMMA_NO_PHI: Families =
    &[Family::Llama, Family::Qwen2, Family::Qwen3, Family::Qwen3Moe, Family::Mistral3, Family::GptOss];
/// Those of them whose width of a head has no number as its default.
pub const DERIVED_HEADS: Families =
    &[Family::Llama, Family::Qwen2, Family::Qwen3, Family::Qwen3Moe, Family::Phi3, Family::GptOss];
/// Families whose layers may have a window.
pub const SLIDING: Families = &[Family::GptOss, Family::Gemma3, Family::Gemma4];
/// Gemma 3 and 4.
pub const GEMMA: Families = &[Family::Gemma3, Family::Gemma4];
/// Gemma 3 alone.
pub const GEMMA3: Families = &[Family::Gemma3];
/// Gemma 4 alone.
pub const GEMMA4: Families = &[Family::Gemma4];
/// Families with one kind of layer name for all rotary parameters, or a rule for one kind.
pub const NOT_GEMMA4: Families = &[
    Family::Llama,
    Family::Qwen2,
    Family::Qwen3,
    Family::Qwen3Moe,
    Family::Mistral3,
    Family::Phi3,
    Family::GptOss,
    Family::Gemma3,
];

/// What a null in `config.json` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Null {
    /// The same as leaving the key out; of a token, that there is none.
    Absent,
    /// Nothing: transformers refuses it.
    Refused,
}

/// A key of `config.json` that the graph or the text depends on.
#[derive(Clone, Copy, Debug)]
pub struct ConfigKey {
    /// Dotted path; the parts of `rope_parameters` stand also under `rope_scaling` and under the types of layers.
    pub key: &'static str,
    /// Families that have it.
    pub families: Families,
    /// What it means, with its unit.
    pub meaning: &'static str,
    /// What transformers takes without it.
    pub absent: &'static str,
    /// What a null says.
    pub null: Null,
    /// What is read.
    pub accepted: &'static str,
    /// Where it stands in a GGUF.
    pub gguf: &'static str,
}

/// A key of GGUF's metadata.
#[derive(Clone, Copy, Debug)]
pub struct GgufKey {
    /// Below the architecture, or in full where it begins with `general.`, `tokenizer.` or `split.`; `*` is any rest.
    pub key: &'static str,
    /// Families that have it.
    pub families: Families,
    /// What it means to llama.cpp, with its unit.
    pub meaning: &'static str,
    /// What llama.cpp takes without it.
    pub absent: &'static str,
    /// What is written.
    pub written: &'static str,
    /// What is read.
    pub accepted: &'static str,
}

impl GgufKey {
    /// Whether it is the row of a key, the architecture's name taken off.
    pub fn matches(&self, key: &str) -> bool {
        match self.key.strip_suffix('*') {
            Some(front) => key.starts_with(front),
            None => self.key == key,
        }
    }
}

/// A key that was read over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IgnoredKey {
    /// The key as it stands, dotted.
    pub key: String,
    /// Why that changes nothing.
    pub why: Ignored,
}

/// Why a key does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ignored {
    /// A tool for training or publishing left it behind; no engine reads it.
    LeftBehind,
    /// llama.cpp has such a key, but does not read it for this architecture.
    Unread,
    /// Programs keep the tokens that it lists from being written; nothing does that here.
    Unapplied,
    /// Unknown; the caller accepts it by name.
    Accepted,
}

/// Whether a tool leaves this key behind and no engine reads it.
pub(crate) fn is_left_behind(key: &str) -> bool {
    LEFT_BEHIND.iter().any(|(name, _)| match name.strip_suffix('*') {
        Some(front) => key.starts_with(front),
        None => *name == key,
    })
}

/// What transformers takes without a key for which it refuses a null; `None` where a null is as good as leaving it out.
pub(crate) fn refuses_null(key: &str, model_type: &str) -> Option<&'static str> {
    let of = |row: &&ConfigKey| row.key == key && is_one_of(model_type, row.families);
    let strict = NOT_NULL.iter().find(|(name, families, _)| *name == key && is_one_of(model_type, families));
    if let Some((.., absent)) = strict {
        return Some(absent);
    }
    let row = CONFIG_KEYS.iter().find(of)?;
    (row.null == Null::Refused).then_some(row.absent)
}

/// Whether a switch is of something that the family always does: then anything but true is refused.
pub(crate) fn is_always_on(switch: &str, model_type: &str) -> bool {
    ON.iter().any(|(name, families)| *name == switch && is_one_of(model_type, families))
}

fn is_one_of(model_type: &str, families: Families) -> bool {
    let mut types = families.iter().flat_map(|family| family.file().model_types);
    types.any(|known| known.name == model_type)
}

/// What a key of GGUF metadata that no reader of the graph asked for is to us.
pub(crate) enum Standing {
    /// Read elsewhere, or written for people.
    Read,
    /// Passed over with a note.
    Ignored(Ignored),
    /// It may change what the model computes, or which tokens it gets.
    Unknown,
}

/// What `key` is in a file of `family`; `own` is the key with the architecture's name taken off, or the same.
pub(crate) fn standing(key: &str, own: &str, family: Family) -> Standing {
    let is_own = key != own;
    let row = || GGUF_KEYS.iter().any(|row| row.families.contains(&family) && row.matches(key));
    match is_own {
        true if GGUF_UNREAD.iter().any(|(name, families)| *name == own && families.contains(&family)) => {
            Standing::Ignored(Ignored::Unread)
        }
        true => Standing::Unknown,
        false if key == "tokenizer.ggml.suppress_tokens" => Standing::Ignored(Ignored::Unapplied),
        false if row() => Standing::Read,
        false if key.starts_with("tokenizer.") => Standing::Unknown,
        // Of no architecture, or of another one.
        false => Standing::Ignored(Ignored::Unread),
    }
}
