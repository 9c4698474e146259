//! Texts next to the weights: tokenizer, chat template, settings, licence.

use crate::card::Card;
use crate::named_templates::{self, template_name};
use crate::stand_in::StandIn;
use crate::{CheckpointError, json, limits};
use serde_json::{Map, Value};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Texts of a checkpoint; whatever is not there is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    /// `config.json`.
    pub config: String,
    /// `tokenizer.json`.
    pub tokenizer: Option<String>,
    /// `tokenizer_config.json`; where there are files with templates, its `chat_template` is what they say.
    pub tokenizer_config: Option<String>,
    /// `chat_template.jinja`; else the template in `chat_template.json` or in `tokenizer_config.json`.
    pub chat_template: Option<String>,
    /// `generation_config.json`.
    pub generation_config: Option<String>,
    /// `special_tokens_map.json`.
    pub special_tokens_map: Option<String>,
    /// Files that begin with LICENSE, LICENCE, NOTICE, USE_POLICY or COPYING, sorted by name.
    pub licences: Vec<NamedText>,
    /// `license` in the front matter of `README.md`.
    pub licence_name: Option<String>,
    /// All of that front matter.
    pub card: Card,
}

impl Texts {
    /// These texts with those of another folder put over them, and with its list of chat templates with names, which need
    /// no settings to be in. A tokenizer and what names its special tokens belong together, and so do all chat templates;
    /// a folder without any leaves those that are there.
    pub(crate) fn overlaid(self, over: &Texts, named: Option<&Value>) -> Texts {
        let names_tokens = over.tokenizer.is_some() || over.tokenizer_config.is_some();
        let map = if names_tokens { None } else { self.special_tokens_map };
        let (chat_template, named) = match over.chat_template.is_some() || named.is_some() {
            true => (over.chat_template.clone(), named.cloned()),
            false => (self.chat_template, named_templates::list(self.tokenizer_config.as_deref())),
        };
        let config = over.tokenizer_config.clone().or(self.tokenizer_config);
        Texts {
            tokenizer: over.tokenizer.clone().or(self.tokenizer),
            tokenizer_config: named_templates::with_list(config, named.as_ref()),
            chat_template,
            generation_config: over.generation_config.clone().or(self.generation_config),
            special_tokens_map: over.special_tokens_map.clone().or(map),
            ..self
        }
    }

    /// With a configuration whose vocabulary has this many rows.
    ///
    /// # Errors
    /// When the configuration is no JSON, which was read before.
    pub(crate) fn with_vocabulary(mut self, rows: usize) -> Result<Texts, serde_json::Error> {
        let mut config = json::parse(self.config.as_bytes())?;
        if let Some(text) = config.get_mut("text_config").and_then(Value::as_object_mut) {
            text.insert("vocab_size".to_owned(), rows.into());
        }
        let top = config.as_object_mut();
        let says =
            |top: &Map<String, Value>| top.contains_key("vocab_size") || !top.contains_key("text_config");
        if let Some(top) = top.filter(|top| says(top)) {
            top.insert("vocab_size".to_owned(), rows.into());
        }
        self.config = format!("{config:#}");
        Ok(self)
    }

    /// Bytes of all of them.
    pub(crate) fn bytes(&self) -> u64 {
        let optional = [
            &self.tokenizer,
            &self.tokenizer_config,
            &self.chat_template,
            &self.generation_config,
            &self.special_tokens_map,
        ];
        let optional = optional.into_iter().flatten().map(|text| text.len() as u64).sum::<u64>();
        let licences = self.licences.iter().map(|file| file.text.len() as u64).sum::<u64>();
        self.config.len() as u64 + optional + licences
    }
}

/// A text file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedText {
    /// File name, without directory.
    pub name: String,
    /// Content.
    pub text: String,
}

/// The model card.
pub(crate) const README: &str = "README.md";

/// Beginnings of names of licence files, upper case.
const LICENCE_NAMES: [&str; 5] = ["LICENSE", "LICENCE", "NOTICE", "USE_POLICY", "COPYING"];

/// Whether a file of this name is a text that a checkpoint carries.
pub(crate) fn is_text_name(name: &str) -> bool {
    matches!(
        name,
        "config.json"
            | "tokenizer.json"
            | "tokenizer_config.json"
            | "chat_template.jinja"
            | "chat_template.json"
            | "generation_config.json"
            | "special_tokens_map.json"
            | README
    ) || is_licence_name(name)
        || template_name(name).is_some()
}

fn is_licence_name(name: &str) -> bool {
    let upper = name.to_uppercase();
    LICENCE_NAMES.iter().any(|licence| upper.starts_with(licence))
}

/// Reads the texts among `files` (paths of existing files).
pub(crate) fn read_texts(files: &[PathBuf]) -> Result<Texts, CheckpointError> {
    texts_by(files, &read_text)
}

/// The texts among `files`, which `read` reads within a limit of bytes.
pub(crate) fn texts_by(
    files: &[PathBuf],
    read: &dyn Fn(&Path, u64) -> Result<String, CheckpointError>,
) -> Result<Texts, CheckpointError> {
    let named = |wanted: &str| files.iter().find(|path| path_within(path) == wanted);
    let text = |wanted: &str, limit: u64| named(wanted).map(|path| read(path, limit)).transpose();
    let mut texts = Texts {
        config: text("config.json", limits::CONFIG_BYTES)?.unwrap_or_default(),
        tokenizer: text("tokenizer.json", limits::TOKENIZER_BYTES)?,
        tokenizer_config: text("tokenizer_config.json", limits::TEXT_BYTES)?,
        chat_template: text("chat_template.jinja", limits::TEXT_BYTES)?,
        generation_config: text("generation_config.json", limits::TEXT_BYTES)?,
        special_tokens_map: text("special_tokens_map.json", limits::TEXT_BYTES)?,
        licences: Vec::new(),
        licence_name: None,
        // One that is no YAML is told when the checkpoint is opened (`Note::Card`); nothing else depends on it.
        card: text(README, limits::TEXT_BYTES)?
            .and_then(|readme| Card::parse(&readme).ok())
            .unwrap_or_default(),
    };
    let mut others = Vec::new();
    for path in files {
        let name = path_within(path);
        if let Some(name) = template_name(&name) {
            others.push((name.to_owned(), read(path, limits::TEXT_BYTES)?));
        }
    }
    others.sort();
    let (config, default) = (texts.tokenizer_config.as_deref(), texts.chat_template.as_deref());
    let files_decide = named_templates::with_files(config, default, &others).map_err(|source| {
        let path = named("tokenizer_config.json").cloned().unwrap_or_default();
        CheckpointError::TextJson { path, source }
    })?;
    texts.tokenizer_config = files_decide.or(texts.tokenizer_config);
    texts.licence_name = texts.card.text("license").map(str::to_owned);
    for name in ["chat_template.json", "tokenizer_config.json"] {
        if let (None, true, Some(path)) = (&texts.chat_template, others.is_empty(), named(name)) {
            let content = read(path, limits::TEXT_BYTES)?;
            let value = json::parse(content.as_bytes())
                .map_err(|source| CheckpointError::TextJson { path: path.clone(), source })?;
            texts.chat_template = template_in(&value);
        }
    }
    for path in files.iter().filter(|path| is_licence_name(&file_name(path))) {
        texts.licences.push(NamedText { name: file_name(path), text: read(path, limits::TEXT_BYTES)? });
    }
    texts.licences.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(texts)
}

/// Reads a UTF-8 file of at most `limit` bytes.
pub(crate) fn read_text(path: &Path, limit: u64) -> Result<String, CheckpointError> {
    let failed = |source| CheckpointError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let actual = file.metadata().map_err(failed)?.len();
    let too_long = |actual: u64| CheckpointError::TextTooLong { path: path.to_owned(), actual, limit };
    if actual > limit {
        return Err(too_long(actual));
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if let Some(what) = StandIn::recognize(&bytes).filter(|what| matters(path, what)) {
        return Err(CheckpointError::StandIn { path: path.to_owned(), what });
    }
    // It grew meanwhile.
    if bytes.len() as u64 > limit {
        return Err(too_long(bytes.len() as u64));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        CheckpointError::TextNotUtf8 { path: path.to_owned(), at }
    })
}

/// Whether something in a text's place stands in the way: a licence or a README may be empty, or a page.
fn matters(path: &Path, what: &StandIn) -> bool {
    let name = file_name(path);
    let prose = name == "README.md" || is_licence_name(&name);
    !prose || matches!(what, StandIn::LfsPointer { .. } | StandIn::AnnexPointer)
}

/// `chat_template`: a string, or a list of named ones of which the default counts.
fn template_in(value: &Value) -> Option<String> {
    match value.get("chat_template")? {
        Value::String(template) => Some(template.clone()),
        Value::Array(list) => {
            let default = list.iter().find(|item| item.get("name").is_some_and(|name| name == "default"))?;
            default.get("template")?.as_str().map(str::to_owned)
        }
        _ => None,
    }
}

/// The path within a checkpoint: of a template with a name its folder too.
pub(crate) fn path_within(path: &Path) -> String {
    let name = file_name(path);
    match path.parent().is_some_and(|folder| file_name(folder) == named_templates::FOLDER)
        && name.ends_with(".jinja")
    {
        true => format!("{}/{name}", named_templates::FOLDER),
        false => name,
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_in_json() {
        let template = |text: &str| template_in(&json::parse(text.as_bytes()).unwrap());
        assert_eq!(template(r#"{"chat_template":"x"}"#), Some("x".to_owned()));
        let list =
            r#"{"chat_template":[{"name":"tool_use","template":"a"},{"name":"default","template":"b"}]}"#;
        assert_eq!(template(list), Some("b".to_owned()));
        assert_eq!(template("{}"), None);
    }
}
