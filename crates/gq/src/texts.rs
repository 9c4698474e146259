//! The texts of a model as a reader takes them: JSON is parsed, the configuration understood, the tokenizer built and
//! tried, the chat template compiled.

use crate::failure::{Exit, Failure};
use crate::output::Output;
use gq_checkpoint::{Texts, parse_config};
use gq_container::{Container, FormatError, TextKind};
use gq_text::{ChatTemplate, ModelTexts, SpecialText, Tokenizer};
use serde_json::Value;
use std::collections::BTreeMap;

/// What Git LFS leaves in the place of a file that was not fetched begins with.
const POINTER: &str = "version https://git-lfs.github.com/spec/";

/// What a tokenizer is tried on.
pub const SAMPLE: &str = "The quick brown fox, 12 of them.\n\tünïcode 東京";

/// Texts by kind.
pub type ByKind = BTreeMap<TextKind, String>;

/// A text that cannot be used, and why.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Broken {
    /// Which.
    #[serde(serialize_with = "name")]
    pub kind: TextKind,
    /// Why, without its name.
    pub why: String,
}

fn name<S: serde::Serializer>(kind: &TextKind, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(kind.name())
}

/// The texts of a file; those of kinds that a later version wrote are left out.
pub fn of_container(container: &Container) -> Result<ByKind, FormatError> {
    let kinds = container.texts().iter().filter_map(|text| TextKind::from_code(text.kind));
    kinds.map(|kind| Ok((kind, container.text(kind)?.unwrap_or_default()))).collect()
}

/// The texts of a checkpoint.
pub fn of_checkpoint(texts: Texts) -> ByKind {
    let kinds = [
        (TextKind::Config, Some(texts.config)),
        (TextKind::Tokenizer, texts.tokenizer),
        (TextKind::TokenizerConfig, texts.tokenizer_config),
        (TextKind::ChatTemplate, texts.chat_template),
        (TextKind::GenerationConfig, texts.generation_config),
        (TextKind::SpecialTokensMap, texts.special_tokens_map),
    ];
    kinds.into_iter().filter_map(|(kind, text)| Some((kind, text?))).collect()
}

/// Whether a text is JSON.
pub fn is_json(kind: TextKind) -> bool {
    !matches!(kind, TextKind::ChatTemplate | TextKind::Licence)
}

/// Memory while a tokenizer is read as a reader does, in bytes: of the program, for each byte of the file, for each
/// string in it, and for each list, of which merges are made. Measured on vocabularies of 30,522 to 262,144 tokens, real
/// ones and made ones, of all kinds, compact and indented (19 to 790 MB): with a tenth on top the least that was left is
/// 8 %, the most 43 %, where merges are written as one string each.
const TOKENIZER: [u64; 4] = [4 << 20, 3, 450, 350];

/// For each list where every token is one, with its score: the library has a tree of all tokens next to it.
const UNIGRAM_LIST: u64 = 1000;

/// Most memory that is taken while these texts are read as a reader does, before a conversion and after it: nothing of the
/// conversion is held then.
pub fn memory(texts: &ByKind) -> u64 {
    let Some(tokenizer) = texts.get(&TextKind::Tokenizer) else { return 0 };
    let count = |wanted: u8| tokenizer.bytes().filter(|&byte| byte == wanted).count() as u64;
    let [program, by_byte, by_string, by_list] = TOKENIZER;
    let by_list = if tokenizer.contains("\"Unigram\"") { UNIGRAM_LIST } else { by_list };
    let strings = count(b'"').div_ceil(2) * by_string;
    let all = program + by_byte * tokenizer.len() as u64 + strings + count(b'[') * by_list;
    all + all / 10
}

/// Texts that were read.
pub struct Read {
    /// The tokenizer where there is one.
    pub tokenizer: Option<Tokenizer>,
    /// Chat templates with names that cannot be read: they are refused only where a conversation asks for them.
    pub templates: Vec<Broken>,
}

/// Reads every text as [`read`] does, and refuses chat templates that nobody asks for, too.
///
/// # Errors
/// Every text and every chat template that cannot be read.
pub fn read_all(texts: &ByKind) -> Result<Read, Vec<Broken>> {
    read(texts).and_then(|read| match read.templates.is_empty() {
        true => Ok(read),
        false => Err(read.templates),
    })
}

/// Reads every text as a reader does.
///
/// # Errors
/// Every text that a reader would refuse, in the order of their kinds, and chat templates with names behind them.
pub fn read(texts: &ByKind) -> Result<Read, Vec<Broken>> {
    let mut found = Vec::new();
    for (&kind, text) in texts {
        if let Err(why) = whole(kind, text) {
            found.push(Broken { kind, why });
        }
    }
    if !found.is_empty() {
        return Err(found);
    }
    let text = |kind| texts.get(&kind).cloned();
    let model = ModelTexts {
        config: text(TextKind::Config),
        tokenizer: text(TextKind::Tokenizer),
        tokenizer_config: text(TextKind::TokenizerConfig),
        chat_template: text(TextKind::ChatTemplate),
        generation_config: text(TextKind::GenerationConfig),
        special_tokens_map: text(TextKind::SpecialTokensMap),
    };
    let mut add = |kind, failure: Failure| found.push(Broken { kind, why: failure.message });
    let mut templates = Vec::new();
    match ChatTemplate::check_all(&model) {
        Err(error) => add(TextKind::ChatTemplate, error.into()),
        Ok(list) => list.into_iter().for_each(|(name, error)| match name {
            None => add(TextKind::ChatTemplate, error.into()),
            Some(_) => {
                templates.push(Broken { kind: TextKind::ChatTemplate, why: Failure::from(error).message });
            }
        }),
    }
    let mut tokenizer = None;
    match model.config.as_deref().map(parse_config) {
        Some(Ok(spec)) if model.tokenizer.is_some() => {
            let made = Tokenizer::new(&model, &spec);
            match made.and_then(|made| Ok((made.encode(SAMPLE, SpecialText::Plain)?, made))) {
                Err(error) => add(TextKind::Tokenizer, error.into()),
                Ok((ids, _)) if ids.is_empty() => found.push(Broken {
                    kind: TextKind::Tokenizer,
                    why: "it makes no tokens of a text".to_owned(),
                }),
                Ok((_, made)) => tokenizer = Some(made),
            }
        }
        Some(Err(error)) => add(TextKind::Config, error.into()),
        Some(Ok(_)) | None => {}
    }
    if found.is_empty() {
        return Ok(Read { tokenizer, templates });
    }
    found.append(&mut templates);
    Err(found)
}

/// Says which chat templates with names cannot be read.
pub fn warn_of_templates(templates: &[Broken], output: Output) {
    for broken in templates {
        output.warn(&format!("{}; it stays as it is, and is refused where it is asked for", broken.why));
    }
}

/// Chat templates with names that cannot be read; whatever else is wrong with the texts is found elsewhere.
pub fn broken_templates(texts: &Texts) -> Vec<Broken> {
    let model = ModelTexts {
        chat_template: texts.chat_template.clone(),
        tokenizer_config: texts.tokenizer_config.clone(),
        ..ModelTexts::default()
    };
    let list = ChatTemplate::check_all(&model).unwrap_or_default();
    let named = list.into_iter().filter(|(name, _)| name.is_some());
    let kind = TextKind::ChatTemplate;
    let named = named.map(|(_, error)| Broken { kind, why: Failure::from(error).message });
    named.collect()
}

/// Whether a text is what its kind says, looked at alone.
fn whole(kind: TextKind, text: &str) -> Result<(), String> {
    if text.starts_with(POINTER) {
        return Err("a Git LFS pointer, not the file that it stands for".to_owned());
    }
    if !is_json(kind) {
        return Ok(());
    }
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(_)) => Ok(()),
        Ok(_) => Err("not an object".to_owned()),
        Err(error) => Err(format!("not JSON: {error}")),
    }
}

/// Texts that were read, or one failure with this code that names all that cannot be.
pub fn or_refuse(
    read: Result<Read, Vec<Broken>>,
    exit: Exit,
    code: &'static str,
    place: &str,
) -> Result<Read, Failure> {
    let found = match read {
        Ok(read) => return Ok(read),
        Err(found) => found,
    };
    let all: Vec<String> = found.iter().map(|broken| format!("{}: {}", broken.kind, broken.why)).collect();
    let failure = Failure::new(exit, code, format!("{place}: {}", all.join("; ")));
    let Some(first) = found.first() else { return Err(failure) };
    Err(failure.at(format!("{place}: {}", first.kind)).limit("a text that can be read").actual(&first.why))
}
