//! `tojson` as the Hub's library defines it: Python's `json.dumps` with its options, nothing escaped for HTML.

use super::arguments::{Arguments, flag};
use super::operators::order;
use super::python::{Dict, Kind, MOST_NESTED, fail, kind, room, type_name};
use super::spelling;
use minijinja::value::{Rest, ValueOrKwargs};
use minijinja::{Error, State, Value};
use std::cmp::Ordering;

struct Writer<'s, 'a, 'e> {
    state: &'s State<'a, 'e>,
    out: String,
    ascii: bool,
    /// What one level of nesting is indented by.
    indent: Option<String>,
    item: String,
    key: String,
    sorted: bool,
}

/// `value | tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub(super) fn to_json(
    state: &State<'_, '_>,
    value: &Value,
    args: Rest<ValueOrKwargs>,
) -> Result<Value, Error> {
    let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let [ascii, indent, separators, sorted] =
        Arguments::new("tojson", &args.into_values())?.bind(names, 0)?;
    let indent = match indent.as_ref().map(kind) {
        None | Some(Kind::None) => None,
        Some(Kind::Str(text)) => Some(text.to_owned()),
        Some(Kind::Int(width)) => {
            let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
            room(state, width)?;
            Some(" ".repeat(width))
        }
        Some(Kind::Bool(flag)) => Some(" ".repeat(usize::from(flag))),
        Some(_) => return Err(fail("tojson: indent must be an integer or a string")),
    };
    let (item, key) = match separators.as_ref().map(kind) {
        None | Some(Kind::None) => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
        Some(Kind::Tuple([item, key]) | Kind::List([item, key])) => match (item.as_str(), key.as_str()) {
            (Some(item), Some(key)) => (item.to_owned(), key.to_owned()),
            _ => return Err(fail("tojson: separators must be two strings")),
        },
        Some(_) => return Err(fail("tojson: separators must be two strings")),
    };
    let (ascii, sorted) = (flag(&ascii), flag(&sorted));
    let mut writer = Writer { state, out: String::new(), ascii, indent, item, key, sorted };
    writer.write(value, 0)?;
    Ok(Value::from(writer.out))
}

impl Writer<'_, '_, '_> {
    fn write(&mut self, value: &Value, level: usize) -> Result<(), Error> {
        if level > MOST_NESTED {
            return Err(fail(format!("lists and dictionaries are nested deeper than {MOST_NESTED}")));
        }
        match kind(value) {
            Kind::Str(text) => self.string(text),
            Kind::None | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) => {
                let text = scalar(value).unwrap_or_default();
                self.out.push_str(&text);
            }
            Kind::List(items) | Kind::Tuple(items) => {
                self.out.push('[');
                for (index, item) in items.iter().enumerate() {
                    self.between(index, level + 1)?;
                    self.write(item, level + 1)?;
                }
                self.close(items.is_empty(), level, ']')?;
            }
            Kind::Dict(dict) => {
                self.out.push('{');
                for (index, (key, value)) in self.entries(dict)?.into_iter().enumerate() {
                    self.between(index, level + 1)?;
                    match (kind(key), scalar(key)) {
                        (Kind::Str(text), _) => self.string(text),
                        (_, Some(text)) => self.string(&text),
                        _ => {
                            return Err(fail(format!(
                                "keys must be str, int, float, bool or None, not {}",
                                type_name(key)
                            )));
                        }
                    }
                    self.out.push_str(&self.key);
                    self.write(value, level + 1)?;
                }
                self.close(dict.is_empty(), level, '}')?;
            }
            _ => return Err(fail(format!("Object of type {} is not JSON serializable", type_name(value)))),
        }
        room(self.state, self.out.len())
    }

    fn entries<'d>(&self, dict: &'d Dict) -> Result<Vec<(&'d Value, &'d Value)>, Error> {
        let mut entries: Vec<_> = dict.iter().collect();
        if self.sorted {
            let mut failed = None;
            entries.sort_by(|(a, _), (b, _)| {
                order("<", a, b)
                    .unwrap_or_else(|error| {
                        failed = Some(error);
                        None
                    })
                    .unwrap_or(Ordering::Equal)
            });
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(entries)
    }

    fn between(&mut self, index: usize, level: usize) -> Result<(), Error> {
        if index > 0 {
            self.out.push_str(&self.item);
        }
        self.line(level)
    }

    fn close(&mut self, empty: bool, level: usize, mark: char) -> Result<(), Error> {
        if !empty {
            self.line(level)?;
        }
        self.out.push(mark);
        Ok(())
    }

    fn line(&mut self, level: usize) -> Result<(), Error> {
        if let Some(indent) = &self.indent {
            room(self.state, self.out.len().saturating_add(indent.len().saturating_mul(level)))?;
            self.out.push('\n');
            for _ in 0..level {
                self.out.push_str(indent);
            }
        }
        Ok(())
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\x08' => self.out.push_str("\\b"),
                '\x0c' => self.out.push_str("\\f"),
                '\0'..='\x1f' => self.out.push_str(&format!("\\u{:04x}", c as u32)),
                c if self.ascii && !(' '..='~').contains(&c) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        self.out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

/// What is neither text nor a container.
fn scalar(value: &Value) -> Option<String> {
    Some(match kind(value) {
        Kind::None => "null".to_owned(),
        Kind::Bool(flag) => flag.to_string(),
        Kind::Int(number) => number.to_string(),
        Kind::Float(number) if number.is_nan() => "NaN".to_owned(),
        Kind::Float(number) if number.is_infinite() => {
            if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
        }
        Kind::Float(number) => spelling::float(number),
        _ => return None,
    })
}
