//! The tables of keys: what an export writes is in them, and the page shows them as they are.

use crate::support::read;
use gq_checkpoint::Family;
use gq_checkpoint::keys::{GGUF_KEYS, key_tables};
use std::path::Path;

const BEGIN: &str = "<!-- keys: generated, `GQ_BLESS=1 cargo test -p gq-checkpoint --test it keys` -->\n";
const END: &str = "<!-- end of keys -->\n";

#[test]
fn the_page_shows_the_tables() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/GGUF.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (front, rest) = page.split_once(BEGIN).unwrap();
    let (_, back) = rest.split_once(END).unwrap();
    let fresh = format!("{front}{BEGIN}\n{}\n{END}{back}", key_tables());
    if std::env::var_os("GQ_BLESS").is_some() {
        std::fs::write(&path, &fresh).unwrap();
    }
    assert!(fresh == page || std::env::var_os("GQ_BLESS").is_some(), "run: {BEGIN}");
}

/// Keys that the converter or we write: each has a row that says so.
#[test]
fn what_is_written_has_a_row() {
    for (model, family) in [
        ("llama", Family::Llama),
        ("llama3", Family::Llama),
        ("qwen2", Family::Qwen2),
        ("qwen3", Family::Qwen3),
        ("qwen3-moe", Family::Qwen3Moe),
        ("gemma3", Family::Gemma3),
        ("gemma4-moe", Family::Gemma4),
    ] {
        let theirs: serde_json::Value =
            serde_json::from_str(&read(&format!("gguf/models/{model}-f16.json"))).unwrap();
        for key in theirs["metadata"].as_object().unwrap().keys() {
            let own = key.strip_prefix(&format!("{}.", family.name())).unwrap_or(key);
            let row = GGUF_KEYS.iter().find(|row| row.families.contains(&family) && row.matches(own));
            let row = row.unwrap_or_else(|| panic!("{model}: {key}"));
            assert_ne!(row.written, "-", "{model}: {key}");
        }
    }
    let sweep: serde_json::Value = serde_json::from_str(&read("gguf/sweep.json")).unwrap();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/GGUF.md");
    let page = std::fs::read_to_string(page).unwrap();
    for case in sweep["cases"].as_array().unwrap() {
        let name = case["family"].as_str().unwrap();
        // A Mistral is a file of Llama's.
        let architecture = if name == "mistral" { "llama" } else { name };
        let family = Family::ALL.into_iter().find(|family| architecture == family.name()).unwrap();
        let row = format!("| {name} | {} |", case["key"].as_str().unwrap());
        assert!(page.contains(&row), "the page does not show: {row}");
        for key in case["keys"].as_object().into_iter().flat_map(|keys| keys.keys()) {
            let own = key.strip_prefix(&format!("{}.", family.name())).unwrap();
            let row = GGUF_KEYS.iter().find(|row| row.families.contains(&family) && row.matches(own));
            assert_ne!(row.unwrap_or_else(|| panic!("{key}")).written, "-", "{key}");
        }
    }
}
