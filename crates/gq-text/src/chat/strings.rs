//! Methods of Python's strings.

use super::arguments::{Arguments, flag, integer, optional_string, string};
use super::braces;
use super::formatting::centered;
use super::python::{Kind, fail, int, iterate, kind, list, room, tuple, type_name, unsupported};
use super::splitting::{lines, space, split, strip};
use minijinja::{Error, State, Value};

/// Methods that leave nothing to escape in text that is escaped already.
const SAFE: [&str; 12] = [
    "endswith",
    "find",
    "islower",
    "isspace",
    "isupper",
    "lower",
    "lstrip",
    "rstrip",
    "startswith",
    "strip",
    "title",
    "upper",
];

/// `text.name(…)`, where `text` is that of `value`.
pub(super) fn call(
    state: &mut State<'_, '_>,
    value: &Value,
    text: &str,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if !value.is_safe() {
        return method(state, text, name, args);
    }
    if !SAFE.contains(&name) {
        return Err(unsupported(&format!("str.{name} of escaped text")));
    }
    let result = method(state, text, name, args)?;
    Ok(result.as_str().map(|text| Value::from_safe_string(text.to_owned())).unwrap_or(result))
}

fn method(state: &mut State<'_, '_>, text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let args = Arguments::new(name, args)?;
    match name {
        "format" => {
            let (positional, named) = args.into_parts();
            return braces::format(state, text, &positional, &named).map(Value::from);
        }
        "split" | "rsplit" => return split(text, name == "split", args),
        "splitlines" => {
            let [keep] = args.bind(["keepends"], 0)?;
            return Ok(list(lines(text, flag(&keep)).into_iter().map(Value::from).collect()));
        }
        "replace" => {
            // Newer Pythons take the count by name.
            let [old, new, count] = args.positional_only(2)?;
            return replace(state, text, [&old, &new], count.as_ref());
        }
        "expandtabs" => return Err(unsupported("str.expandtabs")),
        _ => (),
    }
    match name {
        "center" | "ljust" | "rjust" | "zfill" => pad(state, text, name, args),
        "count" | "find" | "rfind" | "index" | "rindex" => search(text, name, args),
        "startswith" | "endswith" => affix(text, name, args),
        "strip" | "lstrip" | "rstrip" => {
            let [characters] = args.positional_only(0)?;
            let characters = optional_string(&characters, "strip arg")?;
            Ok(Value::from(strip(text, characters, name != "rstrip", name != "lstrip")))
        }
        "removeprefix" | "removesuffix" => {
            let [affix] = args.positional_only(1)?;
            let affix = string(affix.as_ref().unwrap_or(&Value::UNDEFINED), "argument")?.to_owned();
            let rest =
                if name == "removeprefix" { text.strip_prefix(&*affix) } else { text.strip_suffix(&*affix) };
            Ok(Value::from(rest.unwrap_or(text)))
        }
        "partition" | "rpartition" => {
            let [separator] = args.positional_only(1)?;
            let separator = string(separator.as_ref().unwrap_or(&Value::UNDEFINED), "argument")?.to_owned();
            let forward = name == "partition";
            if separator.is_empty() {
                return Err(fail("empty separator"));
            }
            let parts = if forward { text.split_once(&*separator) } else { text.rsplit_once(&*separator) };
            let parts = match parts {
                Some((before, after)) => [before, &separator, after],
                None if forward => [text, "", ""],
                None => ["", "", text],
            };
            Ok(tuple(parts.into_iter().map(Value::from).collect()))
        }
        "join" => {
            let [parts] = args.positional_only(1)?;
            join(state, text, &iterate(parts.as_ref().unwrap_or(&Value::UNDEFINED))?)
        }
        _ => {
            let [] = args.positional_only(0)?;
            plain(text, name)
        }
    }
}

/// Methods without arguments.
fn plain(text: &str, name: &str) -> Result<Value, Error> {
    let every = |test: &dyn Fn(char) -> Result<bool, Error>| -> Result<Value, Error> {
        for c in text.chars() {
            if !test(c)? {
                return Ok(Value::from(false));
            }
        }
        Ok(Value::from(!text.is_empty()))
    };
    // Beyond ASCII, Python asks for categories that the standard library does not have.
    let sure = |c: char, ascii: bool, possible: bool| match (c.is_ascii(), possible) {
        (true, _) => Ok(ascii),
        (false, false) => Ok(false),
        (false, true) => Err(unsupported(&format!("str.{name} of characters such as '{c}'"))),
    };
    match name {
        "upper" => Ok(Value::from(text.to_uppercase())),
        "lower" => Ok(Value::from(text.to_lowercase())),
        "casefold" if text.is_ascii() => Ok(Value::from(text.to_lowercase())),
        "swapcase" if text.is_ascii() => {
            let swap =
                |c: char| if c.is_uppercase() { c.to_ascii_lowercase() } else { c.to_ascii_uppercase() };
            Ok(Value::from(text.chars().map(swap).collect::<String>()))
        }
        "capitalize" => capitalize(text).map(Value::from),
        "title" => title(text).map(Value::from),
        "isascii" => Ok(Value::from(text.is_ascii())),
        "isspace" => every(&|c| Ok(space(c))),
        "islower" => {
            Ok(Value::from(text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase)))
        }
        "isupper" => {
            Ok(Value::from(text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)))
        }
        "isalpha" => every(&|c| sure(c, c.is_ascii_alphabetic(), c.is_alphabetic())),
        "isalnum" => every(&|c| sure(c, c.is_ascii_alphanumeric(), c.is_alphanumeric())),
        "isdigit" | "isdecimal" | "isnumeric" => {
            // Some ideographs are numerals to Python and letters to the standard library.
            every(&|c| {
                sure(c, c.is_ascii_digit(), c.is_numeric() || (name == "isnumeric" && c.is_alphabetic()))
            })
        }
        "istitle" if text.is_ascii() => {
            Ok(Value::from(text.chars().any(|c| c.is_ascii_alphabetic()) && title(text)? == text))
        }
        "casefold" | "swapcase" | "istitle" => Err(unsupported(&format!("str.{name} beyond ASCII"))),
        _ => Err(unsupported(&format!("str.{name}"))),
    }
}

/// Title case of one character, where it is upper case.
fn titled(c: char, out: &mut String) -> Result<(), Error> {
    match c as u32 {
        0x1c4..=0x1cc | 0x1f1..=0x1f3 | 0x10d0..=0x10ff | 0x1f80..=0x1fff => {
            Err(unsupported(&format!("the title case of '{c}'")))
        }
        _ => {
            let mut upper = c.to_uppercase();
            out.extend(upper.next());
            out.extend(upper.flat_map(char::to_lowercase));
            Ok(())
        }
    }
}

/// `str.capitalize`.
pub(super) fn capitalize(text: &str) -> Result<String, Error> {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    if let Some(first) = characters.next() {
        titled(first, &mut out)?;
    }
    if text.contains('Σ') {
        return Err(unsupported("the case of a capital sigma"));
    }
    out.push_str(&characters.as_str().to_lowercase());
    Ok(out)
}

/// `str.title`.
fn title(text: &str) -> Result<String, Error> {
    if text.contains('Σ') {
        return Err(unsupported("the case of a capital sigma"));
    }
    let mut out = String::with_capacity(text.len());
    let mut within = false;
    for c in text.chars() {
        match within {
            true => out.extend(c.to_lowercase()),
            false => titled(c, &mut out)?,
        }
        within = c.is_lowercase() || c.is_uppercase();
    }
    Ok(out)
}

fn replace(
    state: &State<'_, '_>,
    text: &str,
    [old, new]: [&Option<Value>; 2],
    count: Option<&Value>,
) -> Result<Value, Error> {
    let old = string(old.as_ref().unwrap_or(&Value::UNDEFINED), "replace() argument 1")?;
    let new = string(new.as_ref().unwrap_or(&Value::UNDEFINED), "replace() argument 2")?;
    replaced(state, text, old, new, integer(count, -1)?).map(Value::from)
}

/// `text` with `old` replaced by `new`, at most `count` times where that is not negative.
pub(super) fn replaced(
    state: &State<'_, '_>,
    text: &str,
    old: &str,
    new: &str,
    count: i128,
) -> Result<String, Error> {
    let matches = if old.is_empty() { text.chars().count() + 1 } else { text.matches(old).count() };
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(matches);
    room(state, text.len().saturating_add(count.saturating_mul(new.len())))?;
    Ok(text.replacen(old, new, count))
}

fn affix(text: &str, name: &str, args: Arguments<'_>) -> Result<Value, Error> {
    let [affixes, start, end] = args.positional_only(1)?;
    let text = within(text, start.as_ref(), end.as_ref())?.map(|(_, text)| text);
    let affixes = affixes.unwrap_or_default();
    let test = |affix: &Value| -> Result<bool, Error> {
        let affix = string(affix, &format!("{name} first arg"))?;
        Ok(text.is_some_and(|text| {
            if name == "startswith" { text.starts_with(affix) } else { text.ends_with(affix) }
        }))
    };
    match kind(&affixes) {
        Kind::Tuple(items) => {
            for item in items {
                if test(item)? {
                    return Ok(Value::from(true));
                }
            }
            Ok(Value::from(false))
        }
        _ => test(&affixes).map(Value::from),
    }
}

/// The part between two bounds in characters and where it starts; `None` where it starts behind the end.
fn within<'t>(
    text: &'t str,
    start: Option<&Value>,
    end: Option<&Value>,
) -> Result<Option<(usize, &'t str)>, Error> {
    if start.is_none() && end.is_none() {
        return Ok(Some((0, text)));
    }
    let length = text.chars().count() as i128;
    let bound = |value: Option<&Value>, default: i128| -> Result<i128, Error> {
        let at = integer(value.filter(|value| !value.is_none()), default)?;
        Ok(if at < 0 { (at + length).max(0) } else { at })
    };
    let (start, end) = (bound(start, 0)?, bound(end, length)?.min(length));
    if start > length || start > end {
        return Ok(None);
    }
    let (start, end) = (usize::try_from(start).unwrap_or(0), usize::try_from(end).unwrap_or(0));
    let offset = |at: usize| text.char_indices().nth(at).map_or(text.len(), |(offset, _)| offset);
    Ok(Some((start, &text[offset(start)..offset(end)])))
}

fn search(text: &str, name: &str, args: Arguments<'_>) -> Result<Value, Error> {
    let [what, start, end] = args.positional_only(1)?;
    let what = what.unwrap_or_default();
    let what = string(&what, "must be str, not")?;
    let part = within(text, start.as_ref(), end.as_ref())?;
    if name == "count" {
        let count = part.map_or(0, |(_, part)| match what {
            "" => part.chars().count() + 1,
            _ => part.matches(what).count(),
        });
        return Ok(Value::from(count));
    }
    let found = part.and_then(|(start, part)| {
        let at = if name.starts_with('r') { part.rfind(what) } else { part.find(what) };
        at.map(|at| start + part[..at].chars().count())
    });
    match found {
        Some(at) => Ok(Value::from(at)),
        None if name.ends_with("find") => Ok(int(-1)),
        None => Err(fail("substring not found")),
    }
}

fn pad(state: &State<'_, '_>, text: &str, name: &str, args: Arguments<'_>) -> Result<Value, Error> {
    let [width, fill] = args.positional_only(1)?;
    let width = integer(width.as_ref(), 0)?;
    let fill = match &fill {
        None => {
            if name == "zfill" {
                '0'
            } else {
                ' '
            }
        }
        Some(_) if name == "zfill" => return Err(fail("zfill() takes exactly one argument (2 given)")),
        Some(fill) => {
            let mut characters = string(fill, "the fill character")?.chars();
            match (characters.next(), characters.next()) {
                (Some(fill), None) => fill,
                _ => return Err(fail("The fill character must be exactly one character long")),
            }
        }
    };
    let (length, width) = (text.chars().count(), usize::try_from(width.max(0)).unwrap_or(usize::MAX));
    let missing = width.saturating_sub(length);
    room(state, text.len().saturating_add(missing.saturating_mul(fill.len_utf8())))?;
    let fills = |count: usize| fill.to_string().repeat(count);
    Ok(Value::from(match name {
        "ljust" => text.to_owned() + &fills(missing),
        "rjust" => fills(missing) + text,
        "zfill" => match text.strip_prefix(['+', '-']) {
            Some(digits) => text[..1].to_owned() + &fills(missing) + digits,
            None => fills(missing) + text,
        },
        _ => centered(text, width, &fills),
    }))
}

fn join(state: &State<'_, '_>, separator: &str, parts: &[Value]) -> Result<Value, Error> {
    let mut length = parts.len().saturating_sub(1).saturating_mul(separator.len());
    for (index, part) in parts.iter().enumerate() {
        let text = part.as_str().ok_or_else(|| {
            fail(format!("sequence item {index}: expected str instance, {} found", type_name(part)))
        })?;
        length = length.saturating_add(text.len());
    }
    room(state, length)?;
    let parts: Vec<&str> = parts.iter().filter_map(Value::as_str).collect();
    Ok(Value::from(parts.join(separator)))
}
