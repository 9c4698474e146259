//! Values as a template written for Python sees them: which type each has there, and the types that minijinja lacks.

use super::deadline;
use indexmap::IndexMap;
use minijinja::value::{Enumerator, Object, ObjectRepr, Tuple};
use minijinja::{Error, ErrorKind, State, Value};
use std::sync::{Arc, Mutex, PoisonError};

/// Deepest nesting of lists and dictionaries that is built or walked.
pub(super) const MOST_NESTED: usize = 200;

/// Most values in a list or dictionary that a template builds, those in its items included.
const MOST_VALUES: usize = 1_000_000;

/// Most numbers in a `range`, as in Jinja's sandbox.
const MOST_RANGE: i128 = 100_000;

/// A dictionary.
pub(super) type Dict = IndexMap<Value, Value>;

/// A value by its type in Python.
pub(super) enum Kind<'a> {
    Undefined,
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(&'a str),
    List(&'a [Value]),
    Tuple(&'a [Value]),
    Dict(&'a Dict),
    Range(&'a Range),
    View(&'a View),
    Generator(&'a Generator),
    /// A method that is named and not called.
    Method,
    /// A macro, a namespace, a loop, a function.
    Object,
}

/// The type of `value`.
pub(super) fn kind(value: &Value) -> Kind<'_> {
    if let Some(text) = value.as_str() {
        return Kind::Str(text);
    }
    if value.is_undefined() {
        return Kind::Undefined;
    }
    if value.is_none() {
        return Kind::None;
    }
    if value.is_number() {
        return match value.is_integer() {
            true => i128::try_from(value.clone()).map_or(Kind::Object, Kind::Int),
            false => f64::try_from(value.clone()).map_or(Kind::Object, Kind::Float),
        };
    }
    if let Ok(flag) = bool::try_from(value.clone()) {
        return Kind::Bool(flag);
    }
    let Some(object) = value.as_object() else { return Kind::Object };
    if let Some(list) = object.downcast_ref::<Vec<Value>>() {
        Kind::List(list)
    } else if let Some(tuple) = object.downcast_ref::<Tuple>() {
        Kind::Tuple(tuple)
    } else if let Some(dict) = object.downcast_ref::<Dict>() {
        Kind::Dict(dict)
    } else if let Some(range) = object.downcast_ref::<Range>() {
        Kind::Range(range)
    } else if let Some(view) = object.downcast_ref::<View>() {
        Kind::View(view)
    } else if let Some(generator) = object.downcast_ref::<Generator>() {
        Kind::Generator(generator)
    } else if object.downcast_ref::<Method>().is_some() {
        Kind::Method
    } else {
        Kind::Object
    }
}

/// Python's name of the type of `value`.
pub(super) fn type_name(value: &Value) -> &'static str {
    match kind(value) {
        Kind::Undefined => "undefined",
        Kind::None => "NoneType",
        Kind::Bool(_) => "bool",
        Kind::Int(_) => "int",
        Kind::Float(_) => "float",
        Kind::Str(_) => "str",
        Kind::List(_) => "list",
        Kind::Tuple(_) => "tuple",
        Kind::Dict(_) => "dict",
        Kind::Range(_) => "range",
        Kind::View(_) => "view of a dict",
        Kind::Generator(_) => "generator",
        Kind::Method => "method",
        Kind::Object => "object",
    }
}

/// Whether a value can be a key.
pub(super) fn hashable(value: &Value) -> bool {
    match kind(value) {
        Kind::List(_) | Kind::Dict(_) | Kind::View(_) | Kind::Object => false,
        Kind::Tuple(items) => items.iter().all(hashable),
        _ => true,
    }
}

/// A template that asks for what Python refuses as well.
pub(super) fn fail(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// A template that asks for what is not rendered here: the construct is named rather than rendered differently.
pub(super) fn unsupported(construct: &str) -> Error {
    fail(format!("{construct} is not supported in chat templates here"))
}

/// Looks whether `bytes` may still be made within what the render may use, before they are allocated.
pub(super) fn room(state: &State<'_, '_>, bytes: usize) -> Result<(), Error> {
    match state.fuel_levels() {
        Some((_, remaining)) if (bytes / 64) as u64 >= remaining => Err(Error::from(ErrorKind::OutOfFuel)),
        _ => Ok(()),
    }
}

/// A number as a value.
pub(super) fn int(number: i128) -> Value {
    i64::try_from(number).map_or_else(|_| Value::from(number), Value::from)
}

/// A list as a value.
pub(super) fn list(items: Vec<Value>) -> Value {
    Value::from_object(items)
}

/// A tuple as a value.
pub(super) fn tuple(items: Vec<Value>) -> Value {
    Value::from_object(Tuple::from(items))
}

/// JSON as Python's `json` reads it.
pub(super) fn from_json(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(flag) => Value::from(*flag),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::from(number),
            (None, Some(number)) => Value::from(number),
            (None, None) => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Array(items) => list(items.iter().map(from_json).collect()),
        serde_json::Value::Object(entries) => {
            let entries = entries.iter().map(|(key, value)| (Value::from(key.as_str()), from_json(value)));
            Value::from_object(entries.collect::<Dict>())
        }
    }
}

/// The items that a loop over `value` meets; `None` where Python says that it is not iterable.
pub(super) fn items(value: &Value) -> Option<Vec<Value>> {
    Some(match kind(value) {
        Kind::Undefined => Vec::new(),
        Kind::Str(text) => text.chars().map(Value::from).collect(),
        Kind::List(items) | Kind::Tuple(items) => items.to_vec(),
        Kind::Dict(dict) => dict.keys().cloned().collect(),
        Kind::Range(range) => range.numbers(),
        Kind::View(view) => view.items(),
        Kind::Generator(generator) => generator.take(),
        Kind::None | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) | Kind::Method | Kind::Object => {
            return None;
        }
    })
}

/// [`items`], or Python's complaint.
pub(super) fn iterate(value: &Value) -> Result<Vec<Value>, Error> {
    deadline::check()?;
    items(value).ok_or_else(|| fail(format!("'{}' object is not iterable", type_name(value))))
}

/// Walks through a value, adding up what is in it: a value counts 1, and each 64 bytes of text.
fn walk(value: &Value, depth: usize, size: &mut usize) -> Result<(), Error> {
    let text = value.as_str().map_or(0, str::len);
    *size = size.saturating_add(1 + text / 64);
    if depth > MOST_NESTED {
        return Err(fail(format!("lists and dictionaries are nested deeper than {MOST_NESTED}")));
    }
    if *size > MOST_VALUES {
        return Err(fail(format!("lists and dictionaries with more than {MOST_VALUES} values in them")));
    }
    match kind(value) {
        Kind::List(items) | Kind::Tuple(items) => {
            items.iter().try_for_each(|item| walk(item, depth + 1, size))
        }
        Kind::Dict(dict) => dict.values().try_for_each(|item| walk(item, depth + 1, size)),
        Kind::Generator(generator) => {
            generator.look().iter().try_for_each(|item| walk(item, depth + 1, size))
        }
        Kind::View(view) => walk(&view.dict, depth + 1, size),
        Kind::Object => {
            let pairs = value.as_object().and_then(|object| object.try_iter_pairs());
            pairs.into_iter().flatten().try_for_each(|(_, item)| walk(&item, depth + 1, size))
        }
        _ => Ok(()),
    }
}

/// Refuses a value that is nested too deep, which would exhaust the stack where it is printed or dropped, or that
/// repeats itself so often that comparing or printing it would not end.
pub(super) fn nested(value: Value) -> Result<Value, Error> {
    deadline::check()?;
    walk(&value, 0, &mut 0)?;
    Ok(value)
}

/// Takes the steps for a value that the engine does not count itself.
pub(super) fn charge(state: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    let size = match kind(value) {
        Kind::Str(text) => text.len() / 64,
        Kind::List(items) | Kind::Tuple(items) => items.len() / 4,
        _ => 0,
    };
    state.consume_fuel(1 + size as u64)
}

/// Python's `range`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub start: i128,
    pub stop: i128,
    pub step: i128,
}

impl Range {
    /// How many numbers it has.
    pub fn len(&self) -> i128 {
        let span = match self.step > 0 {
            true => self.stop.saturating_sub(self.start),
            false => self.start.saturating_sub(self.stop),
        };
        if span <= 0 { 0 } else { (span - 1) / self.step.abs() + 1 }
    }

    /// Its numbers, all of them.
    pub fn numbers(&self) -> Vec<Value> {
        (0..self.len()).map(|index| int(self.start + index * self.step)).collect()
    }

    /// # Errors
    /// When it has more numbers than Jinja's sandbox allows, or a step of 0.
    pub fn checked(start: i128, stop: i128, step: i128) -> Result<Range, Error> {
        let range = Range { start, stop, step };
        if step == 0 {
            return Err(fail("range() arg 3 must not be zero"));
        }
        match range.len() > MOST_RANGE {
            true => {
                Err(fail(format!("a range of {} numbers; at most {MOST_RANGE} are allowed", range.len())))
            }
            false => Ok(range),
        }
    }
}

impl Object for Range {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.numbers())
    }
}

/// Which part of a dictionary a view shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Keys,
    Values,
    Items,
}

/// What `keys()`, `values()` and `items()` return.
#[derive(Debug)]
pub(super) struct View {
    pub part: Part,
    pub dict: Value,
}

impl View {
    /// What it shows.
    pub fn items(&self) -> Vec<Value> {
        let Kind::Dict(dict) = kind(&self.dict) else { return Vec::new() };
        match self.part {
            Part::Keys => dict.keys().cloned().collect(),
            Part::Values => dict.values().cloned().collect(),
            Part::Items => dict.iter().map(|(key, value)| tuple(vec![key.clone(), value.clone()])).collect(),
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        match kind(&self.dict) {
            Kind::Dict(dict) => dict.len(),
            _ => 0,
        }
    }
}

impl Object for View {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.items())
    }
}

/// What filters such as `map` and `select` return: true whatever is in it, and empty once it was looped over.
#[derive(Debug)]
pub(super) struct Generator(Mutex<Vec<Value>>);

impl Generator {
    /// As a value.
    pub fn value(items: Vec<Value>) -> Value {
        Value::from_object(Generator(Mutex::new(items)))
    }

    /// What is left in it; nothing afterwards.
    pub fn take(&self) -> Vec<Value> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The next item, if there is one.
    pub fn next(&self) -> Option<Value> {
        let mut items = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if items.is_empty() { None } else { Some(items.remove(0)) }
    }

    fn look(&self) -> Vec<Value> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Object for Generator {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn is_true(self: &Arc<Self>) -> bool {
        true
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.take())
    }
}

/// A method that was named and not called, such as `message.items`.
#[derive(Debug)]
pub(super) struct Method {
    pub of: Value,
    pub name: String,
}
