//! The calibration text that comes with the program.

use super::sequences::CalibrationText;
use gq_text::{ChatError, ChatMessage, ChatOptions, ChatTemplate, SpecialText};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

/// Made by `scripts/calibration_mix.py`; `data/NOTICE.md` says from what.
const DATA: &[u8] = include_bytes!("../../data/calibration.json.zst");

/// Most bytes it may grow to.
const PLAIN_BYTES: u64 = 8 << 20;

/// Templates that ask for the time are told the same every time.
const DATE: &str = "01 Jan 2025";

#[derive(Deserialize)]
struct Mix {
    texts: BTreeMap<String, String>,
    /// Turns of user and assistant alternate.
    chats: Vec<Vec<String>>,
}

/// The built-in mix cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BuiltinError {
    /// The data inside the program is damaged.
    #[error("the built-in calibration text cannot be unpacked")]
    Damaged(#[source] std::io::Error),
    /// The model's chat template refuses a conversation.
    #[error("a conversation of the built-in calibration text: {0}")]
    Chat(#[from] ChatError),
}

/// Prose, documentation, mathematics, code, 27 languages, and conversations as `chat` renders them; without a
/// template, what was said follows line by line.
///
/// # Errors
/// When the template refuses a conversation.
pub fn builtin(chat: Option<&ChatTemplate>) -> Result<Vec<CalibrationText>, BuiltinError> {
    let Mix { texts, chats } = unpack().map_err(BuiltinError::Damaged)?;
    let plain = |(name, text)| CalibrationText { name, text, special: SpecialText::Plain };
    let mut texts: Vec<CalibrationText> = texts.into_iter().map(plain).collect();
    let chat = chat.map(|chat| chat.clone().with_clock(Arc::new(|_: &str| Ok(DATE.to_owned()))));
    let mut said = String::new();
    for turns in chats {
        match &chat {
            Some(chat) => {
                let role = |index: usize| if index.is_multiple_of(2) { "user" } else { "assistant" };
                let message = |(index, turn): (usize, &String)| ChatMessage::new(role(index), turn);
                let messages: Vec<ChatMessage> = turns.iter().enumerate().map(message).collect();
                said += &chat.render(&messages, &ChatOptions::default())?;
            }
            None => turns.iter().for_each(|turn| {
                said += turn;
                said += "\n\n";
            }),
        }
    }
    let special = if chat.is_some() { SpecialText::Parsed } else { SpecialText::Plain };
    texts.push(CalibrationText { name: "chats".to_owned(), text: said, special });
    Ok(texts)
}

fn unpack() -> std::io::Result<Mix> {
    let mut json = Vec::new();
    zstd::Decoder::new(DATA)?.take(PLAIN_BYTES).read_to_end(&mut json)?;
    Ok(serde_json::from_slice(&json)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::texts_digest;
    use gq_checkpoint::Checkpoint;
    use gq_text::{ModelTexts, Tokenizer};
    use sha2::{Digest, Sha256};
    use std::path::{Path, PathBuf};

    fn testdata(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name)
    }

    fn checkpoint(name: &str) -> Checkpoint {
        Checkpoint::open(testdata(name)).unwrap()
    }

    #[test]
    fn there_is_enough_of_each_kind_and_it_is_always_the_same() {
        let texts = builtin(None).unwrap();
        let names: Vec<&str> = texts.iter().map(|text| text.name.as_str()).collect();
        let expected =
            ["code-1", "code-2", "documentation", "fiction", "languages", "mathematics", "speeches", "chats"];
        assert_eq!(names, expected);
        assert!(texts.iter().all(|text| text.text.len() > 60_000));
        assert!(texts.iter().map(|text| text.text.len()).sum::<usize>() > 1_000_000);
        assert_eq!(texts_digest(&texts), texts_digest(&builtin(None).unwrap()));
        // Scripts of the world, and no text that divergence is measured on.
        let languages = &texts.iter().find(|text| text.name == "languages").unwrap().text;
        for word in ["Rechte", "derechos", "прав", "人", "حق", "अधिकार"] {
            assert!(languages.contains(word), "{word}");
        }
        assert!(
            texts.iter().all(|text| !text.text.contains("@-@") && !text.text.contains(" = Robert Boulter ="))
        );
    }

    #[test]
    fn the_notice_names_these_bytes() {
        let notice = include_str!("../../data/NOTICE.md");
        assert!(notice.contains(&hex::encode(Sha256::digest(DATA))));
    }

    #[test]
    fn nothing_in_it_is_a_special_token() {
        let texts = builtin(None).unwrap();
        let families = [
            ("demo", "demo"),
            ("gguf/tokenizers/llama", "tiny/llama"),
            ("gguf/tokenizers/gemma3", "tiny/gemma3"),
            ("gguf/tokenizers/gemma4", "tiny/gemma4-e2b"),
        ];
        for (name, spec) in families {
            let read = |file: &str| std::fs::read_to_string(testdata(name).join(file)).ok();
            let model = ModelTexts {
                tokenizer: read("tokenizer.json"),
                tokenizer_config: read("tokenizer_config.json"),
                ..ModelTexts::default()
            };
            let tokenizer = Tokenizer::new(&model, checkpoint(spec).spec()).unwrap();
            for text in &texts {
                let plain = tokenizer.encode(&text.text, SpecialText::Plain).unwrap();
                assert_eq!(plain, tokenizer.encode(&text.text, SpecialText::Parsed).unwrap(), "{name}");
            }
        }
    }

    #[test]
    fn conversations_are_rendered_as_the_model_knows_them() {
        let checkpoint = checkpoint("demo");
        let model = ModelTexts::from_checkpoint(&checkpoint).unwrap();
        let chat = ChatTemplate::new(&model).unwrap();
        let tokenizer = Tokenizer::new(&model, checkpoint.spec()).unwrap();
        let texts = builtin(Some(&chat)).unwrap();
        let said = texts.last().unwrap();
        assert_eq!(said.special, SpecialText::Parsed);
        assert_ne!(said.text, builtin(None).unwrap().last().unwrap().text);
        let ids = tokenizer.encode(&said.text, said.special).unwrap();
        let specials = ids.iter().filter(|id| tokenizer.eos().contains(id)).count();
        assert!(specials >= 100, "{specials} turns end");
        let sequences = crate::sequences(&tokenizer, &texts, 8192, 256).unwrap();
        assert_eq!(sequences.len(), 32);
    }
}
