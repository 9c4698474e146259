//! `str.format` of Python.

use super::formatting::{Shown, Spec, digits, number, pad, real, real_digits, signed};
use super::lookups;
use super::python::{Kind, fail, kind, room, type_name, unsupported};
use super::spelling;
use minijinja::{Error, State, Value};

/// `format.format(…)`.
pub(super) fn format(
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
        return pad(state, text, &spec);
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
            let digits = digits(number.unsigned_abs(), spec.kind.unwrap_or('d'));
            Shown { negative: number < 0, prefix: "", digits }
        }
        (_, Some(conversion @ ('e' | 'E' | 'f' | 'F' | 'g' | 'G'))) => {
            let number = real(value).unwrap_or(f64::NAN);
            real_shown(number, real_digits(number.abs(), &spec, conversion)?)
        }
        (_, Some('%')) => {
            let number = real(value).unwrap_or(f64::NAN) * 100.0;
            real_shown(number, real_digits(number.abs(), &spec, 'f')? + "%")
        }
        (None, None) if spec.precision.is_none() => {
            let number = real(value).unwrap_or(f64::NAN);
            real_shown(number, spelling::float(number.abs()))
        }
        _ => return Err(unsupported("this format specifier")),
    };
    let shown = match spec.group {
        Some(_) if zero => return Err(unsupported("groups of digits behind zeros")),
        Some(mark) => Shown { digits: grouped(&shown.digits, mark), ..shown },
        None => shown,
    };
    match spec.align {
        Some('^') => {
            let text = signed(state, shown, &Spec { width: 0, ..spec.clone() }, false)?;
            pad(state, text, &spec)
        }
        _ => signed(state, shown, &spec, zero),
    }
}

fn real_shown(number: f64, digits: String) -> Shown {
    Shown { negative: number.is_sign_negative(), prefix: "", digits }
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
