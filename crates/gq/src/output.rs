//! The two streams: data goes to standard output, everything else to standard error.
//! The only file of the project that writes to either.
#![allow(clippy::print_stderr)]

use crate::failure::Failure;
use crate::units;
use serde::Serialize;
use std::io::{IsTerminal, Write};

/// How and whether to speak.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// One JSON document on standard output instead of text.
    pub json: bool,
    /// No notes on standard error; errors are still shown.
    pub quiet: bool,
}

impl Output {
    /// Writes data to standard output as it is.
    ///
    /// # Errors
    /// [`Failure::stdout`] when the reader went away, which ends the program silently.
    pub fn data(&self, text: &str) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| Failure::stdout(&e))
    }

    /// Writes one pretty JSON document and a newline.
    pub fn document(&self, value: &impl Serialize) -> Result<(), Failure> {
        let mut text = serde_json::to_string_pretty(value).map_err(|e| Failure::internal("json", &e))?;
        text.push('\n');
        self.data(&text)
    }

    /// A note for the person watching, on standard error. What comes from a file in it is made safe for the terminal.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            eprintln!("{}", lines_printable(text));
        }
    }

    /// A warning, on standard error. What comes from a file in it is made safe for the terminal.
    pub fn warn(&self, text: &str) {
        if !self.quiet {
            eprintln!("{} {}", paint("33", "warning:"), lines_printable(text));
        }
    }

    /// Clears what a bar left on the current line of a terminal.
    pub fn clear_line(&self) {
        eprint!("\r\x1b[2K");
    }

    /// Ends a line that was being edited, and the marks around what is pasted: no shell asked for them.
    pub fn leave_editor(&self) {
        eprint!("\x1b[?2004l\r\n");
    }

    /// Reports a failure: an object on standard output under `--json`, else a sentence and a hint on standard error.
    pub fn failure(&self, failure: &Failure) {
        if self.json {
            // Nothing can be done about a closed pipe here.
            let _ = self.document(&serde_json::json!({ "error": failure }));
            return;
        }
        eprintln!("{} {}", paint("31", "error:"), failure.sentence());
        if let Some(hint) = failure.hint() {
            eprintln!("{} {hint}", paint("36", "hint:"));
        }
    }
}

/// Whether standard error is a terminal that may be drawn on.
pub fn terminal() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

/// Lines of which every control character but the tabulator is escaped.
fn lines_printable(text: &str) -> String {
    let safe = |line: &str| line.split('\t').map(units::printable).collect::<Vec<_>>().join("\t");
    text.split('\n').map(safe).collect::<Vec<_>>().join("\n")
}

/// Colors a word when standard error is a terminal and `NO_COLOR` is not set.
fn paint(code: &str, text: &str) -> String {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    if terminal() && !no_color { format!("\x1b[1;{code}m{text}\x1b[0m") } else { text.to_owned() }
}
