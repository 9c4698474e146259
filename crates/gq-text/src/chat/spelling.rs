//! `str()` and `repr()` of Python.

use super::python::{Kind, MOST_NESTED, Part, fail, kind, unsupported};
use minijinja::{Error, Value};

/// Most bytes of one value's text.
const MOST_BYTES: usize = 64 << 20;

/// `str(value)`, as a template prints it: nothing for what is undefined.
///
/// # Errors
/// For what Python prints with an address, and for what is nested too deep.
pub(super) fn text(value: &Value) -> Result<String, Error> {
    match kind(value) {
        Kind::Undefined => Ok(String::new()),
        Kind::Str(text) => Ok(text.to_owned()),
        _ => represent(value),
    }
}

/// `repr(value)`.
///
/// # Errors
/// As [`text`].
pub(super) fn represent(value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    write(&mut out, value, MOST_NESTED)?;
    Ok(out)
}

fn write(out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(fail(format!("lists and dictionaries are nested deeper than {MOST_NESTED}")));
    };
    if out.len() > MOST_BYTES {
        return Err(fail(format!("the text of a value has more than {MOST_BYTES} bytes")));
    }
    match kind(value) {
        Kind::Undefined => out.push_str("Undefined"),
        Kind::None => out.push_str("None"),
        Kind::Bool(flag) => out.push_str(if flag { "True" } else { "False" }),
        Kind::Int(number) => out.push_str(&number.to_string()),
        Kind::Float(number) => out.push_str(&float(number)),
        Kind::Str(_) if value.is_safe() => return Err(unsupported("printing escaped text within a list")),
        Kind::Str(text) => quote(out, text),
        Kind::List(items) => sequence(out, "[", items, "]", depth)?,
        Kind::Tuple([only]) => sequence(out, "(", std::slice::from_ref(only), ",)", depth)?,
        Kind::Tuple(items) => sequence(out, "(", items, ")", depth)?,
        Kind::Dict(dict) => {
            out.push('{');
            for (index, (key, value)) in dict.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                write(out, key, depth)?;
                out.push_str(": ");
                write(out, value, depth)?;
            }
            out.push('}');
        }
        Kind::Range(range) => {
            out.push_str(&format!("range({}, {}", range.start, range.stop));
            out.push_str(&if range.step == 1 { ")".to_owned() } else { format!(", {})", range.step) });
        }
        Kind::View(view) => {
            out.push_str(match view.part {
                Part::Keys => "dict_keys(",
                Part::Values => "dict_values(",
                Part::Items => "dict_items(",
            });
            sequence(out, "[", &view.items(), "])", depth)?;
        }
        Kind::Generator(_) => return Err(unsupported("printing what a filter yields, without `| list`,")),
        Kind::Method => return Err(unsupported("printing a method")),
        Kind::Object => return Err(unsupported("printing a macro, a namespace, a loop or a function")),
    }
    Ok(())
}

fn sequence(out: &mut String, open: &str, items: &[Value], close: &str, depth: usize) -> Result<(), Error> {
    out.push_str(open);
    for (index, item) in items.iter().enumerate() {
        out.push_str(if index == 0 { "" } else { ", " });
        write(out, item, depth)?;
    }
    out.push_str(close);
    Ok(())
}

/// The shortest decimals that read back, with an exponent below 1e-4 and from 1e16 on.
pub(super) fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = number.to_string();
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// A string in quotes, with Python's choice of quotes and escapes.
fn quote(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            ' '..='~' => out.push(c),
            c if printable(c) => out.push(c),
            c if (c as u32) < 0x100 => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if (c as u32) < 0x10000 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push_str(&format!("\\U{:08x}", c as u32)),
        }
    }
    out.push(quote);
}

/// Whether Python prints a character as it is: no control, format, surrogate, private, unassigned or separator.
fn printable(c: char) -> bool {
    // Behind another character, the standard library escapes what is not printable and nothing else.
    let mut text = [b'a'; 5];
    let length = c.encode_utf8(&mut text[1..]).len();
    let text = std::str::from_utf8(&text[..=length]).unwrap_or("a");
    text.escape_debug().count() == 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_as_python_spells_them() {
        for (number, expected) in [
            (3.0, "3.0"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e20, "1e+20"),
            (1e16, "1e+16"),
            (123456789012345680.0, "1.2345678901234568e+17"),
            (9999999999999998.0, "9999999999999998.0"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-1.5e-300, "-1.5e-300"),
            (-0.0, "-0.0"),
            (f64::INFINITY, "inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(float(number), expected);
        }
    }
}
