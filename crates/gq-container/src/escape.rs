//! Text from files, made safe to show.

use std::fmt;

/// Longest piece of a foreign string that a message shows, in characters.
const SHOWN_CHARS: usize = 160;

/// Shows a foreign string in quotes, control characters escaped, overlong ones cut.
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = self.0.char_indices().nth(SHOWN_CHARS).map(|(at, _)| at);
        write!(f, "{:?}", self.0.get(..cut.unwrap_or(self.0.len())).unwrap_or(""))?;
        match cut {
            Some(_) => write!(f, "... ({} bytes)", self.0.len()),
            None => Ok(()),
        }
    }
}

/// Shows a path in quotes.
pub(crate) struct EscapedPath<'a>(pub(crate) &'a std::path::Path);

impl fmt::Display for EscapedPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped(&self.0.to_string_lossy()).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_long_strings_cut() {
        assert_eq!(Escaped("a\n\u{1b}[2J\u{202e}").to_string(), r#""a\n\u{1b}[2J\u{202e}""#);
        let long = "\u{e9}".repeat(300);
        assert_eq!(Escaped(&long).to_string(), format!("{:?}... (600 bytes)", "\u{e9}".repeat(SHOWN_CHARS)));
    }
}
