//! Answers as OpenAI shapes them, whole and in chunks.

use crate::engine::{Delta, Finish, TokenLogprob, Usage};
use gq_text::Part;
use serde_json::{Map, Value, json};

/// Which way was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Chat,
    Completion,
}

/// What all parts of an answer have in common, and how far it is.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) kind: Kind,
    pub(super) id: String,
    /// Seconds since 1970.
    pub(super) created: u64,
    pub(super) model: String,
    pub(super) include_usage: bool,
    pub(super) logprobs: bool,
    /// Characters of tokens that were told with their probabilities.
    pub(super) offset: usize,
}

const FINGERPRINT: &str = concat!("gq-", env!("CARGO_PKG_VERSION"));

impl Reply {
    fn frame(&self, object: &str, choices: Vec<Value>) -> Map<String, Value> {
        let mut frame = Map::new();
        frame.insert("id".to_owned(), self.id.as_str().into());
        frame.insert("object".to_owned(), object.into());
        frame.insert("created".to_owned(), self.created.into());
        frame.insert("model".to_owned(), self.model.as_str().into());
        frame.insert("system_fingerprint".to_owned(), FINGERPRINT.into());
        frame.insert("choices".to_owned(), choices.into());
        frame
    }

    fn chunk(&self, choices: Vec<Value>) -> Value {
        let object = match self.kind {
            Kind::Chat => "chat.completion.chunk",
            Kind::Completion => "text_completion",
        };
        let mut frame = self.frame(object, choices);
        if self.include_usage {
            frame.insert("usage".to_owned(), Value::Null);
        }
        Value::Object(frame)
    }

    /// The chunk that begins a stream, where there is one.
    pub(super) fn first(&self) -> Option<Value> {
        let delta = json!({"role": "assistant", "content": ""});
        let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": null});
        (self.kind == Kind::Chat).then(|| self.chunk(vec![choice]))
    }

    /// The chunk of a piece of text.
    pub(super) fn delta(&mut self, delta: &Delta) -> Value {
        let logprobs = self.logprobs_of(&delta.logprobs);
        let choice = match (self.kind, delta.part) {
            (Kind::Completion, _) => {
                json!({"index": 0, "text": delta.text, "logprobs": logprobs, "finish_reason": null})
            }
            (Kind::Chat, part) => {
                let name = if part == Part::Thinking { "reasoning_content" } else { "content" };
                json!({"index": 0, "delta": {name: delta.text}, "logprobs": logprobs, "finish_reason": null})
            }
        };
        self.chunk(vec![choice])
    }

    /// The chunk that says why it ended.
    pub(super) fn end(&self, finish: Finish) -> Value {
        let reason = reason(finish);
        let choice = match self.kind {
            Kind::Chat => json!({"index": 0, "delta": {}, "logprobs": null, "finish_reason": reason}),
            Kind::Completion => json!({"index": 0, "text": "", "logprobs": null, "finish_reason": reason}),
        };
        self.chunk(vec![choice])
    }

    /// The chunk of its tokens, where it is asked for.
    pub(super) fn usage(&self, used: Usage) -> Option<Value> {
        let mut chunk = self.chunk(Vec::new());
        if let Some(place) = chunk.get_mut("usage") {
            *place = usage(used);
        }
        self.include_usage.then_some(chunk)
    }

    /// The answer as a whole.
    pub(super) fn whole(&mut self, deltas: &[Delta], finish: Finish, used: Usage) -> Value {
        let of = |wanted: Part| {
            deltas
                .iter()
                .filter(|delta| delta.part == wanted)
                .map(|delta| delta.text.as_str())
                .collect::<String>()
        };
        let (said, thought) = (of(Part::Content), of(Part::Thinking));
        let tokens: Vec<TokenLogprob> = deltas.iter().flat_map(|delta| &delta.logprobs).cloned().collect();
        let logprobs = self.logprobs_of(&tokens);
        let (object, choice) = match self.kind {
            Kind::Chat => {
                let mut message = json!({"role": "assistant", "content": said, "refusal": null});
                if let Some(fields) = message.as_object_mut().filter(|_| !thought.is_empty()) {
                    fields.insert("reasoning_content".to_owned(), thought.into());
                }
                let choice = json!({"index": 0, "message": message, "logprobs": logprobs,
                                    "finish_reason": reason(finish)});
                ("chat.completion", choice)
            }
            Kind::Completion => {
                let choice =
                    json!({"index": 0, "text": said, "logprobs": logprobs, "finish_reason": reason(finish)});
                ("text_completion", choice)
            }
        };
        let mut frame = self.frame(object, vec![choice]);
        frame.insert("usage".to_owned(), usage(used));
        Value::Object(frame)
    }

    /// Probabilities; null where they are not asked for, and in chunks without a token of what is said.
    fn logprobs_of(&mut self, tokens: &[TokenLogprob]) -> Value {
        if !self.logprobs {
            return Value::Null;
        }
        match self.kind {
            Kind::Chat => {
                json!({"content": tokens.iter().map(detailed).collect::<Vec<_>>(), "refusal": null})
            }
            Kind::Completion => {
                let offsets = tokens.iter().map(|token| {
                    let at = self.offset;
                    self.offset += token.text().chars().count();
                    at
                });
                let offsets: Vec<usize> = offsets.collect();
                let top = |token: &TokenLogprob| {
                    // The one that was chosen is always among them.
                    let entries =
                        token.top.iter().chain([token]).map(|one| (one.text(), Value::from(one.logprob)));
                    Value::Object(entries.collect())
                };
                json!({
                    "tokens": tokens.iter().map(TokenLogprob::text).collect::<Vec<_>>(),
                    "token_logprobs": tokens.iter().map(|token| token.logprob).collect::<Vec<_>>(),
                    "top_logprobs": tokens.iter().map(top).collect::<Vec<_>>(),
                    "text_offset": offsets,
                })
            }
        }
    }
}

fn detailed(token: &TokenLogprob) -> Value {
    let plain = |one: &TokenLogprob| json!({"token": one.text(), "logprob": one.logprob, "bytes": one.bytes});
    let mut all = plain(token);
    if let Some(fields) = all.as_object_mut() {
        fields.insert("top_logprobs".to_owned(), token.top.iter().map(plain).collect());
    }
    all
}

fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
    }
}

fn usage(used: Usage) -> Value {
    json!({
        "prompt_tokens": used.prompt,
        "completion_tokens": used.answer,
        "total_tokens": used.prompt + used.answer,
        "prompt_tokens_details": {"cached_tokens": used.cached},
        "completion_tokens_details": {"reasoning_tokens": used.thinking},
    })
}
