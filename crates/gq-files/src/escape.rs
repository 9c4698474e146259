//! Paths, and texts from files, made safe to show.

use std::fmt;

/// Longest piece of a foreign string that a message shows, in characters.
const SHOWN_CHARS: usize = 160;

/// Shows a foreign string in quotes, control characters escaped, overlong ones cut.
#[derive(Debug)]
pub struct Escaped<'a>(
    /// The string.
    pub &'a str,
);

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

/// Shows a path as it is; in quotes where it is empty or has characters that do not show.
#[derive(Debug)]
pub struct EscapedPath<'a>(
    /// The path.
    pub &'a std::path::Path,
);

impl fmt::Display for EscapedPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string_lossy();
        let shows = |c: char| matches!(c, '\'' | '"') || c.escape_debug().len() == 1;
        match !text.is_empty() && text.chars().all(shows) {
            true => f.write_str(&text),
            false => Escaped(&text).fmt(f),
        }
    }
}

/// Shows another crate's sentence, which may quote foreign text as it is: without control characters, the middle cut.
#[derive(Debug)]
pub struct Sentence<'a, T>(
    /// What has the sentence.
    pub &'a T,
);

impl<T: fmt::Display> fmt::Display for Sentence<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chars: Vec<char> = self.0.to_string().chars().take(1 << 16).collect();
        let (start, end) = match chars.len() {
            0..=SHOWN_CHARS => (chars.len(), chars.len()),
            len => (SHOWN_CHARS / 2, len - SHOWN_CHARS / 2),
        };
        for c in chars.iter().take(start) {
            write_char(f, *c)?;
        }
        if end > start {
            f.write_str("...")?;
        }
        chars.iter().skip(end).try_for_each(|c| write_char(f, *c))
    }
}

fn write_char(f: &mut fmt::Formatter<'_>, c: char) -> fmt::Result {
    match c {
        '"' | '\'' | '\\' => write!(f, "{c}"),
        _ => write!(f, "{}", c.escape_debug()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_keep_their_quotes_and_both_ends() {
        assert_eq!(Sentence(&"key \"a\u{1b}\" at 1").to_string(), "key \"a\\u{1b}\" at 1");
        let long = format!("begin {} end", "x".repeat(500));
        let shown = Sentence(&long).to_string();
        assert!(shown.starts_with("begin x") && shown.ends_with("x end") && shown.len() == SHOWN_CHARS + 3);
    }

    #[test]
    fn paths_are_shown_as_they_are_typed() {
        let shown = |path: &str| EscapedPath(std::path::Path::new(path)).to_string();
        assert_eq!(shown("../a model/x's.gq"), "../a model/x's.gq");
        assert_eq!(shown("a\u{1b}[2J"), r#""a\u{1b}[2J""#);
        assert_eq!(shown(""), r#""""#);
    }

    #[test]
    fn control_characters_are_escaped_and_long_strings_cut() {
        assert_eq!(Escaped("a\n\u{1b}[2J\u{202e}").to_string(), r#""a\n\u{1b}[2J\u{202e}""#);
        let long = "\u{e9}".repeat(300);
        assert_eq!(Escaped(&long).to_string(), format!("{:?}... (600 bytes)", "\u{e9}".repeat(SHOWN_CHARS)));
    }
}
