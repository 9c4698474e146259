//! Python's operators on values.

use super::python::{
    Kind, fail, hashable, int, items, kind, list, nested, room, tuple, type_name, unsupported,
};
use super::spelling;
use super::{deadline, formatting};
use minijinja::{Error, State, Value};
use std::cmp::Ordering;

/// `left SYMBOL right` of a complaint.
fn unusable(symbol: &str, left: &Value, right: &Value) -> Error {
    fail(format!(
        "unsupported operand type(s) for {symbol}: '{}' and '{}'",
        type_name(left),
        type_name(right)
    ))
}

fn too_large() -> Error {
    unsupported("an integer beyond 128 bits")
}

/// Two numbers, as integers where both are.
enum Numbers {
    Ints(i128, i128),
    Floats(f64, f64),
}

fn numbers(left: &Value, right: &Value) -> Option<Numbers> {
    let number = |value: &Value| match kind(value) {
        Kind::Bool(flag) => Some((i128::from(flag), None)),
        Kind::Int(number) => Some((number, None)),
        Kind::Float(number) => Some((0, Some(number))),
        _ => None,
    };
    Some(match (number(left)?, number(right)?) {
        ((a, None), (b, None)) => Numbers::Ints(a, b),
        ((a, None), (_, Some(b))) => Numbers::Floats(a as f64, b),
        ((_, Some(a)), (b, None)) => Numbers::Floats(a, b as f64),
        ((_, Some(a)), (_, Some(b))) => Numbers::Floats(a, b),
    })
}

/// `left + right`.
pub(super) fn add(state: &State<'_, '_>, left: &Value, right: &Value) -> Result<Value, Error> {
    match numbers(left, right) {
        Some(Numbers::Ints(a, b)) => return a.checked_add(b).map(int).ok_or_else(too_large),
        Some(Numbers::Floats(a, b)) => return Ok(Value::from(a + b)),
        None => (),
    }
    match (kind(left), kind(right)) {
        (Kind::Str(a), Kind::Str(b)) => {
            room(state, a.len().saturating_add(b.len()))?;
            Ok(match (left.is_safe(), right.is_safe()) {
                (false, false) => Value::from([a, b].concat()),
                (true, true) => Value::from_safe_string([a, b].concat()),
                (true, false) => Value::from_safe_string([a, &escaped(b)].concat()),
                (false, true) => Value::from_safe_string([&escaped(a), b].concat()),
            })
        }
        (Kind::List(a), Kind::List(b)) => {
            room(state, a.len().saturating_add(b.len()).saturating_mul(size_of::<Value>()))?;
            nested(list([a, b].concat()))
        }
        (Kind::Tuple(a), Kind::Tuple(b)) => nested(tuple([a, b].concat())),
        _ => Err(unusable("+", left, right)),
    }
}

/// The characters that HTML gives a meaning to, replaced as markupsafe replaces them.
pub(super) fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('\'', "&#39;").replace('"', "&#34;")
}

/// `left - right`.
pub(super) fn subtract(left: &Value, right: &Value) -> Result<Value, Error> {
    match numbers(left, right) {
        Some(Numbers::Ints(a, b)) => a.checked_sub(b).map(int).ok_or_else(too_large),
        Some(Numbers::Floats(a, b)) => Ok(Value::from(a - b)),
        None => Err(unusable("-", left, right)),
    }
}

/// `left * right`, of a string or a list also as often as said.
pub(super) fn multiply(state: &State<'_, '_>, left: &Value, right: &Value) -> Result<Value, Error> {
    match numbers(left, right) {
        Some(Numbers::Ints(a, b)) => return a.checked_mul(b).map(int).ok_or_else(too_large),
        Some(Numbers::Floats(a, b)) => return Ok(Value::from(a * b)),
        None => (),
    }
    let times = |value: &Value| match kind(value) {
        Kind::Int(number) => Some(usize::try_from(number.max(0)).unwrap_or(usize::MAX)),
        Kind::Bool(flag) => Some(usize::from(flag)),
        _ => None,
    };
    let (what, count) = match (times(left), times(right)) {
        (None, Some(count)) => (left, count),
        (Some(count), None) => (right, count),
        _ => return Err(unusable("*", left, right)),
    };
    match kind(what) {
        Kind::Str(text) => {
            room(state, text.len().saturating_mul(count))?;
            let text = text.repeat(count);
            Ok(if what.is_safe() { Value::from_safe_string(text) } else { Value::from(text) })
        }
        Kind::List(items) | Kind::Tuple(items) => {
            room(state, items.len().saturating_mul(count).saturating_mul(size_of::<Value>()))?;
            let repeated = items.len().saturating_mul(count);
            let items: Vec<Value> = items.iter().cycle().take(repeated).cloned().collect();
            nested(if matches!(kind(what), Kind::List(_)) { list(items) } else { tuple(items) })
        }
        _ => Err(unusable("*", left, right)),
    }
}

/// `left / right`.
pub(super) fn divide(left: &Value, right: &Value) -> Result<Value, Error> {
    let quotient = match numbers(left, right) {
        Some(Numbers::Ints(a, b)) => {
            // Python rounds the exact quotient; that of the rounded operands may differ beyond 53 bits.
            if a.unsigned_abs() > 1 << 53 || b.unsigned_abs() > 1 << 53 {
                return Err(unsupported("a quotient of integers beyond 2^53"));
            }
            (a as f64, b as f64)
        }
        Some(Numbers::Floats(a, b)) => (a, b),
        None => return Err(unusable("/", left, right)),
    };
    match quotient.1 == 0.0 {
        true => Err(fail("division by zero")),
        false => Ok(Value::from(quotient.0 / quotient.1)),
    }
}

/// `left // right`.
pub(super) fn floor_divide(left: &Value, right: &Value) -> Result<Value, Error> {
    match numbers(left, right) {
        Some(Numbers::Ints(_, 0)) => Err(fail("integer division or modulo by zero")),
        Some(Numbers::Ints(a, b)) => {
            let quotient = a.checked_div(b).ok_or_else(too_large)?;
            let inexact = a.checked_rem(b).is_some_and(|rest| rest != 0 && (rest < 0) != (b < 0));
            Ok(int(quotient - i128::from(inexact)))
        }
        Some(Numbers::Floats(_, 0.0)) => Err(fail("float floor division by zero")),
        Some(Numbers::Floats(a, b)) => Ok(Value::from(float_divide(a, b).0)),
        None => Err(unusable("//", left, right)),
    }
}

/// `left % right`: the remainder, or the arguments on the right put into the text on the left.
pub(super) fn remainder(state: &State<'_, '_>, left: &Value, right: &Value) -> Result<Value, Error> {
    match numbers(left, right) {
        Some(Numbers::Ints(_, 0)) => Err(fail("integer division or modulo by zero")),
        Some(Numbers::Ints(a, b)) => {
            let rest = a.checked_rem(b).unwrap_or(0);
            Ok(int(if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }))
        }
        Some(Numbers::Floats(_, 0.0)) => Err(fail("float modulo")),
        Some(Numbers::Floats(a, b)) => Ok(Value::from(float_divide(a, b).1)),
        None if left.is_safe() => Err(unsupported("`%` on escaped text")),
        None => match kind(left) {
            Kind::Str(format) => formatting::percent(state, format, right).map(Value::from),
            _ => Err(unusable("%", left, right)),
        },
    }
}

/// Quotient and remainder as CPython computes them.
fn float_divide(a: f64, b: f64) -> (f64, f64) {
    let mut rest = a % b;
    let mut quotient = (a - rest) / b;
    if rest == 0.0 {
        rest = 0.0_f64.copysign(b);
    } else if (rest < 0.0) != (b < 0.0) {
        rest += b;
        quotient -= 1.0;
    }
    if quotient == 0.0 {
        return (0.0_f64.copysign(a / b), rest);
    }
    let floor = quotient.floor();
    (if quotient - floor > 0.5 { floor + 1.0 } else { floor }, rest)
}

/// `left ** right` of integers.
pub(super) fn power(left: &Value, right: &Value) -> Result<Value, Error> {
    match numbers(left, right) {
        Some(Numbers::Ints(a, b)) if b >= 0 => {
            let power = u32::try_from(b).ok().and_then(|b| a.checked_pow(b));
            power.map(int).ok_or_else(too_large)
        }
        Some(_) => Err(unsupported("`**` with a float or a negative exponent")),
        None => Err(unusable("**", left, right)),
    }
}

/// `left ~ right`: both as printed.
pub(super) fn join(state: &State<'_, '_>, left: &Value, right: &Value) -> Result<Value, Error> {
    let (left, right) = (spelling::text(left)?, spelling::text(right)?);
    room(state, left.len().saturating_add(right.len()))?;
    Ok(Value::from(left + &right))
}

/// `-value`.
pub(super) fn negate(value: &Value) -> Result<Value, Error> {
    match kind(value) {
        Kind::Bool(flag) => Ok(int(-i128::from(flag))),
        Kind::Int(number) => number.checked_neg().map(int).ok_or_else(too_large),
        Kind::Float(number) => Ok(Value::from(-number)),
        _ => Err(fail(format!("bad operand type for unary -: '{}'", type_name(value)))),
    }
}

/// `left == right`.
pub(super) fn equal(left: &Value, right: &Value) -> Result<bool, Error> {
    deadline::check()?;
    Ok(left == right)
}

/// `needle in haystack`.
pub(super) fn contains(haystack: &Value, needle: &Value) -> Result<bool, Error> {
    deadline::check()?;
    match (kind(haystack), kind(needle)) {
        (Kind::Str(text), Kind::Str(part)) => Ok(text.contains(part)),
        (Kind::Str(_), _) => {
            Err(fail(format!("'in <string>' requires string as left operand, not {}", type_name(needle))))
        }
        (Kind::Dict(dict), _) => match hashable(needle) {
            true => Ok(dict.contains_key(needle)),
            false => Err(fail(format!("unhashable type: '{}'", type_name(needle)))),
        },
        _ => match items(haystack) {
            Some(items) => Ok(items.contains(needle)),
            None => Err(fail(format!("argument of type '{}' is not iterable", type_name(haystack)))),
        },
    }
}

/// How `left` and `right` are ordered; `None` where neither is less (NaN).
///
/// # Errors
/// When Python has no order between their types.
pub(super) fn order(symbol: &str, left: &Value, right: &Value) -> Result<Option<Ordering>, Error> {
    deadline::check()?;
    match numbers(left, right) {
        Some(Numbers::Ints(a, b)) => return Ok(Some(a.cmp(&b))),
        Some(Numbers::Floats(a, b)) => return Ok(a.partial_cmp(&b)),
        None => (),
    }
    match (kind(left), kind(right)) {
        (Kind::Str(a), Kind::Str(b)) => Ok(Some(a.cmp(b))),
        (Kind::List(a), Kind::List(b)) | (Kind::Tuple(a), Kind::Tuple(b)) => {
            match a.iter().zip(b).find(|(a, b)| a != b) {
                Some((a, b)) => order(symbol, a, b),
                None => Ok(Some(a.len().cmp(&b.len()))),
            }
        }
        _ => Err(fail(format!(
            "'{symbol}' not supported between instances of '{}' and '{}'",
            type_name(left),
            type_name(right)
        ))),
    }
}

/// `left SYMBOL right` for the four comparisons of order.
pub(super) fn compare(symbol: &str, left: &Value, right: &Value) -> Result<bool, Error> {
    let order = order(symbol, left, right)?;
    Ok(match symbol {
        "<" => order.is_some_and(Ordering::is_lt),
        "<=" => order.is_some_and(Ordering::is_le),
        ">" => order.is_some_and(Ordering::is_gt),
        _ => order.is_some_and(Ordering::is_ge),
    })
}

/// A list, a tuple or a dictionary that a template built, if it is not nested too deep.
pub(super) fn built(value: Value) -> Result<Value, Error> {
    if let Kind::Dict(dict) = kind(&value)
        && let Some(key) = dict.keys().find(|key| !hashable(key))
    {
        return Err(fail(format!("unhashable type: '{}'", type_name(key))));
    }
    nested(value)
}
