//! What a request asks for, whichever way it asks.

use super::error::ApiError;
use super::fields::Fields;
use gq_model::Sampling;
use serde_json::Value;

/// What applies where a request says nothing.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// How tokens are chosen. Requests without a seed take its, and the ones after it, one after the other.
    pub sampling: Sampling,
    /// Most tokens of an answer.
    pub new_tokens: Option<usize>,
    /// Most tokens of a prompt and its answer.
    pub all_tokens: Option<usize>,
}

impl Defaults {
    /// Most tokens of the answer to a prompt of so many.
    pub(super) fn most(&self, prompt: usize) -> usize {
        let all = self.all_tokens.map_or(usize::MAX, |all| all.saturating_sub(prompt).max(1));
        self.new_tokens.unwrap_or(usize::MAX).min(all)
    }
}

/// Parameters that both ways have.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) model: Option<String>,
    pub(super) sampling: Sampling,
    pub(super) max_tokens: Option<usize>,
    pub(super) stop: Vec<String>,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    /// Whether the tokens that end an answer are chosen like any other.
    pub(super) ignore_eos: bool,
}

/// Most stop strings, and bytes of one.
const STOPS: (usize, usize) = (16, 1024);

impl Ask {
    /// Takes them; `seed` where the request has none, `answer` is the most tokens that the server allows.
    pub(super) fn take(
        fields: &mut Fields,
        defaults: &Defaults,
        seed: u64,
        answer: usize,
    ) -> Result<Ask, ApiError> {
        let own = defaults.sampling;
        let sampling = Sampling {
            temperature: fields.number("temperature", 0.0, 2.0)?.unwrap_or(own.temperature),
            top_p: fields.number("top_p", 0.0, 1.0)?.unwrap_or(own.top_p),
            top_k: fields.count("top_k", 0, usize::MAX)?.unwrap_or(own.top_k),
            min_p: fields.number("min_p", 0.0, 1.0)?.unwrap_or(own.min_p),
            repetition_penalty: fields
                .number("repetition_penalty", 0.01, 100.0)?
                .unwrap_or(own.repetition_penalty),
            seed: take_seed(fields)?.unwrap_or(seed),
        };
        let (old, new) = ("max_tokens", "max_completion_tokens");
        let max_tokens = match (fields.count(old, 1, answer)?, fields.count(new, 1, answer)?) {
            (Some(a), Some(b)) if a != b => {
                return Err(ApiError::param(new, format!("{old} is {a} and {new} is {b}: give one of them")));
            }
            (a, b) => b.or(a),
        };
        let stream = fields.flag("stream")?.unwrap_or(false);
        let include_usage = take_stream_options(fields, stream)?;
        let ignore_eos = fields.flag("ignore_eos")?.unwrap_or(false);
        let (model, stop) = (fields.text("model")?, take_stop(fields)?);
        Ok(Ask { model, sampling, max_tokens, stop, stream, include_usage, ignore_eos })
    }
}

fn take_seed(fields: &mut Fields) -> Result<Option<u64>, ApiError> {
    let Some(value) = fields.take("seed") else { return Ok(None) };
    let seed = value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned));
    seed.map(Some).ok_or_else(|| ApiError::param("seed", "seed is no whole number of 64 bits"))
}

fn take_stream_options(fields: &mut Fields, stream: bool) -> Result<bool, ApiError> {
    const NAME: &str = "stream_options";
    let Some(mut options) = fields.object(NAME)? else { return Ok(false) };
    if !stream {
        return Err(ApiError::param(NAME, "stream_options are for streams: \"stream\": true"));
    }
    let usage = options.shift_remove("include_usage").unwrap_or(Value::Bool(false));
    options.shift_remove("include_obfuscation");
    if let Some(name) = options.keys().next() {
        return Err(ApiError::unsupported(NAME, format!("stream_options.{name} is not known")));
    }
    usage
        .as_bool()
        .ok_or_else(|| ApiError::param(NAME, "stream_options.include_usage is neither true nor false"))
}

fn take_stop(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let wrong = || ApiError::param("stop", "stop is neither a string nor a list of strings");
    let (most, longest) = STOPS;
    let stop = match fields.take("stop") {
        None => Vec::new(),
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(list)) => {
            let text = |value: Value| value.as_str().map(str::to_owned).ok_or_else(wrong);
            list.into_iter().map(text).collect::<Result<_, _>>()?
        }
        Some(_) => return Err(wrong()),
    };
    match stop.len() <= most && stop.iter().all(|text| !text.is_empty() && text.len() <= longest) {
        true => Ok(stop),
        false => {
            Err(ApiError::param("stop", format!("stop takes up to {most} strings of 1 to {longest} bytes")))
        }
    }
}
