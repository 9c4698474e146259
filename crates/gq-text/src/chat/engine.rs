//! The environment that templates run in, and one run in it.

use super::arguments::{Arguments, integer, string};
use super::dialect::Dialect;
use super::python::{self, Dict, Kind, Range, fail, kind, nested, unsupported};
use super::template_source::syntax;
use super::{
    Clock, TemplateLimits, checks, collections, deadline, filters, lookups, methods, operators, spelling,
};
use minijinja::machinery::{CodeGenerator, ast, make_string_output, parse};
use minijinja::value::{Enumerator, Object, ObjectRepr, Rest, ValueOrKwargs};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What the template is called in complaints.
const NAME: &str = "chat template";

/// Detail of the error that a full output ends in.
pub(super) const FULL: &str = "the output is full";

/// The template, rewritten to Python's rules.
///
/// # Errors
/// When it is not understood, or holds a construct that would be rendered differently.
pub(super) fn understand(source: &str) -> Result<ast::Stmt<'_>, Error> {
    let parsed = parse(source, NAME, syntax()?)?;
    deadline::check()?;
    let mut statements = Dialect::default().statements(std::slice::from_ref(&parsed))?;
    statements.pop().ok_or_else(|| fail("an empty template"))
}

/// One rendering of a template with `variables`, within the time that has begun.
///
/// # Errors
/// When the template refuses, fails or needs more than `limits`.
pub(super) fn run(
    source: &str,
    variables: Vec<(String, Value)>,
    clock: Option<Clock>,
    limits: TemplateLimits,
) -> Result<String, Error> {
    let template = understand(source)?;
    let mut generator = CodeGenerator::new(NAME, source);
    generator.compile_stmt(&template);
    let (instructions, _) = generator.finish();
    let environment = environment(clock, limits);
    let root = Value::from_pairs(variables);
    let mut text = String::new();
    let mut output = make_string_output(&mut text);
    let blocks = BTreeMap::new();
    minijinja::machinery::eval(&environment, &instructions, root, &blocks, &mut output, AutoEscape::None)?;
    Ok(text)
}

fn environment(clock: Option<Clock>, limits: TemplateLimits) -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_fuel(Some(limits.steps));
    environment.set_recursion_limit(limits.nesting);
    let written = AtomicUsize::new(0);
    environment.set_formatter(move |output, _: &mut State<'_, '_>, value| {
        let text = match value.as_str() {
            Some(text) => text.into(),
            None => std::borrow::Cow::from(spelling::text(value)?),
        };
        if written.fetch_add(text.len(), Ordering::Relaxed).saturating_add(text.len()) > limits.output_bytes {
            return Err(Error::new(ErrorKind::OutOfFuel, FULL));
        }
        output.write_str(&text).map_err(Error::from)
    });
    filters::register(&mut environment);
    collections::register(&mut environment);
    checks::register(&mut environment);
    rules(&mut environment);
    globals(&mut environment, clock);
    environment
}

/// What operators, lookups and loops were rewritten to.
fn rules(environment: &mut Environment<'_>) {
    environment.add_filter("%+", |state: &State<'_, '_>, a: &Value, b: &Value| operators::add(state, a, b));
    environment.add_filter("%-", operators::subtract);
    environment
        .add_filter("%*", |state: &State<'_, '_>, a: &Value, b: &Value| operators::multiply(state, a, b));
    environment.add_filter("%/", operators::divide);
    environment.add_filter("%//", operators::floor_divide);
    environment
        .add_filter("%%", |state: &State<'_, '_>, a: &Value, b: &Value| operators::remainder(state, a, b));
    environment.add_filter("%**", operators::power);
    environment.add_filter("%~", |state: &State<'_, '_>, a: &Value, b: &Value| operators::join(state, a, b));
    environment.add_filter("%neg", operators::negate);
    environment.add_filter("%==", operators::equal);
    environment.add_filter("%!=", |a: &Value, b: &Value| operators::equal(a, b).map(|equal| !equal));
    environment.add_filter("%in", |needle: &Value, haystack: &Value| operators::contains(haystack, needle));
    for symbol in ["<", "<=", ">", ">="] {
        let name = format!("%{symbol}");
        environment.add_filter(name, move |a: &Value, b: &Value| operators::compare(symbol, a, b));
    }
    environment.add_filter("%built", |value: &Value| operators::built(value.clone()));
    environment.add_filter("%iter", |value: &Value| lookups::looped(&given(value)));
    environment.add_filter("%attr", |value: &Value, name: &str| lookups::get(value, name));
    environment.add_filter("%item", lookups::item);
    environment.add_filter("%slice", |value: &Value, a: &Value, b: &Value, c: &Value| {
        lookups::slice(value, [a, b, c])
    });
    environment.add_filter(
        "%call",
        |state: &mut State<'_, '_>, value: &Value, name: &str, args: Rest<ValueOrKwargs>| {
            methods::call(state, value, name, &args.into_values())
        },
    );
    environment.add_filter("%arg", |value: &Value| match value.is_undefined() {
        true => Value::from_object(Nothing),
        false => value.clone(),
    });
    environment.add_filter("%given", |value: &Value| given(value));
}

/// An undefined argument, which is not the same as a missing one.
#[derive(Debug)]
struct Nothing;

impl Object for Nothing {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::NonEnumerable
    }
}

/// An argument as the called sees it.
fn given(value: &Value) -> Value {
    match value.downcast_object_ref::<Nothing>() {
        Some(_) => Value::UNDEFINED,
        None => value.clone(),
    }
}

fn globals(environment: &mut Environment<'_>, clock: Option<Clock>) {
    environment.add_function("raise_exception", |message: &Value| -> Result<Value, Error> {
        Err(fail(spelling::text(&given(message))?))
    });
    environment.add_function("range", |args: Rest<ValueOrKwargs>| -> Result<Value, Error> {
        let [a, b, c] = Arguments::new("range", &args.into_values())?.positional_only(1)?;
        let number = |value: &Option<Value>, default: i128| integer(value.as_ref(), default);
        let range = match b {
            None => Range::checked(0, number(&a, 0)?, 1)?,
            Some(_) => Range::checked(number(&a, 0)?, number(&b, 0)?, number(&c, 1)?)?,
        };
        Ok(Value::from_object(range))
    });
    environment.add_function("dict", |args: Rest<ValueOrKwargs>| -> Result<Value, Error> {
        let mut dict = Dict::new();
        for (key, value) in pairs("dict", &args.into_values())? {
            dict.insert(Value::from(key), value);
        }
        nested(Value::from_object(dict))
    });
    environment.add_function("namespace", |args: Rest<ValueOrKwargs>| -> Result<Value, Error> {
        let pairs = pairs("namespace", &args.into_values())?;
        if let Some((name, _)) = pairs.iter().find(|(name, _)| name.starts_with('_')) {
            return Err(fail(format!(
                "a namespace cannot have the attribute {name}, which begins with an underscore"
            )));
        }
        let dict = nested(Value::from_pairs(pairs))?;
        minijinja::functions::namespace(Some(ValueOrKwargs::from(dict)))
    });
    for name in ["cycler", "joiner", "lipsum"] {
        environment.add_function(name, move |_: Rest<ValueOrKwargs>| -> Result<Value, Error> {
            Err(unsupported(&format!("the function '{name}'")))
        });
    }
    if let Some(clock) = clock {
        environment.add_function("strftime_now", move |format: &Value| -> Result<Value, Error> {
            let format = given(format);
            clock(string(&format, "the format of strftime_now")?).map(Value::from).map_err(fail)
        });
    }
}

/// Entries of a new dictionary: those of another, then the named arguments.
fn pairs(name: &str, args: &[Value]) -> Result<Vec<(String, Value)>, Error> {
    let (positional, named) = Arguments::new(name, args)?.into_parts();
    let mut pairs = Vec::new();
    match positional.as_slice() {
        [] => (),
        [first] => match kind(first) {
            Kind::Dict(dict) => {
                for (key, value) in dict {
                    pairs.push((string(key, "a key")?.to_owned(), value.clone()));
                }
            }
            _ => return Err(unsupported(&format!("{name}() of '{}'", python::type_name(first)))),
        },
        _ => return Err(fail(format!("{name} expected at most 1 argument, got {}", positional.len()))),
    }
    pairs.extend(named.into_iter().map(|(key, value)| (key, given(&value))));
    Ok(pairs)
}
