//! Calls of methods of Python's objects.

use super::arguments::Arguments;
use super::lookups::{attribute, defined};
use super::python::{Kind, Method, Part, View, fail, hashable, items, kind, type_name, unsupported};
use super::strings;
use minijinja::value::{Object, ObjectRepr};
use minijinja::{Error, State, Value};
use std::sync::Arc;

/// `value.name(…)`.
pub(super) fn call(
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    defined(value, name)?;
    if matches!(kind(value), Kind::Object) {
        return value.call_method(state, name, args);
    }
    if attribute(value, name)?.is_none() {
        // A macro kept in a dictionary may be called.
        if let Kind::Dict(dict) = kind(value)
            && let Some(found) = dict.get(&Value::from(name))
        {
            return found.call(state, args);
        }
        return Err(fail(format!("'{}' object has no attribute '{name}'", type_name(value))));
    }
    match kind(value) {
        Kind::Str(text) => strings::call(state, value, text, name, args),
        Kind::Dict(_) => dict_method(value, name, args),
        _ => sequence_method(value, name, args),
    }
}

fn dict_method(value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let args = Arguments::new(name, args)?;
    let view = |part: Part| Ok(Value::from_object(View { part, dict: value.clone() }));
    match (name, kind(value)) {
        ("get", Kind::Dict(dict)) => {
            let [key, default] = args.positional_only(1)?;
            match key.as_ref().filter(|key| hashable(key)) {
                Some(key) => Ok(dict.get(key).cloned().or(default).unwrap_or_else(|| Value::from(()))),
                None => Err(fail("unhashable type")),
            }
        }
        ("keys" | "values" | "items", _) => {
            let [] = args.positional_only(0)?;
            view(match name {
                "keys" => Part::Keys,
                "values" => Part::Values,
                _ => Part::Items,
            })
        }
        ("copy", _) => args.positional_only(0).map(|[]| value.clone()),
        _ => Err(unsupported(&format!("dict.{name}"))),
    }
}

fn sequence_method(value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let args = Arguments::new(name, args)?;
    let items = items(value).unwrap_or_default();
    match name {
        "count" => {
            let [what] = args.positional_only(1)?;
            Ok(Value::from(items.iter().filter(|item| Some(*item) == what.as_ref()).count()))
        }
        "index" => {
            let [what] = args.positional_only(1)?;
            let at = items.iter().position(|item| Some(item) == what.as_ref());
            at.map(Value::from)
                .ok_or_else(|| fail(format!("what is looked for is not in the {}", type_name(value))))
        }
        "copy" => args.positional_only(0).map(|[]| value.clone()),
        _ => Err(unsupported(&format!("{}.{name}", type_name(value)))),
    }
}

impl Object for Method {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        call(state, &self.of, &self.name, args)
    }
}
