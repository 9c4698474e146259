//! An answer on a terminal, as it comes.

use super::harmless;
use crate::failure::Failure;
use crate::output::Output;
use gq_text::Part;

/// Writes pieces of one answer, with a line before what is thought and before what is said after it.
pub struct Shown {
    output: Output,
    last: Option<Part>,
}

impl Shown {
    /// Nothing written yet.
    pub fn new(output: Output) -> Shown {
        Shown { output, last: None }
    }

    /// Writes a piece.
    ///
    /// # Errors
    /// When standard output is gone.
    pub fn piece(&mut self, part: Part, text: &str) -> Result<(), Failure> {
        let head = match (self.last.replace(part), part) {
            (Some(last), part) if last == part => "",
            (None, Part::Content) => "",
            (None, Part::Thinking) => "[thinking]\n",
            (Some(_), Part::Thinking) => "\n[thinking]\n",
            (Some(_), Part::Content) => "\n[answer]\n",
        };
        self.output.data(&format!("{head}{}", harmless(text)))
    }
}
