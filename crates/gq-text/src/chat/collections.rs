//! Jinja's filters on lists, dictionaries and what can be looped over.

use super::arguments::{Arguments, flag, integer, optional_string, soft_text, string};
use super::lookups;
use super::operators::{add, order};
use super::python::{
    Generator, Kind, charge, fail, int, items, iterate, kind, list, nested, room, tuple, type_name,
    unsupported,
};
use minijinja::value::{Kwargs, Rest, ValueOrKwargs};
use minijinja::{Environment, Error, State, Value};
use std::cmp::Ordering;

/// Registers them.
pub(super) fn register(environment: &mut Environment<'_>) {
    environment.add_filter("length", length);
    environment.add_filter("count", length);
    environment.add_filter("first", first);
    environment.add_filter("last", last);
    environment.add_filter("list", |value: &Value| nested(list(iterate(value)?)));
    environment.add_filter("join", join);
    environment.add_filter("items", entries);
    environment.add_filter("reverse", reverse);
    environment.add_filter("sort", sort);
    environment.add_filter("dictsort", dictsort);
    environment.add_filter("unique", unique);
    for (name, wanted) in [("min", Ordering::Less), ("max", Ordering::Greater)] {
        environment.add_filter(
            name,
            move |state: &State<'_, '_>, value: &Value, args: Rest<ValueOrKwargs>| {
                extreme(state, value, &args.into_values(), name, wanted)
            },
        );
    }
    environment.add_filter("sum", sum);
    environment.add_filter("batch", batch);
    environment.add_filter("slice", slices);
    environment.add_filter("groupby", groupby);
    environment.add_filter("map", map);
    for (name, wanted, by_attribute) in [
        ("select", true, false),
        ("reject", false, false),
        ("selectattr", true, true),
        ("rejectattr", false, true),
    ] {
        environment.add_filter(
            name,
            move |state: &mut State<'_, '_>, value: &Value, args: Rest<ValueOrKwargs>| {
                select(state, value, &args.into_values(), name, wanted, by_attribute)
            },
        );
    }
}

fn length(value: &Value) -> Result<Value, Error> {
    match kind(value) {
        Kind::Undefined => Ok(int(0)),
        Kind::Str(text) => Ok(Value::from(text.chars().count())),
        Kind::List(items) | Kind::Tuple(items) => Ok(Value::from(items.len())),
        Kind::Dict(dict) => Ok(Value::from(dict.len())),
        Kind::Range(range) => Ok(int(range.len())),
        Kind::View(view) => Ok(Value::from(view.len())),
        _ => Err(fail(format!("object of type '{}' has no len()", type_name(value)))),
    }
}

fn first(value: &Value) -> Result<Value, Error> {
    match kind(value) {
        Kind::Generator(generator) => Ok(generator.next().unwrap_or_default()),
        _ => Ok(iterate(value)?.into_iter().next().unwrap_or_default()),
    }
}

fn last(value: &Value) -> Result<Value, Error> {
    match kind(value) {
        Kind::Generator(_) => Err(fail("'generator' object is not reversible")),
        _ => Ok(iterate(value)?.into_iter().next_back().unwrap_or_default()),
    }
}

/// What an attribute such as `a.b` or `0.a` names in every item.
struct Getter(Option<Vec<Value>>);

impl Getter {
    fn new(attribute: Option<&Value>) -> Result<Getter, Error> {
        Ok(Getter(match attribute.map(kind) {
            None | Some(Kind::None) => None,
            Some(Kind::Int(index)) => Some(vec![int(index)]),
            Some(Kind::Str(path)) => {
                let part = |part: &str| part.parse::<u32>().map_or_else(|_| Value::from(part), Value::from);
                Some(path.split('.').map(part).collect())
            }
            Some(_) => return Err(unsupported("an attribute that is neither text nor a number")),
        }))
    }

    fn get(&self, item: &Value) -> Result<Value, Error> {
        self.0.iter().flatten().try_fold(item.clone(), |value, part| lookups::item(&value, part))
    }
}

/// Text without its case, where case is not to count.
fn folded(state: &State<'_, '_>, value: Value, case_sensitive: bool) -> Result<Value, Error> {
    charge(state, &value)?;
    Ok(match value.as_str() {
        Some(text) if !case_sensitive => Value::from(text.to_lowercase()),
        _ => value,
    })
}

fn join(state: &State<'_, '_>, value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [separator, attribute] = Arguments::new("join", &args.into_values())?.bind(["d", "attribute"], 0)?;
    let separator = soft_text(&separator.unwrap_or_else(|| Value::from("")))?;
    let getter = Getter::new(attribute.as_ref())?;
    let mut out = String::new();
    for (index, item) in iterate(value)?.iter().enumerate() {
        if index > 0 {
            out.push_str(&separator);
        }
        out.push_str(&soft_text(&getter.get(item)?)?);
        room(state, out.len())?;
    }
    Ok(Value::from(out))
}

fn entries(value: &Value) -> Result<Value, Error> {
    match kind(value) {
        Kind::Undefined => Ok(Generator::value(Vec::new())),
        Kind::Dict(dict) => {
            let pair = |(key, value): (&Value, &Value)| tuple(vec![key.clone(), value.clone()]);
            Ok(Generator::value(dict.iter().map(pair).collect()))
        }
        _ => Err(fail("Can only get item pairs from a mapping.")),
    }
}

fn reverse(value: &Value) -> Result<Value, Error> {
    match kind(value) {
        Kind::Str(_) if value.is_safe() => Err(unsupported("the filter 'reverse' on escaped text")),
        Kind::Str(text) => Ok(Value::from(text.chars().rev().collect::<String>())),
        Kind::Generator(generator) => {
            let mut items = generator.take();
            items.reverse();
            nested(list(items))
        }
        _ => {
            let mut items = items(value).ok_or_else(|| fail("argument must be iterable"))?;
            items.reverse();
            Ok(Generator::value(items))
        }
    }
}

/// Sorts by keys, keeping the order of what is equal.
fn sorted(mut keyed: Vec<(Value, Value)>, reverse: bool) -> Result<Vec<Value>, Error> {
    let mut failed = None;
    keyed.sort_by(|(a, _), (b, _)| {
        let order = order("<", a, b).unwrap_or_else(|error| {
            failed = Some(error);
            None
        });
        let order = order.unwrap_or(Ordering::Equal);
        if reverse { order.reverse() } else { order }
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(keyed.into_iter().map(|(_, value)| value).collect()),
    }
}

fn sort(state: &State<'_, '_>, value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let names = ["reverse", "case_sensitive", "attribute"];
    let [reverse, case, attribute] = Arguments::new("sort", &args.into_values())?.bind(names, 0)?;
    if attribute.as_ref().and_then(|attribute| attribute.as_str()).is_some_and(|names| names.contains(',')) {
        return Err(unsupported("sorting by several attributes"));
    }
    let getter = Getter::new(attribute.as_ref())?;
    let keyed =
        iterate(value)?.into_iter().map(|item| Ok((folded(state, getter.get(&item)?, flag(&case))?, item)));
    nested(list(sorted(keyed.collect::<Result<_, Error>>()?, flag(&reverse))?))
}

fn dictsort(state: &State<'_, '_>, value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let names = ["case_sensitive", "by", "reverse"];
    let [case, by, reverse] = Arguments::new("dictsort", &args.into_values())?.bind(names, 0)?;
    let Kind::Dict(dict) = kind(value) else {
        return Err(fail(format!("'{}' object has no attribute 'items'", type_name(value))));
    };
    let by_value = match optional_string(&by, "by")? {
        None | Some("key") => false,
        Some("value") => true,
        Some(_) => return Err(fail("You can only sort by either \"key\" or \"value\"")),
    };
    let keyed = dict.iter().map(|(key, value)| {
        let by = if by_value { value } else { key };
        Ok((folded(state, by.clone(), flag(&case))?, tuple(vec![key.clone(), value.clone()])))
    });
    nested(list(sorted(keyed.collect::<Result<_, Error>>()?, flag(&reverse))?))
}

fn unique(state: &State<'_, '_>, value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [case, attribute] =
        Arguments::new("unique", &args.into_values())?.bind(["case_sensitive", "attribute"], 0)?;
    let getter = Getter::new(attribute.as_ref())?;
    let mut seen = indexmap::IndexSet::new();
    let mut kept = Vec::new();
    for item in iterate(value)? {
        let key = folded(state, getter.get(&item)?, flag(&case))?;
        if !super::python::hashable(&key) {
            return Err(fail(format!("unhashable type: '{}'", type_name(&key))));
        }
        if seen.insert(key) {
            kept.push(item);
        }
    }
    Ok(Generator::value(kept))
}

fn extreme(
    state: &State<'_, '_>,
    value: &Value,
    args: &[Value],
    name: &str,
    wanted: Ordering,
) -> Result<Value, Error> {
    let [case, attribute] = Arguments::new(name, args)?.bind(["case_sensitive", "attribute"], 0)?;
    let getter = Getter::new(attribute.as_ref())?;
    let mut best: Option<(Value, Value)> = None;
    for item in iterate(value)? {
        let key = folded(state, getter.get(&item)?, flag(&case))?;
        let better = match &best {
            Some((kept, _)) => order("<", &key, kept)? == Some(wanted),
            None => true,
        };
        if better {
            best = Some((key, item));
        }
    }
    Ok(best.map(|(_, item)| item).unwrap_or_default())
}

fn sum(state: &State<'_, '_>, value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [attribute, start] = Arguments::new("sum", &args.into_values())?.bind(["attribute", "start"], 0)?;
    let getter = Getter::new(attribute.as_ref())?;
    let start = start.unwrap_or_else(|| int(0));
    if start.as_str().is_some() {
        return Err(fail("sum() can't sum strings"));
    }
    let mut floats = 0;
    let mut total = start;
    for item in iterate(value)? {
        let item = getter.get(&item)?;
        floats += usize::from(matches!(kind(&item), Kind::Float(_)));
        total = add(state, &total, &item)?;
    }
    // Newer Pythons add floats with compensation.
    match floats > 1 {
        true => Err(unsupported("a sum of several floats")),
        false => Ok(total),
    }
}

fn batch(value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [count, fill] = Arguments::new("batch", &args.into_values())?.bind(["linecount", "fill_with"], 1)?;
    let count = usize::try_from(integer(count.as_ref(), 1)?).ok().filter(|count| *count > 0);
    let count = count.ok_or_else(|| unsupported("a batch of no items"))?;
    let items = iterate(value)?;
    let mut batches: Vec<Vec<Value>> = items.chunks(count).map(<[Value]>::to_vec).collect();
    let fill = fill.filter(|fill| !fill.is_none());
    if let (Some(last), Some(fill)) = (batches.last_mut(), fill) {
        if count > 10_000 {
            return Err(fail("a batch of more than 10000 items cannot be filled"));
        }
        last.resize(count, fill);
    }
    Ok(Generator::value(batches.into_iter().map(|batch| nested(list(batch))).collect::<Result<_, _>>()?))
}

fn slices(value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [count, fill] = Arguments::new("slice", &args.into_values())?.bind(["slices", "fill_with"], 1)?;
    let count =
        usize::try_from(integer(count.as_ref(), 1)?).ok().filter(|count| (1..=10_000).contains(count));
    let count = count.ok_or_else(|| unsupported("this number of slices"))?;
    let items = iterate(value)?;
    let (each, more) = (items.len() / count, items.len() % count);
    let mut rest = items.as_slice();
    let mut out = Vec::new();
    for index in 0..count {
        let (slice, left) = rest.split_at(each + usize::from(index < more));
        rest = left;
        let mut slice = slice.to_vec();
        slice.extend(fill.clone().filter(|fill| !fill.is_none() && index >= more));
        out.push(nested(list(slice))?);
    }
    Ok(Generator::value(out))
}

fn groupby(state: &State<'_, '_>, value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let names = ["attribute", "default", "case_sensitive"];
    let [attribute, default, case] = Arguments::new("groupby", &args.into_values())?.bind(names, 1)?;
    let getter = Getter::new(attribute.as_ref())?;
    let key = |item: &Value| -> Result<Value, Error> {
        let found = getter.get(item)?;
        Ok(match &default {
            Some(default) if found.is_undefined() => default.clone(),
            _ => found,
        })
    };
    let mut keyed = Vec::new();
    for item in iterate(value)? {
        let key = key(&item)?;
        keyed.push((folded(state, key.clone(), flag(&case))?, tuple(vec![key, item])));
    }
    let mut groups: Vec<(Value, Value, Vec<Value>)> = Vec::new();
    for pair in sorted(keyed, false)? {
        let Kind::Tuple([key, item]) = kind(&pair) else { continue };
        let by = folded(state, key.clone(), flag(&case))?;
        match groups.last_mut() {
            Some((kept, _, items)) if *kept == by => items.push(item.clone()),
            _ => groups.push((by, key.clone(), vec![item.clone()])),
        }
    }
    let group = |(_, key, items): (Value, Value, Vec<Value>)| nested(tuple(vec![key, list(items)]));
    nested(list(groups.into_iter().map(group).collect::<Result<_, _>>()?))
}

/// Items for the filters that take whatever is false for nothing.
fn some(value: &Value) -> Result<Vec<Value>, Error> {
    if value.is_true() { iterate(value) } else { Ok(Vec::new()) }
}

fn map(state: &mut State<'_, '_>, value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let (positional, named) = Arguments::new("map", &args.into_values())?.into_parts();
    let mut out = Vec::new();
    if let (true, Some((_, attribute))) =
        (positional.is_empty(), named.iter().find(|(key, _)| key == "attribute"))
    {
        let default = named.iter().find(|(key, _)| key == "default").map(|(_, value)| value.clone());
        if let Some((key, _)) = named.iter().find(|(key, _)| key != "attribute" && key != "default") {
            return Err(fail(format!("Unexpected keyword argument '{key}'")));
        }
        let getter = Getter::new(Some(attribute))?;
        for item in some(value)? {
            let found = getter.get(&item)?;
            out.push(default.clone().filter(|_| found.is_undefined()).unwrap_or(found));
        }
        return Ok(Generator::value(out));
    }
    let Some((filter, rest)) = positional.split_first() else {
        return Err(fail("map requires a filter argument"));
    };
    let filter = string(filter, "the name of a filter")?.to_owned();
    for item in some(value)? {
        let mut args = vec![item];
        args.extend_from_slice(rest);
        if !named.is_empty() {
            args.push(
                Kwargs::from_iter(named.iter().map(|(key, value)| (key.as_str(), value.clone()))).into(),
            );
        }
        let made = state.apply_filter(&filter, &args)?;
        charge(state, &made)?;
        out.push(made);
    }
    Ok(Generator::value(out))
}

fn select(
    state: &mut State<'_, '_>,
    value: &Value,
    args: &[Value],
    name: &str,
    wanted: bool,
    by_attribute: bool,
) -> Result<Value, Error> {
    let (positional, named) = Arguments::new(name, args)?.into_parts();
    if !named.is_empty() {
        return Err(unsupported(&format!("a keyword argument of the filter '{name}'")));
    }
    let mut rest = positional.as_slice();
    let getter = match by_attribute {
        false => Getter(None),
        true => {
            let (attribute, left) =
                rest.split_first().ok_or_else(|| fail("Missing parameter for attribute name"))?;
            rest = left;
            Getter::new(Some(attribute))?
        }
    };
    let mut kept = Vec::new();
    for item in some(value)? {
        let subject = getter.get(&item)?;
        let holds = match rest.split_first() {
            None => subject.is_true(),
            Some((test, args)) => {
                let mut all = vec![subject];
                all.extend_from_slice(args);
                state.perform_test(string(test, "the name of a test")?, &all)?
            }
        };
        if holds == wanted {
            kept.push(item);
        }
    }
    Ok(Generator::value(kept))
}
