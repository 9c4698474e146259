//! `gq doctor`, and what the program says of itself.

use crate::run::{Gq, testdata};

#[test]
fn the_machine_is_described_and_files_that_fit_are_found() {
    let gq = Gq::new();
    let demo = testdata("demo");
    std::fs::create_dir(gq.path("files")).unwrap();
    for bits in ["3", "6"] {
        gq.ok(&["convert", &demo, "--bits", bits, "-o", &format!("files/{bits}.gq")]);
    }
    let found = gq.json(&["doctor", "files"]);
    assert!(found["machine"]["threads"].as_u64().unwrap() > 0);
    assert!(found["disks"][0]["free_bytes"].as_u64().unwrap() > 0, "{found}");
    assert_eq!(found["best"], "files/6.gq");
    let models = found["models"].as_array().unwrap();
    assert_eq!(models.len(), 2);
    for model in models {
        assert!(model["memory_bytes"].as_u64().unwrap() > model["file_bytes"].as_u64().unwrap(), "{model}");
    }
    // Keys and values count: more tokens take more memory, and too many fit nowhere.
    let longer = gq.json(&["doctor", "files", "--ctx", "16k"]);
    assert!(longer["models"][0]["memory_bytes"].as_u64() > models[0]["memory_bytes"].as_u64());
    let shown = gq.fails(1, &["doctor", "files", "--ctx", "1000M"]);
    assert!(shown.contains("none of these fits"), "{shown}");
    let shown = gq.ok(&["doctor", "files"]);
    assert!(shown.lines().any(|line| line.starts_with("6.gq") && line.contains("<- the best")), "{shown}");
    // A checkpoint runs, and the command that makes it faster is said.
    let shown = gq.ok(&["doctor", &demo]);
    assert!(shown.contains(&format!("gq convert {demo}")), "{shown}");
    std::fs::create_dir(gq.path("empty")).unwrap();
    gq.fails(3, &["doctor", "empty"]);
}

#[test]
fn the_version_names_commit_and_instruction_sets() {
    let gq = Gq::new();
    let short = gq.ok(&["-V"]);
    let long = gq.ok(&["--version"]);
    assert_eq!(short, format!("gq {}\n", env!("CARGO_PKG_VERSION")));
    let machine = gq.json(&["doctor"])["machine"].clone();
    assert!(
        long.starts_with(short.trim_end()) && long.contains(machine["level"].as_str().unwrap()),
        "{long}"
    );
    if let Some(commit) = machine["commit"].as_str() {
        assert!(long.contains(commit) && commit.len() == 12, "{long}");
    }
}
