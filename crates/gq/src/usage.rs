//! Command lines that are wrong, told so that the next one is right.

use crate::cli::Cli;
use crate::failure::{Exit, Failure};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Error};

/// Options of other tools, and what to write here.
const OPTIONS: [(&[&str], &str); 18] = [
    (&["verbose"], "notes go to standard error unless -q is given; --json says everything there is"),
    (&["debug", "log-level"], "notes go to standard error; --json says everything there is"),
    (&["temperature"], "write --temp"),
    (&["n-predict", "max-tokens", "max-new-tokens", "num-predict"], "write -n"),
    (&["ctx-size", "context", "context-length", "max-seq-len", "n-ctx"], "write --ctx"),
    (&["file"], "`gq run MODEL < FILE` reads the prompt from a file"),
    (&["interactive", "conversation", "interactive-first"], "`gq run MODEL` opens a chat on a terminal"),
    (&["no-conversation"], "write --raw"),
    (&["repeat-penalty", "repeat-last-n"], "write --repetition-penalty"),
    (&["gpu-layers", "n-gpu-layers", "ngl", "device", "gpu"], "there is no GPU code: gq computes on the CPU"),
    (&["outtype", "qtype", "quant", "quantization", "type", "ftype"], "write --encoding, --bits or --size"),
    (&["outfile", "out"], "write -o"),
    (&["imatrix"], "`gq convert --calibration` measures on text, in the place of an importance matrix"),
    (&["local-dir", "cache-dir"], "the cache is where HF_HOME or HF_HUB_CACHE says"),
    (&["max-kld", "kld"], "write --target-kld"),
    (&["tune", "refine"], "`gq improve FILE --scales` does that to a finished file"),
    (&["reround"], "`gq improve FILE --rounds` does that to a finished file"),
    (&["token", "hf-token"], "set HF_TOKEN, or run `hf auth login`"),
];

/// Commands of other tools, and what to write here.
const COMMANDS: [(&[&str], &str); 12] = [
    (&["chat", "generate", "infer", "complete", "talk"], "`gq run MODEL` talks to a model"),
    (&["serve", "server", "api"], "there is no server; `gq run MODEL` talks to a model on a terminal"),
    (&["quantize", "quantise", "quant", "compress", "make"], "`gq convert MODEL` quantizes a model"),
    (&["tune", "refine"], "`gq improve FILE --reference REF --scales` tunes scales and norms"),
    (&["reround"], "`gq improve FILE --reference REF --rounds` rounds the layers again"),
    (&["finetune", "train"], "gq does not train; `gq improve` brings a finished file closer to its original"),
    (&["download", "fetch", "get"], "`gq pull ORG/NAME` fetches a model"),
    (&["upload"], "`gq push FOLDER ORG/NAME` sends a folder"),
    (&["show", "info", "ls", "list"], "`gq inspect MODEL` shows what is in a model"),
    (
        &["perplexity", "ppl", "evaluate", "kld", "compare"],
        "`gq eval MODEL --reference REF --text FILE` measures",
    ),
    (&["imatrix", "measure"], "`gq calibrate MODEL` measures; `gq convert --calibration` does both"),
    (&["merge", "lora"], "`gq convert MODEL --lora ADAPTER` merges an adapter on the way"),
];

/// A wrong command line with tips that are to the point: clap's own would have it that every unknown option was meant
/// as a value, or that `--verbose` is spelled like `--version`.
pub fn improved(mut error: Error, arguments: &[String]) -> Error {
    let tip = match error.kind() {
        ErrorKind::UnknownArgument => {
            error.remove(ContextKind::Suggested);
            let given = single(&error, ContextKind::InvalidArg).unwrap_or_default();
            let name = given.trim_start_matches('-').split('=').next().unwrap_or_default().to_owned();
            let similar = single(&error, ContextKind::SuggestedArg);
            if similar.is_some_and(|similar| !alike(&name, similar.trim_start_matches('-'))) {
                error.remove(ContextKind::SuggestedArg);
                // It had the suggestion in it.
                if let Some(usage) = usage(arguments) {
                    error.insert(ContextKind::Usage, ContextValue::StyledStr(usage));
                }
            }
            match given.starts_with("--") {
                true => foreign(&OPTIONS, &name).or_else(|| elsewhere(&name, arguments)),
                false => None,
            }
        }
        ErrorKind::InvalidSubcommand => {
            error.remove(ContextKind::Suggested);
            let name = single(&error, ContextKind::InvalidSubcommand).unwrap_or_default();
            let similar = list(&error, ContextKind::SuggestedSubcommand).unwrap_or_default();
            if !similar.split(", ").any(|similar| alike(&name, similar)) {
                error.remove(ContextKind::SuggestedSubcommand);
            }
            foreign(&COMMANDS, &name)
        }
        _ => None,
    };
    if let Some(tip) = tip {
        error.remove(ContextKind::SuggestedArg);
        error.remove(ContextKind::SuggestedSubcommand);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

/// The same as a failure: all of what is missing or wrong in one sentence, tips as the hint.
pub fn failure(error: &Error) -> Failure {
    let text = error.to_string();
    let said = text.lines().take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let (tips, parts): (Vec<&str>, Vec<&str>) =
        said.map(str::trim).filter(|line| !line.is_empty()).partition(|line| line.starts_with("tip: "));
    let mut message = String::new();
    for part in parts {
        let separator = match message.chars().last() {
            None => "",
            Some(':') => " ",
            Some(_) if part.starts_with('[') => " ",
            Some(_) => ", ",
        };
        message += separator;
        message += part;
    }
    let message = message.trim_start_matches("error: ").trim_end_matches('.').to_owned();
    let mut failure = Failure::new(Exit::Usage, "usage", message);
    let place = match error.kind() {
        ErrorKind::MissingRequiredArgument => None,
        _ => single(error, ContextKind::InvalidArg),
    };
    failure = failure.at(place.unwrap_or_else(|| "command line".to_owned()));
    let missing = matches!(error.kind(), ErrorKind::MissingRequiredArgument);
    let expected = if missing { ContextKind::InvalidArg } else { ContextKind::ValidValue };
    if let Some(expected) = list(error, expected) {
        failure = failure.limit(expected);
    }
    if let Some(actual) = single(error, ContextKind::InvalidValue) {
        failure = failure.actual(actual);
    }
    match tips.is_empty() {
        true => failure,
        false => failure
            .advise(tips.iter().map(|tip| tip.trim_start_matches("tip: ")).collect::<Vec<_>>().join("; ")),
    }
}

fn single(error: &Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) if texts.len() == 1 => texts.first().cloned(),
        _ => None,
    }
}

fn list(error: &Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) if !texts.is_empty() => Some(texts.join(", ")),
        _ => None,
    }
}

fn foreign(table: &[(&[&str], &str)], name: &str) -> Option<String> {
    table.iter().find(|(names, _)| names.contains(&name)).map(|(_, tip)| (*tip).to_owned())
}

/// Whether a spelling can have been meant as another: a slip or two, or a beginning.
fn alike(given: &str, known: &str) -> bool {
    let slips = if given.len() > 5 { 2 } else { 1 };
    strsim::damerau_levenshtein(given, known) <= slips
        || given.len() > 2 && known.starts_with(given)
        || known.len() > 3 && given.starts_with(known)
}

/// How the command that was given is used.
fn usage(arguments: &[String]) -> Option<clap::builder::StyledStr> {
    let mut program = Cli::command();
    program.build();
    let name = arguments.iter().find(|argument| program.find_subcommand(argument).is_some())?;
    Some(program.find_subcommand_mut(name)?.render_usage())
}

/// The commands that have an option which the given one has not.
fn elsewhere(name: &str, arguments: &[String]) -> Option<String> {
    let program = Cli::command();
    let has = |command: &clap::Command| command.get_arguments().any(|arg| arg.get_long() == Some(name));
    let owners: Vec<String> = program
        .get_subcommands()
        .filter(|command| has(command))
        .map(|command| format!("`gq {}`", command.get_name()))
        .collect();
    let given = arguments.iter().find(|argument| program.find_subcommand(argument).is_some())?;
    match owners.split_last()? {
        (last, []) => Some(format!("--{name} is an option of {last}, not of `gq {given}`")),
        (last, rest) => {
            Some(format!("--{name} is an option of {} and {last}, not of `gq {given}`", rest.join(", ")))
        }
    }
}
