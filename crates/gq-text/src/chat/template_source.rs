//! What a template's text is before it is parsed: line ends and escapes as Jinja reads them, and bounds on its size.

use super::deadline;
use super::python::{fail, unsupported};
use minijinja::machinery::{Span, Token, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Error, ErrorKind};

/// Most bytes of a template.
const MOST_BYTES: usize = 4 << 20;

/// Most operators, lookups and calls in one tag, and most `elif` in a template: each may nest one deeper.
const MOST_LINKS: usize = 2000;

/// Jinja's syntax as the Hub's library sets it.
pub(super) fn syntax() -> Result<SyntaxConfig, Error> {
    SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()
}

/// The template with line ends, string escapes and `{% generation %}` as what minijinja understands.
///
/// # Errors
/// When it is no template, is too large, or has an escape that cannot be read.
pub(super) fn prepare(template: &str) -> Result<String, Error> {
    if template.len() > MOST_BYTES {
        return Err(fail(format!(
            "the template has {} bytes; at most {MOST_BYTES} are read",
            template.len()
        )));
    }
    let source = template.replace("\r\n", "\n").replace('\r', "\n");
    let mut changes: Vec<(usize, usize, String)> = Vec::new();
    let mut tokens = Vec::new();
    for token in tokenize(&source, false, syntax()?) {
        deadline::check()?;
        tokens.push(token.map_err(named)?);
    }
    let (mut links, mut branches) = (0, 0);
    for (index, (token, span)) in tokens.iter().enumerate() {
        match token {
            Token::BlockStart | Token::VariableStart => links = 0,
            Token::Ident("elif") => branches += 1,
            Token::String(text) => {
                let raw = source.get(span.start_offset as usize + 1..span.end_offset as usize - 1);
                let meant = unescape(raw.unwrap_or_default())?;
                if meant != **text {
                    changes.push((span.start_offset as usize, span.end_offset as usize, literal(&meant)));
                }
            }
            Token::Ident(name @ ("generation" | "endgeneration")) => {
                let alone = index > 0
                    && matches!(tokens[index - 1].0, Token::BlockStart)
                    && matches!(tokens.get(index + 1), Some((Token::BlockEnd, _)));
                if alone {
                    // A body of its own, in which variables are set for it alone.
                    let tag = if *name == "generation" { "with" } else { "endwith" };
                    changes.push((span.start_offset as usize, span.end_offset as usize, tag.to_owned()));
                }
            }
            _ => (),
        }
        links += usize::from(nests(token));
        if links > MOST_LINKS || branches > MOST_LINKS {
            return Err(fail(format!(
                "more than {MOST_LINKS} operators in one tag, or branches, of the template"
            )));
        }
    }
    changes.extend(raw_lines(&source, &tokens).into_iter().map(|at| (at, at, "\n".to_owned())));
    changes.sort_unstable_by_key(|change| change.0);
    let mut out = String::with_capacity(source.len());
    let mut done = 0;
    for (start, end, text) in changes {
        out.push_str(source.get(done..start).unwrap_or_default());
        out.push_str(&text);
        done = end;
    }
    out.push_str(source.get(done..).unwrap_or_default());
    Ok(out)
}

/// Where a line ends right behind `{% raw %}`: Jinja keeps that line end and minijinja drops it.
///
/// The tag is in none of the `tokens`, which stand in their order in the source.
fn raw_lines(source: &str, tokens: &[(Token<'_>, Span)]) -> Vec<usize> {
    let mut lines = Vec::new();
    let mut tokens = tokens.iter().map(|(_, span)| span.start_offset as usize..span.end_offset as usize);
    let mut token = tokens.next();
    for (at, _) in source.match_indices("{%") {
        while token.as_ref().is_some_and(|token| token.end <= at) {
            token = tokens.next();
        }
        let tag = source[at + 2..].trim_start_matches(['-', '+']).trim_start();
        let Some(rest) =
            tag.strip_prefix("raw").map(str::trim_start).and_then(|rest| rest.strip_prefix("%}\n"))
        else {
            continue;
        };
        let within = token.as_ref().is_some_and(|token| token.contains(&at));
        lines.extend((!within).then_some(source.len() - rest.len()));
    }
    lines
}

/// An error of the lexer, which does not say that it is about an escape.
fn named(error: Error) -> Error {
    match error.kind() {
        ErrorKind::BadEscape => unsupported("an escape in a string"),
        _ => error,
    }
}

fn nests(token: &Token<'_>) -> bool {
    use Token as T;
    match token {
        T::Ident(name) => matches!(*name, "if" | "else" | "and" | "or" | "not" | "is" | "in"),
        T::TemplateData(_) | T::VariableStart | T::VariableEnd | T::BlockStart | T::BlockEnd => false,
        T::Str(_) | T::String(_) | T::Int(_) | T::Int128(_) | T::Float(_) => false,
        T::Comma | T::Colon | T::Assign | T::ParenClose | T::BracketClose | T::BraceClose => false,
        _ => true,
    }
}

/// A string as Python reads it.
fn unescape(raw: &str) -> Result<String, Error> {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match rest.next() {
            None => return Err(fail("a string ends in a backslash")),
            Some(mark) => match mark {
                '\n' => (),
                '\\' | '\'' | '"' => out.push(mark),
                'a' => out.push('\x07'),
                'b' => out.push('\x08'),
                'f' => out.push('\x0c'),
                'n' => out.push('\n'),
                'r' => out.push('\r'),
                't' => out.push('\t'),
                'v' => out.push('\x0b'),
                'x' => out.push(hex(&mut rest, 2)?),
                'u' => out.push(hex(&mut rest, 4)?),
                'U' => out.push(hex(&mut rest, 8)?),
                'N' => return Err(unsupported("the escape \\N in a string")),
                '0'..='7' => {
                    let mut number = mark.to_digit(8).unwrap_or(0);
                    for _ in 0..2 {
                        let Some(digit) = rest.clone().next().and_then(|c| c.to_digit(8)) else { break };
                        number = number * 8 + digit;
                        rest.next();
                    }
                    out.push(char::from_u32(number).unwrap_or('\0'));
                }
                other => {
                    out.push('\\');
                    out.push(other);
                }
            },
        }
    }
    Ok(out)
}

fn hex(rest: &mut std::str::Chars<'_>, digits: usize) -> Result<char, Error> {
    let text: String = rest.by_ref().take(digits).collect();
    let number = u32::from_str_radix(&text, 16).ok().filter(|_| text.len() == digits);
    number.and_then(char::from_u32).ok_or_else(|| unsupported(&format!("the escape of '{text}' in a string")))
}

/// A literal that every reader takes for `text`.
fn literal(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_blocks_become_bodies_of_their_own() {
        let text = "{# {% generation %} #}a{%- generation -%} b {%- endgeneration %}{{ '{% generation %}' }}";
        let expected = "{# {% generation %} #}a{%- with -%} b {%- endwith %}{{ '{% generation %}' }}";
        assert_eq!(prepare(text).unwrap(), expected);
    }

    #[test]
    fn escapes_are_pythons() {
        let text = r"{{ '\a\/\d\x41\U0001F600\101\u00e9' }}";
        let expected = "{{ \"\u{7}\\\\/\\\\dA\u{1F600}Aé\" }}";
        assert_eq!(prepare(text).unwrap(), expected);
        assert!(prepare(r"{{ '\N{DASH}' }}").is_err());
    }
}
