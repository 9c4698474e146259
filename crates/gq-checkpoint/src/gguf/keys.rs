//! Metadata of one architecture, by kind of value; a key that nobody asks for is an error.

use super::{Array, Gguf, GgufError, Value};
use crate::Family;
use crate::keys::{self, Ignored, IgnoredKey, Standing};
use std::cell::RefCell;
use std::collections::HashSet;

/// Keys below `<architecture>.`.
pub(crate) struct Keys<'a> {
    gguf: &'a Gguf,
    architecture: &'static str,
    seen: RefCell<HashSet<String>>,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(gguf: &'a Gguf, architecture: &'static str) -> Keys<'a> {
        Keys { gguf, architecture, seen: RefCell::new(HashSet::new()) }
    }

    pub(crate) fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        let name = self.name(key);
        let value = self.gguf.metadata().get(&name);
        self.seen.borrow_mut().insert(name);
        value
    }

    fn wrong(&self, key: &str, value: &Value, expected: &'static str) -> GgufError {
        GgufError::KeyType { key: self.name(key), actual: value.kind(), expected }
    }

    pub(crate) fn missing(&self, key: &str) -> GgufError {
        GgufError::MissingKey { key: self.name(key) }
    }

    pub(crate) fn contradiction(&self, key: &str, fault: impl Into<String>) -> GgufError {
        GgufError::Contradiction { key: self.name(key), fault: fault.into() }
    }

    /// An integer.
    pub(crate) fn opt_int(&self, key: &str) -> Result<Option<u64>, GgufError> {
        let integer = |value: &Value| value.as_u64().ok_or_else(|| self.wrong(key, value, "an integer"));
        self.get(key).map(integer).transpose()
    }

    pub(crate) fn int(&self, key: &str) -> Result<u64, GgufError> {
        self.opt_int(key)?.ok_or_else(|| self.missing(key))
    }

    /// A number.
    pub(crate) fn opt_float(&self, key: &str) -> Result<Option<f64>, GgufError> {
        let number = |value: &Value| {
            let number = value.as_f64().or_else(|| value.as_u64().map(|v| v as f64));
            number.ok_or_else(|| self.wrong(key, value, "a number"))
        };
        self.get(key).map(number).transpose()
    }

    pub(crate) fn float(&self, key: &str) -> Result<f64, GgufError> {
        self.opt_float(key)?.ok_or_else(|| self.missing(key))
    }

    /// A text.
    pub(crate) fn opt_text(&self, key: &str) -> Result<Option<&'a str>, GgufError> {
        let text = |value: &'a Value| value.as_str().ok_or_else(|| self.wrong(key, value, "a string"));
        self.get(key).map(text).transpose()
    }

    /// One integer per layer, or one for all.
    pub(crate) fn opt_ints(&self, key: &str, layers: usize) -> Result<Option<Vec<u64>>, GgufError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let list = match value {
            Value::Array(array) => array.to_u64s(),
            single => single.as_u64().map(|v| vec![v; layers]),
        };
        let list = list.ok_or_else(|| self.wrong(key, value, "integers"))?;
        self.per_layer(key, list.len(), layers)?;
        Ok(Some(list))
    }

    /// One truth value per layer; or the period n of a pattern whose every n-th layer is false.
    pub(crate) fn opt_pattern(&self, key: &str, layers: usize) -> Result<Option<Vec<bool>>, GgufError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let list = match (value, value.as_u64()) {
            (_, Some(period)) => Some((1..=layers as u64).map(|n| period == 0 || n % period != 0).collect()),
            (Value::Array(Array::Bool(list)), _) => Some(list.clone()),
            (Value::Array(array), _) => array.to_u64s().map(|list| list.iter().map(|&v| v != 0).collect()),
            _ => None,
        };
        let list: Vec<bool> = list.ok_or_else(|| self.wrong(key, value, "truth values"))?;
        self.per_layer(key, list.len(), layers)?;
        Ok(Some(list))
    }

    fn per_layer(&self, key: &str, actual: usize, layers: usize) -> Result<(), GgufError> {
        if actual == layers {
            return Ok(());
        }
        Err(self.contradiction(key, format!("{actual} entries for {layers} layers")))
    }

    /// One integer for all layers, or a list with one for each that are all alike.
    pub(crate) fn alike(&self, key: &str, layers: usize) -> Result<Option<u64>, GgufError> {
        let Some(list) = self.opt_ints(key, layers)? else { return Ok(None) };
        match list.iter().all(|value| Some(value) == list.first()) {
            true => Ok(list.first().copied()),
            false => Err(self.contradiction(key, "layers differ")),
        }
    }

    /// Refuses a value other than `expected`; where there is none, `absent` is what llama.cpp takes.
    pub(crate) fn same(&self, key: &str, expected: u64, absent: u64) -> Result<(), GgufError> {
        let actual = self.opt_int(key)?;
        match actual.unwrap_or(absent) == expected {
            true => Ok(()),
            false => Err(GgufError::Unsupported {
                key: self.name(key),
                actual: actual.map_or_else(|| format!("absent, which means {absent}"), |v| v.to_string()),
                supported: expected.to_string(),
            }),
        }
    }

    /// Refuses a number other than `expected`, where there is one.
    pub(crate) fn same_float(&self, key: &str, expected: f64) -> Result<(), GgufError> {
        match self.opt_float(key)? {
            Some(actual) if actual != expected => Err(GgufError::Unsupported {
                key: self.name(key),
                actual: actual.to_string(),
                supported: expected.to_string(),
            }),
            _ => Ok(()),
        }
    }

    /// Refuses false.
    pub(crate) fn must_be_true(&self, key: &str) -> Result<(), GgufError> {
        match self.get(key) {
            None | Some(Value::Bool(true)) => Ok(()),
            Some(Value::Bool(false)) => Err(GgufError::Unsupported {
                key: self.name(key),
                actual: "false".to_owned(),
                supported: "true".to_owned(),
            }),
            Some(value) => Err(self.wrong(key, value, "a truth value")),
        }
    }

    /// Refuses a value other than `expected`, where there is one.
    pub(crate) fn only(&self, key: &str, expected: u64) -> Result<(), GgufError> {
        match self.opt_int(key)? {
            Some(actual) if actual != expected => Err(GgufError::Unsupported {
                key: self.name(key),
                actual: actual.to_string(),
                supported: expected.to_string(),
            }),
            _ => Ok(()),
        }
    }

    /// Refuses a key that could change the graph; gives those that do not.
    pub(crate) fn finish(&self, family: Family, accepted: &[String]) -> Result<Vec<IgnoredKey>, GgufError> {
        let seen = self.seen.borrow();
        let prefix = format!("{}.", self.architecture);
        let mut ignored = Vec::new();
        for (key, value) in self.gguf.metadata().iter().filter(|(key, _)| !seen.contains(*key)) {
            let own = key.strip_prefix(&prefix).unwrap_or(key);
            let accepted = accepted.iter().any(|name| name == key || name == own);
            let why = match (keys::standing(key, own, family), accepted) {
                (Standing::Read, _) => continue,
                (Standing::Ignored(why), _) => why,
                (Standing::Unknown, true) => Ignored::Accepted,
                (Standing::Unknown, false) => {
                    return Err(GgufError::UnknownKey { key: key.to_owned(), actual: value.kind() });
                }
            };
            ignored.push(IgnoredKey { key: key.to_owned(), why });
        }
        Ok(ignored)
    }

    /// Keys that were asked for, the architecture's name taken off.
    #[cfg(test)]
    pub(crate) fn asked(&self) -> std::collections::BTreeSet<String> {
        let prefix = format!("{}.", self.architecture);
        self.seen.borrow().iter().filter_map(|key| key.strip_prefix(&prefix)).map(str::to_owned).collect()
    }
}
