//! What an adapter trains, as far as its configuration says: target and excluded modules, parameters, layers.

use super::AdapterError;
use super::values::{ends_with, is_off, names, regex};
use crate::family::HEAD;
use crate::names::canonical;
use regex::Regex;
use serde_json::{Map, Value};

/// The options that say what is trained.
#[derive(Debug)]
pub(super) struct Targets {
    modules: Modules,
    excluded: Modules,
    /// Parameters trained by themselves, as ends of names.
    parameters: Vec<String>,
    /// Layers that are trained; `None`: all.
    layers: Option<Layers>,
}

/// Modules by name.
#[derive(Debug)]
enum Modules {
    /// Not said: what the library takes for the architecture.
    Unknown,
    /// Every linear layer but the head.
    AllLinear,
    /// A pattern for whole names; `None` when it is in Python's dialect alone, and says nothing here.
    Pattern(Option<Regex>),
    /// Ends of names.
    List(Vec<String>),
}

#[derive(Debug)]
struct Layers {
    numbers: Vec<u64>,
    /// How the number is found in a name: the first that fits decides.
    patterns: Vec<Regex>,
}

impl Targets {
    pub(super) fn parse(options: &Map<String, Value>) -> Result<Targets, AdapterError> {
        let get = |option: &str| options.get(option).unwrap_or(&Value::Null);
        let invalid = |option: &str, expected| AdapterError::Invalid {
            option: option.to_owned(),
            value: get(option).to_string(),
            expected,
        };
        let modules = |option: &str| match get(option) {
            Value::Null => Ok(Modules::Unknown),
            Value::String(text) if text.is_empty() => Ok(Modules::Unknown),
            Value::String(text) if text.eq_ignore_ascii_case("all-linear") => Ok(Modules::AllLinear),
            Value::String(text) => {
                Ok(Modules::Pattern(regex("target_modules", text, &format!("^(?:{text})$")).ok()))
            }
            list => {
                names(list).map(Modules::List).ok_or_else(|| invalid(option, "a list of names or a pattern"))
            }
        };
        let parameters = match get("target_parameters") {
            Value::Null => Vec::new(),
            list => names(list).ok_or_else(|| invalid("target_parameters", "a list of names"))?,
        };
        let layers = match get("layers_to_transform") {
            off if is_off(off) => None,
            value => {
                let numbers = match value.as_array() {
                    Some(list) => list.iter().map(Value::as_u64).collect::<Option<Vec<_>>>(),
                    None => value.as_u64().map(|number| vec![number]),
                };
                let numbers = numbers
                    .ok_or_else(|| invalid("layers_to_transform", "a layer number, or a list of them"))?;
                let patterns = match get("layers_pattern") {
                    off if is_off(off) => Vec::new(),
                    Value::String(pattern) => vec![pattern.clone()],
                    list => {
                        names(list).ok_or_else(|| invalid("layers_pattern", "a name, or a list of them"))?
                    }
                };
                let compile = |pattern: &String| {
                    regex("layers_pattern", pattern, &format!(r"^(?:.*?\.)?(?:{pattern})\.(\d+)\."))
                };
                let mut patterns = patterns.iter().map(compile).collect::<Result<Vec<_>, _>>()?;
                if patterns.is_empty() {
                    patterns.push(regex("layers_pattern", "", r"^.*?\.[^.]*\.(\d+)\.")?);
                }
                Some(Layers { numbers, patterns })
            }
        };
        Ok(Targets {
            modules: modules("target_modules")?,
            excluded: modules("exclude_modules")?,
            parameters,
            layers,
        })
    }

    /// Modules by ends of their names; all of them without a list.
    pub(super) fn of_names(list: Option<Vec<String>>) -> Targets {
        let modules = list.map_or(Modules::Unknown, Modules::List);
        Targets { modules, excluded: Modules::Unknown, parameters: Vec::new(), layers: None }
    }

    /// Whether a module is certainly named and not taken out again. `canonical` is another name of the same module.
    pub(super) fn demands(&self, module: &str, canonical: &str) -> bool {
        let Modules::List(list) = &self.modules else { return false };
        let excluded = |name: &str| match &self.excluded {
            Modules::Unknown => false,
            Modules::AllLinear | Modules::Pattern(None) => true,
            Modules::Pattern(Some(pattern)) => pattern.is_match(name),
            Modules::List(list) => list.iter().any(|end| ends_with(name, end)),
        };
        list.iter().any(|end| ends_with(module, end) || ends_with(canonical, end))
            && !excluded(module)
            && !excluded(canonical)
            && self.layers.as_ref().is_none_or(|layers| layers.have(canonical))
    }

    /// Why PEFT would pass over a module that the file has factors for; `None` when it would not, or that is not
    /// known.
    pub(super) fn leave_out(&self, module: &str) -> Option<&'static str> {
        let named = |list: &[String]| {
            let same = |end: &String| ends_with(module, end) || canonical(module) == canonical(end);
            list.iter().any(same)
        };
        if self.names_parameter(&format!("{module}.weight")) {
            return None;
        }
        let excluded = match &self.excluded {
            Modules::List(list) => named(list),
            Modules::Pattern(Some(pattern)) => pattern.is_match(module),
            _ => false,
        };
        if excluded {
            return Some("exclude_modules takes it out");
        }
        match &self.modules {
            Modules::List(list) if !named(list) => Some("target_modules does not name it"),
            Modules::AllLinear if canonical(&format!("{module}.weight")) == HEAD.name => {
                Some("target_modules all-linear leaves the head out")
            }
            // PEFT does not ask for the layer of a module that is named in full.
            Modules::List(list)
                if !list.iter().any(|name| name == module)
                    && self.layers.as_ref().is_some_and(|layers| !layers.have(module)) =>
            {
                Some("layers_to_transform does not name its layer")
            }
            _ => None,
        }
    }

    /// Whether a parameter, by its full name, is trained by itself.
    pub(super) fn names_parameter(&self, name: &str) -> bool {
        self.parameters.iter().any(|end| ends_with(name, end))
    }
}

impl Layers {
    fn have(&self, module: &str) -> bool {
        let number = self.patterns.iter().find_map(|pattern| pattern.captures(module));
        let number = number.and_then(|found| found.get(1)?.as_str().parse::<u64>().ok());
        number.is_some_and(|number| self.numbers.contains(&number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(options: &str) -> Targets {
        let Value::Object(options) = serde_json::from_str(options).unwrap() else { panic!() };
        Targets::parse(&options).unwrap()
    }

    #[test]
    fn excluded_modules_and_layers() {
        let q = |layer: u64| format!("model.layers.{layer}.self_attn.q_proj");
        for (options, demanded, left_out) in [
            (r#"{"target_modules": ["q_proj"]}"#, [true, true], [false, false]),
            (
                r#"{"target_modules": ["q_proj"], "exclude_modules": ".*layers\\.0\\..*"}"#,
                [false, true],
                [true, false],
            ),
            (
                r#"{"target_modules": ["q_proj"], "exclude_modules": "layers\\.0\\..*"}"#,
                [true, true],
                [false, false],
            ),
            (
                r#"{"target_modules": ["q_proj"], "exclude_modules": "(?=model).*"}"#,
                [false, false],
                [false, false],
            ),
            (
                r#"{"target_modules": ["q_proj"], "exclude_modules": ["1.self_attn.q_proj"]}"#,
                [true, false],
                [false, true],
            ),
            (r#"{"target_modules": ["q_proj"], "layers_to_transform": 1}"#, [false, true], [true, false]),
            (
                r#"{"target_modules": ["q_proj"], "layers_to_transform": [0], "layers_pattern": "layers"}"#,
                [true, false],
                [false, true],
            ),
            (
                r#"{"target_modules": ["q_proj"], "layers_to_transform": [0], "layers_pattern": ["h"]}"#,
                [false, false],
                [true, true],
            ),
            (r#"{"target_modules": ["k_proj"]}"#, [false, false], [true, true]),
            (r#"{"target_modules": "all-linear"}"#, [false, false], [false, false]),
            (
                r#"{"target_modules": [], "target_parameters": ["q_proj.weight"]}"#,
                [false, false],
                [false, false],
            ),
        ] {
            let targets = targets(options);
            assert_eq!([0, 1].map(|layer| targets.demands(&q(layer), &q(layer))), demanded, "{options}");
            assert_eq!([0, 1].map(|layer| targets.leave_out(&q(layer)).is_some()), left_out, "{options}");
        }
        assert!(targets(r#"{"target_modules": "all-linear"}"#).leave_out("lm_head").is_some());
    }
}
