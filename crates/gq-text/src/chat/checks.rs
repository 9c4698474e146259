//! Jinja's tests: what stands behind `is`.

use super::arguments::integer;
use super::operators::{compare, contains};
use super::python::{Kind, fail, kind, unsupported};
use super::spelling;
use minijinja::{Environment, Error, Value};

/// Registers them.
pub(super) fn register(environment: &mut Environment<'_>) {
    let has = |test: fn(&Value) -> bool| move |value: &Value| test(value);
    environment.add_test("defined", has(|value| !value.is_undefined()));
    environment.add_test("undefined", has(Value::is_undefined));
    environment.add_test("none", has(Value::is_none));
    environment.add_test("boolean", has(|value| matches!(kind(value), Kind::Bool(_))));
    environment.add_test("true", has(|value| matches!(kind(value), Kind::Bool(true))));
    environment.add_test("false", has(|value| matches!(kind(value), Kind::Bool(false))));
    environment.add_test("integer", has(|value| matches!(kind(value), Kind::Int(_))));
    environment.add_test("float", has(|value| matches!(kind(value), Kind::Float(_))));
    environment.add_test(
        "number",
        has(|value| matches!(kind(value), Kind::Bool(_) | Kind::Int(_) | Kind::Float(_))),
    );
    environment.add_test("string", has(|value| matches!(kind(value), Kind::Str(_))));
    environment.add_test("mapping", has(|value| matches!(kind(value), Kind::Dict(_))));
    environment.add_test(
        "iterable",
        has(|value| match kind(value) {
            Kind::None | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) | Kind::Method => false,
            Kind::Object => value.try_iter().is_ok(),
            _ => true,
        }),
    );
    // Whatever has a length and items by index: dictionaries too.
    environment.add_test(
        "sequence",
        has(|value| {
            use Kind::{Dict, List, Range, Str, Tuple, Undefined};
            matches!(kind(value), Str(_) | List(_) | Tuple(_) | Dict(_) | Range(_) | Undefined)
        }),
    );
    environment.add_test("callable", callable);
    environment.add_test("escaped", has(Value::is_safe));
    environment
        .add_test("odd", |value: &Value| integer(Some(value), 0).map(|number| number.rem_euclid(2) == 1));
    environment
        .add_test("even", |value: &Value| integer(Some(value), 0).map(|number| number.rem_euclid(2) == 0));
    environment.add_test("divisibleby", |value: &Value, by: &Value| {
        match (integer(Some(value), 0)?, integer(Some(by), 1)?) {
            (_, 0) => Err(fail("integer modulo by zero")),
            (number, by) => Ok(number.checked_rem(by) == Some(0)),
        }
    });
    environment.add_test("lower", |value: &Value| cased(value, true));
    environment.add_test("upper", |value: &Value| cased(value, false));
    environment.add_test("sameas", same);
    environment.add_test("in", |value: &Value, among: &Value| contains(among, value));
    for name in ["eq", "equalto", "=="] {
        environment.add_test(name, |a: &Value, b: &Value| a == b);
    }
    for name in ["ne", "!="] {
        environment.add_test(name, |a: &Value, b: &Value| a != b);
    }
    let orders: [(&str, &[&str]); 4] = [
        ("<", &["lt", "lessthan", "<"]),
        ("<=", &["le", "<="]),
        (">", &["gt", "greaterthan", ">"]),
        (">=", &["ge", ">="]),
    ];
    for (symbol, names) in orders {
        for name in names {
            environment.add_test(*name, move |a: &Value, b: &Value| compare(symbol, a, b));
        }
    }
}

fn callable(value: &Value) -> Result<bool, Error> {
    match kind(value) {
        Kind::Undefined | Kind::Method => Ok(true),
        Kind::Object => Err(unsupported("the test 'callable' of a macro, a namespace, a loop or a function")),
        _ => Ok(false),
    }
}

fn cased(value: &Value, lower: bool) -> Result<bool, Error> {
    let text = spelling::text(value)?;
    let (has_lower, has_upper) = (text.chars().any(char::is_lowercase), text.chars().any(char::is_uppercase));
    Ok(if lower { has_lower && !has_upper } else { has_upper && !has_lower })
}

/// Identity, where it does not depend on what Python keeps where.
fn same(a: &Value, b: &Value) -> Result<bool, Error> {
    match (kind(a), kind(b)) {
        (Kind::None, Kind::None) => Ok(true),
        (Kind::Bool(a), Kind::Bool(b)) => Ok(a == b),
        (Kind::None | Kind::Bool(_), _) | (_, Kind::None | Kind::Bool(_)) => Ok(false),
        _ => Err(unsupported("the test 'sameas' of other values than none, true and false")),
    }
}
