//! Who imports whom, compared with `docs/ARCHITECTURE.md`: crates by its table, modules of a crate in no circle.

use crate::tidy::{root, with_extension};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// What the column "imports (ours)" says of every crate.
pub fn page() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("| `gq"))
        .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>())
        .filter(|cells| cells.len() == 6)
        .collect();
    let name = |cells: &[&str]| cells[1].trim_matches('`').to_owned();
    let all: BTreeSet<String> = rows.iter().map(|cells| name(cells)).collect();
    let long = |short: &str| format!("gq-{}", short.trim());
    let imports = |cells: &[&str]| match cells[3] {
        "–" => BTreeSet::new(),
        but if but.starts_with("all but ") => {
            let left_out: BTreeSet<String> = but["all but ".len()..].split(',').map(long).collect();
            let itself = name(cells);
            all.iter().filter(|krate| !left_out.contains(*krate) && **krate != itself).cloned().collect()
        }
        some => some.split(',').map(long).collect(),
    };
    rows.iter().map(|cells| (name(cells), imports(cells))).collect()
}

#[test]
fn crates_import_what_the_page_says() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut manifests = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        let normal = package["dependencies"].as_array().unwrap().iter().filter(|d| d["kind"].is_null());
        let ours = normal.filter_map(|d| d["name"].as_str()).filter(|name| name.starts_with("gq-"));
        manifests.insert(package["name"].as_str().unwrap().to_owned(), ours.map(str::to_owned).collect());
    }
    assert_eq!(page(), manifests, "left: docs/ARCHITECTURE.md, right: the manifests");
}

#[test]
fn modules_import_each_other_in_no_circle() {
    let mut crates: BTreeMap<String, Modules> = BTreeMap::new();
    for (path, text) in with_extension("rs") {
        let Ok(inner) = path.strip_prefix(root().join("crates")) else { continue };
        let parts: Vec<&str> = inner.iter().filter_map(|part| part.to_str()).collect();
        let [krate, "src", module @ ..] = parts.as_slice() else { continue };
        // Files of tests know more than what they test.
        if module.last() == Some(&"tests.rs") {
            continue;
        }
        crates.entry((*krate).to_owned()).or_default().add(module, &text);
    }
    assert!(crates.len() > 10, "{:?}", crates.keys());
    for (krate, modules) in &crates {
        assert_eq!(modules.circles(), Vec::<Vec<String>>::new(), "modules of {krate} in a circle");
    }
}

#[test]
fn circles_are_found() {
    let modules = |files: &[(&[&str], &str)]| {
        let mut modules = Modules::default();
        files.iter().for_each(|(path, text)| modules.add(path, text));
        modules.circles()
    };
    // Two files that import each other, one of them through what the crate's root hands on.
    let root: (&[&str], &str) = (&["lib.rs"], "mod a;\nmod b;\npub use b::{Other, Thing};\n");
    let b: (&[&str], &str) = (&["b.rs"], "use super::a::{self, X};\n");
    let circle = modules(&[root, (&["a.rs"], "use crate::Thing;\n"), b]);
    assert_eq!(circle, [vec!["a".to_owned(), "b".to_owned()]]);
    // A path in code counts, one in a comment or in tests does not.
    let quiet = "// crate::b::f()\n#[cfg(test)]\nmod tests {\n    use crate::b::f;\n}\n";
    assert_eq!(modules(&[root, (&["a.rs"], quiet), b]), Vec::<Vec<String>>::new());
    assert_eq!(modules(&[root, (&["a.rs"], "fn f() { crate::b::g(); }\n"), b]).len(), 1);
    // Folders count as one module to what stands next to them; parent and child may know each other.
    let child: (&[&str], &str) = (&["a", "inner.rs"], "use super::Y;\nuse crate::b::Z;\n");
    let parent: (&[&str], &str) = (&["a", "mod.rs"], "mod inner;\nuse inner::I;\n");
    assert_eq!(modules(&[root, parent, child, b]).len(), 1);
    let other: (&[&str], &str) = (&["a", "inner.rs"], "use super::Y;\n");
    assert_eq!(modules(&[root, parent, other, b]), Vec::<Vec<String>>::new());
}

/// The modules of a crate by their path, and what their files say without tests and comments.
#[derive(Default)]
struct Modules(BTreeMap<Vec<String>, String>);

impl Modules {
    fn add(&mut self, file: &[&str], text: &str) {
        let mut path: Vec<String> = file.iter().map(|part| part.trim_end_matches(".rs").to_owned()).collect();
        if path.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
            path.pop();
        }
        let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        self.0.insert(path, lines.collect::<Vec<_>>().join("\n"));
    }

    /// Sets of sibling modules in which each leads to each other one; a module stands for all below it.
    fn circles(&self) -> Vec<Vec<String>> {
        let mut siblings: BTreeMap<&[String], BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
        let references: Vec<(&Vec<String>, Vec<String>)> = self
            .0
            .keys()
            .flat_map(|from| self.references(from).into_iter().map(move |to| (from, to)))
            .collect();
        for (from, to) in &references {
            let common = from.iter().zip(to).take_while(|(a, b)| a == b).count();
            if let (Some(a), Some(b)) = (from.get(common), to.get(common)) {
                siblings.entry(&from[..common]).or_default().entry(a).or_default().insert(b);
            }
        }
        let mut circles = BTreeSet::new();
        for edges in siblings.values() {
            let reach = |start: &str| {
                let (mut seen, mut next) = (BTreeSet::new(), vec![start.to_owned()]);
                while let Some(at) = next.pop() {
                    for &to in edges.get(at.as_str()).into_iter().flatten() {
                        if seen.insert(to.to_owned()) {
                            next.push(to.to_owned());
                        }
                    }
                }
                seen
            };
            let reached: BTreeMap<&str, BTreeSet<String>> = edges.keys().map(|&m| (m, reach(m))).collect();
            for (module, others) in reached.iter().filter(|(module, others)| others.contains(**module)) {
                let back = |other: &&String| reached.get(other.as_str()).is_some_and(|r| r.contains(*module));
                circles.insert(others.iter().filter(back).cloned().collect::<Vec<_>>());
            }
        }
        circles.into_iter().collect()
    }

    /// Modules that a module names.
    fn references(&self, module: &[String]) -> BTreeSet<Vec<String>> {
        let text = &self.0[module];
        let mut paths: BTreeSet<String> = imports(text).into_iter().collect();
        let words = text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
        paths.extend(words.filter(|word| word.contains("::")).map(str::to_owned));
        let mut found: BTreeSet<_> = paths.iter().filter_map(|path| self.resolve(module, path, 0)).collect();
        found.remove(module);
        found
    }

    /// The module in which what a path names is written; imports that are handed on are followed.
    fn resolve(&self, module: &[String], path: &str, depth: usize) -> Option<Vec<String>> {
        let mut parts = path.split("::").filter(|part| !part.is_empty()).peekable();
        let mut at = module.to_vec();
        match *parts.peek()? {
            "crate" => at.clear(),
            "self" | "super" => {}
            name => {
                at.push(name.to_owned());
                self.0.contains_key(&at).then_some(())?;
                at.pop();
            }
        }
        for part in parts {
            match part {
                "crate" | "self" => {}
                "super" => drop(at.pop()),
                name => {
                    at.push(name.to_owned());
                    if !self.0.contains_key(&at) {
                        at.pop();
                        let handed_on = imports(self.0.get(&at)?).into_iter();
                        let mut handed_on = handed_on.filter(|path| path.rsplit("::").next() == Some(name));
                        let from = handed_on.find(|path| path.contains("::")).filter(|_| depth < 4);
                        return from.and_then(|path| self.resolve(&at, &path, depth + 1)).or(Some(at));
                    }
                }
            }
        }
        Some(at)
    }
}

/// Every path that a file's `use` lines bring, braces written out.
fn imports(text: &str) -> Vec<String> {
    fn expand(prefix: &str, body: &str, out: &mut Vec<String>) {
        let (mut depth, mut start) = (0, 0);
        let ends = body.char_indices().chain([(body.len(), ',')]);
        for (at, c) in ends {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    let item = body[start..at].trim();
                    start = (at + 1).min(body.len());
                    match item.split_once('{') {
                        Some((head, rest)) => {
                            expand(
                                &format!("{prefix}{}", head.trim()),
                                rest.trim_end().trim_end_matches('}'),
                                out,
                            );
                        }
                        None if item.is_empty() => {}
                        None => out.push(format!("{prefix}{}", item.split(" as ").next().unwrap_or(item))),
                    }
                }
                _ => {}
            }
        }
    }
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("use ") {
        let starts = rest[..at].chars().next_back().is_none_or(|c| c == '\n' || c == ' ');
        let Some(end) = rest[at..].find(';') else { break };
        if starts {
            let statement: String = rest[at + 4..at + end].split_whitespace().collect::<Vec<_>>().join(" ");
            expand("", &statement, &mut out);
            rest = &rest[at + end..];
        } else {
            rest = &rest[at + 4..];
        }
    }
    out
}

/// Planning is a function of plain values: it names no type that reads moments.
#[test]
fn planning_sees_no_directory_of_moments() {
    let plan = root().join("crates/gq-convert/src/plan");
    let files: Vec<_> =
        with_extension("rs").into_iter().filter(|(path, _)| path.starts_with(&plan)).collect();
    assert!(files.len() > 8, "{}", files.len());
    assert!(files.iter().any(|(_, text)| text.contains("Measurements")));
    for (path, text) in files {
        assert!(!text.contains("MeasurementsDir"), "{}", path.display());
    }
}

/// Paths in backticks on the page exist: as they are, or inside the folder or crate that the line named before.
#[test]
fn paths_on_the_page_exist() {
    let text = std::fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let all: Vec<String> = crate::tidy::files()
        .iter()
        .map(|path| path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/"))
        .collect();
    let mut checked = 0;
    for line in text.lines() {
        for path in line.split('`').skip(1).step_by(2) {
            let is_path =
                path.contains('/') || Path::new(path).extension().is_some_and(|e| e == "rs" || e == "md");
            if !is_path
                || path.contains(['*', ' ', '<', '{'])
                || path.contains("NAME")
                || path.contains("OUT")
            {
                continue;
            }
            checked += 1;
            let wanted = path.trim_end_matches('/');
            // With or without the folder of all crates, and a crate's own of its sources.
            let exists = all.iter().any(|file| {
                let short = file.replacen("crates/", "", 1);
                [file.clone(), short.replacen("/src/", "/", 1), short].iter().any(|file| {
                    let parts: Vec<&str> = file.split('/').collect();
                    let wanted: Vec<&str> = wanted.split('/').collect();
                    parts.windows(wanted.len()).any(|window| window == wanted)
                })
            });
            assert!(exists, "docs/ARCHITECTURE.md names {path}, which does not exist");
        }
    }
    assert!(checked > 40, "{checked}");
}
