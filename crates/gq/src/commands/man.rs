//! `gq man`: the manual, as man pages or as the Markdown of `docs/CLI.md`. Both come from clap's tree.

use crate::failure::{Exit, Failure};
use crate::global::Common;
use crate::global::Global;
use clap::Command;
use std::fmt::Write;

/// Print the manual page of gq or of one of its commands.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  gq man | man -l -\n  gq man convert > gq-convert.1\n  gq man --markdown > docs/CLI.md"
)]
pub struct ManArgs {
    /// Command to describe [default: gq itself].
    command: Option<String>,
    /// The whole manual as Markdown.
    #[arg(long, conflicts_with = "command")]
    markdown: bool,
}

/// Prints the manual of `root`, the whole command line with the common options where they are asked for.
pub fn run(args: &ManArgs, root: &dyn Fn(Common) -> Command, global: &Global) -> Result<(), Failure> {
    let output = global.output();
    let text = match args.markdown {
        true => markdown(root),
        false => roff(root, args.command.as_deref())?,
    };
    match output.json {
        true => output.document(&serde_json::json!({ "command": args.command, "text": text })),
        false => output.data(&text),
    }
}

fn roff(root: &dyn Fn(Common) -> Command, name: Option<&str>) -> Result<String, Failure> {
    let mut root = root(Common::Everywhere);
    root.build();
    let command = match name {
        None => root,
        Some(name) => {
            let known = || {
                let message = format!("man {}: there is no such command", crate::units::printable(name));
                Failure::new(Exit::Usage, "usage", message).at("man").actual(name)
            };
            root.find_subcommand(name).ok_or_else(known)?.clone().name(format!("gq-{name}"))
        }
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).map_err(|e| Failure::internal("man", &e))?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// The text of `docs/CLI.md`.
fn markdown(root: &dyn Fn(Common) -> Command) -> String {
    let mut root = root(Common::Once);
    root.build();
    let mut out = String::from(
        "# Command line\n\nWritten by `gq man --markdown`; a test compares this file with the program.\n\
         The global options stand with `gq`; every command takes them.\n",
    );
    section(&mut out, "gq", root.clone());
    sections(&mut out, "gq", &root);
    out
}

/// Commands below `parent`, each followed by its own.
fn sections(out: &mut String, title: &str, parent: &Command) {
    for command in parent.get_subcommands().filter(|c| c.get_name() != "help") {
        let title = format!("{title} {}", command.get_name());
        section(out, &title, command.clone());
        sections(out, &title, command);
    }
}

fn section(out: &mut String, title: &str, command: Command) {
    let help = command.bin_name(title).clone().render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    // Writing to a String does not fail.
    let _ = write!(out, "\n## `{title}`\n\n```text\n{}\n```\n", help.join("\n").trim_end());
}
