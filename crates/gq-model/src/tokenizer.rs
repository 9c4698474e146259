//! Text to tokens and back.

use crate::chat::ChatTemplate;
use crate::texts::ModelTexts;
use gq_checkpoint::ModelSpec;
use serde_json::Value;
use std::sync::{PoisonError, RwLock};

/// A model's tokenizer: its own file, read by the Hub's implementation.
#[derive(Debug)]
pub struct Tokenizer {
    inner: RwLock<tokenizers::Tokenizer>,
    bos: Option<u32>,
    eos: Vec<u32>,
}

/// How strings such as `<bos>` in a text are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialText {
    /// As the characters they are made of: text that somebody else wrote.
    Plain,
    /// As the special tokens they name: what a chat template rendered.
    Parsed,
}

/// Text that cannot be turned into tokens.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The model came without a tokenizer.
    #[error("the model has no tokenizer: it takes token numbers, not text")]
    Missing,
    /// The tokenizer file is not understood.
    #[error("the tokenizer cannot be read")]
    Unreadable(#[source] tokenizers::Error),
    /// Settings beside the tokenizer are not JSON.
    #[error("{file} is not valid JSON")]
    Settings {
        /// `tokenizer_config.json` or `generation_config.json`.
        file: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A text could not be encoded.
    #[error("the text cannot be encoded")]
    Encode(#[source] tokenizers::Error),
    /// Tokens could not be decoded.
    #[error("the tokens cannot be decoded")]
    Decode(#[source] tokenizers::Error),
}

impl Tokenizer {
    /// The tokenizer among a model's texts.
    ///
    /// Text starts with a BOS token where the file's post-processor puts one in front, or `add_bos_token` asks for it.
    /// Generation ends at the tokens of the configuration, of the generation settings, and `eos_token`.
    ///
    /// # Errors
    /// [`TokenizerError::Missing`] where there is none; others for files that are not understood.
    pub fn new(texts: &ModelTexts, spec: &ModelSpec) -> Result<Tokenizer, TokenizerError> {
        let file = texts.tokenizer.as_deref().ok_or(TokenizerError::Missing)?;
        let mut inner: tokenizers::Tokenizer = file.parse().map_err(TokenizerError::Unreadable)?;
        // A file may carry the cuts and padding of its training.
        inner.with_truncation(None).map_err(TokenizerError::Unreadable)?.with_padding(None);
        let config = settings("tokenizer_config.json", texts.tokenizer_config.as_deref())?;
        let generation = settings("generation_config.json", texts.generation_config.as_deref())?;
        let named = |key: &str| inner.token_to_id(&special_token(&config, key)?);
        let asked = config.get("add_bos_token") == Some(&Value::Bool(true));
        let bos = post_processor_bos(&inner)?.or_else(|| named("bos_token").filter(|_| asked));
        let mut eos = spec.eos.clone();
        eos.extend(token_ids(generation.get("eos_token_id")));
        eos.extend(named("eos_token"));
        eos.sort_unstable();
        eos.dedup();
        Ok(Tokenizer { inner: RwLock::new(inner), bos, eos })
    }

    /// The token that text starts with; `None` where the model wants none, whether or not it has one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// Tokens that end generation, sorted.
    pub fn eos(&self) -> &[u32] {
        &self.eos
    }

    /// Tokens that end an answer: those of [`eos`](Tokenizer::eos), and what the chat template puts after a turn.
    pub fn stop_tokens(&self, chat: Option<&ChatTemplate>) -> Vec<u32> {
        let end_of_turn = chat.and_then(ChatTemplate::end_of_turn).and_then(|content| self.token(&content));
        let mut stop = self.eos.clone();
        stop.extend(end_of_turn.filter(|token| !self.eos.contains(token)));
        stop
    }

    /// Tokens of `text`, without BOS.
    ///
    /// # Errors
    /// When the tokenizer has no token for something in it.
    pub fn encode(&self, text: &str, special: SpecialText) -> Result<Vec<u32>, TokenizerError> {
        let plain = special == SpecialText::Plain;
        let current = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        if current.get_encode_special_tokens() == plain {
            return encode(&current, text);
        }
        drop(current);
        let mut changed = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        changed.set_encode_special_tokens(plain);
        encode(&changed, text)
    }

    /// Tokens of a prompt: BOS in front where the model wants it and the text does not have it already.
    ///
    /// # Errors
    /// As [`encode`](Tokenizer::encode).
    pub fn prompt(&self, text: &str, special: SpecialText) -> Result<Vec<u32>, TokenizerError> {
        let mut tokens = self.encode(text, special)?;
        if let Some(bos) = self.bos.filter(|bos| tokens.first() != Some(bos)) {
            tokens.insert(0, bos);
        }
        Ok(tokens)
    }

    /// Text of tokens; special tokens are left out. Bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, TokenizerError> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.decode(tokens, true).map_err(TokenizerError::Decode)
    }

    /// The token with this content, such as `<turn|>`.
    pub fn token(&self, content: &str) -> Option<u32> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).token_to_id(content)
    }

    /// Content of a token as the vocabulary spells it.
    pub fn content(&self, token: u32) -> Option<String> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).id_to_token(token)
    }

    /// Number of tokens, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).get_vocab_size(true)
    }

    /// An empty stream of text.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream { tokenizer: self, tokens: Vec::new(), shown: 0, context: 0 }
    }
}

/// Text of tokens as they come: whole characters only, and white space as it is in the whole.
#[derive(Clone, Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    tokens: Vec<u32>,
    /// Tokens whose text has been given out; a character may be spread over those after it.
    shown: usize,
    /// Where decoding starts: some tokens before `shown`, since a token's text depends on the ones before it.
    context: usize,
}

impl TextStream<'_> {
    /// Adds a token and returns the text that is now certain; empty in the middle of a character.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn push(&mut self, token: u32) -> Result<String, TokenizerError> {
        self.tokens.push(token);
        let (before, now) = self.texts()?;
        // An unfinished character decodes to U+FFFD at the end.
        if now.ends_with('\u{FFFD}') || now.len() <= before.len() {
            return Ok(String::new());
        }
        let new = now.get(before.len()..).unwrap_or_default().to_owned();
        self.context = self.shown;
        self.shown = self.tokens.len();
        Ok(new)
    }

    /// The rest: an unfinished character as U+FFFD.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn finish(&mut self) -> Result<String, TokenizerError> {
        let (before, now) = self.texts()?;
        self.context = self.tokens.len();
        self.shown = self.tokens.len();
        Ok(now.get(before.len()..).unwrap_or_default().to_owned())
    }

    /// Text of the context, and of the context with everything not yet shown.
    fn texts(&self) -> Result<(String, String), TokenizerError> {
        let tokens = self.tokens.get(self.context..).unwrap_or(&[]);
        let before = tokens.get(..self.shown - self.context).unwrap_or(&[]);
        Ok((self.tokenizer.decode(before)?, self.tokenizer.decode(tokens)?))
    }
}

fn encode(inner: &tokenizers::Tokenizer, text: &str) -> Result<Vec<u32>, TokenizerError> {
    let encoding = inner.encode_fast(text, false).map_err(TokenizerError::Encode)?;
    Ok(encoding.get_ids().to_vec())
}

/// The token a post-processor puts in front of text.
fn post_processor_bos(inner: &tokenizers::Tokenizer) -> Result<Option<u32>, TokenizerError> {
    let ids = |special: bool| {
        let encoding = inner.encode_fast("a", special).map_err(TokenizerError::Encode)?;
        Ok(encoding.get_ids().to_vec())
    };
    let (plain, processed) = (ids(false)?, ids(true)?);
    let added = processed.len() > plain.len() && processed.first() != plain.first();
    Ok(processed.first().copied().filter(|_| added))
}

fn settings(file: &'static str, text: Option<&str>) -> Result<Value, TokenizerError> {
    let parsed = text.map(serde_json::from_str).transpose();
    let parsed = parsed.map_err(|source| TokenizerError::Settings { file, source })?;
    Ok(parsed.unwrap_or(Value::Null))
}

/// A special token of `tokenizer_config.json`: a string, or an object with its content.
pub(crate) fn special_token(config: &Value, key: &str) -> Option<String> {
    let value = config.get(key)?;
    value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned)
}

/// One token number or a list of them.
fn token_ids(value: Option<&Value>) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Some(Value::Array(list)) => list.iter().filter_map(id).collect(),
        Some(value) => id(value).into_iter().collect(),
        None => Vec::new(),
    }
}
