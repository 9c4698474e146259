//! Text to tokens and back.

use crate::chat::ChatTemplate;
use crate::growth::{self, Growth};
use crate::outside::guarded;
use crate::special_token::special_token;
use crate::texts::ModelTexts;
use crate::tokenizer_error::TokenizerError;
use crate::written;
use gq_checkpoint::ModelSpec;
use serde_json::Value;
use std::sync::{PoisonError, RwLock};
use tokenizers::NormalizerWrapper;

/// A model's tokenizer: its own file, read by the Hub's implementation.
#[derive(Debug)]
pub struct Tokenizer {
    inner: RwLock<tokenizers::Tokenizer>,
    growth: Growth,
    /// Tokens in front of text and behind it.
    around: (Vec<u32>, Vec<u32>),
    bos: Option<u32>,
    eos: Vec<u32>,
    /// Rows of the embedding.
    rows: usize,
}

/// What is run under [`guarded`].
const FILE: &str = "tokenizer.json";
/// Text that shows what is put around a text.
const PROBE: &str = "a";

/// How strings such as `<bos>` in a text are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialText {
    /// As the characters they are made of: text that somebody else wrote.
    Plain,
    /// As the special tokens they name: what a chat template rendered.
    Parsed,
}

impl Tokenizer {
    /// The tokenizer among a model's texts, loaded and tried on a short text.
    ///
    /// Text starts with a BOS token where the file's post-processor puts one in front, or `add_bos_token` asks for it.
    /// Generation ends at the tokens of the configuration, of the generation settings, and `eos_token`.
    ///
    /// # Errors
    /// [`TokenizerError::Missing`] where there is none; others for files that are not understood, that load as
    /// something else than is written, or whose tokens for plain text the embedding has no rows for.
    pub fn new(texts: &ModelTexts, spec: &ModelSpec) -> Result<Tokenizer, TokenizerError> {
        let text = texts.tokenizer.as_deref().ok_or(TokenizerError::Missing)?;
        let file: Value = parse(FILE, text)?;
        let growth = Growth::of(&file)?;
        if growth.is_measured() {
            guarded(FILE, || growth::measure_loading(&file, PROBE))??;
        }
        let mut inner: tokenizers::Tokenizer =
            guarded(FILE, || text.parse())?.map_err(TokenizerError::Unreadable)?;
        // A file may carry the cuts and padding of its training.
        inner.with_truncation(None).map_err(TokenizerError::Unreadable)?.with_padding(None);
        guarded(FILE, || written::compare(&file, &inner))??;
        drop(file);
        guarded(FILE, || refuse_text_beyond(&inner, spec.vocab_size))??;
        let special =
            texts.special_settings().map_err(|(file, source)| TokenizerError::Settings { file, source })?;
        let config = &special.settings;
        let by = |in_map, in_config, key| match special.file_of(key) {
            "special_tokens_map.json" => in_map,
            _ => in_config,
        };
        let bos_from =
            by("bos_token of special_tokens_map.json", "bos_token of tokenizer_config.json", "bos_token");
        let eos_from =
            by("eos_token of special_tokens_map.json", "eos_token of tokenizer_config.json", "eos_token");
        let generation = settings("generation_config.json", texts.generation_config.as_deref())?;
        let named = |key: &str| inner.token_to_id(&special_token(config, key)?);
        let asked = config.get("add_bos_token") == Some(&Value::Bool(true));
        let mut around = guarded(FILE, || post_processed(&inner))??;
        if around.0.is_empty() {
            around.0.extend(named("bos_token").filter(|_| asked));
        }
        let bos = around.0.first().copied();
        let begin_or_end = [
            ("bos_token_id of config.json", Vec::from_iter(spec.bos)),
            ("eos_token_id of config.json", spec.eos.clone()),
            ("bos_token_id of generation_config.json", token_ids(generation.get("bos_token_id"))),
            ("eos_token_id of generation_config.json", token_ids(generation.get("eos_token_id"))),
            (bos_from, Vec::from_iter(named("bos_token").filter(|_| asked))),
            (eos_from, Vec::from_iter(named("eos_token"))),
            ("what the post-processor puts around a text", [around.0.clone(), around.1.clone()].concat()),
        ];
        let rows = spec.vocab_size;
        for (from, ids) in begin_or_end {
            if let Some(&id) = ids.iter().find(|&&id| id as usize >= rows) {
                return Err(TokenizerError::SpecialBeyondRows { from, id, rows });
            }
        }
        let mut eos = spec.eos.clone();
        eos.extend(token_ids(generation.get("eos_token_id")));
        eos.extend(named("eos_token"));
        eos.sort_unstable();
        eos.dedup();
        let tokenizer = Tokenizer { inner: RwLock::new(inner), growth, around, bos, eos, rows };
        tokenizer.try_out()?;
        Ok(tokenizer)
    }

    /// Encodes and decodes a short text: what cannot do that is no tokenizer.
    fn try_out(&self) -> Result<(), TokenizerError> {
        const SHORT: &str = "Once upon a time, in 1789:\n\tna\u{EF}ve \u{4F60}\u{597D} \u{1F999} x";
        let tokens = self.encode(SHORT, SpecialText::Plain)?;
        self.decode(&tokens).map(|_| ())
    }

    /// The token that text starts with; `None` where the model wants none, whether or not it has one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// Tokens that end generation, sorted.
    pub fn eos(&self) -> &[u32] {
        &self.eos
    }

    /// Tokens that end an answer: those of [`eos`](Tokenizer::eos), and what the chat template puts after a turn, unless
    /// that ends one message of an answer with several.
    pub fn stop_tokens(&self, chat: Option<&ChatTemplate>) -> Vec<u32> {
        let end_of_turn = chat.and_then(ChatTemplate::end_of_turn).and_then(|content| self.token(&content));
        // Harmony's answers go on after it; its turns end with the other.
        let goes_on = self.token("<|return|>").and_then(|_| self.token("<|end|>"));
        let mut stop = self.eos.clone();
        stop.extend(end_of_turn.filter(|token| !self.eos.contains(token) && goes_on != Some(*token)));
        stop
    }

    /// Tokens of `text`, without BOS.
    ///
    /// # Errors
    /// When the tokenizer has no token for something in it, makes it longer than is allowed, or names a token that
    /// the embedding has no row for.
    pub fn encode(&self, text: &str, special: SpecialText) -> Result<Vec<u32>, TokenizerError> {
        let plain = special == SpecialText::Plain;
        let current = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        if current.get_encode_special_tokens() == plain {
            return self.encode_with(&current, text);
        }
        drop(current);
        let mut changed = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        changed.set_encode_special_tokens(plain);
        self.encode_with(&changed, text)
    }

    fn encode_with(&self, inner: &tokenizers::Tokenizer, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let tokens = guarded(FILE, || {
            let normalizer = inner.get_normalizer().filter(|_| self.growth.is_measured_on(text));
            if let Some(normalizer) = normalizer {
                growth::measure(inner, normalizer, text)?;
            }
            encode(inner, text)
        })??;
        match tokens.iter().find(|&&id| id as usize >= self.rows) {
            Some(&id) => {
                let token = inner.id_to_token(id).unwrap_or_default();
                Err(TokenizerError::BeyondRows { token, id, rows: self.rows })
            }
            None => Ok(tokens),
        }
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
        guarded(FILE, || inner.decode(tokens, true))?.map_err(TokenizerError::Decode)
    }

    /// The token with this content, such as `<turn|>`.
    pub fn token(&self, content: &str) -> Option<u32> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).token_to_id(content)
    }

    /// Content of a token as the vocabulary spells it.
    pub fn content(&self, token: u32) -> Option<String> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).id_to_token(token)
    }

    /// Tokens that a post-processor or `add_bos_token` puts in front of text; of several, [`bos`](Tokenizer::bos) is the
    /// first.
    pub fn begins_with(&self) -> &[u32] {
        &self.around.0
    }

    /// Tokens that a post-processor puts behind text that stands alone.
    pub fn ends_with(&self) -> &[u32] {
        &self.around.1
    }

    /// Contents of the tokens that are found before anything else, sorted by id.
    pub fn added_contents(&self) -> Vec<String> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let mut tokens: Vec<_> = inner.get_added_tokens_decoder().into_iter().collect();
        tokens.sort_unstable_by_key(|&(id, _)| id);
        tokens
            .into_iter()
            .filter(|&(id, _)| (id as usize) < self.rows)
            .map(|(_, token)| token.content)
            .collect()
    }

    /// Whether one of the things done to a text first is to compose it (NFC).
    pub fn composes(&self) -> bool {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let nfc = |step: &NormalizerWrapper| matches!(step, NormalizerWrapper::NFC(_));
        match inner.get_normalizer() {
            Some(NormalizerWrapper::Sequence(steps)) => steps.as_ref().iter().any(nfc),
            step => step.is_some_and(nfc),
        }
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

/// The tokens that a post-processor puts in front of text and behind it.
fn post_processed(inner: &tokenizers::Tokenizer) -> Result<(Vec<u32>, Vec<u32>), TokenizerError> {
    let ids = |special: bool| -> Result<Vec<u32>, TokenizerError> {
        let encoding = inner.encode_fast(PROBE, special).map_err(TokenizerError::Encode)?;
        Ok(encoding.get_ids().to_vec())
    };
    let (plain, processed) = (ids(false)?, ids(true)?);
    let at = processed.windows(plain.len().max(1)).position(|window| window == plain);
    let (front, behind) = match at {
        Some(at) => (&processed[..at], &processed[at + plain.len()..]),
        // The text's own tokens are gone: whatever comes first is in front.
        None => (processed.get(..1).unwrap_or_default(), &[][..]),
    };
    Ok((front.to_vec(), behind.to_vec()))
}

/// Refuses a vocabulary that gives plain text tokens without rows. A special token without one, such as Gemma's
/// placeholder for images, does no harm until a text names it.
fn refuse_text_beyond(inner: &tokenizers::Tokenizer, rows: usize) -> Result<(), TokenizerError> {
    let added = inner.get_added_tokens_decoder();
    let special = |id: u32| added.get(&id).is_some_and(|token| token.special);
    let beyond = inner.get_vocab(true).into_iter().filter(|&(_, id)| id as usize >= rows && !special(id));
    match beyond.min_by_key(|&(_, id)| id) {
        Some((token, id)) => Err(TokenizerError::BeyondRows { token, id, rows }),
        None => Ok(()),
    }
}

fn parse(file: &'static str, text: &str) -> Result<Value, TokenizerError> {
    serde_json::from_str(text).map_err(|source| TokenizerError::Settings { file, source })
}

fn settings(file: &'static str, text: Option<&str>) -> Result<Value, TokenizerError> {
    text.map_or(Ok(Value::Null), |text| parse(file, text))
}

/// One token number or a list of them.
pub(crate) fn token_ids(value: Option<&Value>) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Some(Value::Array(list)) => list.iter().filter_map(id).collect(),
        Some(value) => id(value).into_iter().collect(),
        None => Vec::new(),
    }
}
