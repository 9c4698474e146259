//! Parameters of functions: at most seven, and none of them a tuple that makes two or three out of one.

use crate::tidy::{root, with_extension};
use std::collections::BTreeSet;

/// Most parameters, `self` counted: clippy's limit.
const MAX_PARAMETERS: usize = 7;

/// Tuples that are one value: ends of an interval, steps along the two dimensions of a matrix, two cells of a table.
const HONEST: [(&str, &str); 4] = [
    ("crates/gq-checkpoint/src/keys/config.rs", "row"),
    ("crates/gq-codec/src/code/grid.rs", "narrow"),
    ("crates/gq-eval/src/plot.rs", "new"),
    ("crates/gq-model/src/product.rs", "call"),
];

/// Functions that are another library's interface.
const FOREIGN: &str = "crates/gq-stand-in/src/calls.rs";

#[test]
fn no_parameter_is_a_tuple() {
    let mut found = BTreeSet::new();
    for (file, function) in functions() {
        if function.parameters.iter().any(|parameter| is_tuple(parameter)) {
            found.insert((file, function.name));
        }
    }
    let honest = HONEST.map(|(file, name)| (file.to_owned(), name.to_owned()));
    assert_eq!(found, BTreeSet::from(honest), "left: there, right: the exceptions");
}

#[test]
fn no_function_has_more_than_seven_parameters() {
    let all = functions();
    assert!(all.len() > 2000, "{}", all.len());
    for (file, function) in all.into_iter().filter(|(file, _)| file != FOREIGN) {
        let count = function.parameters.len();
        assert!(count <= MAX_PARAMETERS, "{file}: {} has {count} parameters", function.name);
    }
    // Put together here so that this file passes its own test.
    let allowed = ["too_many_", "arguments"].concat();
    for extension in ["rs", "toml"] {
        for (path, text) in with_extension(extension) {
            assert!(!text.contains(&allowed), "{} changes the limit", path.display());
        }
    }
}

#[test]
fn tuples_are_found() {
    let tuples = |source: &str| {
        let of = functions_of(source).into_iter();
        of.flat_map(|f| f.parameters).filter(|parameter| is_tuple(parameter)).count()
    };
    for (source, expected) in [
        ("fn f((a, b): (u8, &str), c: u8) {}", 1),
        ("fn f<T: Fn(u8) -> u8>(\n    pair: &mut (u8, T), // why\n) {}", 1),
        ("fn f(&self, both: &'a (A, B)) {}", 1),
        ("fn f((a, b): &Alias) {}", 1),
        ("fn f(Pair { a, b }: Pair, list: &[(u8, u8)], f: &mut (dyn FnMut(u8, u8) + Send)) {}", 0),
        ("fn f(unit: (), kept: Option<(u8, u8)>, array: [u8; 2]) -> (u8, u8) {}", 0),
        ("// fn f(a: (u8, u8)) {}\nlet f = |(a, b): (u8, u8)| a;", 0),
        ("#[cfg(test)]\nmod tests {\n    fn f(a: (u8, u8)) {}\n}", 0),
    ] {
        assert_eq!(tuples(source), expected, "{source}");
    }
    let parameters = |source: &str| functions_of(source)[0].parameters.len();
    assert_eq!(parameters("fn f<A: Into<B>>(&self, a: HashMap<A, B>, f: impl Fn(A, B) -> C,) {}"), 3);
}

struct Function {
    name: String,
    parameters: Vec<String>,
}

/// Functions of all crates with their files, those of tests aside.
fn functions() -> Vec<(String, Function)> {
    let mut all = Vec::new();
    for (path, text) in with_extension("rs") {
        let Ok(file) = path.strip_prefix(root()) else { continue };
        let parts: Vec<&str> = file.iter().filter_map(|part| part.to_str()).collect();
        let in_sources = matches!(parts.as_slice(), ["crates", _, "src", ..]);
        if !in_sources || parts.last() == Some(&"tests.rs") {
            continue;
        }
        let file = parts.join("/");
        all.extend(functions_of(&text).into_iter().map(|function| (file.clone(), function)));
    }
    all
}

fn functions_of(text: &str) -> Vec<Function> {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap();
    let lines: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap()).collect();
    let text = lines.join("\n");
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut all = Vec::new();
    for (at, _) in text.match_indices("fn ") {
        let rest = &text[at + 3..];
        let name: String = rest.chars().take_while(|c| word(*c)).collect();
        if text[..at].ends_with(word) || name.is_empty() {
            continue;
        }
        let rest = &rest[name.len()..];
        let Some(open) = after_generics(rest) else { continue };
        let parameters = split(&rest[open + 1..]);
        all.push(Function { name, parameters });
    }
    all
}

/// Where the parameters of a function open, whose name is followed by `rest`.
fn after_generics(rest: &str) -> Option<usize> {
    let mut depth = 0;
    let mut before = ' ';
    for (at, c) in rest.char_indices() {
        match c {
            '<' => depth += 1,
            '>' if before != '-' => depth -= 1,
            '(' if depth == 0 => return Some(at),
            c if depth == 0 && !c.is_whitespace() => return None,
            _ => {}
        }
        before = c;
    }
    None
}

/// Parameters up to the parenthesis that closes them, each with spaces for line ends.
fn split(list: &str) -> Vec<String> {
    let (mut parameters, mut current) = (Vec::new(), String::new());
    let (mut depth, mut before) = (0, ' ');
    for c in list.chars() {
        match c {
            '(' | '[' | '{' | '<' => depth += 1,
            ')' if depth == 0 => break,
            ')' | ']' | '}' => depth -= 1,
            '>' if before != '-' => depth -= 1,
            _ => {}
        }
        match c == ',' && depth == 0 {
            true => parameters.push(std::mem::take(&mut current)),
            false => current.push(if c == '\n' { ' ' } else { c }),
        }
        before = c;
    }
    parameters.push(current);
    let parameters = parameters.iter().map(|parameter| parameter.trim().to_owned());
    parameters.filter(|parameter| !parameter.is_empty()).collect()
}

/// Whether a parameter is taken apart, or its type is a tuple or a reference to one.
fn is_tuple(parameter: &str) -> bool {
    let several = |text: &str| text.starts_with('(') && split(&text[1..]).len() > 1;
    let Some((_, kind)) = parameter.split_once(':') else { return false };
    let mut kind = kind.trim_start();
    while let Some(inner) = kind.strip_prefix('&') {
        let inner = inner.trim_start();
        let inner = match inner.strip_prefix('\'') {
            Some(lifetime) => lifetime.split_once(' ').map_or("", |(_, inner)| inner),
            None => inner,
        };
        kind = inner.strip_prefix("mut ").unwrap_or(inner).trim_start();
    }
    several(parameter) || several(kind)
}
