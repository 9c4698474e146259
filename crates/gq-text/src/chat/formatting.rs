//! `%` of Python on text, and what it shares with `str.format`: numbers and widths.

use super::arguments::integer;
use super::python::{Kind, fail, kind, room, type_name, unsupported};
use super::spelling;
use minijinja::{Error, State, Value};
use std::iter::Peekable;
use std::str::Chars;

/// How one value is to be written.
#[derive(Clone, Debug, Default)]
pub(super) struct Spec {
    pub fill: Option<char>,
    /// `<`, `>`, `=` or `^`.
    pub align: Option<char>,
    /// `+`, space or none.
    pub sign: Option<char>,
    pub alternate: bool,
    pub width: usize,
    pub group: Option<char>,
    pub precision: Option<usize>,
    pub kind: Option<char>,
}

/// `format % values`.
pub(super) fn percent(state: &State<'_, '_>, format: &str, values: &Value) -> Result<String, Error> {
    let given = match kind(values) {
        Kind::Tuple(items) => items,
        _ => std::slice::from_ref(values),
    };
    let mut given = given.iter().cloned();
    let mapping = match kind(values) {
        Kind::Dict(dict) => Some(dict),
        _ => None,
    };
    let mut out = String::new();
    let mut keyed = false;
    let mut rest = format.chars().peekable();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if rest.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let key = match rest.next_if_eq(&'(') {
            Some(_) => Some(until(&mut rest, ')')?),
            None => None,
        };
        let mut spec = Spec { align: Some('>'), ..Spec::default() };
        while let Some(flag) = rest.next_if(|c| "-+ 0#".contains(*c)) {
            match flag {
                '-' => spec.align = Some('<'),
                '+' => spec.sign = Some('+'),
                ' ' => spec.sign = spec.sign.or(Some(' ')),
                '0' => spec.fill = Some('0'),
                _ => spec.alternate = true,
            }
        }
        let mut next = || given.next().ok_or_else(|| fail("not enough arguments for format string"));
        if rest.next_if_eq(&'*').is_some() {
            let width = integer(Some(&next()?), 0)?;
            spec.align = if width < 0 { Some('<') } else { spec.align };
            spec.width = usize::try_from(width.unsigned_abs()).unwrap_or(usize::MAX);
        } else {
            spec.width = number(&mut rest)?.unwrap_or(0);
        }
        if rest.next_if_eq(&'.').is_some() {
            spec.precision = Some(number(&mut rest)?.unwrap_or(0));
        }
        while rest.next_if(|c| "hlL".contains(*c)).is_some() {}
        let conversion = rest.next().ok_or_else(|| fail("incomplete format"))?;
        let value = match (&key, mapping) {
            (Some(key), Some(dict)) => {
                keyed = true;
                dict.get(&Value::from(key.as_str()))
                    .cloned()
                    .ok_or_else(|| fail(format!("KeyError: '{key}'")))?
            }
            (Some(_), None) => return Err(fail("format requires a mapping")),
            (None, _) => next()?,
        };
        out.push_str(&converted(state, &value, spec, conversion)?);
        room(state, out.len())?;
    }
    match given.next().is_some() && !keyed && takes_all(values) {
        true => Err(fail("not all arguments converted during string formatting")),
        false => Ok(out),
    }
}

/// Whether a single value must be used up: Python lets what can be looked into by key pass.
fn takes_all(value: &Value) -> bool {
    !matches!(kind(value), Kind::List(_) | Kind::Dict(_) | Kind::Range(_))
}

fn until(rest: &mut Peekable<Chars<'_>>, end: char) -> Result<String, Error> {
    let mut text = String::new();
    loop {
        match rest.next() {
            Some(c) if c == end => return Ok(text),
            Some('(') => return Err(unsupported("a nested key in a format")),
            Some(c) => text.push(c),
            None => return Err(fail("incomplete format key")),
        }
    }
}

pub(super) fn number(rest: &mut Peekable<Chars<'_>>) -> Result<Option<usize>, Error> {
    let mut number = None;
    while let Some(digit) = rest.peek().and_then(|c| c.to_digit(10)) {
        rest.next();
        let next = number.unwrap_or(0_usize).checked_mul(10).and_then(|n| n.checked_add(digit as usize));
        number = Some(next.ok_or_else(|| fail("a width or precision is too large"))?);
    }
    Ok(number)
}

/// One value under `%`.
fn converted(
    state: &State<'_, '_>,
    value: &Value,
    mut spec: Spec,
    conversion: char,
) -> Result<String, Error> {
    let zero = spec.fill.take().is_some() && spec.align == Some('>');
    let shown = match conversion {
        's' | 'r' => {
            let text = if conversion == 's' { spelling::text(value)? } else { spelling::represent(value)? };
            let text = text.chars().take(spec.precision.unwrap_or(usize::MAX)).collect();
            return pad(state, text, &spec);
        }
        'c' => match kind(value) {
            Kind::Str(text) if text.chars().count() == 1 => return pad(state, text.to_owned(), &spec),
            _ => return Err(unsupported("%c of a number")),
        },
        'd' | 'i' | 'u' | 'x' | 'X' | 'o' => {
            let whole = match kind(value) {
                Kind::Float(number) if matches!(conversion, 'd' | 'i' | 'u') && number.is_finite() => {
                    if number.abs() >= 1e38 {
                        return Err(unsupported("an integer beyond 128 bits"));
                    }
                    number.trunc() as i128
                }
                Kind::Int(number) => number,
                Kind::Bool(flag) => i128::from(flag),
                _ => return Err(real_needed(conversion, value)),
            };
            let mut digits = digits(whole.unsigned_abs(), conversion);
            if let Some(precision) = spec.precision {
                room(state, precision)?;
                digits = "0".repeat(precision.saturating_sub(digits.len())) + &digits;
            }
            let prefix = match (spec.alternate, conversion) {
                (true, 'x') => "0x",
                (true, 'X') => "0X",
                (true, 'o') => "0o",
                _ => "",
            };
            Shown { negative: whole < 0, prefix, digits }
        }
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            let number = real(value).ok_or_else(|| real_needed(conversion, value))?;
            room(state, spec.precision.unwrap_or(0))?;
            let negative = number.is_sign_negative() && !number.is_nan();
            Shown { negative, prefix: "", digits: real_digits(number.abs(), &spec, conversion)? }
        }
        other => return Err(unsupported(&format!("%{other}"))),
    };
    signed(state, shown, &spec, zero)
}

fn real_needed(conversion: char, value: &Value) -> Error {
    fail(format!("%{conversion} format: a real number is required, not {}", type_name(value)))
}

pub(super) fn real(value: &Value) -> Option<f64> {
    match kind(value) {
        Kind::Float(number) => Some(number),
        Kind::Int(number) => Some(number as f64),
        Kind::Bool(flag) => Some(f64::from(u8::from(flag))),
        _ => None,
    }
}

pub(super) fn digits(number: u128, conversion: char) -> String {
    match conversion {
        'x' => format!("{number:x}"),
        'X' => format!("{number:X}"),
        'o' => format!("{number:o}"),
        'b' => format!("{number:b}"),
        _ => number.to_string(),
    }
}

/// Digits of a number that is not negative.
pub(super) fn real_digits(number: f64, spec: &Spec, conversion: char) -> Result<String, Error> {
    let upper = conversion.is_ascii_uppercase();
    let case = |text: String| if upper { text.to_uppercase() } else { text };
    if !number.is_finite() {
        return Ok(case(spelling::float(number)));
    }
    let precision = spec.precision.unwrap_or(6);
    if precision > 1000 {
        return Err(unsupported("a precision above 1000"));
    }
    let scientific = |precision: usize| {
        let text = format!("{number:.precision$e}");
        let (digits, exponent) =
            text.split_once('e').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap_or_default();
        (digits, exponent.parse::<i32>().unwrap_or(0))
    };
    let exponent_text = |digits: &str, exponent: i32| {
        format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
    };
    let text = match conversion.to_ascii_lowercase() {
        'f' => format!("{number:.precision$}"),
        'e' => {
            let (digits, exponent) = scientific(precision);
            exponent_text(&digits, exponent)
        }
        _ => {
            let precision = precision.max(1);
            let (digits, exponent) = scientific(precision - 1);
            let trim = |text: &str| match text.contains('.') && !spec.alternate {
                true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
                false => text.to_owned(),
            };
            match (-4..precision as i32).contains(&exponent) {
                true => {
                    let places = usize::try_from(precision as i32 - 1 - exponent).unwrap_or(0);
                    trim(&format!("{number:.places$}"))
                }
                false => exponent_text(&trim(&digits), exponent),
            }
        }
    };
    match spec.alternate {
        true => Err(unsupported("the flag '#' with a float")),
        false => Ok(case(text)),
    }
}

/// A number before it is put together.
pub(super) struct Shown {
    pub negative: bool,
    /// Of hexadecimal and octal numbers.
    pub prefix: &'static str,
    pub digits: String,
}

/// Sign, prefix and digits within the width.
pub(super) fn signed(
    state: &State<'_, '_>,
    Shown { negative, prefix, digits }: Shown,
    spec: &Spec,
    zero: bool,
) -> Result<String, Error> {
    let sign = match (negative, spec.sign) {
        (true, _) => "-".to_owned(),
        (false, Some(sign)) => sign.to_string(),
        (false, None) => String::new(),
    };
    let head = sign + prefix;
    room(state, spec.width)?;
    let missing = spec.width.saturating_sub(head.len() + digits.len());
    match zero || spec.align == Some('=') {
        true => {
            let fill = if zero { '0' } else { spec.fill.unwrap_or(' ') };
            Ok(head + &fill.to_string().repeat(missing) + &digits)
        }
        false => pad(state, head + &digits, spec),
    }
}

pub(super) fn pad(state: &State<'_, '_>, text: String, spec: &Spec) -> Result<String, Error> {
    let missing = spec.width.saturating_sub(text.chars().count());
    room(state, text.len().saturating_add(missing.saturating_mul(4)))?;
    let fill = spec.fill.unwrap_or(' ').to_string();
    Ok(match spec.align {
        Some('<') | None => text + &fill.repeat(missing),
        Some('^') => {
            let left = missing / 2;
            fill.repeat(left) + &text + &fill.repeat(missing - left)
        }
        _ => fill.repeat(missing) + &text,
    })
}

/// The `center` filter and method.
pub(super) fn center(state: &State<'_, '_>, text: &str, width: usize) -> Result<String, Error> {
    room(state, width.saturating_add(text.len()))?;
    Ok(centered(text, width, &|count| " ".repeat(count)))
}

/// `text` in the middle of `width` characters, with CPython's choice where both sides cannot be the same.
pub(super) fn centered(text: &str, width: usize, fills: &dyn Fn(usize) -> String) -> String {
    let missing = width.saturating_sub(text.chars().count());
    let left = missing / 2 + (missing & width & 1);
    fills(left) + text + &fills(missing - left)
}
