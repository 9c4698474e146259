//! The front matter of a model card: YAML between two lines `---`.

use granit_parser::{Event, Parser, ScalarStyle, ScanError, StructureStyle};
use std::collections::BTreeMap;

/// What a card says about its model: keys with text or lists of texts. Nested values are passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Card(BTreeMap<String, CardValue>);

/// A value of a card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CardValue {
    /// `null`, or nothing after the colon.
    Nothing,
    /// One text, as it was written: a number keeps its digits.
    Text(String),
    /// Texts; items that are none are left out.
    List(Vec<String>),
}

/// Front matter that is no YAML, or no mapping of keys to values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct CardError {
    /// Line of the file, from 1.
    pub line: usize,
    /// What the parser says.
    pub why: String,
}

impl Card {
    /// Reads what stands between the first two lines `---` of a `README.md`; empty where there is no such thing.
    ///
    /// Read as llama.cpp's converter does: a tab is two spaces, the last of two equal keys counts, and `- no` is a language.
    /// Truth values are passed over, and so are anchors' copies: a copy of a copy could be of any size.
    ///
    /// # Errors
    /// When it is no YAML, or no mapping.
    pub fn parse(readme: &str) -> Result<Card, CardError> {
        let mut lines = readme.trim_start_matches('\u{feff}').lines();
        if lines.next().map(str::trim_end) != Some("---") {
            return Ok(Card::default());
        }
        let lines = lines.take_while(|line| line.trim_end() != "---");
        let yaml = lines.fold(String::new(), |yaml, line| yaml + &line.replace('\t', "  ") + "\n");
        let mut events = Events { parser: Parser::new_from_str(&yaml), line: 1 };
        let mut card = Card::default();
        loop {
            match events.next()? {
                Event::MappingStart(..) => break,
                Event::StreamEnd => return Ok(card),
                Event::StreamStart | Event::DocumentStart(..) | Event::Comment(..) => {}
                // Nothing at all, or comments alone.
                Event::Scalar(text, ..) if text.is_empty() => return Ok(card),
                _ => {
                    return Err(CardError {
                        line: events.line,
                        why: "keys with values are needed".to_owned(),
                    });
                }
            }
        }
        loop {
            let key = match events.next()? {
                Event::MappingEnd | Event::StreamEnd => return Ok(card),
                Event::Scalar(key, ..) => Some(key.into_owned()),
                Event::Comment(..) => continue,
                other => {
                    events.pass(&other)?;
                    None
                }
            };
            if let (Some(key), Some(value)) = (key, events.value()?) {
                card.0.insert(key, value);
            }
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&CardValue> {
        self.0.get(key)
    }

    /// The text of a key.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            CardValue::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Sets a key.
    pub fn set(&mut self, key: &str, value: CardValue) {
        self.0.insert(key.to_owned(), value);
    }
}

/// What the parser finds, and the line of the file where.
struct Events<'a> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    line: usize,
}

impl<'a> Events<'a> {
    fn next(&mut self) -> Result<Event<'a>, CardError> {
        match self.parser.next() {
            Some(Ok((event, span))) => {
                self.line = span.start.line() + 1; // behind the line `---`
                Ok(event)
            }
            Some(Err(error)) => Err(failed(&error)),
            None => Ok(Event::StreamEnd),
        }
    }

    /// The next value, if it is one of a card's.
    fn value(&mut self) -> Result<Option<CardValue>, CardError> {
        loop {
            return match self.next()? {
                Event::Comment(..) => continue,
                Event::Scalar(text, style, ..) => Ok(match scalar(&text, style) {
                    Scalar::Text => Some(CardValue::Text(text.into_owned())),
                    Scalar::Nothing => Some(CardValue::Nothing),
                    Scalar::Truth => None,
                }),
                Event::SequenceStart(style, ..) => self.list(style).map(|list| Some(CardValue::List(list))),
                other => self.pass(&other).map(|()| None),
            };
        }
    }

    /// The texts of a list that has begun.
    fn list(&mut self, list: StructureStyle) -> Result<Vec<String>, CardError> {
        let mut texts = Vec::new();
        loop {
            match self.next()? {
                Event::SequenceEnd | Event::StreamEnd => return Ok(texts),
                Event::Scalar(text, style, ..) => {
                    // The answer no is a language here.
                    let language = text == "no" && list == StructureStyle::Block;
                    if language || matches!(scalar(&text, style), Scalar::Text) {
                        texts.push(text.into_owned());
                    }
                }
                other => self.pass(&other)?,
            }
        }
    }

    /// Passes over what is in a list or mapping that has begun.
    fn pass(&mut self, begun: &Event<'a>) -> Result<(), CardError> {
        let opens = |event: &Event<'_>| matches!(event, Event::SequenceStart(..) | Event::MappingStart(..));
        let mut depth = u32::from(opens(begun));
        while depth > 0 {
            match self.next()? {
                Event::SequenceEnd | Event::MappingEnd => depth -= 1,
                Event::StreamEnd => return Ok(()),
                event => depth += u32::from(opens(&event)),
            }
        }
        Ok(())
    }
}

fn failed(error: &ScanError) -> CardError {
    CardError { line: error.marker().line() + 1, why: error.info() }
}

/// What a scalar is.
enum Scalar {
    Text,
    Nothing,
    Truth,
}

/// In quotes and in blocks everything is text.
fn scalar(text: &str, style: ScalarStyle) -> Scalar {
    match (style, text) {
        (ScalarStyle::Plain, "" | "~" | "null" | "Null" | "NULL") => Scalar::Nothing,
        (ScalarStyle::Plain, text) if is_boolean(text) => Scalar::Truth,
        _ => Scalar::Text,
    }
}

fn is_boolean(text: &str) -> bool {
    matches!(text.to_ascii_lowercase().as_str(), "true" | "false" | "yes" | "no" | "on" | "off")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(items: &[&str]) -> CardValue {
        CardValue::List(items.iter().map(|item| (*item).to_owned()).collect())
    }

    #[test]
    fn what_cards_are_written_in() {
        let card = Card::parse(
            "---\n# a comment\nlicense: \"apache-2.0\"  \nlanguage:\n- en\n- no # Norwegian\n- 'pt-br'\ntags: [a, \"b c\"]\n\
             base_model:\n  - org/one\n  - org/two\npipeline_tag: text-generation # what it is for\nnothing:\ninference: false\n\
             model-index:\n- name: x\n  results:\n  - task: y\nwidget:\n  text: hi\nabout: |\n  two\n  lines\nfolded: >-\n  one\n  line\n---\nlicense: mit\n",
        )
        .unwrap();
        assert_eq!(card.text("license"), Some("apache-2.0"));
        assert_eq!(card.get("language"), Some(&list(&["en", "no", "pt-br"])));
        assert_eq!(card.get("tags"), Some(&list(&["a", "b c"])));
        assert_eq!(card.get("base_model"), Some(&list(&["org/one", "org/two"])));
        assert_eq!(card.text("pipeline_tag"), Some("text-generation"));
        assert_eq!(card.get("nothing"), Some(&CardValue::Nothing));
        assert_eq!((card.get("inference"), card.get("widget")), (None, None));
        assert_eq!(card.get("model-index"), Some(&list(&[])));
        assert_eq!((card.text("about"), card.text("folded")), (Some("two\nlines\n"), Some("one line")));
    }

    #[test]
    fn what_a_parser_of_yaml_knows() {
        let card = Card::parse(
            "\u{feff}---\r\ntags: [\"a, b\", 'it''s', c]\r\nlicense: a\nescaped: \"\\u0041\\x42\"\nurl: http://a.b/c:d#e\nversion: 1.10\n\
             name: >\n  one\n  line\n\n  two\nkept: |+\n  x\n\nlast: |2\n    y\nmap: {a: [b, {c: d}], e: f}\n\
             base: &b org/x\ncopy: *b\nlicense: mit\n? [k]\n: v\nlong: plain text\n  goes on\n---  \n: not: yaml\n",
        )
        .unwrap();
        assert_eq!(card.get("tags"), Some(&list(&["a, b", "it's", "c"])));
        assert_eq!((card.text("license"), card.text("version")), (Some("mit"), Some("1.10")));
        assert_eq!((card.text("name"), card.text("kept")), (Some("one line\ntwo\n"), Some("x\n\n")));
        assert_eq!((card.text("last"), card.text("long")), (Some("  y\n"), Some("plain text goes on")));
        assert_eq!((card.text("url"), card.text("base")), (Some("http://a.b/c:d#e"), Some("org/x")));
        assert_eq!((card.text("escaped"), card.get("map"), card.get("copy")), (Some("AB"), None, None));
    }

    #[test]
    fn other_texts_have_none() {
        for text in [
            "",
            "license: mit\n",
            "\n---\nlicense: mit\n---\n",
            "# Title\n---\na: b\n---\n",
            "---\n",
            "---\n# c\n---\n",
        ] {
            assert_eq!(Card::parse(text), Ok(Card::default()), "{text}");
        }
    }

    #[test]
    fn what_is_no_yaml_is_said_with_its_line() {
        for (text, line) in [
            ("---\n[\n---\n", 2),
            ("---\nb: c\na: \"\n---", 3),
            ("---\na: [\n", 2),
            ("---\na: b: c\n", 2),
            ("---\nx: y\na: 'b\n", 3),
            ("---\n- a\n- b\n---\n", 2),
            ("---\na: *b\n", 2),
            ("---\na\n---\n", 2),
        ] {
            assert_eq!(Card::parse(text).map_err(|error| error.line), Err(line), "{text}");
        }
        // Deeper than anybody writes: an error, and no stack that overflows.
        let deep = format!("---\na: {}\n", "[".repeat(200_000));
        assert!(Card::parse(&deep).is_err());
    }
}
