//! PTX text to words and marks.

/// A word or a mark, and the line it stands on, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Token<'a> {
    pub(crate) text: &'a str,
    pub(crate) line: u32,
}

/// Words (opcodes, names, numbers, strings) and single marks, comments left out.
pub(crate) fn tokens(text: &str) -> Vec<Token<'_>> {
    let bytes = text.as_bytes();
    let (mut out, mut at, mut line) = (Vec::new(), 0, 1);
    while at < bytes.len() {
        let start = at;
        match bytes[at] {
            b'\n' => {
                line += 1;
                at += 1;
            }
            c if c.is_ascii_whitespace() => at += 1,
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                at = text[at..].find('\n').map_or(bytes.len(), |end| at + end);
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => {
                let end = text[at..].find("*/").map_or(bytes.len(), |end| at + end + 2);
                line += text[at..end].matches('\n').count() as u32;
                at = end;
            }
            b'"' => {
                at = text[at + 1..].find('"').map_or(bytes.len(), |end| at + end + 2);
                out.push(Token { text: &text[start..at], line });
            }
            b'-' if bytes.get(at + 1).is_some_and(u8::is_ascii_digit) => {
                at = word_end(bytes, at + 1);
                out.push(Token { text: &text[start..at], line });
            }
            c if is_word(c) => {
                at = word_end(bytes, at);
                out.push(Token { text: &text[start..at], line });
            }
            c => {
                at += if c.is_ascii() { 1 } else { text[at..].chars().next().map_or(1, char::len_utf8) };
                out.push(Token { text: &text[start..at], line });
            }
        }
    }
    out
}

fn is_word(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'_' | b'$' | b'%' | b'.')
}

/// The end of a word; `::` belongs to it (`L1::no_allocate`), a single colon ends a label.
fn word_end(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            c if is_word(c) => at += 1,
            b':' if bytes.get(at + 1) == Some(&b':') => at += 2,
            _ => break,
        }
    }
    at
}
