//! `gq completions`: scripts for shells.

use crate::failure::Failure;
use crate::global::Global;
use clap_complete::Shell;

/// Print a completion script for a shell.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  gq completions bash > ~/.local/share/bash-completion/completions/gq")]
pub struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

/// Prints the script for `root`, the whole command line.
pub fn run(args: &CompletionsArgs, root: &mut clap::Command, global: &Global) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, root, "gq", &mut script);
    let script = String::from_utf8_lossy(&script);
    let output = global.output();
    match output.json {
        true => output.document(&serde_json::json!({ "shell": args.shell.to_string(), "script": script })),
        false => output.data(&script),
    }
}
