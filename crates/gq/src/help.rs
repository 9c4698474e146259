//! The command line as it is shown: examples with hanging indents, and options only where they do something.

use crate::cli::{Cli, WIDEST};
use crate::global::Common;
use crate::machine::Machine;
use crate::options::calibration::as_of_calibrate;
use crate::terminal;
use clap::{Arg, Command, CommandFactory, FromArgMatches};

/// Columns where no terminal says how many it has.
const USUAL: usize = 100;
/// Fewest columns that a remark stands in next to what it is about; with fewer it stands below.
const NARROWEST: usize = 24;
/// How far a line that goes on is moved in.
const HANG: usize = 4;

/// Commands that compute with weights.
const COMPUTING: [&str; 10] =
    ["convert", "calibrate", "improve", "plan", "eval", "run", "export", "release", "bench", "demo"];
/// Commands that open checkpoints and GGUFs.
const READING: [&str; 12] = [
    "convert",
    "verify",
    "doctor",
    "calibrate",
    "improve",
    "plan",
    "inspect",
    "eval",
    "run",
    "export",
    "release",
    "bench",
];
/// Options that every command takes and that do something in these alone.
const ONLY: [(&str, &[&str]); 4] =
    [("isa", &COMPUTING), ("ignore_key", &READING), ("assume_pre", &READING), ("turn_tokens", &READING)];

/// Parses the command line.
///
/// # Errors
/// What clap has to say: of a wrong command line, or the help and the version that were asked for.
pub fn parse() -> Result<Cli, clap::Error> {
    let columns = terminal::columns().unwrap_or(USUAL).min(WIDEST);
    // Of this build on this machine: pages of the manual have the version alone.
    let command = command(columns, Common::Everywhere).long_version(Machine::detect().build());
    let matches = command.try_get_matches()?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut Cli::command()))
}

/// The command line with its help laid out for so many columns.
pub fn command(columns: usize, common: Common) -> Command {
    let root = Cli::command();
    let global: Vec<Arg> = root.get_arguments().filter(|arg| arg.is_global_set()).cloned().collect();
    let hidden = |command: &str| {
        let applies = |arg: &&Arg| match ONLY.iter().find(|(option, _)| arg.get_id() == option) {
            Some((_, commands)) => commands.contains(&command),
            None => common == Common::Everywhere,
        };
        global.iter().filter(|arg| !applies(arg)).map(|arg| arg.clone().hide(true)).collect::<Vec<_>>()
    };
    let root = root.mut_subcommands(|sub| {
        let hidden = hidden(sub.get_name());
        let sub = sub.args(hidden);
        if sub.get_name() == "calibrate" { as_of_calibrate(sub) } else { sub }
    });
    laid_out(root, columns)
}

/// A command and those below it: text behind the options broken by us, and numbers below zero taken for values.
fn laid_out(command: Command, columns: usize) -> Command {
    let behind = command.get_after_help().map(|text| folded(&text.to_string(), columns));
    // So that the option can say which numbers it takes.
    let command = command.term_width(columns).mut_args(|arg| match arg.get_action().takes_values() {
        true if !arg.is_positional() => arg.allow_negative_numbers(true),
        _ => arg,
    });
    let command = match behind {
        Some(text) => command.after_help(text),
        None => command,
    };
    command.mut_subcommands(|sub| laid_out(sub, columns))
}

/// Text whose lines have at most so many columns. A line goes on below its remark, which stands behind two spaces or
/// more; without one, it goes on further in. Remarks that have no room stand below their lines, all of a block.
fn folded(text: &str, columns: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut out: Vec<String> = Vec::new();
    for block in lines.chunk_by(|a, b| remark(a) == remark(b)) {
        let long = block.iter().any(|line| line.chars().count() > columns);
        let place = block.first().and_then(|line| remark(line)).filter(|_| long);
        let below = place.is_some_and(|place| place + NARROWEST > columns);
        for line in block {
            let Some(place) = place else {
                out.extend(broken(line, columns));
                continue;
            };
            let head: String = line.chars().take(place).collect();
            let said: String = line.chars().skip(place).collect();
            let indent = if below { indent(line) + HANG } else { place };
            let mut said = wrapped(&said, indent, indent, columns, "").into_iter();
            if below {
                out.extend(broken(head.trim_end(), columns));
            } else if let Some(first) = said.next() {
                out.push(format!("{head}{}", first.trim_start()));
            }
            out.extend(said);
        }
    }
    out.join("\n")
}

/// Where a remark begins in a line: behind the first two spaces that follow something.
fn remark(line: &str) -> Option<usize> {
    let from = indent(line);
    let chars: Vec<char> = line.chars().collect();
    let gap = (from..chars.len()).find(|&at| chars[at..].starts_with(&[' ', ' ']))?;
    (gap..chars.len()).find(|&at| chars[at] != ' ')
}

fn indent(line: &str) -> usize {
    line.chars().take_while(|&c| c == ' ').count()
}

/// A line without a remark; a command that goes on says so to the shell.
fn broken(line: &str, columns: usize) -> Vec<String> {
    let from = indent(line);
    let hang = if from == 0 { 0 } else { from + HANG };
    let end = if line.trim_start().starts_with("gq ") { " \\" } else { "" };
    wrapped(line.trim_start(), from, hang, columns, end)
}

/// Words in lines, the first moved in by `first`, the others by `rest`; all but the last end in `end`.
fn wrapped(text: &str, first: usize, rest: usize, columns: usize, end: &str) -> Vec<String> {
    let whole = " ".repeat(first) + text;
    if whole.chars().count() <= columns {
        return vec![whole.trim_end().to_owned()];
    }
    let room = columns.saturating_sub(end.len());
    let mut lines = vec![" ".repeat(first)];
    let mut empty = true;
    for word in words(text) {
        let Some(line) = lines.last_mut() else { break };
        let taken = line.chars().count() + word.chars().count() + usize::from(!empty);
        if !empty && taken > room {
            line.push_str(end);
            lines.push(" ".repeat(rest) + &word);
        } else {
            line.push_str(if empty { "" } else { " " });
            line.push_str(&word);
        }
        empty = false;
    }
    lines
}

/// Words; what stands in single quotes is one, as for the shell.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let quotes = |word: &str| word.starts_with('\'') && (word.len() == 1 || !word.ends_with('\''));
        match words.last_mut().filter(|last| quotes(last)) {
            Some(open) => {
                open.push(' ');
                open.push_str(word);
            }
            None => words.push(word.to_owned()),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Help of a command, or of the program.
    fn help(name: &str, columns: usize) -> String {
        let mut root = command(columns, Common::Everywhere);
        root.build();
        match root.find_subcommand(name) {
            Some(sub) => sub.clone().render_long_help().to_string(),
            None => root.render_long_help().to_string(),
        }
    }

    #[test]
    fn examples_hang_at_every_width() {
        for columns in [60, 80, 100, 120] {
            let columns = columns.min(WIDEST);
            for name in ["", "convert", "plan", "run", "eval", "improve", "pull", "release", "export"] {
                let text = help(name, columns);
                let behind = text.split_once("\nExample").map_or("", |(_, behind)| behind);
                assert!(behind.contains("\n  gq "), "{name}: {text}");
                for line in behind.lines().skip(1).take_while(|line| !line.is_empty()) {
                    assert!(line.starts_with("  "), "{name} at {columns}: {line:?}");
                }
                // A line of usage is clap's own, and a long word has no place to be broken at.
                let broken = |line: &&str| !line.starts_with("Usage:") && line.split_whitespace().count() > 1;
                for line in text.lines().filter(broken) {
                    assert!(line.trim_end().chars().count() <= columns, "{name} at {columns}: {line:?}");
                }
            }
        }
    }

    #[test]
    fn lines_go_on_below_their_remarks() {
        let text = "Names:\n  ab    one two three four\n  cdef  five";
        assert_eq!(folded(text, 40), text);
        assert_eq!(
            folded("  ab    one two three four five six seven", 34),
            "  ab    one two three four five\n        six seven"
        );
        // No room next to it: the remarks of the whole block stand below.
        assert_eq!(
            folded("  gq make something  this\n  gq do              that and that", 30),
            "  gq make something\n      this\n  gq do\n      that and that"
        );
        assert_eq!(folded("  gq run x -p 'a b c' --temp 1", 24), "  gq run x -p 'a b c' \\\n      --temp 1");
        assert_eq!(folded("some words here", 10), "some words\nhere");
    }

    #[test]
    fn options_are_shown_where_they_do_something() {
        for (name, isa, reading) in [
            ("verify", false, true),
            ("completions", false, false),
            ("demo", true, false),
            ("run", true, true),
        ] {
            let text = help(name, 100);
            assert_eq!((text.contains("--isa"), text.contains("--assume-pre")), (isa, reading), "{name}");
            assert!(text.contains("--json"), "{name}");
        }
        let mut once = command(100, Common::Once);
        once.build();
        let run = once.find_subcommand("run").unwrap().clone().render_long_help().to_string();
        assert!(!run.contains("--json") && run.contains("--isa"), "{run}");
        // What is hidden is taken all the same.
        let parsed = |args: &[&str]| command(100, Common::Everywhere).try_get_matches_from(args).unwrap();
        let cli = Cli::from_arg_matches(&parsed(&["gq", "completions", "bash", "--isa", "scalar"])).unwrap();
        assert!(cli.global.isa.is_some());
    }

    #[test]
    fn calibrate_has_defaults_of_its_own() {
        let words = |name| help(name, 110).split_whitespace().collect::<Vec<_>>().join(" ");
        let (calibrate, convert) = (words("calibrate"), words("convert"));
        for (own, other) in [
            ("<builtin|self|FILE|DIR>", "<none|builtin|self|FILE|DIR>"),
            ("131072]", "from 4096 to 16384"),
            ("[default: 8192]", "[default: 2048]"),
            ("[default: 3072]", "[default: 1024]"),
        ] {
            assert!(calibrate.contains(own) && !calibrate.contains(other), "{own}: {calibrate}");
            assert!(convert.contains(other), "{other}: {convert}");
        }
    }

    #[test]
    fn every_command_of_the_lists_is_there() {
        let root = Cli::command();
        for name in COMPUTING.iter().chain(&READING) {
            assert!(root.find_subcommand(name).is_some(), "{name}");
        }
        for (option, _) in ONLY {
            assert!(root.get_arguments().any(|arg| arg.get_id() == option), "{option}");
        }
    }
}
