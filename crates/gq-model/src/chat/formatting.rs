//! `%` and `str.format` of Python.

use super::arguments::integer;
use super::lookups;
use super::python::{Kind, fail, kind, room, type_name, unsupported};
use super::spelling;
use super::strings::centered;
use minijinja::{Error, State, Value};
use std::iter::Peekable;
use std::str::Chars;

/// How one value is to be written.
#[derive(Clone, Debug, Default)]
struct Spec {
    fill: Option<char>,
    /// `<`, `>`, `=` or `^`.
    align: Option<char>,
    /// `+`, space or none.
    sign: Option<char>,
    alternate: bool,
    width: usize,
    group: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

/// `format % values`.
pub(super) fn percent(state: &State<'_, '_>, format: &str, values: &Value) -> Result<String, Error> {
    let (mut given, single) = match kind(values) {
        Kind::Tuple(items) => (items.to_vec().into_iter(), false),
        _ => (vec![values.clone()].into_iter(), true),
    };
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
    match given.next().is_some() && mapping.is_none() && !keyed && !(single && !takes_all(values)) {
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

fn number(rest: &mut Peekable<Chars<'_>>) -> Result<Option<usize>, Error> {
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
            (whole < 0, prefix, digits)
        }
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            let number = real(value).ok_or_else(|| real_needed(conversion, value))?;
            room(state, spec.precision.unwrap_or(0))?;
            (number.is_sign_negative() && !number.is_nan(), "", real_digits(number.abs(), &spec, conversion)?)
        }
        other => return Err(unsupported(&format!("%{other}"))),
    };
    signed(state, shown, &spec, zero)
}

fn real_needed(conversion: char, value: &Value) -> Error {
    fail(format!("%{conversion} format: a real number is required, not {}", type_name(value)))
}

fn real(value: &Value) -> Option<f64> {
    match kind(value) {
        Kind::Float(number) => Some(number),
        Kind::Int(number) => Some(number as f64),
        Kind::Bool(flag) => Some(f64::from(u8::from(flag))),
        _ => None,
    }
}

fn digits(number: u128, conversion: char) -> String {
    match conversion {
        'x' => format!("{number:x}"),
        'X' => format!("{number:X}"),
        'o' => format!("{number:o}"),
        'b' => format!("{number:b}"),
        _ => number.to_string(),
    }
}

/// Digits of a number that is not negative.
fn real_digits(number: f64, spec: &Spec, conversion: char) -> Result<String, Error> {
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

/// Sign, prefix and digits within the width.
fn signed(
    state: &State<'_, '_>,
    (negative, prefix, digits): (bool, &str, String),
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

fn pad(state: &State<'_, '_>, text: String, spec: &Spec) -> Result<String, Error> {
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

/// `format.format(…)`.
pub(super) fn braces(
    state: &mut State<'_, '_>,
    format: &str,
    positional: &[Value],
    named: &[(String, Value)],
) -> Result<String, Error> {
    let mut out = String::new();
    let mut automatic = 0;
    let mut rest = format.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '{' if rest.next_if_eq(&'{').is_some() => out.push('{'),
            '}' if rest.next_if_eq(&'}').is_some() => out.push('}'),
            '}' => return Err(fail("Single '}' encountered in format string")),
            '{' => {
                let mut field = String::new();
                loop {
                    match rest.next() {
                        Some('}') => break,
                        Some('{') => return Err(unsupported("a field within a field of str.format")),
                        Some(c) => field.push(c),
                        None => return Err(fail("expected '}' before end of string")),
                    }
                }
                let value = Field::parse(&field)?.value(positional, named, &mut automatic)?;
                let (conversion, spec) = Field::parse(&field)?.how();
                out.push_str(&formatted(state, &value, conversion, spec)?);
                room(state, out.len())?;
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

/// What stands between braces.
struct Field<'f> {
    path: &'f str,
    conversion: Option<char>,
    spec: &'f str,
}

impl<'f> Field<'f> {
    fn parse(field: &'f str) -> Result<Field<'f>, Error> {
        let (path, spec) = field.split_once(':').unwrap_or((field, ""));
        match path.split_once('!') {
            None => Ok(Field { path, conversion: None, spec }),
            Some((path, "s")) => Ok(Field { path, conversion: Some('s'), spec }),
            Some((path, "r")) => Ok(Field { path, conversion: Some('r'), spec }),
            Some(_) => Err(unsupported("a conversion other than !r and !s of str.format")),
        }
    }

    fn how(&self) -> (Option<char>, &'f str) {
        (self.conversion, self.spec)
    }

    fn value(
        &self,
        positional: &[Value],
        named: &[(String, Value)],
        automatic: &mut usize,
    ) -> Result<Value, Error> {
        let end = self.path.find(['.', '[']).unwrap_or(self.path.len());
        let (name, mut rest) = self.path.split_at(end);
        let at = |index: usize| {
            let value = positional.get(index).cloned();
            value.ok_or_else(|| {
                fail(format!("Replacement index {index} out of range for positional args tuple"))
            })
        };
        let mut value = match name.parse::<usize>() {
            _ if name.is_empty() => {
                *automatic += 1;
                at(*automatic - 1)?
            }
            Ok(_) if *automatic > 0 => {
                return Err(fail(
                    "cannot switch from automatic field numbering to manual field specification",
                ));
            }
            Ok(index) => at(index)?,
            Err(_) => {
                let found = named.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
                found.ok_or_else(|| fail(format!("KeyError: '{name}'")))?
            }
        };
        while let Some(first) = rest.chars().next() {
            let (key, tail) = match first {
                '[' => rest[1..].split_once(']').ok_or_else(|| fail("Missing ']' in format string"))?,
                _ => rest[1..].split_at(rest[1..].find(['.', '[']).unwrap_or(rest.len() - 1)),
            };
            value = match (first, key.parse::<i64>()) {
                ('[', Ok(index)) => lookups::item(&value, &Value::from(index))?,
                ('[', Err(_)) => lookups::item(&value, &Value::from(key))?,
                _ => lookups::get(&value, key)?,
            };
            if value.is_undefined() {
                return Err(fail(format!("'{key}' in a field of str.format is undefined")));
            }
            rest = tail;
        }
        Ok(value)
    }
}

/// One value under `str.format`.
fn formatted(
    state: &State<'_, '_>,
    value: &Value,
    conversion: Option<char>,
    spec: &str,
) -> Result<String, Error> {
    let converted = match conversion {
        Some('r') => Some(spelling::represent(value)?),
        Some(_) => Some(spelling::text(value)?),
        None => None,
    };
    let text = |value: &Value| converted.clone().map_or_else(|| spelling::text(value), Ok);
    if spec.is_empty() {
        return text(value);
    }
    let mut spec = parse_spec(spec)?;
    let is_text = converted.is_some() || matches!(kind(value), Kind::Str(_));
    if is_text {
        if !matches!(spec.kind, None | Some('s')) || spec.sign.is_some() || spec.group.is_some() {
            return Err(fail(format!("Unknown format code for object of type '{}'", type_name(value))));
        }
        if spec.alternate || spec.align == Some('=') {
            return Err(fail("'=' alignment or '#' not allowed in string format specifier"));
        }
        let text = text(value)?.chars().take(spec.precision.unwrap_or(usize::MAX)).collect();
        return pad_format(state, text, &spec);
    }
    spec.align = spec.align.or(Some('>'));
    let zero = spec.align == Some('=') && spec.fill == Some('0');
    let whole = match kind(value) {
        Kind::Int(number) => Some(number),
        Kind::Bool(flag) if spec.kind.is_some() => Some(i128::from(flag)),
        Kind::Float(_) => None,
        _ => return Err(unsupported(&format!("a format specifier for '{}'", type_name(value)))),
    };
    let shown = match (whole, spec.kind) {
        (Some(number), None | Some('d' | 'x' | 'X' | 'o' | 'b')) => {
            if spec.precision.is_some() {
                return Err(fail("Precision not allowed in integer format specifier"));
            }
            if spec.alternate {
                return Err(unsupported("the flag '#' of str.format"));
            }
            (number < 0, "", digits(number.unsigned_abs(), spec.kind.unwrap_or('d')))
        }
        (_, Some(conversion @ ('e' | 'E' | 'f' | 'F' | 'g' | 'G'))) => {
            let number = real(value).unwrap_or(f64::NAN);
            (number.is_sign_negative(), "", real_digits(number.abs(), &spec, conversion)?)
        }
        (_, Some('%')) => {
            let number = real(value).unwrap_or(f64::NAN) * 100.0;
            (number.is_sign_negative(), "", real_digits(number.abs(), &spec, 'f')? + "%")
        }
        (None, None) if spec.precision.is_none() => {
            let number = real(value).unwrap_or(f64::NAN);
            (number.is_sign_negative(), "", spelling::float(number.abs()))
        }
        _ => return Err(unsupported("this format specifier")),
    };
    let shown = match spec.group {
        Some(_) if zero => return Err(unsupported("groups of digits behind zeros")),
        Some(mark) => (shown.0, shown.1, grouped(&shown.2, mark)),
        None => shown,
    };
    match spec.align {
        Some('^') => {
            let text = signed(state, shown, &Spec { width: 0, ..spec.clone() }, false)?;
            pad_format(state, text, &spec)
        }
        _ => signed(state, shown, &spec, zero),
    }
}

fn pad_format(state: &State<'_, '_>, text: String, spec: &Spec) -> Result<String, Error> {
    pad(state, text, spec)
}

/// Digits in threes.
fn grouped(digits: &str, mark: char) -> String {
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let (whole, rest) = digits.split_at(end);
    let mut out = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            out.push(mark);
        }
        out.push(digit);
    }
    out + rest
}

fn parse_spec(text: &str) -> Result<Spec, Error> {
    let mut spec = Spec::default();
    let characters: Vec<char> = text.chars().take(2).collect();
    let mut rest = text.chars().peekable();
    match characters[..] {
        [fill, align] if "<>=^".contains(align) => {
            (spec.fill, spec.align) = (Some(fill), Some(align));
            rest.next();
            rest.next();
        }
        [align, ..] if "<>=^".contains(align) => {
            spec.align = Some(align);
            rest.next();
        }
        _ => (),
    }
    spec.sign = rest.next_if(|c| "+- ".contains(*c)).filter(|sign| *sign != '-');
    spec.alternate = rest.next_if_eq(&'#').is_some();
    if rest.next_if_eq(&'0').is_some() && spec.align.is_none() {
        (spec.fill, spec.align) = (Some('0'), Some('='));
    }
    spec.width = number(&mut rest)?.unwrap_or(0);
    spec.group = rest.next_if(|c| ",_".contains(*c));
    if rest.next_if_eq(&'.').is_some() {
        spec.precision = Some(number(&mut rest)?.ok_or_else(|| fail("Format specifier missing precision"))?);
    }
    spec.kind = rest.next();
    match rest.next() {
        Some(_) => Err(fail("Invalid format specifier")),
        None => Ok(spec),
    }
}

/// The `center` filter and method.
pub(super) fn center(state: &State<'_, '_>, text: &str, width: usize) -> Result<String, Error> {
    room(state, width.saturating_add(text.len()))?;
    Ok(centered(text, width, &|count| " ".repeat(count)))
}
