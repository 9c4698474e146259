//! Where Python's strings are cut: white space, lines, words.

use super::arguments::{Arguments, integer, optional_string};
use super::python::{fail, list};
use minijinja::{Error, Value};

/// Whether Python's `strip` takes a character for white space.
pub(super) fn space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// `text` without the characters, or white space, at its ends.
pub(super) fn strip<'t>(text: &'t str, characters: Option<&str>, start: bool, end: bool) -> &'t str {
    let stripped = |c: char| characters.map_or_else(|| space(c), |characters| characters.contains(c));
    let text = if start { text.trim_start_matches(stripped) } else { text };
    if end { text.trim_end_matches(stripped) } else { text }
}

/// Lines at every end of line that Python knows.
pub(super) fn lines(text: &str, keep: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    let ends = |c: char| {
        matches!(c, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    while let Some(at) = rest.find(ends) {
        let mark = rest[at..].chars().next().map_or(1, char::len_utf8);
        let mark = if rest[at..].starts_with("\r\n") { 2 } else { mark };
        lines.push(&rest[..if keep { at + mark } else { at }]);
        rest = &rest[at + mark..];
    }
    lines.extend((!rest.is_empty()).then_some(rest));
    lines
}

/// `str.split` and, not `forward`, `str.rsplit`.
pub(super) fn split(text: &str, forward: bool, args: Arguments<'_>) -> Result<Value, Error> {
    let [separator, most] = args.bind(["sep", "maxsplit"], 0)?;
    let most = usize::try_from(integer(most.as_ref(), -1)?).unwrap_or(usize::MAX);
    let pieces = most.saturating_add(1);
    let mut parts: Vec<&str> = match optional_string(&separator, "separator")? {
        Some("") => return Err(fail("empty separator")),
        Some(separator) if forward => text.splitn(pieces, separator).collect(),
        Some(separator) => text.rsplitn(pieces, separator).collect(),
        None => words(text, most, forward),
    };
    if !forward {
        parts.reverse();
    }
    Ok(list(parts.into_iter().map(Value::from).collect()))
}

/// Words between white space, at most `most` splits; from the end, last word first, where not `forward`.
fn words(text: &str, most: usize, forward: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = strip(text, None, forward, !forward);
    while !rest.is_empty() {
        let at = if forward { rest.find(space) } else { rest.rfind(space) };
        let Some(at) = at.filter(|_| parts.len() < most) else {
            parts.push(rest);
            break;
        };
        let mark = rest[at..].chars().next().map_or(1, char::len_utf8);
        let (word, left) = match forward {
            true => (&rest[..at], &rest[at + mark..]),
            false => (&rest[at + mark..], &rest[..at]),
        };
        parts.push(word);
        rest = strip(left, None, forward, !forward);
    }
    parts
}
