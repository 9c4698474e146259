//! The tables as Markdown, for `docs/GGUF.md`.

use super::{
    BOOKKEEPING, CONFIG_KEYS, Families, GGUF_KEYS, GGUF_UNREAD, LEFT_BEHIND, NOT_NULL, Null, OFF, ON,
};
use crate::Family;

/// Most columns of a line outside of tables, where a list can be broken.
const COLUMNS: usize = 120;

/// Both tables, and what stands outside of them.
pub fn key_tables() -> String {
    let mut out = String::new();
    line(&mut out, "### Keys of GGUF's metadata, by llama.cpp b11549");
    line(&mut out, "");
    line(
        &mut out,
        "Below `<architecture>.`, unless they begin with `general.`, `tokenizer.`, `split.` or `quantize.`; \"refused\" is llama.cpp's word where it stands under \"absent\".",
    );
    line(&mut out, "");
    table(&mut out, ["key", "families", "meaning", "absent", "written", "read"]);
    for key in GGUF_KEYS {
        let code = format!("`{}`", key.key);
        row(&mut out, [&code, &names(key.families), key.meaning, key.absent, key.written, key.accepted]);
    }
    line(&mut out, "");
    let unread: Vec<String> = GGUF_UNREAD
        .iter()
        .map(|(key, families)| match families.len() == Family::ALL.len() {
            true => format!("`{key}`"),
            false => format!("`{key}` ({})", names(families)),
        })
        .collect();
    list(
        &mut out,
        &format!(
            "llama.cpp knows these, but does not read them for these architectures; they are ignored with a note: {}.",
            unread.join(", ")
        ),
    );
    line(
        &mut out,
        "Any other key below `<architecture>.` or `tokenizer.` is refused by name, unless `--ignore-key NAME` accepts it; one outside these is ignored with a note.",
    );
    line(&mut out, "");
    line(&mut out, "### Keys of `config.json`, by transformers");
    line(&mut out, "");
    line(
        &mut out,
        "Those of `rope_parameters` stand also under `rope_scaling` and, for Gemma, under the types of layers.",
    );
    line(&mut out, "");
    table(&mut out, ["key", "families", "meaning", "absent", "null", "read", "in a GGUF"]);
    for key in CONFIG_KEYS {
        let code = format!("`{}`", key.key);
        let null = match key.null {
            Null::Absent => "as absent",
            Null::Refused => "refused",
        };
        let gguf = if key.gguf.is_empty() { "-" } else { key.gguf };
        row(&mut out, [&code, &names(key.families), key.meaning, key.absent, null, key.accepted, gguf]);
    }
    line(&mut out, "");
    let code = |keys: &mut dyn Iterator<Item = &&str>| {
        keys.map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
    };
    let on: Vec<String> =
        ON.iter().map(|(key, families)| format!("`{key}` unless true for {}", names(families))).collect();
    let off = code(&mut OFF.iter());
    list(&mut out, &format!("Refused unless false: {off}; {}.", on.join(", ")));
    let left: Vec<String> = LEFT_BEHIND.iter().map(|(key, what)| format!("`{key}` ({what})")).collect();
    list(
        &mut out,
        &format!("Left behind by tools, read by no engine, ignored with a note: {}.", left.join(", ")),
    );
    list(
        &mut out,
        &format!("Written by transformers without a part in the graph: {}.", code(&mut BOOKKEEPING.iter())),
    );
    let strict: Vec<String> =
        NOT_NULL.iter().map(|(key, families, _)| format!("`{key}` ({})", names(families))).collect();
    list(&mut out, &format!("Refused where they are null: {}.", strict.join(", ")));
    line(&mut out, "Any other key is refused by name, unless it is null or `--ignore-key NAME` accepts it.");
    out
}

fn names(families: Families) -> String {
    match families.len() == Family::ALL.len() {
        true => "all".to_owned(),
        false => families.iter().map(|family| family.name()).collect::<Vec<_>>().join(", "),
    }
}

fn table<const N: usize>(out: &mut String, heads: [&str; N]) {
    row(out, heads);
    line(out, &format!("|{}", "---|".repeat(N)));
}

fn row<const N: usize>(out: &mut String, cells: [&str; N]) {
    line(out, &format!("| {} |", cells.join(" | ")));
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

/// A paragraph with a list in it, broken behind its commas.
fn list(out: &mut String, text: &str) {
    let mut broken = String::new();
    for part in text.split_inclusive(", ") {
        if !broken.is_empty() && broken.len() + part.trim_end().len() > COLUMNS {
            line(out, broken.trim_end());
            broken.clear();
        }
        broken.push_str(part);
    }
    line(out, &broken);
}
