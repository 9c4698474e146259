//! Checked access to a JSON object that remembers which keys were read.

use crate::ConfigError;
use crate::keys::{self, BOOKKEEPING, Ignored, IgnoredKey, OFF};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::{BTreeSet, HashSet};
use std::ops::RangeInclusive;

/// Longest value that a message shows, in bytes.
const SHOWN_BYTES: usize = 80;

/// What all objects of one configuration have in common.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// Unknown keys that the caller accepts: dotted paths, or last parts of them.
    pub(crate) accepted: Vec<String>,
    /// Keys that were read over.
    pub(crate) ignored: RefCell<Vec<IgnoredKey>>,
    /// Every path that was asked for, there or not.
    pub(crate) asked: RefCell<BTreeSet<String>>,
}

/// One object of a configuration. A key that is null counts as absent, or is refused at the end.
pub(crate) struct Fields<'a> {
    prefix: String,
    map: &'a Map<String, Value>,
    read: RefCell<HashSet<&'a str>>,
    reading: &'a Reading,
}

impl<'a> Fields<'a> {
    /// `prefix` is the dotted path of the object, with a dot at its end, or empty.
    pub(crate) fn new(prefix: &str, map: &'a Map<String, Value>, reading: &'a Reading) -> Fields<'a> {
        Fields { prefix: prefix.to_owned(), map, read: RefCell::new(HashSet::new()), reading }
    }

    /// Dotted path of a key.
    pub(crate) fn path(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// The value of a key, unless absent or null; counts as read.
    pub(crate) fn value(&self, key: &str) -> Option<&'a Value> {
        self.reading.asked.borrow_mut().insert(self.path(key));
        let (key, value) = self.map.get_key_value(key)?;
        self.read.borrow_mut().insert(key);
        Some(value).filter(|value| !value.is_null())
    }

    /// Whether the key stands there, if only as null.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// Keys of the object.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.map.keys().map(String::as_str)
    }

    pub(crate) fn missing(&self, key: &str) -> ConfigError {
        ConfigError::Missing { field: self.path(key) }
    }

    pub(crate) fn wrong(&self, key: &str, value: &Value, expected: &'static str) -> ConfigError {
        ConfigError::WrongType { field: self.path(key), expected, actual: shown(value) }
    }

    pub(crate) fn unsupported(&self, key: &str, value: &Value, supported: &'static str) -> ConfigError {
        ConfigError::Unsupported { field: self.path(key), value: shown(value), supported }
    }

    /// A whole number in a range.
    pub(crate) fn opt_int(
        &self,
        key: &str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<usize>, ConfigError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let Value::Number(number) = value else { return Err(self.wrong(key, value, "a whole number")) };
        if number.as_f64().is_none_or(|float| float.fract() != 0.0) {
            return Err(self.wrong(key, value, "a whole number"));
        }
        let int = number.as_u64().filter(|int| range.contains(int)).and_then(|int| usize::try_from(int).ok());
        let (min, max) = (*range.start() as f64, *range.end() as f64);
        match int {
            Some(int) => Ok(Some(int)),
            None => Err(ConfigError::OutOfRange { field: self.path(key), actual: shown(value), min, max }),
        }
    }

    pub(crate) fn int(&self, key: &str, range: RangeInclusive<u64>) -> Result<usize, ConfigError> {
        self.opt_int(key, range)?.ok_or_else(|| self.missing(key))
    }

    /// A number in a range.
    pub(crate) fn opt_float(
        &self,
        key: &str,
        range: RangeInclusive<f64>,
    ) -> Result<Option<f64>, ConfigError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let Some(float) = value.as_f64() else { return Err(self.wrong(key, value, "a number")) };
        let (min, max) = (*range.start(), *range.end());
        match range.contains(&float) {
            true => Ok(Some(float)),
            false => Err(ConfigError::OutOfRange { field: self.path(key), actual: shown(value), min, max }),
        }
    }

    pub(crate) fn opt_bool(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.wrong(key, value, "true or false"))
    }

    pub(crate) fn bool_or(&self, key: &str, default: bool) -> Result<bool, ConfigError> {
        Ok(self.opt_bool(key)?.unwrap_or(default))
    }

    pub(crate) fn opt_string(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong(key, value, "a string"))
    }

    pub(crate) fn string(&self, key: &str) -> Result<&'a str, ConfigError> {
        self.opt_string(key)?.ok_or_else(|| self.missing(key))
    }

    pub(crate) fn opt_list(&self, key: &str) -> Result<Option<&'a [Value]>, ConfigError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_array().map(|list| Some(list.as_slice())).ok_or_else(|| self.wrong(key, value, "a list"))
    }

    pub(crate) fn opt_object(&self, key: &str) -> Result<Option<Fields<'a>>, ConfigError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let prefix = format!("{}.", self.path(key));
        match value {
            Value::Object(map) => Ok(Some(Fields::new(&prefix, map, self.reading))),
            _ => Err(self.wrong(key, value, "an object")),
        }
    }

    /// A token number; -1, which some files write, means none.
    pub(crate) fn opt_token(&self, key: &str) -> Result<Option<u32>, ConfigError> {
        if self.value(key).and_then(Value::as_i64) == Some(-1) {
            return Ok(None);
        }
        Ok(self.opt_int(key, 0..=u64::from(u32::MAX))?.and_then(|id| u32::try_from(id).ok()))
    }

    /// One token number or a list of them.
    pub(crate) fn tokens(&self, key: &str) -> Result<Option<Vec<u32>>, ConfigError> {
        let Some(Value::Array(list)) = self.value(key) else {
            return Ok(self.opt_token(key)?.map(|id| vec![id]));
        };
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids = list.iter().map(|value| id(value).ok_or_else(|| self.wrong(key, value, "a token number")));
        ids.collect::<Result<Vec<_>, _>>().map(Some)
    }

    /// Refuses a switch that is on.
    pub(crate) fn must_be_off(&self, key: &str) -> Result<(), ConfigError> {
        match self.value(key) {
            None | Some(Value::Bool(false)) => Ok(()),
            Some(value) => Err(self.unsupported(key, value, "false")),
        }
    }

    /// Refuses a switch that is off.
    fn must_be_on(&self, key: &str) -> Result<(), ConfigError> {
        match self.value(key) {
            None | Some(Value::Bool(true)) => Ok(()),
            Some(value) => Err(self.unsupported(key, value, "true")),
        }
    }

    /// Refuses a string that is not in a list `"a, b"`.
    pub(crate) fn one_of(&self, key: &str, supported: &'static str) -> Result<(), ConfigError> {
        match self.opt_string(key)? {
            Some(name) if !supported.split(", ").any(|known| known == name) => {
                Err(self.unsupported(key, &Value::from(name), supported))
            }
            _ => Ok(()),
        }
    }

    /// Marks keys as read without looking.
    pub(crate) fn irrelevant(&self, keys: &[&str]) {
        for key in keys {
            let _ = self.value(key);
        }
    }

    /// Says of keys that no engine reads them where they stand.
    pub(crate) fn without_effect(&self, keys: &[&str]) {
        for key in keys.iter().filter(|key| self.value(key).is_some()) {
            let ignored = IgnoredKey { key: self.path(key), why: Ignored::LeftBehind };
            self.reading.ignored.borrow_mut().push(ignored);
        }
    }

    /// Refuses keys that nobody read, but for those that mean nothing, and nulls that the reference refuses.
    pub(crate) fn finish(&self, model_type: &str) -> Result<(), ConfigError> {
        for switch in OFF {
            match keys::is_always_on(switch, model_type) {
                true => self.must_be_on(switch)?,
                false => self.must_be_off(switch)?,
            }
        }
        let top = self.prefix.is_empty() || self.prefix == "text_config.";
        let read = self.read.borrow();
        for (key, value) in self.map {
            if value.is_null() {
                match keys::refuses_null(key, model_type).filter(|_| top) {
                    Some(absent) => return Err(ConfigError::Null { field: self.path(key), absent }),
                    None => continue,
                }
            }
            if read.contains(key.as_str()) || is_bookkeeping(key) {
                continue;
            }
            let path = self.path(key);
            let accepted = self.reading.accepted.iter().any(|name| *name == path || name == key);
            let why = match (keys::is_left_behind(key), accepted) {
                (true, _) => Ignored::LeftBehind,
                (false, true) => Ignored::Accepted,
                (false, false) => {
                    return Err(ConfigError::UnknownKey { key: path, model_type: model_type.to_owned() });
                }
            };
            self.reading.ignored.borrow_mut().push(IgnoredKey { key: path, why });
        }
        Ok(())
    }
}

fn is_bookkeeping(key: &str) -> bool {
    BOOKKEEPING.iter().any(|name| match name.strip_suffix('*') {
        Some(front) => key.starts_with(front),
        None => *name == key,
    })
}

/// A value as JSON, cut when it is long.
pub(crate) fn shown(value: &Value) -> String {
    let text = match value {
        Value::Array(list) if list.len() > 8 => return format!("a list of {}", list.len()),
        Value::Object(map) => return format!("an object of {} keys", map.len()),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.char_indices().map(|(at, _)| at).find(|at| *at >= SHOWN_BYTES) {
        Some(end) => format!("{}...", text.get(..end).unwrap_or("")),
        None => text,
    }
}
