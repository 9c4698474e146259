//! Tells the program which commit it was built from, where that is known.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=GQ_COMMIT");
    // Whoever packs the sources without their history may say it.
    let given = std::env::var("GQ_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = given.or_else(|| {
        // A commit moves what HEAD names; a checkout moves HEAD.
        let head = git(&["rev-parse", "--git-path", "HEAD"])?;
        println!("cargo::rerun-if-changed={head}");
        if let Some(branch) = git(&["symbolic-ref", "-q", "HEAD"])
            && let Some(path) = git(&["rev-parse", "--git-path", &branch])
        {
            println!("cargo::rerun-if-changed={path}");
        }
        git(&["rev-parse", "--short=12", "HEAD"])
    });
    println!("cargo::rustc-env=GQ_COMMIT={}", commit.unwrap_or_default());
}

/// What git says, in a line; `None` without git or without a repository.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}
