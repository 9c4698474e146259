//! `tokenizer.json` to metadata: tokens, types, merges or scores, special tokens, chat template.

use super::carried;
use super::export_source::ExportSource;
use super::named_templates;
use super::pre_tokenizer::PreTokenizer;
use super::token_types::{BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED};
use crate::gguf::{Array, GgufError, Metadata, Value as Metadatum};
use crate::{Family, ModelSpec, SpecialSettings};
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// Score of tokens that no merge makes, as converters write it.
const NO_SCORE: f32 = -1000.0;

/// A parsed `tokenizer.json`.
struct Tokenizer<'a> {
    json: &'a Value,
    config: &'a Value,
    tokens: Vec<String>,
    types: Vec<i32>,
    ids: HashMap<String, usize>,
    merges: Vec<(String, String)>,
}

/// Writes `tokenizer.*`; nothing but the model's kind when there is no tokenizer.
///
/// # Errors
/// When the format has no place for a part of it; `allow_other_tokens` leaves out parts that only change tokens.
pub(super) fn tokenizer_metadata(
    metadata: &mut Metadata,
    source: ExportSource<'_>,
    allow_other_tokens: bool,
) -> Result<(), GgufError> {
    let texts = source.texts;
    let Some(text) = &texts.tokenizer else {
        metadata.set("tokenizer.ggml.model", string("none"));
        return Ok(());
    };
    let json = parse("tokenizer.json", text)?;
    let config =
        SpecialSettings::read(texts.tokenizer_config.as_deref(), texts.special_tokens_map.as_deref());
    let config = config.map_err(|(file, error)| contradiction(file, error.to_string()))?.settings;
    let tokenizer = Tokenizer::read(&json, &config, source.spec)?;
    let byte_fallback = json.pointer("/model/byte_fallback") == Some(&Value::Bool(true));
    if !allow_other_tokens {
        carried::check(&json, byte_fallback, &tokenizer.types)?;
    }
    let adds_bos = match (byte_fallback, source.spec.family) {
        (true, Family::Gemma4) => {
            tokenizer.gemma4(metadata);
            true
        }
        (true, _) => {
            tokenizer.sentence_piece(metadata);
            true
        }
        (false, _) => tokenizer.byte_level(metadata)?,
    };
    tokenizer.specials(metadata, source.spec);
    let add_bos = "tokenizer.ggml.add_bos_token";
    if adds_bos && metadata.get(add_bos).is_none() {
        metadata.set(add_bos, Metadatum::Bool(false));
    }
    named_templates::write(metadata, &config, texts.chat_template.as_deref())?;
    if byte_fallback {
        let prefix = carried::begins_with_space(&json);
        metadata.set("tokenizer.ggml.add_space_prefix", Metadatum::Bool(prefix));
    } else if let Some(prefix) = config.get("add_prefix_space").and_then(Value::as_bool) {
        metadata.set("tokenizer.ggml.add_space_prefix", Metadatum::Bool(prefix));
    }
    Ok(())
}

fn string(text: &str) -> Metadatum {
    Metadatum::String(text.to_owned())
}

fn parse(name: &str, text: &str) -> Result<Value, GgufError> {
    serde_json::from_str(text).map_err(|error| contradiction(name, error.to_string()))
}

fn contradiction(key: &str, fault: impl Into<String>) -> GgufError {
    GgufError::Contradiction { key: key.to_owned(), fault: fault.into() }
}

impl<'a> Tokenizer<'a> {
    fn read(json: &'a Value, config: &'a Value, spec: &ModelSpec) -> Result<Tokenizer<'a>, GgufError> {
        let file = "tokenizer.json";
        let kind = json.pointer("/model/type").and_then(Value::as_str).unwrap_or("BPE");
        if kind != "BPE" {
            return Err(GgufError::Unsupported {
                key: format!("{file}: model.type"),
                actual: kind.to_owned(),
                supported: "BPE".to_owned(),
            });
        }
        let vocab = json.pointer("/model/vocab").and_then(Value::as_object);
        let vocab = vocab.ok_or_else(|| contradiction(file, "no vocabulary"))?;
        let mut entries: Vec<(usize, &str, i32)> = Vec::new();
        for (token, id) in vocab {
            let id = id.as_u64().ok_or_else(|| contradiction(file, format!("{token:?} has no id")))?;
            entries.push((id as usize, token, if is_byte(token) { BYTE } else { NORMAL }));
        }
        let added = json.get("added_tokens").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        for token in added {
            let id = token.get("id").and_then(Value::as_u64);
            let content = token.get("content").and_then(Value::as_str);
            let (Some(id), Some(content)) = (id, content) else {
                return Err(contradiction(file, "an added token without id or content"));
            };
            let special = token.get("special").and_then(Value::as_bool).unwrap_or(false);
            let normalized = token.get("normalized").and_then(Value::as_bool).unwrap_or(false);
            let kind = if special || looks_special(content) { CONTROL } else { USER_DEFINED };
            let content = if normalized && kind == USER_DEFINED { content.trim_end() } else { content };
            entries.push((id as usize, content, kind));
        }
        // A special token without a row, such as Gemma's placeholder for images: no text gets it.
        entries.retain(|&(id, _, kind)| id < spec.vocab_size || kind != CONTROL);
        let count =
            spec.vocab_size.max(entries.iter().map(|entry| entry.0.saturating_add(1)).max().unwrap_or(0));
        if count > 1 << 24 || count > spec.vocab_size {
            return Err(contradiction(file, format!("tokens up to {count} for {} rows", spec.vocab_size)));
        }
        let mut tokens: Vec<Option<(&str, i32)>> = vec![None; count];
        for (id, token, kind) in entries {
            tokens[id] = Some((token, kind)); // added tokens come last and decide
        }
        // Rows of the embedding beyond the vocabulary; Gemma's files leave them out.
        let last = tokens.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        if !spec.family.file().gguf.pads_vocabulary {
            tokens.truncate(last);
        }
        let named = |(id, token): (usize, &Option<(&str, i32)>)| match token {
            Some((token, kind)) => ((*token).to_owned(), *kind),
            None => (format!("[PAD{id}]"), UNUSED),
        };
        let (tokens, types): (Vec<String>, Vec<i32>) = tokens.iter().enumerate().map(named).unzip();
        let ids = tokens.iter().enumerate().map(|(id, token)| (token.clone(), id)).collect();
        Ok(Tokenizer { json, config, tokens, types, ids, merges: merges(json)? })
    }

    fn set_tokens(&self, metadata: &mut Metadata, scores: Option<Vec<f32>>) {
        let array = |array| Metadatum::Array(array);
        metadata.set("tokenizer.ggml.tokens", array(Array::String(self.tokens.clone())));
        if let Some(scores) = scores {
            metadata.set("tokenizer.ggml.scores", array(Array::F32(scores)));
        }
        metadata.set("tokenizer.ggml.token_type", array(Array::I32(self.types.clone())));
    }

    fn set_merges(&self, metadata: &mut Metadata) {
        // A space separates the two; spaces within are written as byte-level tokenizers do.
        let plain = |part: &str| part.replace(' ', "\u{120}");
        let merges = self.merges.iter().map(|(left, right)| format!("{} {}", plain(left), plain(right)));
        metadata.set("tokenizer.ggml.merges", Metadatum::Array(Array::String(merges.collect())));
    }

    /// Says whether readers begin a text with the first token where the file does not say.
    fn byte_level(&self, metadata: &mut Metadata) -> Result<bool, GgufError> {
        let pre_tokenizer = self.json.get("pre_tokenizer").unwrap_or(&Value::Null);
        let ignores_merges = self.json.pointer("/model/ignore_merges") == Some(&Value::Bool(true));
        let pre = PreTokenizer::recognize(pre_tokenizer, ignores_merges);
        let pre = pre.ok_or_else(|| GgufError::Unsupported {
            key: "tokenizer.json: pre_tokenizer".to_owned(),
            actual: pre_tokenizer.to_string(),
            supported: PreTokenizer::names(),
        })?;
        metadata.set("tokenizer.ggml.model", string("gpt2"));
        metadata.set("tokenizer.ggml.pre", string(pre.name()));
        self.set_tokens(metadata, None);
        self.set_merges(metadata);
        Ok(pre.adds_bos())
    }

    fn gemma4(&self, metadata: &mut Metadata) {
        metadata.set("tokenizer.ggml.model", string("gemma4"));
        self.set_tokens(metadata, Some(vec![NO_SCORE; self.tokens.len()]));
        self.set_merges(metadata);
    }

    /// SentencePiece has scores instead of merges: the sooner a piece is made, the higher.
    fn sentence_piece(&self, metadata: &mut Metadata) {
        let mut scores: Vec<f32> = vec![NO_SCORE; self.tokens.len()];
        let mut order = Order::default();
        let mut ranked = vec![false; self.tokens.len()];
        let made =
            self.merges.iter().filter_map(|(left, right)| self.ids.get(&format!("{left}{right}")).copied());
        let rest = (0..self.tokens.len()).filter(|&id| self.types[id] == NORMAL);
        for id in made.chain(rest) {
            if !std::mem::replace(&mut ranked[id], true) {
                scores[id] = match self.types[id] {
                    NORMAL => order.next(),
                    // Found in text first, but merges make it as well, such as two spaces that became `▁▁`.
                    USER_DEFINED => order.between(),
                    _ => NO_SCORE,
                };
            }
        }
        for (score, &kind) in scores.iter_mut().zip(&self.types) {
            if kind == BYTE {
                *score = 0.0;
            }
        }
        metadata.set("tokenizer.ggml.model", string("llama"));
        metadata.set("tokenizer.ggml.pre", string("default"));
        let mut types = self.types.clone();
        if let Some(id) = self.unknown() {
            types[id] = UNKNOWN;
        }
        self.set_tokens(metadata, Some(scores));
        metadata.set("tokenizer.ggml.token_type", Metadatum::Array(Array::I32(types)));
    }

    fn unknown(&self) -> Option<usize> {
        let token = self.json.pointer("/model/unk_token").and_then(Value::as_str)?;
        self.ids.get(token).copied()
    }

    /// The id of a token that the settings name, as text or as an object.
    fn configured(&self, key: &str) -> Option<usize> {
        let entry = self.config.get(key)?;
        let token = entry.as_str().or_else(|| entry.get("content")?.as_str())?;
        self.ids.get(token).copied()
    }

    fn specials(&self, metadata: &mut Metadata, spec: &ModelSpec) {
        let mut set = |key: &str, id: Option<usize>| {
            if let Some(id) = id.and_then(|id| u32::try_from(id).ok()) {
                metadata.set(&format!("tokenizer.ggml.{key}"), Metadatum::U32(id));
            }
        };
        let id = |id: Option<u32>| id.map(|id| id as usize);
        let eos = self.configured("eos_token").or(id(spec.eos.first().copied()));
        set("bos_token_id", self.configured("bos_token").or(id(spec.bos)));
        set("eos_token_id", eos);
        set("unknown_token_id", self.configured("unk_token"));
        set("padding_token_id", self.configured("pad_token").or(id(spec.pad)));
        // The end of a turn, which readers otherwise guess by its spelling.
        set("eot_token_id", spec.eos.iter().map(|&id| id as usize).find(|&id| Some(id) != eos));
        for (name, value) in self.additions() {
            metadata.set(&format!("tokenizer.ggml.add_{name}_token"), Metadatum::Bool(value));
        }
    }

    /// Which special tokens text gets: by the post-processor, else by `tokenizer_config.json`.
    fn additions(&self) -> Vec<(&'static str, bool)> {
        let mut found: Vec<(&'static str, bool)> = Vec::new();
        let mut set = |name: &'static str, value: bool, decides: bool| match found
            .iter_mut()
            .find(|entry| entry.0 == name)
        {
            Some(entry) if decides => entry.1 = value,
            Some(_) => {}
            None => found.push((name, value)),
        };
        let processor = self.json.get("post_processor").unwrap_or(&Value::Null);
        let list = processor
            .get("processors")
            .and_then(Value::as_array)
            .map_or(std::slice::from_ref(processor), Vec::as_slice);
        for processor in list {
            match processor.get("type").and_then(Value::as_str) {
                Some("ByteLevel") => {
                    set("bos", false, false);
                    set("eos", false, false);
                }
                Some("TemplateProcessing") => {
                    let side = |name: &str| {
                        processor.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice)
                    };
                    let special =
                        |item: Option<&Value>| item.is_some_and(|item| item.get("SpecialToken").is_some());
                    let (single, pair) = (side("single"), side("pair"));
                    let (first, last) = (special(single.first()), special(single.last()) && single.len() > 1);
                    if first && single.len() > 1 {
                        set("bos", true, true);
                    }
                    if last {
                        set("eos", true, true);
                    }
                    // Something stands between two texts, and it is no separator of its own.
                    let inner = pair.len().saturating_sub(2 + usize::from(first) + usize::from(last));
                    if inner > 0 {
                        set("sep", false, true);
                    }
                }
                _ => {}
            }
        }
        for (name, key) in [("bos", "add_bos_token"), ("eos", "add_eos_token")] {
            if let Some(value) = self.config.get(key).and_then(Value::as_bool) {
                set(name, value, false);
            }
        }
        found
    }
}

/// Scores that fall: whole numbers for the pieces that converters count, and room between them for others.
struct Order {
    rank: u32,
    last: f32,
    since: u32,
}

impl Default for Order {
    fn default() -> Order {
        Order { rank: 0, last: f32::INFINITY, since: 0 }
    }
}

impl Order {
    fn next(&mut self) -> f32 {
        self.last = -(self.rank as f32);
        self.rank += 1;
        self.since = 0;
        self.last
    }

    fn between(&mut self) -> f32 {
        const STEPS: u32 = 64;
        self.since += 1;
        let score = (1.0 - f64::from(self.since) / f64::from(STEPS) - f64::from(self.rank)) as f32;
        if self.since < STEPS && score < self.last && score > -(self.rank as f32) {
            self.last = score;
            return score;
        }
        self.next()
    }
}

/// `<0x0A>`.
fn is_byte(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Tokens that some files forget to mark; converters go by the spelling.
fn looks_special(token: &str) -> bool {
    matches!(token, "<pad>" | "<mask>" | "<2mass>" | "[@BOS@]")
        || token.starts_with("<|") && token.ends_with("|>")
        || token.starts_with("<｜") && token.ends_with("｜>")
        || token.starts_with("<unused") && token.ends_with('>')
}

fn merges(json: &Value) -> Result<Vec<(String, String)>, GgufError> {
    let bad = |merge: &Value| contradiction("tokenizer.json", format!("merge {merge} is no pair"));
    let list = json.pointer("/model/merges").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let pair = |merge: &Value| {
        let pair = match merge {
            Value::String(text) => {
                text.split_once(' ').map(|(left, right)| (left.to_owned(), right.to_owned()))
            }
            Value::Array(parts) => match parts.as_slice() {
                [Value::String(left), Value::String(right)] => Some((left.clone(), right.clone())),
                _ => None,
            },
            _ => None,
        };
        pair.ok_or_else(|| bad(merge))
    };
    let mut list = list.iter().map(pair).collect::<Result<Vec<_>, _>>()?;
    // Of a pair that stands twice, the Hub's reader takes the last, llama.cpp the first.
    let mut seen = HashSet::with_capacity(list.len());
    let last: Vec<bool> = list.iter().rev().map(|pair| seen.insert(pair.clone())).collect();
    let mut last = last.into_iter().rev();
    list.retain(|_| last.next().unwrap_or(true));
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_fall_and_whole_ones_stay() {
        let mut order = Order { rank: (1 << 18) - 2, ..Order::default() };
        let mut scores = vec![order.next()];
        scores.extend((0..100).map(|_| order.between()));
        scores.push(order.next());
        assert!(scores.windows(2).all(|pair| pair[0] > pair[1]), "{scores:?}");
        let mut order = Order::default();
        let scores = [order.between(), order.next(), order.between(), order.next()];
        assert!(
            scores[0] > 0.0 && scores[1] == 0.0 && scores[3] == -1.0 && scores[2] < 0.0 && scores[2] > -1.0
        );
    }
}
