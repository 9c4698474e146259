//! `gq meta`: the texts of a .gq file, shown and edited without touching weights.

use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::guard::{Force, Out};
use crate::jobs::evaluate;
use crate::signals::Work;
use crate::table::Table;
use crate::texts::is_json;
use crate::{chat, guard, signals, source, texts, units};
use gq_container::{Container, Finished, StoredText, TextKind, WriteError};
use gq_files::Existing;
use gq_text::{ChatOptions, ChatTemplate, ModelTexts};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Texts that describe what the weights are or how they were made: they are shown, not edited.
const FIXED: [TextKind; 3] = [TextKind::Config, TextKind::Provenance, TextKind::Report];

/// Show or edit the metadata of a .gq file: chat template, tokenizer and generation settings, licence.
#[derive(clap::Args, Debug)]
pub struct MetaArgs {
    #[command(subcommand)]
    command: MetaCommand,
}

#[derive(clap::Subcommand, Debug)]
enum MetaCommand {
    Get(GetArgs),
    Set(SetArgs),
}

/// Print a text of a .gq file as it is, or list its texts.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  gq meta get smol.gq
  gq meta get smol.gq chat_template > template.jinja")]
struct GetArgs {
    /// The .gq file, here or on the Hub (hf://ORG/NAME/FILE.gq).
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Which text: config, tokenizer, tokenizer_config, chat_template, generation_config, special_tokens_map, licence,
    /// provenance, report.
    #[arg(value_name = "NAME", value_parser = kind)]
    name: Option<TextKind>,
}

/// Change texts of a .gq file; weights stay where they are, with the same payload digest.
///
/// The new texts are checked as a reader would: JSON is parsed, the chat template compiled, the tokenizer built.
/// The file's own digest changes. config, provenance and report say what the weights are and cannot be changed.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  gq meta set smol.gq chat_template=@template.jinja
  gq meta set smol.gq generation_config.temperature=0.7 generation_config.top_k=40
  gq meta set smol.gq licence=apache-2.0 --remove special_tokens_map -o edited.gq")]
struct SetArgs {
    /// The .gq file, here or on the Hub (hf://ORG/NAME/FILE.gq).
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// NAME=TEXT, NAME=@PATH for the content of a file, or NAME.KEY=JSON for one key of a text that is JSON; names as in
    /// `gq meta get`.
    #[arg(value_name = "NAME=VALUE", value_parser = change, required_unless_present = "remove")]
    changes: Vec<Change>,
    /// Take a text out; repeatable.
    #[arg(long, value_name = "NAME", value_parser = editable)]
    remove: Vec<TextKind>,
    /// Where to write [default: in place of FILE; one from the Hub is not edited in place].
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    #[command(flatten)]
    force: Force,
}

#[derive(Clone, Debug)]
struct Change {
    kind: TextKind,
    key: Option<String>,
    value: String,
}

fn kind(name: &str) -> Result<TextKind, String> {
    TextKind::from_name(name).ok_or_else(|| {
        let expected = format!("expected one of {}", TextKind::ALL.map(TextKind::name).join(", "));
        match meant(name) {
            Some(meant) => format!("it is called {}; {expected}", meant.name()),
            None => expected,
        }
    })
}

/// The text that a file's name, or another spelling, stands for.
fn meant(name: &str) -> Option<TextKind> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    let stem = [".json", ".jinja", ".txt", ".md"].into_iter().find_map(|end| name.strip_suffix(end));
    let stem = stem.unwrap_or(&name);
    let near = |kind: &TextKind| strsim::damerau_levenshtein(kind.name(), stem) <= 2;
    match stem {
        "license" => Some(TextKind::Licence),
        "template" => Some(TextKind::ChatTemplate),
        _ => TextKind::ALL.into_iter().find(near),
    }
}

fn editable(name: &str) -> Result<TextKind, String> {
    match kind(name)? {
        kind if FIXED.contains(&kind) => Err("it says what the weights are and cannot be changed".to_owned()),
        kind => Ok(kind),
    }
}

fn change(text: &str) -> Result<Change, String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    let (name, key) = name.split_once('.').map_or((name, None), |(name, key)| (name, Some(key)));
    let kind = editable(name)?;
    match key {
        Some("json" | "jinja") => Err(format!("it is called {name}, without the file's ending")),
        Some(_) if !is_json(kind) => Err(format!("{name} is not JSON and has no keys")),
        key => Ok(Change { kind, key: key.map(str::to_owned), value: value.to_owned() }),
    }
}

pub fn run(args: &MetaArgs, global: &Global) -> Result<(), Failure> {
    match &args.command {
        MetaCommand::Get(args) => get(args, global),
        MetaCommand::Set(args) => set(args, global),
    }
}

fn get(args: &GetArgs, global: &Global) -> Result<(), Failure> {
    let container = Container::open(&source::find(&args.file, global)?.path)?;
    let output = global.output();
    if let Some(kind) = args.name {
        let text = container.text(kind)?;
        if output.json {
            return output.document(&serde_json::json!({"name": kind.name(), "text": text}));
        }
        return output.data(&text.ok_or_else(|| absent(&args.file, kind))?);
    }
    let known = container.texts().iter().filter_map(|text| Some((TextKind::from_code(text.kind)?, text)));
    if output.json {
        let texts =
            known.map(|(kind, text)| serde_json::json!({"name": kind.name(), "bytes": text.plain_bytes}));
        return output.document(&serde_json::json!({"texts": texts.collect::<Vec<_>>()}));
    }
    let mut table = Table::new(&["<text", "bytes"]);
    for (kind, text) in known {
        table.row([kind.name().to_owned(), units::count(text.plain_bytes)]);
    }
    output.data(&table.render())
}

fn absent(file: &Path, kind: TextKind) -> Failure {
    let message = format!("{}: the file has no {kind}", file.display());
    Failure::new(Exit::Input, "meta.absent", message).at(file.display()).limit(kind).actual("none")
}

fn set(args: &SetArgs, global: &Global) -> Result<(), Failure> {
    let given = args.changes.iter().filter_map(|change| change.value.strip_prefix('@')).map(Path::new);
    let reads: Vec<&Path> = [&*args.file].into_iter().chain(given).collect();
    if args.output.is_some() || args.file.exists() {
        guard::check(&[Out::or_in_place(args.output.as_deref(), &args.file, args.force)], &reads)?;
    }
    let found = source::find(&args.file, global)?;
    if found.origin.is_some() && args.output.is_none() {
        let message = format!("{}: a file in the Hub's cache is not edited in place", args.file.display());
        return Err(Failure::new(Exit::Usage, "meta.cached", message)
            .at("--output")
            .limit("a file")
            .actual("none"));
    }
    let container = Container::open(&found.path)?;
    let mut texts = BTreeMap::new();
    for entry in container.texts() {
        // A later version's text would be lost without a word.
        let kind = TextKind::from_code(entry.kind).ok_or_else(|| {
            let message = format!("{}: a text of a kind that this gq does not know", args.file.display());
            Failure::new(Exit::Input, "meta.unknown_text", message).at(args.file.display()).actual(entry.kind)
        })?;
        texts.insert(kind, container.text(kind)?.unwrap_or_default());
    }
    let before = texts.clone();
    for kind in &args.remove {
        let from_settings = match kind {
            TextKind::ChatTemplate => remove_templates(&mut texts),
            _ => None,
        };
        if texts.remove(kind).is_none() && from_settings.is_none() {
            return Err(absent(&args.file, *kind));
        }
        if let Some(named) = from_settings.filter(|named| !named.is_empty()) {
            let names = units::printable(&named.join(", "));
            global.output().note(&format!("chat templates taken out of tokenizer_config: {names}"));
        }
    }
    for change in &args.changes {
        let new = new_text(change, texts.get(&change.kind).map(String::as_str))?;
        texts.insert(change.kind, new);
    }
    check(&texts, &before)?;
    if [TextKind::ChatTemplate, TextKind::TokenizerConfig]
        .iter()
        .any(|kind| texts.get(kind) != before.get(kind))
        && drops_messages(&texts)
    {
        global.output().warn(
            "the chat template leaves out what a conversation says: `gq inspect FILE --render-chat` shows what it makes",
        );
    }
    let names = |changed: &dyn Fn(TextKind) -> bool| {
        let changed = TextKind::ALL.into_iter().filter(|kind| changed(*kind));
        changed.map(TextKind::name).collect::<Vec<_>>()
    };
    let changed = names(&|kind| texts.contains_key(&kind) && texts.get(&kind) != before.get(&kind));
    let removed = names(&|kind| before.contains_key(&kind) && !texts.contains_key(&kind));
    let path = args.output.as_deref().unwrap_or(&args.file);
    let stored = texts.iter().map(|(kind, text)| StoredText::new(*kind, text)).collect::<Result<Vec<_>, _>>();
    let stored = stored.map_err(|source| WriteError::Rule { path: path.to_owned(), source })?;
    guard::space(path, container.file_bytes())?;
    let candidate = guard::candidate(path);
    let useless = [gq_files::partial_path(&candidate), candidate.clone(), guard::candidate_mark(path)];
    let work = Work::begun_again(useless).leaving(&args.file);
    let _work = signals::during(work.making([path.to_owned()], "only its summary was not shown"));
    let _mark = guard::take_candidate(path)?;
    let existing = args.force.existing_or_in_place(args.output.as_deref());
    let finished = named(&container, &candidate, stored, path, existing)
        .inspect_err(|_| drop(gq_files::remove_begun(&candidate)))?;
    let output = global.output();
    if output.json {
        return output.document(&serde_json::json!({
            "output": path.display().to_string(), "changed": changed, "removed": removed,
            "file_bytes": finished.file_bytes, "file_sha256": finished.file_sha256.to_string(),
            "payload_sha256": finished.payload_sha256.to_string(),
        }));
    }
    let list = |what: &str, names: &[&str]| match names {
        [] => String::new(),
        names => format!("{what} {}\n", names.join(", ")),
    };
    output.data(&format!(
        "{}: {}\n{}{}file sha256     {}\npayload sha256  {} (as before)\n",
        path.display(),
        units::bytes(finished.file_bytes),
        list("changed", &changed),
        list("removed", &removed),
        finished.file_sha256,
        finished.payload_sha256,
    ))
}

/// Writes the file to another name first, and gives it its own when what was read is what it was.
fn named(
    container: &Container,
    candidate: &Path,
    texts: Vec<StoredText>,
    path: &Path,
    existing: Existing,
) -> Result<Finished, Failure> {
    let finished = container.with_texts(candidate, texts)?;
    if existing == Existing::Replaced && path == container.path() {
        container.check_still_named()?;
    }
    container.check_unchanged()?;
    guard::place(candidate, path, existing)?;
    Ok(finished)
}

/// Whether a chat template renders a conversation without any of its messages' text; one that refuses it is not asked.
fn drops_messages(texts: &BTreeMap<TextKind, String>) -> bool {
    let text = |kind| texts.get(&kind).cloned();
    let model = ModelTexts {
        chat_template: text(TextKind::ChatTemplate),
        tokenizer_config: text(TextKind::TokenizerConfig),
        special_tokens_map: text(TextKind::SpecialTokensMap),
        ..ModelTexts::default()
    };
    let conversation = chat::sample();
    let said: Vec<&str> =
        conversation.iter().filter_map(|message| message.get("content").and_then(Value::as_str)).collect();
    let options = ChatOptions { add_generation_prompt: true, ..ChatOptions::default() };
    let template = ChatTemplate::new(&model).map(|template| template.with_clock(crate::clock::standing()));
    let rendered = template.and_then(|template| template.render(&conversation, &options));
    rendered.is_ok_and(|rendered| said.iter().all(|said| !rendered.contains(said)))
}

/// Takes chat templates out of the tokenizer's settings too, from where readers would take them again. Gives their
/// names.
fn remove_templates(texts: &mut BTreeMap<TextKind, String>) -> Option<Vec<String>> {
    let text = texts.get_mut(&TextKind::TokenizerConfig)?;
    let Ok(Value::Object(mut settings)) = serde_json::from_str(text) else { return None };
    let templates = settings.shift_remove("chat_template").filter(|templates| !templates.is_null())?;
    *text = format!("{:#}", Value::Object(settings));
    let named = |entry: &Value| entry.get("name").and_then(Value::as_str).map(str::to_owned);
    Some(templates.as_array().into_iter().flatten().filter_map(named).collect())
}

/// The text after a change.
fn new_text(change: &Change, old: Option<&str>) -> Result<String, Failure> {
    let given = match change.value.strip_prefix('@') {
        Some(path) => evaluate::read_text(Path::new(path))?,
        None => change.value.clone(),
    };
    let Some(key) = &change.key else { return Ok(given) };
    let mut object: Value =
        serde_json::from_str(old.unwrap_or("{}")).map_err(|e| not_json(change.kind, &e))?;
    // What is not JSON is a string: no quotes inside quotes on the command line.
    let value = serde_json::from_str(&given).unwrap_or(Value::String(given));
    match object.as_object_mut() {
        // A path into what is nested would be taken for a name.
        Some(fields) if key.contains('.') && !fields.contains_key(key) => {
            return Err(invalid(change.kind, &format!("no key {key:?}; keys within keys cannot be named")));
        }
        Some(fields) => fields.insert(key.clone(), value),
        None => return Err(invalid(change.kind, "not an object")),
    };
    serde_json::to_string_pretty(&object).map_err(|e| Failure::internal(change.kind.name(), &e))
}

/// Refuses texts that a reader of the file would refuse, and chat templates with names that are new and cannot be read.
fn check(texts: &BTreeMap<TextKind, String>, before: &BTreeMap<TextKind, String>) -> Result<(), Failure> {
    let holders = [TextKind::ChatTemplate, TextKind::TokenizerConfig];
    let read = match holders.iter().all(|kind| texts.get(kind) == before.get(kind)) {
        true => texts::read(texts),
        false => texts::read_all(texts),
    };
    match read.err().unwrap_or_default().first() {
        Some(broken) => Err(invalid(broken.kind, &broken.why)),
        None => Ok(()),
    }
}

fn not_json(kind: TextKind, error: &serde_json::Error) -> Failure {
    invalid(kind, &format!("not JSON: {error}"))
}

fn invalid(kind: TextKind, why: &str) -> Failure {
    Failure::new(Exit::Input, "meta.invalid", format!("{kind}: {why}")).at(kind)
}
