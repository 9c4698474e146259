//! How tokens are chosen: what `generation_config.json` asks for, and the options that override it.

use crate::failure::{Exit, Failure};
use gq_model::Sampling;
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
    /// Most tokens of an answer that the file asks for.
    pub tokens: Option<usize>,
    /// What the file asks for and is not done, as `key=value`.
    pub ignored: Vec<String>,
}

impl Settings {
    /// The file's settings under the options.
    ///
    /// # Errors
    /// When the file is no JSON object, or a value of it that no option overrides is out of its range.
    pub fn new(file: Option<&str>, args: &SamplingArgs) -> Result<Settings, Failure> {
        let config: Value = match file {
            Some(text) => serde_json::from_str(text).map_err(|e| {
                Failure::new(Exit::Input, "generation_config", format!("{FILE} is not valid JSON: {e}"))
                    .at(FILE)
            })?,
            None => Value::Null,
        };
        let sample = config.get("do_sample").and_then(Value::as_bool).unwrap_or(false);
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
        let tokens = count(&config, "max_new_tokens")?;
        let sampling = Sampling { temperature, top_k, top_p, min_p, repetition_penalty, seed: args.seed };
        Ok(Settings { sampling, tokens, ignored: ignored(&config) })
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

fn out_of_range(key: &str, value: &Value, expected: &str) -> Failure {
    let message = format!("{FILE}: {key} is {value}, {expected}");
    Failure::new(Exit::Input, "generation_config", message).at(FILE).limit(expected).actual(value)
}

/// Settings that change which tokens are chosen, their neutral values, and that `gq run` does not have.
const NOT_DONE: [(&str, f64); 12] = [
    ("num_beams", 1.0),
    ("no_repeat_ngram_size", 0.0),
    ("encoder_no_repeat_ngram_size", 0.0),
    ("encoder_repetition_penalty", 1.0),
    ("typical_p", 1.0),
    ("epsilon_cutoff", 0.0),
    ("eta_cutoff", 0.0),
    ("top_h", 1.0),
    ("penalty_alpha", 0.0),
    ("guidance_scale", 1.0),
    ("min_new_tokens", 0.0),
    ("min_length", 0.0),
];
/// The same, where lists say which tokens.
const LISTS_NOT_DONE: [&str; 5] =
    ["bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "sequence_bias", "stop_strings"];

fn ignored(config: &Value) -> Vec<String> {
    let set = |key: &str| config.get(key).filter(|value| !value.is_null());
    let numbers = NOT_DONE.iter().filter_map(|(key, neutral)| {
        let value = set(key).filter(|value| value.as_f64() != Some(*neutral))?;
        Some(format!("{key}={value}"))
    });
    let empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
    let lists = LISTS_NOT_DONE.iter().filter(|key| set(key).is_some_and(|value| !empty(value)));
    numbers.chain(lists.map(|key| (*key).to_owned())).collect()
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
        assert_eq!((greedy.sampling.temperature, greedy.tokens, greedy.ignored.len()), (0.0, None, 0));
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
        assert_eq!((settings.sampling, settings.tokens), (expected, Some(2048)));
        assert_eq!(settings.ignored, [""; 0]);
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
            "[",
            "{\"min_p\": \"x\"}",
        ] {
            let failure = Settings::new(Some(bad), &NONE).unwrap_err();
            assert_eq!((failure.code, failure.exit), ("generation_config", Exit::Input), "{bad}");
        }
    }
}
