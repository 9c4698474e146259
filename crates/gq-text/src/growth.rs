//! How much longer a tokenizer can make a text: replacements in a chain multiply, and a file of a few kilobytes can
//! ask for terabytes.
//!
//! A bound follows from the file; where it is small, for the text at hand, nothing else is done. Where it is not, the normalizers are run one
//! by one first, on what the library would run them on, and each is measured before its text is made: a replacement by
//! the text alone, without what the library keeps for every byte, anything else by short pieces.

use crate::tokenizer_error::TokenizerError;
use serde::Deserialize;
use serde_json::Value;
use std::cell::{Cell, RefCell};
use tokenizers::normalizers::replace::{Replace, ReplacePattern};
use tokenizers::utils::SysRegex;
use tokenizers::{NormalizedString, Normalizer, NormalizerWrapper, Tokenizer};

/// Times that a text may become longer, by all normalizers together, or by all pre-tokenizers, or by decoders.
const MOST: f64 = 64.0;
/// Times that any text may become longer by all normalizers together, however long it is: three bytes for each space is
/// what ordinary ones do.
const ORDINARY: usize = 4;
/// Bytes that normalizers may add to that.
const MORE: usize = 64 << 20;
/// Longest text that one character may become in one step, in bytes.
const LONGEST_CONTENT: usize = 256;
/// Bytes of the pieces that are measured; shorter texts may become as long as one of so many.
const PIECE: usize = 1024;
/// Most tokens that a post-processor may put around a text.
const MOST_AROUND: usize = 256;

/// The most that normalizers multiply a text's bytes by, as far as it is known from the file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Growth {
    factor: f64,
}

/// Bytes that normalizers may make of a text, where they may add `more` to what is ordinary.
fn limit(from: usize, more: usize) -> usize {
    let relative = (MOST as usize).saturating_mul(from.max(PIECE));
    relative.min(from.saturating_mul(ORDINARY).saturating_add(more))
}

impl Growth {
    /// Bounds every part of a parsed `tokenizer.json`.
    ///
    /// # Errors
    /// When one step alone, or the pre-tokenizers or decoders together, go beyond what is allowed.
    pub(crate) fn of(file: &Value) -> Result<Growth, TokenizerError> {
        for (part, list) in [("pre_tokenizer", "pretokenizers"), ("decoder", "decoders")] {
            let factor = factor(part, &file[part], list)?;
            if factor > MOST {
                return Err(grows(part, 1, factor, MOST as usize));
            }
        }
        let around = around(&file["post_processor"]);
        if around > MOST_AROUND {
            return Err(grows("post_processor", 0, around as f64, MOST_AROUND));
        }
        Ok(Growth { factor: factor("normalizer", &file["normalizer"], "normalizers")? })
    }

    /// Whether it is measured what becomes of every text, those in the file among them.
    pub(crate) fn is_measured(self) -> bool {
        self.factor > MOST
    }

    /// Whether it is measured what becomes of this text.
    pub(crate) fn is_measured_on(self, text: &str) -> bool {
        self.is_measured() || self.factor * text.len() as f64 > limit(text.len(), MORE) as f64
    }
}

fn grows(part: &'static str, from: usize, to: f64, limit: usize) -> TokenizerError {
    TokenizerError::Grows { part, from, to: to as usize, limit }
}

/// The most that a part multiplies a text's bytes by; sequences multiply.
fn factor(part: &'static str, value: &Value, list: &str) -> Result<f64, TokenizerError> {
    if let Some(steps) = value.get(list).and_then(Value::as_array) {
        return steps.iter().try_fold(1.0, |product, step| Ok(product * factor(part, step, list)?));
    }
    let text = |key: &str| value.get(key).and_then(Value::as_str).map_or(0, str::len);
    let content =
        text("content").max(text("prepend")).max(text("replacement")).max(longest_in_charsmap(value));
    if content > LONGEST_CONTENT {
        return Err(grows(part, 1, content as f64, LONGEST_CONTENT));
    }
    let kind = value.get("type").and_then(Value::as_str).unwrap_or_default();
    Ok(match (kind, part) {
        // A string takes its own bytes away; an expression may match nothing, between any two characters.
        ("Replace", _) => match value.pointer("/pattern/String").and_then(Value::as_str) {
            Some(pattern) if !pattern.is_empty() => (content as f64 / pattern.len() as f64).max(1.0),
            _ => 1.0 + content as f64,
        },
        // In front of every piece, and a piece has a byte.
        ("Metaspace", _) => 2.0 * content.max(1) as f64,
        // Once for a text: it counts for short ones, and in long chains.
        ("Prepend", _) => 1.0 + content as f64 / 64.0,
        ("Precompiled", _) => content.max(1) as f64,
        // The longest compatibility decomposition has 18 characters.
        ("NFKD" | "NFKC", _) => 11.0,
        ("NFD" | "NFC", _) => 3.0,
        // Spaces around ideographs, decomposition, lower case.
        ("BertNormalizer" | "Bert", _) => 9.0,
        ("Lowercase", _) => 1.5,
        ("ByteLevel", "normalizer" | "pre_tokenizer") => 2.0,
        _ => 1.0,
    })
}

/// Longest replacement in SentencePiece's table: a trie, then strings that end with zero.
fn longest_in_charsmap(value: &Value) -> usize {
    let table =
        value.get("precompiled_charsmap").and_then(Value::as_str).map(decode_base64).unwrap_or_default();
    let Some((size, rest)) = table.split_first_chunk::<4>() else { return 0 };
    let strings = rest.get(u32::from_le_bytes(*size) as usize..).unwrap_or(rest);
    strings.split(|&byte| byte == 0).map(<[u8]>::len).max().unwrap_or(0)
}

/// Bytes of standard base64; what is none of its characters is passed over.
fn decode_base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let (mut bytes, mut held, mut bits) = (Vec::with_capacity(text.len() / 4 * 3), 0u32, 0);
    for value in text.bytes().filter_map(digit) {
        held = held << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
    }
    bytes
}

/// Tokens that a post-processor puts around one text, counted with the ids of each.
fn around(value: &Value) -> usize {
    if let Some(steps) = value.get("processors").and_then(Value::as_array) {
        return steps.iter().map(around).fold(0, usize::saturating_add);
    }
    let ids = |name: &str| {
        let ids =
            value.pointer("/special_tokens").and_then(|tokens| tokens.get(name)?.get("ids")?.as_array());
        ids.map_or(1, |ids| ids.len())
    };
    let single = value.get("single").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let piece = |piece: &Value| match piece.pointer("/SpecialToken/id").and_then(Value::as_str) {
        Some(name) => ids(name),
        None => 1, // the text itself: more than once would repeat it
    };
    single.iter().map(piece).fold(0, usize::saturating_add)
}

/// Runs the normalizers of a parsed `tokenizer.json` on what the library rewrites when it loads the file, the contents
/// of its added tokens, and on `probe`. To be done before the file is loaded.
///
/// # Errors
/// [`TokenizerError::Grows`], also where only all contents together become too long, and
/// [`TokenizerError::Unreadable`].
pub(crate) fn measure_loading(file: &Value, probe: &str) -> Result<(), TokenizerError> {
    let normalizer = NormalizerWrapper::deserialize(&file["normalizer"])
        .map_err(|error| TokenizerError::Unreadable(error.into()))?;
    alone(&normalizer, probe)?;
    let added = file["added_tokens"].as_array().map_or(&[][..], Vec::as_slice);
    let rewritten = added.iter().filter(|token| token["normalized"] != false);
    let contents: Vec<&str> = rewritten.filter_map(|token| token["content"].as_str()).collect();
    let from = contents.iter().map(|content| content.len()).sum::<usize>();
    let limit = limit(from, MORE);
    let mut to = 0;
    for content in contents {
        to += alone(&normalizer, content)?;
        if to > limit {
            return Err(TokenizerError::Grows { part: "normalizer", from, to, limit });
        }
    }
    Ok(())
}

/// Runs the normalizers on a whole text.
fn alone(normalizer: &NormalizerWrapper, text: &str) -> Result<usize, TokenizerError> {
    let measuring = Measuring::new(normalizer, text.len());
    measuring.run(&mut NormalizedString::from(text));
    measuring.outcome()
}

/// Runs a tokenizer's normalizers on a text as encoding it would, between its added tokens. Gives the bytes afterwards.
///
/// # Errors
/// [`TokenizerError::Grows`], before a text beyond what is allowed is made.
pub(crate) fn measure(
    tokenizer: &Tokenizer,
    normalizer: &NormalizerWrapper,
    text: &str,
) -> Result<usize, TokenizerError> {
    let measuring = Measuring::new(normalizer, text.len());
    tokenizer.get_added_vocabulary().extract_and_normalize(Some(&measuring), text);
    measuring.outcome()
}

/// Normalizers that are measured while they run, over all parts of a text; past what is allowed they do nothing more.
struct Measuring<'a> {
    normalizer: &'a NormalizerWrapper,
    /// Bytes of the text.
    from: usize,
    limit: usize,
    /// Bytes of the parts that are done.
    done: Cell<usize>,
    failed: RefCell<Option<TokenizerError>>,
}

impl Normalizer for Measuring<'_> {
    fn normalize(&self, text: &mut NormalizedString) -> tokenizers::Result<()> {
        self.run(text);
        Ok(())
    }
}

impl Measuring<'_> {
    fn new(normalizer: &NormalizerWrapper, from: usize) -> Measuring<'_> {
        let limit = limit(from, MORE);
        Measuring { normalizer, from, limit, done: Cell::new(0), failed: RefCell::new(None) }
    }

    fn run(&self, text: &mut NormalizedString) {
        if self.failed.borrow().is_some() {
            return;
        }
        match self.step(self.normalizer, text) {
            Ok(()) => self.done.set(self.done.get() + text.get().len()),
            Err(error) => *self.failed.borrow_mut() = Some(error),
        }
    }

    fn step(
        &self,
        normalizer: &NormalizerWrapper,
        text: &mut NormalizedString,
    ) -> Result<(), TokenizerError> {
        if let NormalizerWrapper::Sequence(steps) = normalizer {
            return steps.as_ref().iter().try_for_each(|normalizer| self.step(normalizer, text));
        }
        // What an expression finds depends on the whole text; other steps look at a few characters.
        match normalizer {
            NormalizerWrapper::Replace(replace) => self.count(replace, text.get())?,
            other => self.check(by_pieces(other, text.get())?)?,
        }
        normalizer.normalize(text).map_err(TokenizerError::Encode)?;
        self.check(text.get().len())
    }

    /// Counts what a replacement makes of a text, and stops at the first byte too many: nothing is made.
    fn count(&self, replace: &Replace, text: &str) -> Result<(), TokenizerError> {
        let content = replace.content.len();
        // What is kept between the matches counts when its end is known.
        let (mut bytes, mut end) = (0usize, 0usize);
        let mut add = |(from, to): (usize, usize)| {
            bytes = bytes.saturating_add(from.saturating_sub(end)).saturating_add(content);
            end = to;
            self.check(bytes)
        };
        match Pattern::of(replace)?.0 {
            ReplacePattern::String(pattern) => {
                text.match_indices(&pattern).try_for_each(|(at, found)| add((at, at + found.len())))?;
            }
            ReplacePattern::Regex(pattern) => {
                let regex = SysRegex::new(&pattern).map_err(TokenizerError::Encode)?;
                regex.find_iter(text).try_for_each(&mut add)?;
            }
        }
        self.check(bytes.saturating_add(text.len().saturating_sub(end)))
    }

    fn check(&self, bytes: usize) -> Result<(), TokenizerError> {
        let Measuring { from, limit, .. } = *self;
        match self.done.get().saturating_add(bytes) {
            to if to > limit => Err(TokenizerError::Grows { part: "normalizer", from, to, limit }),
            _ => Ok(()),
        }
    }

    fn outcome(self) -> Result<usize, TokenizerError> {
        self.failed.into_inner().map_or(Ok(self.done.get()), Err)
    }
}

/// What a replacement looks for, which the library shows in its file's form alone.
struct Pattern(ReplacePattern);

impl Pattern {
    fn of(replace: &Replace) -> Result<Pattern, TokenizerError> {
        let unreadable = |error: serde_json::Error| TokenizerError::Unreadable(error.into());
        let mut written = serde_json::to_value(replace).map_err(unreadable)?;
        let pattern = written.get_mut("pattern").map(Value::take).unwrap_or_default();
        serde_json::from_value(pattern).map(Pattern).map_err(unreadable)
    }
}

/// Bytes that a normalizer makes of the pieces of a text.
fn by_pieces(normalizer: &NormalizerWrapper, text: &str) -> Result<usize, TokenizerError> {
    let (mut rest, mut bytes) = (text, 0);
    while !rest.is_empty() {
        let cut = rest.len().min(PIECE);
        let cut = (cut..=rest.len()).find(|&at| rest.is_char_boundary(at)).unwrap_or(rest.len());
        let (piece, tail) = rest.split_at(cut);
        let mut normalized = NormalizedString::from(piece);
        normalizer.normalize(&mut normalized).map_err(TokenizerError::Encode)?;
        bytes += normalized.get().len();
        rest = tail;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn replace(pattern: &str, content: &str) -> Value {
        json!({"type": "Replace", "pattern": {"String": pattern}, "content": content})
    }

    fn sequence(steps: &[Value]) -> Value {
        json!({"normalizer": {"type": "Sequence", "normalizers": steps}})
    }

    fn run(file: &Value, text: &str) -> Result<usize, TokenizerError> {
        alone(&serde_json::from_value(file["normalizer"].clone()).unwrap(), text)
    }

    #[test]
    fn what_tokenizers_have_is_bounded() {
        let prefix = json!({"type": "Prepend", "prepend": "▁"});
        let ordinary = Growth::of(&sequence(&[prefix, replace(" ", "▁")])).unwrap();
        assert!(!ordinary.is_measured() && ordinary.factor <= ORDINARY as f64);
        let nfc = json!({"normalizer": {"type": "NFC"}, "pre_tokenizer": {"type": "ByteLevel"}});
        assert!(Growth::of(&nfc).unwrap().factor <= ORDINARY as f64);
    }

    #[test]
    fn a_chain_is_measured_and_stopped() {
        // Three steps of 10: a thousand times as long.
        let chain =
            sequence(&[replace("a", "bbbbbbbbbb"), replace("b", "cccccccccc"), replace("c", "dddddddddd")]);
        assert!(Growth::of(&chain).unwrap().is_measured());
        assert_eq!(run(&chain, &"xyz ".repeat(2000)).unwrap(), 8000);
        run(&chain, &format!("a{}", "x".repeat(4000))).unwrap();
        let error = run(&chain, &"a".repeat(2000)).unwrap_err();
        let TokenizerError::Grows { part: "normalizer", from: 2000, to, limit: 128_000 } = error else {
            panic!("{error}")
        };
        assert_eq!(to, 128_010, "stopped at the first of the second step that is too much");
    }

    /// Sixty-four times a long text is much, too: what may be added does not grow with the text.
    #[test]
    fn what_long_texts_may_become_is_bounded_in_bytes() {
        assert_eq!((limit(0, MORE), limit(2000, MORE)), (64 * PIECE, 128_000));
        assert_eq!((limit(2000, 100), limit(100 << 20, MORE)), (8100, 464 << 20));
        assert_eq!(limit(usize::MAX, MORE), usize::MAX);
        // Ten bytes for each: allowed for a short text, and to be measured on one for which it may be too much.
        let ten = sequence(&[replace("a", "bbbbbbbbbb")]);
        let growth = Growth::of(&ten).unwrap();
        let first = (MORE / 6).next_multiple_of(2);
        let text = "x".repeat(first + 2);
        assert!(!growth.is_measured());
        assert_eq!((growth.is_measured_on(&text[..first - 2]), growth.is_measured_on(&text)), (false, true));
        let normalizer: NormalizerWrapper = serde_json::from_value(ten["normalizer"].clone()).unwrap();
        let run = |text: &str| {
            let all = Measuring::new(&normalizer, text.len());
            assert_eq!(all.limit, limit(text.len(), MORE));
            let measuring = Measuring { limit: limit(text.len(), 100), ..all };
            measuring.run(&mut NormalizedString::from(text));
            measuring.outcome()
        };
        assert_eq!(run(&"xaxx".repeat(50)).unwrap(), 650);
        let error = run(&"a".repeat(200)).unwrap_err();
        assert!(matches!(error, TokenizerError::Grows { from: 200, to: 910, limit: 900, .. }), "{error}");
    }

    /// A piece of the text does not match, all of it does: in front of every character but the last 2000.
    #[test]
    fn an_expression_that_looks_far_ahead_is_measured_on_the_whole() {
        let pattern = json!({"Regex": "(?=x{2000})"});
        let ahead = sequence(&[json!({"type": "Replace", "pattern": pattern, "content": "y".repeat(200)})]);
        assert!(Growth::of(&ahead).unwrap().is_measured());
        assert_eq!(run(&ahead, &"x".repeat(1999)).unwrap(), 1999);
        assert_eq!(run(&ahead, &"x".repeat(2000)).unwrap(), 2200);
        let error = run(&ahead, &"x".repeat(4000)).unwrap_err();
        assert!(
            matches!(error, TokenizerError::Grows { from: 4000, limit: 256_000, to: 256_073, .. }),
            "{error}"
        );
    }

    /// Counted alone, without the replaced text: what is asked for is refused where the limit is low.
    #[test]
    fn replacements_are_counted_before_they_are_made() {
        let count = |pattern: Value, content: &str, text: &str, limit: usize| {
            let step = json!({"type": "Replace", "pattern": pattern, "content": content});
            let normalizer: NormalizerWrapper = serde_json::from_value(step).unwrap();
            let NormalizerWrapper::Replace(replace) = &normalizer else { panic!("{normalizer:?}") };
            let mut made = NormalizedString::from(text);
            replace.normalize(&mut made).unwrap();
            let measuring = Measuring { limit, ..Measuring::new(&normalizer, text.len()) };
            (measuring.count(replace, text), made.get().len())
        };
        for (pattern, content, text) in [
            (json!({"String": "ab"}), "xyz", "abcabab"),
            (json!({"String": "ab"}), "", "cabab\u{E9}"),
            (json!({"String": "."}), "--", "a.b.c"),
            (json!({"Regex": "[a-c]+"}), "12345678", "a bb c d"),
            (json!({"Regex": "^"}), "\u{2581}", "one two"),
            (json!({"Regex": "(?= )"}), "-", "one two three"),
            (json!({"Regex": "nowhere"}), "x", "one two"),
        ] {
            let (fits, made) = count(pattern.clone(), content, text, usize::MAX);
            fits.unwrap();
            // Just the limit, and one byte below it.
            count(pattern.clone(), content, text, made).0.unwrap();
            let error = count(pattern.clone(), content, text, made - 1).0.unwrap_err();
            assert!(matches!(error, TokenizerError::Grows { to, .. } if to == made), "{pattern}: {error}");
        }
        // It stops early.
        let error = count(json!({"Regex": "a"}), "xxxxxxxxxx", &"a".repeat(1000), 100).0.unwrap_err();
        assert!(matches!(error, TokenizerError::Grows { to: 110, limit: 100, .. }), "{error}");
    }

    /// The library normalizes what is between two added tokens by itself.
    #[test]
    fn parts_between_added_tokens_are_measured_as_they_are_encoded() {
        let file = json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": [{"id": 1, "content": "|", "special": true, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false}],
            "normalizer": {"type": "Replace", "pattern": {"Regex": "^"}, "content": "y".repeat(200)},
            "pre_tokenizer": null, "post_processor": null, "decoder": null,
            "model": {"type": "WordLevel", "vocab": {"x": 0}, "unk_token": "x"},
        });
        let tokenizer: Tokenizer = file.to_string().parse().unwrap();
        let normalizer = tokenizer.get_normalizer().unwrap();
        let text = "x|".repeat(2000);
        assert_eq!(alone(normalizer, &text).unwrap(), 4200);
        let error = measure(&tokenizer, normalizer, &text).unwrap_err();
        assert!(matches!(error, TokenizerError::Grows { from: 4000, limit: 256_000, .. }), "{error}");
        assert!(measure(&tokenizer, normalizer, &"x|".repeat(200)).is_ok());
    }

    #[test]
    fn one_long_step_is_refused_unseen() {
        for content in ["x".repeat(257), "é".repeat(200)] {
            let error = Growth::of(&sequence(&[replace("a", &content)])).unwrap_err();
            assert!(matches!(error, TokenizerError::Grows { part: "normalizer", limit: 256, .. }), "{error}");
        }
        let bytes = json!({"type": "ByteLevel"});
        let twice = json!({"pre_tokenizer": {"type": "Sequence", "pretokenizers": vec![bytes; 7]}});
        assert!(matches!(
            Growth::of(&twice).unwrap_err(),
            TokenizerError::Grows { part: "pre_tokenizer", .. }
        ));
        let template = json!({"post_processor": {"type": "TemplateProcessing",
            "single": vec![json!({"SpecialToken": {"id": "<s>", "type_id": 0}}); 20],
            "special_tokens": {"<s>": {"id": "<s>", "ids": vec![1; 20], "tokens": ["<s>"]}}}});
        assert!(matches!(
            Growth::of(&template).unwrap_err(),
            TokenizerError::Grows { part: "post_processor", to: 400, .. }
        ));
    }

    #[test]
    fn charsmap_by_its_longest_string() {
        // Four bytes of trie, then "ab\0" and "xyz\0".
        let table = [4u8, 0, 0, 0, 9, 9, 9, 9, b'a', b'b', 0, b'x', b'y', b'z', 0];
        assert_eq!(longest_in_charsmap(&json!({"precompiled_charsmap": "BAAAAAkJCQlhYgB4eXoA"})), 3);
        assert_eq!(decode_base64("BAAAAAkJCQlhYgB4eXoA"), table);
    }
}
