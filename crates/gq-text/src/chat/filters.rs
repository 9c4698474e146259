//! Jinja's filters on single values: text, numbers, defaults.

use super::arguments::{Arguments, flag, integer, optional_string, soft_text, string};
use super::formatting;
use super::json::to_json;
use super::lookups;
use super::operators::escaped;
use super::python::{Kind, fail, int, kind, room, tuple, type_name, unsupported};
use super::{splitting, strings};
use minijinja::value::{Rest, ValueOrKwargs};
use minijinja::{Environment, Error, State, Value};

/// Filters of Jinja that are not carried out here.
const REFUSED: [&str; 9] = [
    "filesizeformat",
    "forceescape",
    "pprint",
    "random",
    "striptags",
    "urlencode",
    "urlize",
    "wordwrap",
    "xmlattr",
];

/// Registers them.
pub(super) fn register(environment: &mut Environment<'_>) {
    environment.add_filter("tojson", to_json);
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter("string", |value: &Value| -> Result<Value, Error> {
        if value.is_safe() { Ok(value.clone()) } else { soft_text(value).map(Value::from) }
    });
    environment.add_filter("safe", |value: &Value| soft_text(value).map(Value::from_safe_string));
    for name in ["e", "escape"] {
        environment.add_filter(name, |value: &Value| -> Result<Value, Error> {
            match value.is_safe() {
                true => Ok(value.clone()),
                false => Ok(Value::from_safe_string(escaped(&soft_text(value)?))),
            }
        });
    }
    environment.add_filter("upper", |value: &Value| keep(value, |text| Ok(text.to_uppercase())));
    environment.add_filter("lower", |value: &Value| keep(value, |text| Ok(text.to_lowercase())));
    environment.add_filter("capitalize", |value: &Value| keep(value, strings::capitalize));
    environment.add_filter("title", |value: &Value| keep(value, title));
    environment.add_filter("trim", trim);
    environment.add_filter("replace", replace);
    environment.add_filter("center", center);
    environment.add_filter("indent", indent);
    environment.add_filter("truncate", truncate);
    environment.add_filter("wordcount", wordcount);
    environment.add_filter("format", format);
    environment.add_filter("int", to_int);
    environment.add_filter("float", to_float);
    environment.add_filter("abs", absolute);
    environment.add_filter("round", round);
    environment.add_filter("attr", attribute);
    for name in REFUSED {
        environment.add_filter(name, move |_: &Value, _: Rest<ValueOrKwargs>| -> Result<Value, Error> {
            Err(unsupported(&format!("the filter '{name}'")))
        });
    }
}

/// A filter of text that leaves escaped text escaped.
fn keep(value: &Value, change: impl FnOnce(&str) -> Result<String, Error>) -> Result<Value, Error> {
    let text = change(&soft_text(value)?)?;
    Ok(if value.is_safe() { Value::from_safe_string(text) } else { Value::from(text) })
}

fn not_escaped(values: &[&Value], filter: &str) -> Result<(), Error> {
    match values.iter().any(|value| value.is_safe()) {
        true => Err(unsupported(&format!("the filter '{filter}' on escaped text"))),
        false => Ok(()),
    }
}

fn default(value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [other, boolean] =
        Arguments::new("default", &args.into_values())?.bind(["default_value", "boolean"], 0)?;
    match value.is_undefined() || (flag(&boolean) && !value.is_true()) {
        true => Ok(other.unwrap_or_else(|| Value::from(""))),
        false => Ok(value.clone()),
    }
}

/// Words begin at white space, dashes and opening brackets.
fn title(text: &str) -> Result<String, Error> {
    if !text.is_ascii() {
        return Err(unsupported("the filter 'title' beyond ASCII"));
    }
    let begins = |c: char| splitting::space(c) || "-({[<".contains(c);
    let mut start = true;
    let change = |c: char| {
        let c = if start { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
        start = begins(c);
        c
    };
    Ok(text.chars().map(change).collect())
}

fn trim(value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [characters] = Arguments::new("trim", &args.into_values())?.bind(["chars"], 0)?;
    let characters = optional_string(&characters, "chars")?;
    keep(value, |text| Ok(splitting::strip(text, characters, true, true).to_owned()))
}

fn replace(state: &State<'_, '_>, value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [old, new, count] =
        Arguments::new("replace", &args.into_values())?.bind(["old", "new", "count"], 2)?;
    let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
    not_escaped(&[value, &old, &new], "replace")?;
    let count = integer(count.as_ref().filter(|count| !count.is_none()), -1)?;
    let text = strings::replaced(state, &soft_text(value)?, &soft_text(&old)?, &soft_text(&new)?, count)?;
    Ok(Value::from(text))
}

fn center(state: &State<'_, '_>, value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [width] = Arguments::new("center", &args.into_values())?.bind(["width"], 0)?;
    let width = usize::try_from(integer(width.as_ref(), 80)?.max(0)).unwrap_or(usize::MAX);
    keep(value, |text| formatting::center(state, text, width))
}

fn indent(state: &State<'_, '_>, value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [width, first, blank] =
        Arguments::new("indent", &args.into_values())?.bind(["width", "first", "blank"], 0)?;
    let text = match kind(value) {
        Kind::Str(text) => text,
        // What is not text cannot be added to a newline.
        _ => return Err(fail(format!("the filter 'indent' needs text, not '{}'", type_name(value)))),
    };
    not_escaped(&[value], "indent")?;
    let indention = match width.as_ref().map(kind) {
        Some(Kind::Str(text)) => text.to_owned(),
        _ => {
            let width = usize::try_from(integer(width.as_ref(), 4)?.max(0)).unwrap_or(usize::MAX);
            room(state, width)?;
            " ".repeat(width)
        }
    };
    let closed = format!("{text}\n");
    let lines = splitting::lines(&closed, false);
    room(state, closed.len().saturating_add(lines.len().saturating_mul(indention.len() + 1)))?;
    let mut out = if flag(&first) { indention.clone() } else { String::new() };
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            out.push('\n');
            if flag(&blank) || !line.is_empty() {
                out.push_str(&indention);
            }
        }
        out.push_str(line);
    }
    Ok(Value::from(out))
}

fn truncate(value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let names = ["length", "killwords", "end", "leeway"];
    let [length, kill, end, leeway] = Arguments::new("truncate", &args.into_values())?.bind(names, 0)?;
    not_escaped(&[value], "truncate")?;
    let text = string(value, "the text of the filter 'truncate'")?;
    let count = |value: Option<&Value>, default: i128| -> Result<usize, Error> {
        let number = integer(value.filter(|value| !value.is_none()), default)?;
        usize::try_from(number).map_err(|_| fail("truncate: a length must not be negative"))
    };
    let (length, leeway) = (count(length.as_ref(), 255)?, count(leeway.as_ref(), 5)?);
    let end = end.map_or_else(|| Ok("...".to_owned()), |end| string(&end, "end").map(str::to_owned))?;
    let short = end.chars().count();
    if length < short {
        return Err(fail(format!("expected length >= {short}, got {length}")));
    }
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(value.clone());
    }
    let cut: String = text.chars().take(length - short).collect();
    let cut = if flag(&kill) { &*cut } else { cut.rsplit_once(' ').map_or(&*cut, |(words, _)| words) };
    Ok(Value::from(cut.to_owned() + &end))
}

fn wordcount(value: &Value) -> Result<Value, Error> {
    let text = soft_text(value)?;
    if !text.is_ascii() {
        return Err(unsupported("the filter 'wordcount' beyond ASCII"));
    }
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    Ok(Value::from(words.filter(|word| !word.is_empty()).count()))
}

fn format(state: &State<'_, '_>, value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    not_escaped(&[value], "format")?;
    let (positional, named) = Arguments::new("format", &args.into_values())?.into_parts();
    let values = match (positional.is_empty(), named.is_empty()) {
        (_, true) => tuple(positional),
        (true, false) => Value::from_pairs(named),
        _ => return Err(fail("can't handle positional and keyword arguments at the same time")),
    };
    formatting::percent(state, &soft_text(value)?, &values).map(Value::from)
}

/// What `int()` of Python reads; `None` where that is no number.
///
/// # Errors
/// For a number that Python has and we do not.
fn parse_int(text: &str, base: u32) -> Result<Option<i128>, Error> {
    let text = splitting::strip(text, None, true, true);
    let (negative, digits) = match text.strip_prefix(['+', '-']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    let prefix = match base {
        2 => ["0b", "0B"],
        8 => ["0o", "0O"],
        16 => ["0x", "0X"],
        _ => [""; 2],
    };
    let digits = prefix.iter().find_map(|prefix| digits.strip_prefix(prefix)).unwrap_or(digits);
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(base)) {
        return Ok(None);
    }
    match i128::from_str_radix(digits, base) {
        Ok(number) => Ok(Some(if negative { -number } else { number })),
        Err(_) => Err(unsupported(BEYOND)),
    }
}

const BEYOND: &str = "an integer beyond 128 bits";

/// `int(number)` of Python; `None` for NaN.
fn truncated(number: f64) -> Result<Option<Value>, Error> {
    match number.trunc() {
        whole if whole.is_nan() => Ok(None),
        whole if whole.is_infinite() => Err(fail("cannot convert float infinity to integer")),
        whole if (-(2f64.powi(127))..2f64.powi(127)).contains(&whole) => Ok(Some(int(whole as i128))),
        _ => Err(unsupported(BEYOND)),
    }
}

fn to_int(value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [default, base] = Arguments::new("int", &args.into_values())?.bind(["default", "base"], 0)?;
    let base = u32::try_from(integer(base.as_ref(), 10)?).ok().filter(|base| (2..=36).contains(base));
    let base = base.ok_or_else(|| unsupported("this base of the filter 'int'"))?;
    let found = match kind(value) {
        Kind::Int(number) => Some(int(number)),
        Kind::Bool(flag) => Some(int(flag.into())),
        Kind::Float(number) => truncated(number)?,
        Kind::Str(text) if text.contains('_') || !text.is_ascii() => {
            return Err(unsupported("the filter 'int' on text beyond plain digits"));
        }
        Kind::Str(text) => match parse_int(text, base)? {
            Some(number) => Some(int(number)),
            // Text that says infinity is no number here, unlike infinity itself.
            None => parse_float(text).filter(|number| number.is_finite()).map_or(Ok(None), truncated)?,
        },
        Kind::Undefined => return Err(fail("what the filter 'int' is applied to is undefined")),
        _ => None,
    };
    Ok(found.or(default).unwrap_or_else(|| int(0)))
}

/// What `float()` of Python reads.
fn parse_float(text: &str) -> Option<f64> {
    splitting::strip(text, None, true, true).parse().ok()
}

fn to_float(value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [default] = Arguments::new("float", &args.into_values())?.bind(["default"], 0)?;
    let found = match kind(value) {
        Kind::Int(number) => Some(number as f64),
        Kind::Bool(flag) => Some(f64::from(u8::from(flag))),
        Kind::Float(number) => Some(number),
        Kind::Str(text) if text.contains('_') || !text.is_ascii() => {
            return Err(unsupported("the filter 'float' on text beyond plain digits"));
        }
        Kind::Str(text) => parse_float(text),
        Kind::Undefined => return Err(fail("what the filter 'float' is applied to is undefined")),
        _ => None,
    };
    Ok(found.map(Value::from).or(default).unwrap_or_else(|| Value::from(0.0)))
}

fn absolute(value: &Value) -> Result<Value, Error> {
    match kind(value) {
        Kind::Int(number) => number.checked_abs().map(int).ok_or_else(|| unsupported(BEYOND)),
        Kind::Bool(flag) => Ok(int(flag.into())),
        Kind::Float(number) => Ok(Value::from(number.abs())),
        _ => Err(fail(format!("bad operand type for abs(): '{}'", type_name(value)))),
    }
}

fn round(value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [precision, method] =
        Arguments::new("round", &args.into_values())?.bind(["precision", "method"], 0)?;
    let precision = integer(precision.as_ref(), 0)?;
    let method = optional_string(&method, "method")?.unwrap_or("common");
    if !["common", "ceil", "floor"].contains(&method) {
        return Err(fail("method must be common, ceil or floor"));
    }
    let number = match (kind(value), method) {
        (Kind::Int(number), "common") if precision >= 0 => return Ok(int(number)),
        (Kind::Bool(flag), "common") if precision >= 0 => return Ok(int(flag.into())),
        // Multiplied and divided as an integer, it is what it was.
        (Kind::Int(number), _) if precision >= 0 => return Ok(Value::from(number as f64)),
        (Kind::Bool(flag), _) if precision >= 0 => return Ok(Value::from(f64::from(u8::from(flag)))),
        (Kind::Int(number), _) => number as f64,
        (Kind::Bool(flag), _) => f64::from(u8::from(flag)),
        (Kind::Float(number), _) => number,
        _ => return Err(fail(format!("type {} doesn't define __round__ method", type_name(value)))),
    };
    let places = usize::try_from(precision).ok().filter(|places| *places <= 300);
    let unknown = || unsupported("this precision of the filter 'round'");
    let places = places.ok_or_else(unknown)?;
    if method == "common" {
        // Decimals are rounded exactly, ties to even, as in Python.
        let rounded = format!("{number:.places$}").parse().unwrap_or(number);
        return Ok(Value::from(if number.is_finite() { rounded } else { number }));
    }
    if places > EXACT_POWERS {
        return Err(unknown());
    }
    let scale = 10_f64.powi(i32::try_from(places).unwrap_or(0));
    let scaled = number * scale;
    if !scaled.is_finite() {
        return Err(fail("cannot convert float infinity or NaN to integer"));
    }
    let whole = if method == "ceil" { scaled.ceil() } else { scaled.floor() };
    // Python's is an integer, which has no negative zero.
    Ok(Value::from((whole + 0.0) / scale))
}

/// Powers of ten that are numbers of 64 bits.
const EXACT_POWERS: usize = 22;

fn attribute(value: &Value, name: &Value) -> Result<Value, Error> {
    match kind(value) {
        Kind::Object => lookups::get(value, string(name, "name")?),
        _ => Err(unsupported("the filter 'attr' of values other than namespaces")),
    }
}
