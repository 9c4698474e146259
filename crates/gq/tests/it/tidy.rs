//! The layout of the repository, kept true: who imports whom, how long files are, what is listed where.

use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Most lines of a source file, tests counted.
const MAX_LINES: usize = 500;

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every file of the repository that a person wrote or a script generated.
pub fn files() -> Vec<PathBuf> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            match path.is_dir() {
                true if ["target", ".git", ".venv", "out", "__pycache__"].contains(&name) => {}
                true => walk(&path, out),
                false => out.push(path),
            }
        }
    }
    let mut out = Vec::new();
    walk(&root(), &mut out);
    out.sort();
    out
}

pub fn with_extension(extension: &str) -> Vec<(PathBuf, String)> {
    let of_kind = files().into_iter().filter(|f| f.extension().is_some_and(|e| e == extension));
    of_kind.map(|f| (f.clone(), std::fs::read_to_string(&f).unwrap())).collect()
}

#[test]
fn source_files_are_short() {
    for (path, text) in with_extension("rs") {
        let name = path.file_name().unwrap().to_str().unwrap();
        let lines = text.lines().count();
        assert!(lines <= MAX_LINES, "{} has {lines} lines", path.display());
        assert!(!["utils.rs", "util.rs", "helpers.rs", "misc.rs"].contains(&name), "{}", path.display());
    }
}

#[test]
fn every_crate_says_what_it_does_not_know() {
    for (path, text) in with_extension("rs") {
        if path.ends_with("src/lib.rs") && !path.components().any(|c| c.as_os_str() == "fuzz") {
            let docs: String = text.lines().take_while(|line| line.starts_with("//!")).collect();
            assert!(docs.contains("does not know"), "{} does not say it", path.display());
        }
    }
}

#[test]
fn nothing_is_ignored_or_tied_to_a_machine() {
    // Put together here so that this file passes its own test.
    let forbidden = [["#[ign", "ore"], ["/o", "pt/"], ["/wo", "rk/"], ["/ro", "ot/"], ["/ho", "me/"]];
    for path in files() {
        // Some files are no text.
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        if path.starts_with(root().join("testdata"))
            && path.extension().is_some_and(|e| e == "txt" || e == "json")
        {
            continue;
        }
        for part in forbidden.map(|halves| halves.concat()) {
            // A path starts a word: a longer path with such a part inside is something else.
            let found = text.match_indices(&part).any(|(at, _)| {
                !text[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || "._-~}".contains(c))
            });
            assert!(!found, "{} contains {part}", path.display());
        }
    }
}

#[test]
fn links_between_documents_resolve() {
    for (path, text) in with_extension("md") {
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split([')', ' ', '\n']).next().unwrap();
            let target = target.split('#').next().unwrap();
            let external = target.is_empty() || target.contains("://") || target.starts_with("mailto:");
            let resolved = path.parent().unwrap().join(target);
            assert!(external || resolved.exists(), "{}: {target} does not exist", path.display());
        }
    }
}

/// The table of cases in `docs/TESTING.md` names tests that are there.
#[test]
fn every_case_has_the_tests_that_are_named_for_it() {
    let text = std::fs::read_to_string(root().join("docs/TESTING.md")).unwrap();
    let (_, rest) = text.split_once("## Cases that other people met").unwrap();
    let table = rest.split("\n## ").next().unwrap();
    let mut cases = Vec::new();
    for line in table.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let Some(number) = cells.get(1).and_then(|cell| cell.parse::<u32>().ok()) else { continue };
        let tests: Vec<&str> = cells[3].split(", ").map(|test| test.trim_matches('`')).collect();
        for test in tests {
            let (file, name) = test.split_once("::").unwrap_or_else(|| panic!("case {number}: {test}"));
            let source = std::fs::read_to_string(root().join(file));
            let source = source.unwrap_or_else(|error| panic!("case {number}: {file}: {error}"));
            assert!(source.contains(&format!("#[test]\nfn {name}()")), "case {number}: no test {test}");
        }
        cases.push(number);
    }
    assert_eq!(cases, [1, 3, 5, 6, 7, 8, 9, 10, 12, 14, 15, 16, 20, 23]);
}

#[test]
fn test_data_is_listed_with_its_digest() {
    let dir = root().join("testdata");
    let readme = std::fs::read_to_string(dir.join("README.md")).unwrap();
    let rows = readme.lines().filter_map(|line| {
        let cells: Vec<_> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        (cells.len() == 5 && cells[3].len() == 64).then(|| (cells[1].to_owned(), cells[3].to_owned()))
    });
    let listed: BTreeMap<String, String> = rows.collect();
    let digest = |path: &Path| {
        let digest = Sha256::digest(std::fs::read(path).unwrap());
        digest.iter().map(|b| format!("{b:02x}")).collect::<String>()
    };
    let name = |path: &Path| path.strip_prefix(&dir).ok().map(|p| p.to_str().unwrap().replace('\\', "/"));
    let mut actual = BTreeMap::new();
    for path in files() {
        if let Some(name) = name(&path).filter(|name| name != "README.md") {
            actual.insert(name, digest(&path));
        }
    }
    let differs = |name: &&String| listed.get(*name) != actual.get(*name);
    let stale: BTreeSet<&String> = listed.keys().chain(actual.keys()).filter(differs).collect();
    assert!(stale.is_empty(), "run scripts/list_testdata.py: {stale:?}");
}

/// What `scripts/test` leaves to `scripts/test_full`: every line names a test, once and in order.
#[test]
fn slow_tests_are_listed_by_names_that_exist() {
    let list = std::fs::read_to_string(root().join("scripts/slow_tests.txt")).unwrap();
    let names: Vec<&str> = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert!(names.len() > 20, "{}", names.len());
    let sorted: BTreeSet<&str> = names.iter().copied().collect();
    assert_eq!(names, sorted.into_iter().collect::<Vec<_>>(), "in order, each once");
    let sources = with_extension("rs");
    for name in names {
        let (modules, test) = name.rsplit_once("::").unwrap_or_else(|| panic!("{name}: without its module"));
        let module = modules.rsplit("::").find(|module| *module != "tests").unwrap();
        let found = sources.iter().any(|(path, text)| {
            let stem = |path: &Path| path.file_stem().is_some_and(|stem| stem == module);
            let lies_there = stem(path) || path.ends_with("mod.rs") && path.parent().is_some_and(stem);
            lies_there && text.contains(&format!("#[test]\n{}fn {test}()", indentation(modules)))
        });
        assert!(found, "scripts/slow_tests.txt: no test {name}");
    }
}

/// Before a test's `fn`: those next to what they test are in a module.
fn indentation(modules: &str) -> &'static str {
    if modules.ends_with("tests") { "    " } else { "" }
}

#[test]
fn the_registry_lists_every_encoding() {
    let registry = std::fs::read_to_string(root().join("formats/registry.md")).unwrap();
    for encoding in gq_tensor::Encoding::all() {
        let code = format!("0x{:04x}", encoding.code());
        let name = format!("`{encoding}`");
        let listed = registry.lines().any(|line| line.to_lowercase().contains(&code) && line.contains(&name));
        assert!(listed, "formats/registry.md has no line with {code} and {name}");
    }
}

#[test]
fn the_version_has_a_heading_in_the_changelog() {
    let changelog = std::fs::read_to_string(root().join("docs/CHANGELOG.md")).unwrap();
    assert!(changelog.contains("## Unreleased"));
    assert!(changelog.contains("### Formats"));
    let version = env!("CARGO_PKG_VERSION");
    let released = version != "0.1.0";
    assert!(!released || changelog.contains(&format!("## {version}")), "no heading for {version}");
}

/// A file that this program began and that goes without being forgotten leaves its number, which the next file gets.
#[test]
fn files_are_removed_and_renamed_where_that_is_noticed() {
    let crates = crate::layout::page();
    for (path, text) in with_extension("rs") {
        let inner = path.strip_prefix(root().join("crates")).unwrap_or(Path::new(""));
        if inner.ends_with("tests.rs") {
            continue;
        }
        let mut parts = inner.components().map(|part| part.as_os_str().to_str().unwrap());
        let (Some(name), Some("src")) = (parts.next(), parts.next()) else { continue };
        if !crates.get(name).is_some_and(|imports| imports.contains("gq-files")) {
            continue;
        }
        let code = text.lines().take_while(|line| *line != "#[cfg(test)]");
        for line in code {
            let found = ["fs::remove_file", "fs::remove_dir_all", "fs::rename"]
                .iter()
                .find(|call| line.contains(**call));
            assert!(found.is_none(), "{}: {line}: gq-files does it", path.display());
        }
    }
}
