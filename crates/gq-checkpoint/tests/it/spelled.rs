//! Names of tensors are spelled where families declare them, and nowhere else in the sources.

use gq_checkpoint::Family;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Where the declarations are.
const DECLARED_IN: &str = "gq-checkpoint/src/family/";

/// Words of the same spelling that are no names of tensors, and what every name of a layer begins with.
const EXCEPTIONS: [(&str, &str, &str); 10] = [
    (
        "gq-checkpoint/src/declared.rs",
        "rope_freqs.weight",
        "of GGUFs and no family's: readers of ropes ask for it",
    ),
    ("gq-checkpoint/src/declared.rs", "rope_factors_long.weight", "the same, of Phi's"),
    ("gq-checkpoint/src/declared.rs", "rope_factors_short.weight", "the same, of Phi's"),
    ("gq-checkpoint/src/keys/config.rs", "rope_factors_long.weight", "a cell of the table in docs/GGUF.md"),
    ("gq-checkpoint/src/keys/config.rs", "rope_factors_short.weight", "a cell of the table in docs/GGUF.md"),
    ("gq-checkpoint/src/names.rs", "model.layers.", "takes the number out of a name"),
    ("gq-checkpoint/src/role.rs", "per_layer_projection", "name of a role"),
    ("gq/src/release/recipe.rs", "per_layer_projection", "a recipe's key, named after the role"),
    ("gq-checkpoint/src/keys/config.rs", "blk.N.ffn_*.bias", "a cell of the table in docs/GGUF.md"),
    ("gq-checkpoint/src/keys/config.rs", "rope_freqs.weight", "a cell of the table in docs/GGUF.md"),
];

/// Files whose names are those of another program's rules, and whose rules they are.
const RULES_OF_OTHERS: [(&str, &str); 2] = [
    ("gq/src/commands/convert/compressed/units.rs", "modules that vLLM makes one product of, by its names"),
    ("gq/src/commands/convert/gguf/like.rs", "llama-quantize chooses types by names of tensors in GGUFs"),
];

/// Texts between quotation marks, comments and modules of tests left out.
fn literals(source: &str) -> Vec<String> {
    let source = source.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let (mut found, mut rest) = (Vec::new(), source);
    while let Some(at) = rest.find(['"', '/', '\'']) {
        rest = &rest[at..];
        if rest.starts_with("//") {
            rest = rest.split_once('\n').map_or("", |(_, next)| next);
        } else if let Some(quoted) =
            ["'\"'", "'\\\"'", "b'\"'"].iter().find_map(|mark| rest.strip_prefix(mark))
        {
            rest = quoted;
        } else if let Some(inside) = rest.strip_prefix('"') {
            let mut escaped = false;
            let end = inside.find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            let (text, next) = inside.split_at(end.unwrap_or(inside.len()));
            found.push(text.to_owned());
            rest = next.get(1..).unwrap_or_default();
        } else {
            rest = &rest[1..];
        }
    }
    found
}

/// Parts of declared names that mean nothing else: those of several words.
fn words() -> BTreeSet<&'static str> {
    let names = Family::tensor_names().into_iter().flat_map(|name| name.split('.'));
    names.filter(|word| word.contains('_')).collect()
}

/// Whether a text spells a tensor's name, or a part of one. What has a space in it is a sentence.
fn spells(text: &str, words: &BTreeSet<&str>) -> bool {
    let part = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    let whole = Family::tensor_names().iter().any(|name| {
        name.split_once(".N.").map_or(text == *name, |(front, _)| text.starts_with(&format!("{front}.")))
    });
    !text.contains(char::is_whitespace) && (whole || text.split(part).any(|word| words.contains(word)))
}

fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push(path);
        }
    }
}

#[test]
fn names_of_tensors_are_spelled_in_the_declarations_alone() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(&crates).unwrap() {
        let dir = entry.unwrap().path().join("src");
        if dir.is_dir() {
            sources(&dir, &mut paths);
        }
    }
    let words = words();
    assert!(words.len() > 40 && paths.len() > 300, "{} words, {} files", words.len(), paths.len());
    let (mut found, mut excused) = (Vec::new(), BTreeSet::new());
    for path in &paths {
        let name = path.strip_prefix(&crates).unwrap().to_str().unwrap().replace('\\', "/");
        if name.starts_with(DECLARED_IN) || RULES_OF_OTHERS.iter().any(|(file, _)| *file == name) {
            continue;
        }
        for text in literals(&std::fs::read_to_string(path).unwrap()) {
            if !spells(&text, &words) {
                continue;
            }
            match EXCEPTIONS.iter().find(|(file, word, _)| *file == name && *word == text) {
                Some((file, word, _)) => drop(excused.insert((*file, *word))),
                None => found.push(format!("{name}: {text:?}")),
            }
        }
    }
    assert_eq!(found, Vec::<String>::new(), "ask the declarations for these names");
    assert_eq!(excused.len(), EXCEPTIONS.len(), "an exception that is not needed: only {excused:?} are");
}

#[test]
fn the_search_finds_what_it_is_for() {
    let source = r#"
        let name = format!("model.layers.{index}.mlp.{part}"); // "blk.0.attn_q.weight" in a comment
        let (mark, a, b) = ('"', "q_proj", "{n}.self_attn.k_proj.weight");
        let prose = "no output.weight, and rows of token_embd.weight";
        let escaped = "a \" b"; let whole = "output.weight"; let other = ("output", "xq_projx", "router");
        #[cfg(test)]
        fn f() -> &'static str { "lm_head" }
    "#;
    let words = words();
    let found: Vec<String> = literals(source).into_iter().filter(|text| spells(text, &words)).collect();
    let expected = [
        "model.layers.{index}.mlp.{part}",
        "q_proj",
        "{n}.self_attn.k_proj.weight",
        "output.weight",
        "lm_head",
    ];
    assert_eq!(found, expected);
    assert_eq!(literals("a\n#[cfg(test)]\nmod tests { \"lm_head\" }"), [""; 0]);
}
