//! What a model is called: `general.*` keys that llama.cpp's converter finds in the model card, in `_name_or_path` and
//! in the folder's name, by the rules of its gguf-py.

use crate::card::{Card, CardValue};
use crate::gguf::{Array, Metadata, Value};
use regex::Regex;
use std::sync::LazyLock;

/// Parts of a name such as `Org/Base-Name-7B-Chat-v0.2`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NameParts {
    /// All but the organization.
    pub full: Option<String>,
    /// Before the slash.
    pub organization: Option<String>,
    /// What models of all sizes are called.
    pub basename: Option<String>,
    /// What it was tuned to.
    pub finetune: Option<String>,
    /// Version.
    pub version: Option<String>,
    /// Parameters, as the name says.
    pub size_label: Option<String>,
}

/// What a part of a name can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Basename,
    Size,
    Finetune,
    Version,
    Type,
}

fn pattern(text: &str) -> Option<Regex> {
    Regex::new(&format!("^(?i:{text})$")).ok()
}

static VERSION: LazyLock<Option<Regex>> = LazyLock::new(|| pattern(r"(v|iter)?\d+([.]\d+)*"));
static TYPE: LazyLock<Option<Regex>> = LazyLock::new(|| pattern(r"i?q\d(_\w)*|b?fp?(16|32)"));
static SIZE: LazyLock<Option<Regex>> =
    LazyLock::new(|| pattern(r"(([A]|\d+[x])?\d+([._]\d+)?[KMBT][\d]?|small|mini|medium|large|x?xl)"));
static FINETUNE: LazyLock<Option<Regex>> = LazyLock::new(|| pattern("chat|instruct|vision|lora"));

fn is(pattern: &LazyLock<Option<Regex>>, text: &str) -> bool {
    pattern.as_ref().is_some_and(|pattern| pattern.is_match(text))
}

/// Takes a name apart; `parameters` tells sizes from lengths of context.
pub(super) fn name_parts(id: &str, parameters: u64) -> NameParts {
    if id.contains(' ') {
        return NameParts { full: Some(id.to_owned()), ..NameParts::default() };
    }
    let (organization, full) = match id.split_once('/') {
        Some((organization, full)) => (Some(organization).filter(|name| !name.starts_with('.')), full),
        None => (None, id),
    };
    let mut parts: Vec<(String, Vec<Part>)> =
        full.split('-').filter(|part| !part.is_empty()).map(|part| (part.to_owned(), Vec::new())).collect();
    for (index, (part, kinds)) in parts.iter_mut().enumerate() {
        if is(&VERSION, part) {
            kinds.push(Part::Version);
        } else if is(&TYPE, part) {
            kinds.push(Part::Type);
            *part = part.to_uppercase();
        } else if index > 0 && is(&SIZE, part) {
            let (label, kind) = size(part, parameters);
            *part = label;
            kinds.push(kind);
        } else if index > 0 && is(&FINETUNE, part) {
            kinds.push(Part::Finetune);
        }
    }
    // Sizes in words count only where none is a number.
    let sized = |kinds: &[Part]| kinds.contains(&Part::Size);
    if parts.iter().any(|(part, kinds)| sized(kinds) && part.contains(|c: char| c.is_ascii_digit())) {
        for (part, kinds) in &mut parts {
            if part.chars().all(char::is_alphabetic) {
                kinds.retain(|kind| *kind != Part::Size);
            }
        }
    }
    let mut at_start = true;
    for (part, kinds) in &mut parts {
        let begins = kinds.is_empty() && part.starts_with(char::is_alphabetic);
        if at_start && (begins || kinds.contains(&Part::Version)) {
            kinds.push(Part::Basename);
        } else {
            at_start = false;
            if kinds.is_empty() {
                kinds.push(Part::Finetune);
            }
        }
    }
    // A version at the end is none of the base name.
    for (_, kinds) in parts.iter_mut().rev() {
        if !(kinds.contains(&Part::Basename) && kinds.len() > 1) {
            break;
        }
        kinds.retain(|kind| *kind != Part::Basename);
    }
    let join = |wanted: &dyn Fn(&[Part]) -> bool| {
        let chosen: Vec<&str> =
            parts.iter().filter(|(_, kinds)| wanted(kinds)).map(|(part, _)| part.as_str()).collect();
        (!chosen.is_empty()).then(|| chosen.join("-"))
    };
    let mut sizes: Vec<&str> = Vec::new();
    for (part, _) in parts.iter().filter(|(_, kinds)| sized(kinds)) {
        if !sizes.contains(&part.as_str()) {
            sizes.push(part);
        }
    }
    let size_label = (!sizes.is_empty()).then(|| sizes.join("-"));
    let finetune = join(&|kinds| kinds.contains(&Part::Finetune));
    let version = join(&|kinds| kinds.contains(&Part::Version) && !kinds.contains(&Part::Basename));
    let known = size_label.is_some() || finetune.is_some() || version.is_some();
    NameParts {
        full: Some(full.to_owned()),
        organization: organization.map(str::to_owned),
        basename: join(&|kinds| kinds.contains(&Part::Basename)).filter(|_| known),
        finetune,
        version,
        size_label,
    }
}

/// A size in its usual spelling; one that is far from the model's is a length of context.
fn size(part: &str, parameters: u64) -> (String, Part) {
    let mut label: Vec<char> = part.replace('_', ".").chars().collect();
    // 7b1 is 7.1b
    if let [.., unit, digit] = label[..]
        && digit.is_ascii_digit()
    {
        label.truncate(label.len() - 2);
        label.extend(['.', digit, unit]);
    }
    if let [.., digit, unit] = &mut label[..]
        && digit.is_ascii_digit()
        && "kmbt".contains(*unit)
    {
        unit.make_ascii_uppercase();
    }
    let (unit, digits) =
        label.split_last().map_or((' ', String::new()), |(u, rest)| (*u, rest.iter().collect()));
    let scale = " KMBT".find(unit).map_or(0.001, |power| 1000f64.powi(power as i32));
    let far = |number: f64| {
        let total = parameters as i128;
        parameters > 0 && (number * scale - parameters as f64).abs() > (7 * total).div_euclid(8) as f64
    };
    match digits.parse::<f64>() {
        Ok(number) if far(number) => (digits + &unit.to_lowercase().to_string(), Part::Finetune),
        _ => (label.into_iter().collect(), Part::Size),
    }
}

/// `some-name-v2` as `Some Name v2`.
pub(super) fn title(name: &str) -> String {
    let spaced = name.replace('-', " ");
    spaced.split_whitespace().map(title_word).collect::<Vec<_>>().join(" ")
}

fn title_word(word: &str) -> String {
    let lower = word.chars().any(char::is_lowercase) && !word.chars().any(char::is_uppercase);
    let versioned = word.strip_prefix('v').unwrap_or_default();
    let version = word.starts_with(|c: char| c.is_ascii_digit())
        || !versioned.is_empty()
            && versioned.split('.').all(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    if !lower || version {
        return word.to_owned();
    }
    let mut begins = true;
    let letters = word.chars().flat_map(|c| {
        let now = std::mem::replace(&mut begins, !c.is_alphabetic());
        if now { c.to_uppercase().collect::<Vec<_>>() } else { vec![c] }
    });
    letters.collect()
}

/// Where names come from.
pub(super) struct NameSources<'a> {
    /// The model card.
    pub card: &'a Card,
    /// `config.json`.
    pub config: &'a str,
    /// The folder's name.
    pub folder: &'a str,
    /// `general.name`, as the user wants it.
    pub name: Option<&'a str>,
    /// Parameters there are.
    pub parameters: u64,
    /// Their number in words, where no name says it.
    pub size_label: String,
}

/// Writes `general.name` to `general.languages`.
pub(super) fn name_metadata(metadata: &mut Metadata, sources: &NameSources<'_>) {
    let card = sources.card;
    let first = |keys: &[&str]| keys.iter().find_map(|key| card.text(key)).map(str::to_owned);
    let mut names = NameParts {
        full: first(&["name", "model_name"]),
        organization: first(&["organization", "model_organization"]),
        basename: first(&["basename", "model_basename", "model_type"]),
        finetune: first(&["finetune", "model_finetune"]),
        version: first(&["version", "model_version"]),
        size_label: first(&["size_label", "model_size_label"]),
    };
    let config: Option<serde_json::Value> = serde_json::from_str(sources.config).ok();
    let path = config.as_ref().and_then(|config| config.get("_name_or_path")?.as_str());
    // A path on somebody's disk is no name.
    let path = path.filter(|path| path.matches('/').count() <= 1);
    for id in path.into_iter().chain([sources.folder]) {
        let found = name_parts(id, sources.parameters);
        names.full = names.full.or_else(|| found.full.as_deref().map(title));
        names.organization = names.organization.or_else(|| found.organization.as_deref().map(title));
        names.basename = names.basename.or(found.basename);
        names.finetune = names.finetune.or(found.finetune);
        names.version = names.version.or(found.version);
        names.size_label = names.size_label.or(found.size_label);
    }
    let mut set = |key: &str, text: Option<String>| {
        if let Some(text) = text {
            metadata.set(&format!("general.{key}"), Value::String(text));
        }
    };
    set("name", sources.name.map(str::to_owned).or(names.full));
    set("author", first(&["author", "model_author", "model_creator"]));
    set("version", names.version);
    set("organization", names.organization);
    set("finetune", names.finetune);
    set("basename", names.basename);
    set("description", first(&["description", "model_description"]));
    set("size_label", Some(names.size_label.unwrap_or_else(|| sources.size_label.clone())));
    set(
        "license",
        match card.get("license") {
            Some(CardValue::Text(text)) => Some(text.clone()),
            Some(CardValue::List(list)) => Some(list.join(",")),
            _ => None,
        },
    );
    set("license.name", first(&["license_name"]));
    set("license.link", first(&["license_link"]));
    for (key, card_key) in [("url", "url"), ("doi", "doi"), ("uuid", "uuid"), ("repo_url", "repo_url")] {
        set(&format!("source.{key}"), first(&[card_key, &format!("model_{card_key}")]));
    }
    let keys = ["base_model", "base_models", "base_model_sources"];
    parents(metadata, "base_model", card, &keys, sources.parameters);
    parents(metadata, "dataset", card, &["datasets", "dataset", "dataset_sources"], sources.parameters);
    let gather = |keys: &[&str]| {
        let mut found: Option<Vec<String>> = None;
        for value in keys.iter().filter_map(|key| card.get(key)) {
            match value {
                CardValue::Nothing => {}
                CardValue::Text(text) => found.get_or_insert_default().push(text.clone()),
                CardValue::List(list) => found.get_or_insert_default().extend(list.iter().cloned()),
            }
        }
        found.filter(|found| !found.is_empty())
    };
    for (key, keys) in [("tags", ["tags", "pipeline_tag"]), ("languages", ["languages", "language"])] {
        if let Some(found) = gather(&keys) {
            metadata.set(&format!("general.{key}"), Value::Array(Array::String(found)));
        }
    }
}

/// Models or data sets that a model comes from.
fn parents(metadata: &mut Metadata, what: &str, card: &Card, keys: &[&str], parameters: u64) {
    let Some(value) = keys.iter().find_map(|key| card.get(key)) else { return };
    let ids: &[String] = match value {
        CardValue::Nothing => &[],
        CardValue::Text(text) => std::slice::from_ref(text),
        CardValue::List(list) => list,
    };
    metadata.set(&format!("general.{what}.count"), Value::U32(ids.len() as u32));
    for (index, id) in ids.iter().enumerate() {
        let address = ["http://", "https://", "ssh://"].iter().any(|scheme| id.starts_with(scheme));
        let name = if address { hub_name(id) } else { Some(id.as_str()) };
        let parts = name.map(|name| name_parts(name, parameters)).unwrap_or_default();
        let repo = match (&parts.organization, &parts.full) {
            _ if address => Some(id.clone()),
            (Some(organization), Some(full)) => Some(format!("{HUB}{organization}/{full}")),
            _ => None,
        };
        let found = [
            ("name", parts.full.as_deref().map(title)),
            ("version", parts.version),
            ("organization", parts.organization.as_deref().map(title)),
            ("repo_url", repo),
        ];
        for (key, text) in found {
            if let Some(text) = text {
                metadata.set(&format!("general.{what}.{index}.{key}"), Value::String(text));
            }
        }
    }
}

const HUB: &str = "https://huggingface.co/";

/// `ORG/NAME` of an address on the Hub.
fn hub_name(address: &str) -> Option<&str> {
    let rest = address.strip_prefix(HUB).or_else(|| address.strip_prefix("http://huggingface.co/"))?;
    let (organization, name) = rest.split_once('/')?;
    (!organization.is_empty() && !name.is_empty() && !name.contains('/')).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf_model::export_meta::rounded;
    use serde_json::{Value as Json, json};

    #[test]
    fn names_are_those_that_the_converter_finds() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/gguf/names.json");
        let cases: Vec<Json> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert!(cases.len() > 40);
        for case in cases {
            let parameters = case["parameters"].as_u64().unwrap();
            let sources = NameSources {
                card: &Card::parse(case["readme"].as_str().unwrap_or_default()).unwrap(),
                config: &case["config"].to_string(),
                folder: case["folder"].as_str().unwrap(),
                name: None,
                parameters,
                size_label: rounded(parameters as usize),
            };
            let mut metadata = Metadata::default();
            name_metadata(&mut metadata, &sources);
            let found: serde_json::Map<String, Json> = metadata
                .iter()
                .map(|(key, value)| {
                    let value = match value {
                        Value::String(text) => json!(text),
                        Value::U32(n) => json!(n),
                        Value::Array(Array::String(list)) => json!(list),
                        other => panic!("{other:?}"),
                    };
                    (key.to_owned(), value)
                })
                .collect();
            // Maps are equal whatever their order.
            assert_eq!(Json::Object(found), case["metadata"], "{case}");
        }
    }
}
