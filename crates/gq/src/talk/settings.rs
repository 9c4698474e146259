//! How tokens are chosen: what `generation_config.json` asks for, and the options that override it.

use super::not_done::ignored;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::units;
use gq_model::{Model, Sampling};
use serde_json::Value;

const FILE: &str = "generation_config.json";
/// What transformers takes where the file says nothing.
const TOP_K: usize = 50;

/// Options of sampling; each overrides what the model's own generation_config.json asks for.
#[derive(clap::Args, Clone, Debug)]
pub struct SamplingArgs {
    /// Temperature; 0 always takes the likeliest token [default: the model's own if it is made to sample, else 0].
    #[arg(long, value_name = "T", value_parser = temperature)]
    temp: Option<f32>,
    /// Sample among the K likeliest tokens; 0 for all [default: the model's own, else 50].
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Sample among the likeliest tokens that hold this share of the probability, 0 to 1 [default: the model's own,
    /// else 1].
    #[arg(long, value_name = "P", value_parser = share)]
    top_p: Option<f32>,
    /// Leave out tokens less likely than this share of the likeliest, 0 to 1 [default: the model's own, else 0].
    #[arg(long, value_name = "P", value_parser = share)]
    min_p: Option<f32>,
    /// Make tokens that were there already less likely: 1 does nothing, 1.1 a little [default: the model's own, else 1].
    #[arg(long, value_name = "P", value_parser = penalty)]
    repetition_penalty: Option<f32>,
    /// Source of randomness: the same seed says the same.
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
}

/// What applies.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Where an answer ends at the latest, if the file says so.
    pub most: Option<Most>,
    /// What the file asks for and is not done, as `key=value`.
    pub ignored: Vec<String>,
}

/// Where an answer ends at the latest, and who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Most {
    /// After so many tokens: `-n`.
    Asked(usize),
    /// After so many tokens: `max_new_tokens`.
    New(usize),
    /// Where prompt and answer have so many tokens together: `max_length`.
    Length(usize),
}

impl Most {
    /// Tokens that an answer to a prompt may have.
    pub fn tokens(self, prompt: usize) -> usize {
        match self {
            Most::Asked(count) | Most::New(count) => count,
            Most::Length(count) => count.saturating_sub(prompt),
        }
    }

    /// Who says so, and how to change it.
    pub fn source(self) -> String {
        match self {
            Most::Asked(_) => "-n allows no more".to_owned(),
            Most::New(count) => format!("max_new_tokens of {FILE} is {count}; -n overrides it"),
            Most::Length(count) => format!(
                "max_length of {FILE} is {count}, for prompt and answer together; -n sets the answer's instead"
            ),
        }
    }
}

impl Settings {
    /// Those of a model, under the options; says what its file asks for and is not done.
    ///
    /// # Errors
    /// As [`new`](Settings::new).
    pub fn of(model: &Model, args: &SamplingArgs, output: Output) -> Result<Settings, Failure> {
        let settings = Settings::new(model.texts().generation_config.as_deref(), args)?;
        if !settings.ignored.is_empty() {
            let ignored = units::printable(&settings.ignored.join(", "));
            output.warn(&format!("{FILE} asks for {ignored}, which gq does not do"));
        }
        Ok(settings)
    }

    /// The file's settings under the options.
    ///
    /// # Errors
    /// When the file is no JSON object, or a value of it that no option overrides is out of its range or of its kind.
    pub fn new(file: Option<&str>, args: &SamplingArgs) -> Result<Settings, Failure> {
        let config: Value = match file {
            Some(text) => serde_json::from_str(text).map_err(|e| {
                Failure::new(Exit::Input, "generation_config", format!("{FILE} is not valid JSON: {e}"))
                    .at(FILE)
            })?,
            None => Value::Null,
        };
        if !config.is_null() && !config.is_object() {
            let message = format!("{FILE} is not a JSON object");
            return Err(Failure::new(Exit::Input, "generation_config", message).at(FILE));
        }
        let sample = match config.get("do_sample").filter(|value| !value.is_null()) {
            Some(value) => {
                value.as_bool().ok_or_else(|| out_of_range("do_sample", value, "expected true or false"))?
            }
            None => false,
        };
        let temperature = match args.temp {
            Some(chosen) => chosen,
            None if !sample => 0.0,
            None => number(&config, "temperature", 1.0, temperature)?,
        };
        let top_p = args.top_p.map_or_else(|| number(&config, "top_p", 1.0, share), Ok)?;
        let min_p = args.min_p.map_or_else(|| number(&config, "min_p", 0.0, share), Ok)?;
        let repetition_penalty = args
            .repetition_penalty
            .map_or_else(|| number(&config, "repetition_penalty", 1.0, penalty), Ok)?;
        let top_k = args.top_k.map_or_else(|| count(&config, "top_k"), |k| Ok(Some(k)))?.unwrap_or(TOP_K);
        let most = match (positive(&config, "max_new_tokens")?, positive(&config, "max_length")?) {
            (Some(new), _) => Some(Most::New(new)),
            (None, length) => length.map(Most::Length),
        };
        let sampling = Sampling { temperature, top_k, top_p, min_p, repetition_penalty, seed: args.seed };
        Ok(Settings { sampling, most, ignored: ignored(&config) })
    }
}

fn number(
    config: &Value,
    key: &str,
    absent: f32,
    check: fn(&str) -> Result<f32, String>,
) -> Result<f32, Failure> {
    match config.get(key).filter(|value| !value.is_null()) {
        Some(value) => check(&value.to_string()).map_err(|expected| out_of_range(key, value, &expected)),
        None => Ok(absent),
    }
}

fn count(config: &Value, key: &str) -> Result<Option<usize>, Failure> {
    let Some(value) = config.get(key).filter(|value| !value.is_null()) else { return Ok(None) };
    let number = value.as_u64().and_then(|n| usize::try_from(n).ok());
    number.map(Some).ok_or_else(|| out_of_range(key, value, "expected a whole number"))
}

fn positive(config: &Value, key: &str) -> Result<Option<usize>, Failure> {
    match count(config, key)? {
        Some(0) => Err(out_of_range(key, &Value::from(0), "expected 1 or more")),
        found => Ok(found),
    }
}

fn out_of_range(key: &str, value: &Value, expected: &str) -> Failure {
    let message = format!("{FILE}: {key} is {value}, {expected}");
    Failure::new(Exit::Input, "generation_config", message).at(FILE).limit(expected).actual(value)
}

fn temperature(text: &str) -> Result<f32, String> {
    bounded(text, 0.0, f32::MAX, "expected 0 or more, such as 0.7")
}

fn share(text: &str) -> Result<f32, String> {
    bounded(text, 0.0, 1.0, "expected a share from 0 to 1, such as 0.9")
}

fn penalty(text: &str) -> Result<f32, String> {
    bounded(text, f32::MIN_POSITIVE, f32::MAX, "expected more than 0, such as 1.1")
}

fn bounded(text: &str, least: f32, most: f32, expected: &str) -> Result<f32, String> {
    let number = text.parse::<f32>().ok().filter(|x| x.is_finite() && (least..=most).contains(x));
    number.ok_or_else(|| expected.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: SamplingArgs =
        SamplingArgs { temp: None, top_k: None, top_p: None, min_p: None, repetition_penalty: None, seed: 0 };

    fn sampling(file: &str, args: &SamplingArgs) -> Sampling {
        Settings::new(Some(file), args).unwrap().sampling
    }

    #[test]
    fn the_file_is_read_as_transformers_reads_it() {
        let greedy = Settings::new(None, &NONE).unwrap();
        assert_eq!((greedy.sampling.temperature, greedy.most, greedy.ignored.len()), (0.0, None, 0));
        // Without do_sample a temperature is not used; with it, 50 tokens are looked at unless the file says otherwise.
        assert_eq!(sampling(r#"{"temperature": 0.7}"#, &NONE).temperature, 0.0);
        let sampled = sampling(r#"{"do_sample": true}"#, &NONE);
        assert_eq!((sampled.temperature, sampled.top_k, sampled.top_p), (1.0, 50, 1.0));
        let whole = r#"{"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.1,
                        "repetition_penalty": 1.05, "max_new_tokens": 2048, "num_beams": 1}"#;
        let settings = Settings::new(Some(whole), &NONE).unwrap();
        let expected = Sampling {
            temperature: 0.6,
            top_k: 20,
            top_p: 0.95,
            min_p: 0.1,
            repetition_penalty: 1.05,
            seed: 0,
        };
        assert_eq!((settings.sampling, settings.most), (expected, Some(Most::New(2048))));
        assert_eq!(settings.ignored, [""; 0]);
    }

    #[test]
    fn an_answer_ends_where_transformers_ends_it() {
        let most = |file: &str| Settings::new(Some(file), &NONE).unwrap().most;
        assert_eq!(most(r#"{"max_length": 100, "max_new_tokens": null}"#), Some(Most::Length(100)));
        assert_eq!(most(r#"{"max_length": 100, "max_new_tokens": 7}"#), Some(Most::New(7)));
        assert_eq!(most(r#"{"do_sample": null}"#), None);
        assert_eq!((Most::Length(100).tokens(30), Most::Length(100).tokens(130)), (70, 0));
        assert_eq!((Most::New(7).tokens(30), Most::Asked(7).tokens(30)), (7, 7));
    }

    #[test]
    fn options_override_and_what_is_not_done_is_named() {
        let args = SamplingArgs { temp: Some(0.0), top_p: Some(0.5), ..NONE };
        let file = r#"{"do_sample": true, "temperature": 2.0, "top_p": 5, "no_repeat_ngram_size": 3,
                       "bad_words_ids": [[1]], "suppress_tokens": []}"#;
        let settings = Settings::new(Some(file), &args).unwrap();
        assert_eq!((settings.sampling.temperature, settings.sampling.top_p), (0.0, 0.5));
        assert_eq!(settings.ignored, ["no_repeat_ngram_size=3", "bad_words_ids"]);
        for bad in [
            r#"{"top_p": 5}"#,
            r#"{"top_k": -1}"#,
            r#"{"do_sample": true, "temperature": -1}"#,
            r#"{"do_sample": "yes"}"#,
            r#"{"do_sample": 1}"#,
            r#"{"max_new_tokens": 0}"#,
            r#"{"max_length": -1}"#,
            "[]",
            "[",
            "{\"min_p\": \"x\"}",
        ] {
            let failure = Settings::new(Some(bad), &NONE).unwrap_err();
            assert_eq!((failure.code, failure.exit), ("generation_config", Exit::Input), "{bad}");
        }
    }
}
