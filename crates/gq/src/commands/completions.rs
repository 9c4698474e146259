//! `gq completions`: scripts for shells.

use crate::cli::Cli;
use crate::failure::Failure;
use crate::global::Global;
use clap::CommandFactory;
use clap_complete::Shell;

/// Print a completion script for a shell.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  gq completions bash > ~/.local/share/bash-completion/completions/gq")]
pub struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

pub fn run(args: &CompletionsArgs, global: &Global) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "gq", &mut script);
    let script = String::from_utf8_lossy(&script);
    let output = global.output();
    match output.json {
        true => output.document(&serde_json::json!({ "shell": args.shell.to_string(), "script": script })),
        false => output.data(&script),
    }
}
