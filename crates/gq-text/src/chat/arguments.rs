//! Arguments of filters and methods, bound to parameters as Python binds them.

use super::python::{Kind, fail, kind, type_name};
use super::spelling;
use minijinja::value::Kwargs;
use minijinja::{Error, Value};

/// What a call was given.
pub(super) struct Arguments<'a> {
    name: &'a str,
    positional: Vec<Value>,
    named: Vec<(String, Value)>,
}

impl<'a> Arguments<'a> {
    /// The arguments of a call of `name`.
    pub fn new(name: &'a str, args: &[Value]) -> Result<Arguments<'a>, Error> {
        let (mut positional, mut named) = (args.to_vec(), Vec::new());
        if let Some(last) = positional.pop_if(|last| last.is_kwargs()) {
            let kwargs = Kwargs::try_from(last)?;
            for key in kwargs.args() {
                named.push((key.to_owned(), kwargs.peek::<Value>(key)?));
            }
        }
        Ok(Arguments { name, positional, named })
    }

    /// Positional arguments and named ones, as they came.
    pub fn into_parts(self) -> (Vec<Value>, Vec<(String, Value)>) {
        (self.positional, self.named)
    }

    /// Bound to `parameters`, of which the first `required` must be given.
    pub fn bind<const N: usize>(
        self,
        parameters: [&str; N],
        required: usize,
    ) -> Result<[Option<Value>; N], Error> {
        let name = self.name;
        if self.positional.len() > N {
            let given = self.positional.len();
            return Err(fail(format!("{name}() takes at most {N} arguments ({given} given)")));
        }
        let mut bound = [const { None }; N];
        for (place, value) in bound.iter_mut().zip(self.positional) {
            *place = Some(value);
        }
        for (key, value) in self.named {
            let at = parameters.iter().position(|parameter| **parameter == key);
            let at =
                at.ok_or_else(|| fail(format!("{name}() got an unexpected keyword argument '{key}'")))?;
            if bound[at].replace(value).is_some() {
                return Err(fail(format!("{name}() got multiple values for argument '{key}'")));
            }
        }
        match bound[..required].iter().position(Option::is_none) {
            Some(missing) => Err(fail(format!("{name}() is missing the argument '{}'", parameters[missing]))),
            None => Ok(bound),
        }
    }

    /// Bound by place alone, as many methods of Python take them.
    pub fn positional_only<const N: usize>(self, required: usize) -> Result<[Option<Value>; N], Error> {
        match self.named.first() {
            Some((key, _)) => Err(fail(format!("{}() takes no keyword argument '{key}'", self.name))),
            None => self.bind([""; N], required),
        }
    }
}

/// An argument that must be a string.
pub(super) fn string<'v>(value: &'v Value, what: &str) -> Result<&'v str, Error> {
    value.as_str().ok_or_else(|| fail(format!("{what} must be str, not {}", type_name(value))))
}

/// An argument that may be left out or none and else must be a string.
pub(super) fn optional_string<'v>(value: &'v Option<Value>, what: &str) -> Result<Option<&'v str>, Error> {
    value.as_ref().filter(|value| !value.is_none()).map(|value| string(value, what)).transpose()
}

/// An argument that may be left out and else must be an integer.
pub(super) fn integer(value: Option<&Value>, default: i128) -> Result<i128, Error> {
    match value.map(kind) {
        None => Ok(default),
        Some(Kind::Int(number)) => Ok(number),
        Some(Kind::Bool(flag)) => Ok(i128::from(flag)),
        Some(_) => {
            let shown = value.map_or("", type_name);
            Err(fail(format!("'{shown}' object cannot be interpreted as an integer")))
        }
    }
}

/// An argument that may be left out and counts by whether it is true.
pub(super) fn flag(value: &Option<Value>) -> bool {
    value.as_ref().is_some_and(Value::is_true)
}

/// What Jinja's filters make of an argument: its text.
pub(super) fn soft_text(value: &Value) -> Result<String, Error> {
    spelling::text(value)
}
