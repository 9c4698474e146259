//! Which texts a file may hold, by number and name.

use serde::{Deserialize, Serialize};

/// Kinds from here on may be skipped by readers that do not know them.
pub(crate) const SKIPPABLE: u16 = 0x8000;

/// What a text is. Numbers are in `formats/container.md` and are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextKind {
    /// `config.json`.
    Config,
    /// `tokenizer.json`.
    Tokenizer,
    /// `tokenizer_config.json`.
    TokenizerConfig,
    /// The chat template, Jinja.
    ChatTemplate,
    /// `generation_config.json`.
    GenerationConfig,
    /// `special_tokens_map.json`.
    SpecialTokensMap,
    /// Licence and notices of the model.
    Licence,
    /// Where the file comes from: JSON of [`Provenance`](crate::Provenance).
    Provenance,
    /// What the conversion did to each tensor, JSON.
    Report,
}

impl TextKind {
    /// Every kind, in number order.
    pub const ALL: [TextKind; 9] = [
        TextKind::Config,
        TextKind::Tokenizer,
        TextKind::TokenizerConfig,
        TextKind::ChatTemplate,
        TextKind::GenerationConfig,
        TextKind::SpecialTokensMap,
        TextKind::Licence,
        TextKind::Provenance,
        TextKind::Report,
    ];

    /// The kind's number.
    pub const fn code(self) -> u16 {
        match self {
            TextKind::Config => 1,
            TextKind::Tokenizer => 2,
            TextKind::TokenizerConfig => 3,
            TextKind::ChatTemplate => 4,
            TextKind::GenerationConfig => 5,
            TextKind::SpecialTokensMap => 6,
            TextKind::Licence => 7,
            TextKind::Provenance => SKIPPABLE | 1,
            TextKind::Report => SKIPPABLE | 2,
        }
    }

    /// The kind with this number.
    pub fn from_code(code: u16) -> Option<TextKind> {
        TextKind::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// Lower-case name, as in reports.
    pub const fn name(self) -> &'static str {
        match self {
            TextKind::Config => "config",
            TextKind::Tokenizer => "tokenizer",
            TextKind::TokenizerConfig => "tokenizer_config",
            TextKind::ChatTemplate => "chat_template",
            TextKind::GenerationConfig => "generation_config",
            TextKind::SpecialTokensMap => "special_tokens_map",
            TextKind::Licence => "licence",
            TextKind::Provenance => "provenance",
            TextKind::Report => "report",
        }
    }

    /// The kind with this name.
    pub fn from_name(name: &str) -> Option<TextKind> {
        TextKind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl std::fmt::Display for TextKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
