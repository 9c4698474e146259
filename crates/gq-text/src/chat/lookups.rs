//! Attributes, items and slices, as Jinja finds them on Python's objects; which methods they have.

use super::python::{
    Generator, Kind, Method, fail, hashable, int, kind, list, tuple, type_name, unsupported,
};
use minijinja::{Error, Value};

/// Methods of a dictionary; a template that names one without calling it gets the method, not the key.
const DICT: [&str; 5] = ["copy", "get", "items", "keys", "values"];

/// Methods of Python's strings; those that are not carried out are refused by name.
const STRING: [&str; 47] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "maketrans",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "translate",
    "upper",
    "zfill",
];

/// Methods that change what they belong to: Jinja's immutable sandbox refuses them.
const CHANGING: [&str; 14] = [
    "append",
    "clear",
    "extend",
    "insert",
    "pop",
    "popitem",
    "remove",
    "reverse",
    "setdefault",
    "sort",
    "update",
    "add",
    "discard",
    "difference_update",
];

/// Methods that a value has, whether they are carried out here or not.
fn has_method(value: &Value, name: &str) -> bool {
    match kind(value) {
        Kind::Str(_) => STRING.contains(&name),
        Kind::Dict(_) => {
            DICT.contains(&name)
                || ["clear", "fromkeys", "pop", "popitem", "setdefault", "update"].contains(&name)
        }
        Kind::List(_) => [
            "append", "clear", "copy", "count", "extend", "index", "insert", "pop", "remove", "reverse",
            "sort",
        ]
        .contains(&name),
        Kind::Tuple(_) | Kind::Range(_) => ["count", "index"].contains(&name),
        _ => false,
    }
}

/// Attributes of numbers and others, which nobody needs and which would be undefined here.
fn has_attribute(value: &Value, name: &str) -> bool {
    match kind(value) {
        Kind::Int(_) | Kind::Bool(_) | Kind::Float(_) => {
            let names = [
                "as_integer_ratio",
                "bit_count",
                "bit_length",
                "conjugate",
                "denominator",
                "from_bytes",
                "fromhex",
                "hex",
                "imag",
                "is_integer",
                "numerator",
                "real",
                "to_bytes",
            ];
            names.contains(&name)
        }
        Kind::Tuple(_) => ["grouper", "list"].contains(&name),
        Kind::Range(_) => ["start", "step", "stop"].contains(&name),
        Kind::View(_) => ["isdisjoint", "mapping"].contains(&name),
        Kind::Generator(_) => ["close", "gi_code", "gi_frame", "gi_running", "send", "throw"].contains(&name),
        _ => false,
    }
}

/// What has no value cannot be looked into.
pub(super) fn defined(value: &Value, name: &str) -> Result<(), Error> {
    match value.is_undefined() {
        true => Err(fail(format!("the value before '{name}' is undefined"))),
        false => Ok(()),
    }
}

/// A method or attribute, before keys are looked at.
pub(super) fn attribute(value: &Value, name: &str) -> Result<Option<Value>, Error> {
    if has_method(value, name) {
        if CHANGING.contains(&name) && !matches!(kind(value), Kind::Str(_)) {
            return Err(fail(format!("'{name}' changes a {}, which the sandbox forbids", type_name(value))));
        }
        return Ok(Some(Value::from_object(Method { of: value.clone(), name: name.to_owned() })));
    }
    if name.starts_with("__") && !matches!(kind(value), Kind::Object) {
        return Err(fail(format!("access to attribute '{name}' of '{}' is unsafe", type_name(value))));
    }
    match has_attribute(value, name) {
        true => Err(unsupported(&format!("the attribute '{name}' of '{}'", type_name(value)))),
        false => Ok(None),
    }
}

/// `value.name`: the attribute, else the key, else undefined.
pub(super) fn get(value: &Value, name: &str) -> Result<Value, Error> {
    defined(value, name)?;
    if let Some(method) = attribute(value, name)? {
        return Ok(method);
    }
    match kind(value) {
        Kind::Dict(dict) => Ok(dict.get(&Value::from(name)).cloned().unwrap_or_default()),
        Kind::Object => value.get_attr(name),
        _ => Ok(Value::UNDEFINED),
    }
}

/// `value[key]`: the item, else the attribute, else undefined.
pub(super) fn item(value: &Value, key: &Value) -> Result<Value, Error> {
    let shown = || key.as_str().map_or_else(|| "[…]".to_owned(), str::to_owned);
    defined(value, &shown())?;
    let at = |length: usize| {
        let index = match kind(key) {
            Kind::Int(index) => index,
            Kind::Bool(flag) => i128::from(flag),
            _ => return None,
        };
        usize::try_from(if index < 0 { index + length as i128 } else { index }).ok().filter(|&at| at < length)
    };
    let found = match kind(value) {
        Kind::Dict(dict) if hashable(key) => dict.get(key).cloned(),
        Kind::List(items) | Kind::Tuple(items) => at(items.len()).map(|at| items[at].clone()),
        Kind::Range(range) => {
            at(usize::try_from(range.len()).unwrap_or(0)).map(|at| int(range.start + at as i128 * range.step))
        }
        Kind::Str(text) if text.is_ascii() => at(text.len()).map(|at| Value::from(&text[at..=at])),
        Kind::Str(text) => at(text.chars().count()).and_then(|at| text.chars().nth(at)).map(Value::from),
        Kind::Object => return value.get_item(key),
        _ => None,
    };
    match (found, kind(key)) {
        (Some(found), _) => Ok(found),
        (None, Kind::Str(name)) => Ok(attribute(value, name)?.unwrap_or_default()),
        (None, _) => Ok(Value::UNDEFINED),
    }
}

/// `value[start:stop:step]`.
pub(super) fn slice(value: &Value, bounds: [&Value; 3]) -> Result<Value, Error> {
    defined(value, "[:]")?;
    let bound = |value: &Value| match kind(value) {
        Kind::None => Ok(None),
        Kind::Int(number) => Ok(Some(number.clamp(i64::MIN.into(), i64::MAX.into()))),
        Kind::Bool(flag) => Ok(Some(i128::from(flag))),
        _ => Err(fail("slice indices must be integers or None")),
    };
    let [start, stop, step] = bounds.map(bound);
    let (start, stop, step) = (start?, stop?, step?.unwrap_or(1));
    if step == 0 {
        return Err(fail("slice step cannot be zero"));
    }
    let pick = |length: usize| -> Vec<usize> {
        let length = length as i128;
        let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
        let clamp = |bound: i128| (if bound < 0 { bound + length } else { bound }).clamp(low, high);
        let (first, end) = match step > 0 {
            true => (start.map_or(0, clamp), stop.map_or(length, clamp)),
            false => (start.map_or(length - 1, clamp), stop.map_or(-1, clamp)),
        };
        let mut picked = Vec::new();
        let mut at = first;
        while if step > 0 { at < end } else { at > end } {
            picked.extend(usize::try_from(at));
            at += step;
        }
        picked
    };
    let of = |items: &[Value]| pick(items.len()).into_iter().map(|at| items[at].clone()).collect::<Vec<_>>();
    match kind(value) {
        Kind::Str(_) if value.is_safe() => Err(unsupported("a slice of escaped text")),
        Kind::Str(text) => {
            let characters: Vec<char> = text.chars().collect();
            let text: String = pick(characters.len()).into_iter().map(|at| characters[at]).collect();
            Ok(Value::from(text))
        }
        Kind::List(items) => Ok(list(of(items))),
        Kind::Tuple(items) => Ok(tuple(of(items))),
        Kind::Range(_) => Err(unsupported("a slice of a range")),
        Kind::Dict(_) => Err(fail("unhashable type: 'slice'")),
        // Jinja makes undefined of what Python cannot slice.
        _ => Ok(Value::UNDEFINED),
    }
}

/// What a loop runs over.
pub(super) fn looped(value: &Value) -> Result<Value, Error> {
    match kind(value) {
        Kind::List(_) | Kind::Tuple(_) => Ok(value.clone()),
        Kind::Generator(generator) => Ok(list(Generator::take(generator))),
        _ => super::python::iterate(value).map(list),
    }
}
