//! What this crate may know, read from its sources and its manifest.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Sources with what they say without tests and comments.
fn sources(dir: &Path, out: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        let lines = code.lines().map(|line| line.split("//").next().unwrap_or_default());
        out.push((path.clone(), lines.collect::<Vec<_>>().join("\n")));
    }
}

/// Words of the runtime's CPU backend in a source.
fn of_the_cpu_backend(code: &str) -> Vec<&str> {
    let words = code.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    words.filter(|word| ["cpu", "Batch", "Sums", "ActivationMode", "gemm"].contains(word)).collect()
}

#[test]
fn nothing_names_the_cpu_backend() {
    let mut all = Vec::new();
    sources(&root().join("src"), &mut all);
    assert!(all.len() > 15, "{}", all.len());
    for (path, code) in &all {
        let words = of_the_cpu_backend(code);
        assert!(words.is_empty(), "{} names {words:?}", path.display());
    }
    assert_eq!(of_the_cpu_backend("use gq_model::cpu::{Batch, Sums};"), ["cpu", "Batch", "Sums"]);
    assert!(of_the_cpu_backend("let batch = cpus(sums);").is_empty());
}

/// Libraries that compute nothing, or have one result on every CPU. What is added here is looked at for that first.
const LIBRARIES: &[&str] =
    &["hex", "libm", "rayon", "safetensors", "serde", "serde_json", "sha2", "thiserror", "zstd"];

#[test]
fn the_manifest_has_no_library_whose_results_depend_on_the_cpu() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (_, rest) = manifest.split_once("[dependencies]\n").unwrap();
    let names = rest.lines().take_while(|line| !line.starts_with('[')).filter(|line| !line.is_empty());
    let names: Vec<&str> = names.map(|line| line.split(['.', ' ', '=']).next().unwrap()).collect();
    assert!(names.contains(&"gq-model"), "{names:?}");
    for name in names {
        assert!(name.starts_with("gq-") || LIBRARIES.contains(&name), "{name} is not known here");
    }
}
