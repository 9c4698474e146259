//! Chat templates: the checkpoint's own, rendered as the Hub's library renders them, or refused by name.
//!
//! The Hub's templates are written for Jinja and run on Python's values. minijinja parses them and runs their control
//! flow; `chat/` holds Python's rules for everything that is done with values, and the bounds of what a template may
//! use.

mod arguments;
mod braces;
mod checks;
mod collections;
mod deadline;
mod dialect;
mod engine;
mod filters;
mod formatting;
mod json;
mod lookups;
mod message;
mod methods;
mod named;
mod operators;
mod python;
mod spelling;
mod splitting;
mod strings;
mod template_source;

pub use message::ChatMessage;

use crate::outside::{OutsidePanic, guarded};
use crate::special_token::special_token;
use crate::texts::ModelTexts;
use minijinja::{Error, ErrorKind, Value};
use named::Templates;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Special tokens that a template may name.
const TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// What is run under [`guarded`].
const PART: &str = "chat template";

/// Bytes of stack a rendering has: what minijinja's own bounds on nesting need, with room to spare.
const STACK: usize = 64 << 20;

/// What one rendering may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemplateLimits {
    /// Steps: instructions of the engine, and one for every 64 bytes that it makes.
    pub steps: u64,
    /// Bytes written, those within macros and `{% set %}` blocks included.
    pub output_bytes: usize,
    /// Macros and loops within each other.
    pub nesting: usize,
    /// Wall-clock time.
    pub time: Duration,
}

impl Default for TemplateLimits {
    fn default() -> TemplateLimits {
        TemplateLimits {
            steps: 8_000_000,
            output_bytes: 64 << 20,
            nesting: 500,
            time: Duration::from_secs(60),
        }
    }
}

/// A chat template that was understood.
#[derive(Clone)]
pub struct ChatTemplate {
    templates: Templates,
    tokens: Vec<(String, String)>,
    limits: TemplateLimits,
    clock: Option<Clock>,
}

/// Formats the present time by a `strftime` format, or says why it cannot.
pub type Clock = Arc<dyn Fn(&str) -> Result<String, String> + Send + Sync>;

/// How a conversation is rendered.
#[derive(Clone, Debug, Default)]
pub struct ChatOptions {
    /// Whether the model's turn is begun at the end.
    pub add_generation_prompt: bool,
    /// Further variables, such as `tools`, `documents` and `enable_thinking`. With tools, the template named `tool_use`
    /// is rendered where there is one.
    pub extra: serde_json::Map<String, serde_json::Value>,
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ChatTemplate { templates, tokens, limits, clock } = self;
        let mut shown = f.debug_struct("ChatTemplate");
        shown.field("templates", templates).field("tokens", tokens).field("limits", limits);
        shown.field("clock", &clock.is_some()).finish()
    }
}

/// A conversation that cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The model came without a template.
    #[error("the model has no chat template")]
    Missing,
    /// The template is not understood, or holds a construct that would be rendered differently.
    #[error("the chat template cannot be read")]
    Unreadable(#[source] Error),
    /// The same of one that is not the model's only one.
    #[error("the chat template named {name} cannot be read")]
    UnreadableNamed {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Error,
    },
    /// The model has templates with names, and none for this conversation.
    #[error("the model has chat templates for other uses alone: {}", names.join(", "))]
    NoDefault {
        /// Their names, sorted.
        names: Vec<String>,
    },
    /// A list of templates in `tokenizer_config.json` with an entry that is none.
    #[error("chat_template of tokenizer_config.json lists something without a name and a template")]
    Unnamed,
    /// A file that names the special tokens is not JSON.
    #[error("{file} is not valid JSON")]
    Settings {
        /// `tokenizer_config.json` or `special_tokens_map.json`.
        file: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The template refuses the conversation, or fails.
    #[error("the chat template refuses the conversation")]
    Refused(#[source] Error),
    /// The rendering needs more steps than it may take.
    #[error("the chat template takes more than {limit} steps on this conversation")]
    Steps {
        /// [`TemplateLimits::steps`].
        limit: u64,
    },
    /// The rendering writes more than it may.
    #[error("the chat template writes more than {limit} bytes for this conversation")]
    Output {
        /// [`TemplateLimits::output_bytes`].
        limit: usize,
    },
    /// The rendering takes too long.
    #[error("the chat template takes longer than {} s on this conversation", limit.as_secs_f64())]
    Time {
        /// [`TemplateLimits::time`].
        limit: Duration,
    },
    /// The system gives no thread to render on.
    #[error("no thread to render the chat template on")]
    Thread(#[source] std::io::Error),
    /// The template engine panicked.
    #[error(transparent)]
    Outside(#[from] OutsidePanic),
}

impl ChatTemplate {
    /// The template among a model's texts. One with a name is looked at when a conversation asks for it:
    /// [`check_all`](ChatTemplate::check_all) looks at all.
    ///
    /// # Errors
    /// [`ChatError::Missing`] where there is none; others when it is not understood.
    pub fn new(texts: &ModelTexts) -> Result<ChatTemplate, ChatError> {
        ChatTemplate::within(texts, TemplateLimits::default())
    }

    /// The same, which may use `limits`; reading it counts for the time.
    ///
    /// # Errors
    /// As [`new`](ChatTemplate::new), and [`ChatError::Time`].
    pub fn within(texts: &ModelTexts, limits: TemplateLimits) -> Result<ChatTemplate, ChatError> {
        let special =
            texts.special_settings().map_err(|(file, source)| ChatError::Settings { file, source })?;
        let config = special.settings;
        let templates = Templates::of(texts, &config)?.usable()?;
        // One that only conversations with tools need is refused where there is one.
        if let Some(template) = &templates.default {
            understand(template, limits)?.map_err(|error| unreadable(error, limits))?;
        }
        let mut tokens: Vec<(String, String)> = Vec::new();
        tokens
            .extend(TOKENS.iter().filter_map(|key| Some(((*key).to_owned(), special_token(&config, key)?))));
        // Named by the model alone, such as `image_token`.
        if let Some(extra) = config.get("extra_special_tokens").filter(|extra| extra.is_object()) {
            let names = extra.as_object().into_iter().flat_map(serde_json::Map::keys);
            tokens.extend(names.filter_map(|key| Some((key.clone(), special_token(extra, key)?))));
        }
        Ok(ChatTemplate { templates, tokens, limits, clock: None })
    }

    /// Every template of a model that cannot be read, those that only some conversations choose among them: with its
    /// name, the default without. None where there is no template.
    ///
    /// # Errors
    /// When the list of templates is none, or the settings that hold it are not read.
    pub fn check_all(texts: &ModelTexts) -> Result<Vec<(Option<String>, ChatError)>, ChatError> {
        let limits = TemplateLimits::default();
        let special =
            texts.special_settings().map_err(|(file, source)| ChatError::Settings { file, source })?;
        let templates = match Templates::of(texts, &special.settings) {
            Err(ChatError::Missing) => return Ok(Vec::new()),
            templates => templates?,
        };
        let (mut broken, begun) = (Vec::new(), Instant::now());
        for (name, template) in templates.each() {
            // All of them share the time: the one at which it is over is told, and none after it is looked at.
            let left = TemplateLimits { time: limits.time.saturating_sub(begun.elapsed()), ..limits };
            let found = understand(template, left).and_then(|found| match found {
                Ok(()) => Ok(()),
                Err(error) => Err(named(unreadable(error, limits), name)),
            });
            let Err(error) = found else { continue };
            let over = matches!(error, ChatError::Time { .. });
            broken.push((name.map(str::to_owned), error));
            if over {
                break;
            }
        }
        Ok(broken)
    }

    /// The same template, which may use `limits`.
    pub fn with_limits(self, limits: TemplateLimits) -> ChatTemplate {
        ChatTemplate { limits, ..self }
    }

    /// The same template, for which `strftime_now` is what `clock` says; without one, a template that asks for the
    /// time fails.
    pub fn with_clock(self, clock: Clock) -> ChatTemplate {
        ChatTemplate { clock: Some(clock), ..self }
    }

    /// The text of a conversation; its special tokens are to be parsed, and none is put in front of it.
    ///
    /// # Errors
    /// When the template refuses the conversation, fails, or needs more than its limits.
    pub fn render(&self, messages: &[ChatMessage], options: &ChatOptions) -> Result<String, ChatError> {
        let Templates { default, tool_use, names, .. } = &self.templates;
        let with_tools = options.extra.get("tools").is_some_and(|tools| !tools.is_null());
        let for_tools = tool_use.as_ref().filter(|_| with_tools);
        let template = for_tools.or(default.as_ref());
        let template = template.ok_or_else(|| ChatError::NoDefault { names: names.clone() })?;
        let messages = messages.iter().map(|message| python::from_json(&message.seen())).collect();
        let mut variables: Vec<(String, Value)> = vec![
            ("messages".to_owned(), python::list(messages)),
            ("add_generation_prompt".to_owned(), options.add_generation_prompt.into()),
            ("tools".to_owned(), ().into()),
            ("documents".to_owned(), ().into()),
        ];
        variables.extend(self.tokens.iter().map(|(key, token)| (key.clone(), token.as_str().into())));
        variables.extend(options.extra.iter().map(|(key, value)| (key.clone(), python::from_json(value))));
        // One for tools was not looked at before.
        if for_tools.is_some() {
            let failed = |error| named(unreadable(error, self.limits), Some("tool_use"));
            understand(template, self.limits)?.map_err(failed)?;
        }
        bounded(|| {
            deadline::start(self.limits.time);
            let source = template_source::prepare(template)?;
            engine::run(&source, variables, self.clock.clone(), self.limits)
        })?
        .map_err(|error| match error.kind() {
            ErrorKind::OutOfFuel if error.detail() == Some(engine::FULL) => {
                ChatError::Output { limit: self.limits.output_bytes }
            }
            ErrorKind::OutOfFuel if error.detail() == Some(deadline::OVER) => {
                ChatError::Time { limit: self.limits.time }
            }
            ErrorKind::OutOfFuel => ChatError::Steps { limit: self.limits.steps },
            _ => ChatError::Refused(error),
        })
    }

    /// What follows the words of a finished turn of the model, such as `<end_of_turn>`; `None` where it cannot be told.
    pub fn end_of_turn(&self) -> Option<String> {
        const WORDS: &str = "gq-words";
        let turns = [ChatMessage::new("user", "gq-question"), ChatMessage::new("assistant", WORDS)];
        // The date does not matter here.
        let dated = self.clone().with_clock(Arc::new(|_: &str| Ok(String::new())));
        let text = dated.render(&turns, &ChatOptions::default()).ok()?;
        let (_, rest) = text.rsplit_once(WORDS)?;
        let rest = rest.trim_start();
        let end = rest.find('>')?;
        rest.get(..=end).filter(|token| token.starts_with('<')).map(str::to_owned)
    }
}

/// Whether a template is understood.
fn understand(template: &str, limits: TemplateLimits) -> Result<Result<(), Error>, ChatError> {
    bounded(|| {
        deadline::start(limits.time);
        engine::understand(&template_source::prepare(template)?).map(|_| ())
    })
}

fn unreadable(error: Error, limits: TemplateLimits) -> ChatError {
    match error.kind() {
        ErrorKind::OutOfFuel if error.detail() == Some(deadline::OVER) => {
            ChatError::Time { limit: limits.time }
        }
        _ => ChatError::Unreadable(error),
    }
}

/// The same of a template with a name.
fn named(error: ChatError, name: Option<&str>) -> ChatError {
    match (error, name) {
        (ChatError::Unreadable(source), Some(name)) => {
            ChatError::UnreadableNamed { name: name.to_owned(), source }
        }
        (other, _) => other,
    }
}

/// Runs the engine on a stack that its nesting cannot exhaust; a panic of it is an error.
fn bounded<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, ChatError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK);
        let thread = thread.spawn_scoped(scope, || guarded(PART, work)).map_err(ChatError::Thread)?;
        let stopped = |_| OutsidePanic { part: PART, message: "a panic on its way out".to_owned() };
        Ok(thread.join().map_err(stopped)??)
    })
}
