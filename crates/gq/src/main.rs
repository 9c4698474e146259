//! The command line: parses, hands over to one file per command, renders failures and sets the exit code.
//! The only crate that prints, reads the environment or draws progress.
#![forbid(unsafe_code)]

mod adapters;
mod chat;
mod cli;
mod clock;
mod commands;
mod device;
mod dispatch;
mod encodings;
mod eta;
mod expected;
mod explain;
mod export;
mod export_mark;
mod failure;
mod global;
mod grid_cache;
mod guard;
mod help;
mod hints;
mod hub;
mod jobs;
mod looks;
mod machine;
mod options;
mod outcome;
mod output;
mod profile;
mod progress;
mod rates;
mod release;
mod search_folder;
mod seen;
mod signals;
mod source;
mod sums;
mod table;
mod talk;
mod terminal;
mod texts;
mod typed;
mod units;
mod usage;
mod user_cache;

use failure::Exit;
use output::Output;
use std::process::ExitCode;

/// Keeps freed buffers while a command measures, within what it has promised.
#[global_allocator]
static ALLOCATOR: gq_files::Reuser = gq_files::Reuser::new();

fn main() -> ExitCode {
    let cli = match help::parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(error),
    };
    signals::watch(cli.global.output());
    let outcome = dispatch::dispatch(&cli);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_silent() => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_told() {
                cli.global.output().failure(&failure);
            }
            ExitCode::from(failure.exit as u8)
        }
    }
}

/// Shows clap's own text (help, version, usage errors), or an error object when `--json` is among the arguments.
fn refuse(error: clap::Error) -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    let output = Output { json: arguments.iter().any(|a| a == "--json"), quiet: false };
    if !error.use_stderr() {
        // A closed pipe is not worth a second error.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let error = usage::improved(error, &arguments);
    match output.json {
        true => output.failure(&usage::failure(&error)),
        false => {
            let _ = error.print();
        }
    }
    ExitCode::from(Exit::Usage as u8)
}
