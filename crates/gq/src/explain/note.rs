//! What was noticed about a checkpoint, as sentences.

use crate::output::Output;
use crate::units::printable;
use gq_checkpoint::Note;
use gq_checkpoint::keys::Ignored;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Says what was noticed, each thing once however often the same checkpoint is opened.
pub fn tell(notes: &[Note], output: Output) {
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    for note in notes {
        let (sentence, warn) = sentence(note);
        if !TOLD.lock().unwrap_or_else(PoisonError::into_inner).insert(sentence.clone()) {
            continue;
        }
        if warn { output.warn(&sentence) } else { output.note(&sentence) }
    }
}

/// The sentence, and whether it is a warning: the result is not what the checkpoint alone would give.
fn sentence(note: &Note) -> (String, bool) {
    match note {
        Note::NoIndex { dir, shards } => {
            let dir = printable(&dir.display().to_string());
            (
                format!("{dir}: no index; its {shards} shards are complete by their numbers and are read"),
                false,
            )
        }
        Note::StaleIndex { path, why } => {
            let (path, why) = (printable(&path.display().to_string()), printable(why));
            (format!("{path} is not of these files and is passed over: {why}"), true)
        }
        Note::Prefix { prefix } => {
            let prefix = printable(prefix);
            (
                format!(
                    "every tensor's name begins with {prefix}, which a wrapper put there; it is taken off"
                ),
                false,
            )
        }
        Note::AdapterNames { adapter, name } => {
            let (adapter, name) = (printable(adapter), printable(name));
            let what = "its tensors are not named as PEFT saves them, and are read as they are meant";
            (format!("adapter {adapter}: {what} ({name})"), true)
        }
        Note::Keys { path, keys, why } => {
            let (path, keys) = (printable(&path.display().to_string()), printable(&keys.join(", ")));
            match why {
                Ignored::LeftBehind => {
                    let who = "left behind by tools for training or publishing, no engine reads it";
                    (format!("{path}: ignored {keys} ({who})"), false)
                }
                Ignored::Unread => {
                    (format!("{path}: ignored {keys} (llama.cpp does not read it for such a model)"), false)
                }
                Ignored::Unapplied => {
                    let what = "tokens that other programs keep from being written; gq run does not";
                    (format!("{path}: ignored {keys} ({what})"), true)
                }
                Ignored::Accepted => (
                    format!("{path}: ignored {keys}, as --ignore-key says; what it means is not known"),
                    true,
                ),
            }
        }
        Note::Card { path, error } => {
            let (path, error) = (printable(&path.display().to_string()), printable(&error.to_string()));
            (format!("{path}: front matter is no YAML ({error}): licence and names in it are not read"), true)
        }
        Note::Untied { head, embedding } => {
            let (head, embedding) = (printable(head), printable(embedding));
            (format!("{head} and {embedding} differ, although config.json ties them: both are used"), true)
        }
        Note::HeadIsEmbedding { head } => {
            let head = printable(head);
            (format!("no embedding in the files; {head}, which config.json ties to it, serves as both"), true)
        }
        Note::ActivationScales { count, name } => {
            let name = printable(name);
            (
                format!(
                    "{count} scales of activations or caches, such as {name}, are read over: no weight depends on them"
                ),
                false,
            )
        }
        Note::Resized { adapter, from, to } => {
            let adapter = printable(adapter);
            (
                format!("vocabulary of {to} rows, as adapter {adapter} has it; the checkpoint has {from}"),
                false,
            )
        }
        Note::Texts { from, files, differing } => {
            let (from, files) = (printable(from), printable(&files.join(", ")));
            match differing.is_empty() {
                true => (format!("texts taken from {from}, where they are the same: {files}"), false),
                false => {
                    let differing = differing.join(", ");
                    let other = "--tokenizer-from base takes the checkpoint's";
                    (format!("{differing} of {from} taken, not the checkpoint's ({files}); {other}"), true)
                }
            }
        }
        Note::TextsKept { from, differing } => {
            let (from, differing) = (printable(from), differing.join(", "));
            (format!("{differing} of the checkpoint kept; {from} was trained with another"), true)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_of_a_conflict_are_named() {
        let (text, warn) = sentence(&Note::Texts {
            from: "mine".to_owned(),
            files: vec!["tokenizer.json".to_owned()],
            differing: vec!["tokenizer", "chat template"],
        });
        assert!(
            warn && text.contains("tokenizer, chat template of mine") && text.contains("the checkpoint's")
        );
    }
}
