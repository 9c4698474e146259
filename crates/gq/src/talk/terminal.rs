//! A chat on a terminal: a line editor, a few commands, and answers as they come.

use super::{Answer, Conversation, End, Manner, Shown};
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::{signals, terminal as kept, units};
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Cmd, Editor, Helper, KeyCode, KeyEvent, Modifiers};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const PROMPT: &str = ">>> ";
/// What stands around a message of several lines.
const QUOTES: &str = "\"\"\"";

const COMMANDS: [&str; 6] = ["/reset", "/stats", "/help", "/?", "/quit", "/exit"];

const HELP: &str = "\
/reset   forget the conversation
/stats   speed of the last answer, context used, how tokens are chosen
/help    this
/quit    leave; so does Ctrl-D, or Ctrl-C twice

A line that ends in \\ goes on in the next one, and a message that begins with
\"\"\" goes on until the next \"\"\". Alt-Enter begins a line as well, and a pasted
text is one message. Ctrl-C stops an answer.
A message that begins with / is written with a space in front of it.";

/// Talks until whoever is there leaves.
///
/// # Errors
/// When the terminal or the model fails; what a template or the context refuses is told, and the talk goes on.
pub fn chat(mut talk: Conversation<'_>, output: Output) -> Result<(), Failure> {
    let _terminal = kept::keep();
    let mut editor = editor()?;
    let stop = Arc::new(AtomicBool::new(false));
    let refused = |e: &dyn std::fmt::Display| Failure::new(Exit::Environment, "terminal", e).at("terminal");
    let _caught = signals::catch(&stop);
    let mut last: Option<Answer> = None;
    // Whether the last thing that was pressed is Ctrl-C.
    let mut pressed = false;
    loop {
        let line = match editor.readline(PROMPT) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) if pressed => break,
            Err(ReadlineError::Interrupted) => {
                pressed = true;
                output.note("Ctrl-C again leaves");
                continue;
            }
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(refused(&error)),
        };
        pressed = false;
        let said = unquoted(&line);
        match said.trim() {
            "" => continue,
            "/quit" | "/exit" => break,
            "/help" | "/?" => {
                output.data(&format!("{HELP}\n"))?;
                continue;
            }
            "/reset" => {
                talk.reset();
                last = None;
                output.note("forgotten");
                continue;
            }
            "/stats" => {
                output.data(&stats(&talk, last.as_ref()))?;
                continue;
            }
            command if said.starts_with('/') => {
                output.note(&no_command(command));
                continue;
            }
            _ => {}
        }
        stop.store(false, Ordering::Relaxed);
        let mut shown = Shown::new(output);
        match talk.say(&said, &mut |part, piece| shown.piece(part, piece), &stop) {
            Ok(answer) => {
                output.data("\n")?;
                tell(&answer, talk.manner(), output);
                pressed = answer.end == End::Stopped;
                last = Some(answer);
            }
            Err(failure) if failure.is_silent() => return Err(failure),
            Err(failure) => {
                output.data("\n")?;
                output.failure(&failure);
            }
        }
    }
    Ok(())
}

/// What about an answer should not go unnoticed.
pub fn tell(answer: &Answer, manner: &Manner, output: Output) {
    let context = manner.context;
    if answer.forgotten > 0 {
        output.note(&format!(
            "the context of {context} tokens is full: the {} oldest turns are forgotten",
            answer.forgotten
        ));
    }
    match answer.end {
        End::Turn => {}
        End::Stopped => output.note("stopped; Ctrl-C again leaves"),
        End::Limit => {
            let why = manner.most.map_or_else(String::new, |most| format!(": {}", most.source()));
            output.note(&format!("cut after {} tokens{why}", answer.tokens.len()));
        }
        End::Context => output.note(&format!("cut: the context of {context} tokens is full (--ctx, /reset)")),
    }
}

/// What is wrong with a line that begins with `/`.
fn no_command(line: &str) -> String {
    let command = line.split_whitespace().next().unwrap_or(line);
    let shown = units::printable(command);
    match COMMANDS.contains(&command) {
        true => format!("{shown} stands alone on its line; with a space in front of it, it is a message"),
        false => format!("{shown} is no command: /help lists them"),
    }
}

fn stats(talk: &Conversation<'_>, last: Option<&Answer>) -> String {
    let (used, bytes) = talk.used();
    let manner = talk.manner();
    let sampling = manner.sampling;
    let how = match sampling.temperature {
        t if t <= 0.0 => "the likeliest token".to_owned(),
        t => format!(
            "temperature {t}, top-k {}, top-p {}, min-p {}, seed {}",
            sampling.top_k, sampling.top_p, sampling.min_p, sampling.seed
        ),
    };
    let mut text = format!(
        "questions  {}\ncontext    {used} of {} tokens; keys and values take at most {}\nchoice     {how}, repetition penalty {}\n",
        talk.questions(),
        manner.context,
        units::bytes(bytes as u64),
        sampling.repetition_penalty,
    );
    if let Some(answer) = last {
        text += &format!(
            "prompt     {} tokens, {} of them read before; {:.1}/s\nanswer     {} tokens, {:.1}/s, ended by {}\n",
            answer.prompt.len(),
            answer.reused,
            answer.prompt_rate(),
            answer.tokens.len(),
            answer.rate(),
            answer.end.name(),
        );
    }
    text
}

fn editor() -> Result<Editor<Lines, MemHistory>, Failure> {
    let config = rustyline::Config::builder().auto_add_history(true).bracketed_paste(true).build();
    let editor = Editor::with_history(config, MemHistory::new());
    let mut editor = editor.map_err(|e| Failure::new(Exit::Environment, "terminal", e).at("terminal"))?;
    editor.set_helper(Some(Lines));
    editor.bind_sequence(KeyEvent(KeyCode::Enter, Modifiers::ALT), Cmd::Newline);
    Ok(editor)
}

/// Knows when a message is not at its end.
struct Lines;

impl Helper for Lines {}
impl Highlighter for Lines {}

impl Completer for Lines {
    type Candidate = String;
}

impl Hinter for Lines {
    type Hint = String;
}

impl Validator for Lines {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(match is_open(context.input()) {
            true => ValidationResult::Incomplete,
            false => ValidationResult::Valid(None),
        })
    }
}

/// Whether a message goes on in the next line.
fn is_open(input: &str) -> bool {
    match input.trim_start().strip_prefix(QUOTES) {
        Some(rest) => !rest.contains(QUOTES),
        None => input.ends_with('\\'),
    }
}

/// What is said, without what only says where it ends.
fn unquoted(input: &str) -> String {
    match input.trim_start().strip_prefix(QUOTES).and_then(|rest| rest.rsplit_once(QUOTES)) {
        Some((text, after)) => format!("{text}{after}").trim_matches('\n').to_owned(),
        None => input.replace("\\\n", "\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_several_lines() {
        for (input, open) in
            [("a", false), ("a\\", true), ("a\\\nb", false), ("\"\"\"a", true), ("\"\"\"a\nb\"\"\"", false)]
        {
            assert_eq!(is_open(input), open, "{input:?}");
        }
        assert_eq!(unquoted("a\\\nb \\ c"), "a\nb \\ c");
        assert_eq!(unquoted("\"\"\"\na\nb\n\"\"\""), "a\nb");
        assert_eq!(unquoted("say \"\"\""), "say \"\"\"");
    }
}
