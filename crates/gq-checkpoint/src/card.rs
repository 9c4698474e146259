//! The front matter of a model card: the part of YAML that cards are written in.

use std::collections::BTreeMap;

/// What a card says about its model: keys with text or lists of texts. Nested values are passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Card(BTreeMap<String, CardValue>);

/// A value of a card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CardValue {
    /// `null`, or nothing after the colon.
    Nothing,
    /// One text.
    Text(String),
    /// Texts; items that are none are left out.
    List(Vec<String>),
}

impl Card {
    /// Reads what stands between the first two lines `---` of a `README.md`; empty where there is no such thing.
    pub fn parse(readme: &str) -> Card {
        let mut lines = readme.trim_start_matches('\u{feff}').lines();
        if lines.next().map(str::trim_end) != Some("---") {
            return Card::default();
        }
        let lines: Vec<String> =
            lines.take_while(|line| line.trim_end() != "---").map(|line| line.replace('\t', "  ")).collect();
        let mut card = Card::default();
        let mut at = 0;
        while let Some(line) = lines.get(at) {
            at += 1;
            let Some((key, rest)) = key_of(line) else { continue };
            let block = lines.get(at..).unwrap_or_default().iter().take_while(|line| belongs(line)).count();
            let block = lines.get(at..at + block).unwrap_or_default();
            at += block.len();
            if let Some(value) = value(rest, block) {
                card.0.insert(key.to_owned(), value);
            }
        }
        card
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

/// `key: rest` at the margin.
fn key_of(line: &str) -> Option<(&str, &str)> {
    let (key, rest) = line.split_once(':')?;
    let key = key.trim_end().trim_matches(['"', '\'']);
    let plain = !key.is_empty() && !key.starts_with([' ', '-', '#']);
    (plain && (rest.is_empty() || rest.starts_with(' '))).then(|| (key, rest.trim()))
}

/// Whether a line goes on with the value above it: it is indented, empty, a comment or an item of a list.
fn belongs(line: &str) -> bool {
    line.trim().is_empty() || line.starts_with([' ', '#']) || line == "-" || line.starts_with("- ")
}

fn value(rest: &str, block: &[String]) -> Option<CardValue> {
    if let Some(style) = rest.chars().next().filter(|c| matches!(c, '|' | '>')) {
        return Some(CardValue::Text(block_text(block, style, rest.ends_with('-'))));
    }
    let rest = without_comment(rest);
    let lines = block.iter().map(|line| without_comment(line.trim())).filter(|line| !line.is_empty());
    let lines: Vec<&str> = lines.collect();
    if rest.starts_with('[') {
        let whole = [&[rest], &lines[..]].concat().join(" ");
        let inner = whole.strip_prefix('[')?.strip_suffix(']')?;
        return Some(CardValue::List(inner.split(',').filter_map(|item| scalar(item.trim())).collect()));
    }
    if !rest.is_empty() {
        return match scalar(&[&[rest], &lines[..]].concat().join(" ")) {
            Some(text) => Some(CardValue::Text(text)),
            None if is_boolean(rest) => None,
            None => Some(CardValue::Nothing),
        };
    }
    let Some(first) = lines.first() else { return Some(CardValue::Nothing) };
    if !is_item(first) {
        return None; // A map, or text that begins on a line of its own.
    }
    let margin = block.iter().find(|line| is_item(line.trim())).map_or(0, |line| indent(line));
    let items = block.iter().filter(|line| indent(line) == margin).filter_map(|line| {
        let item = without_comment(line.trim().strip_prefix("- ")?.trim());
        // The answer no is a language here.
        let item = if item == "no" { "\"no\"" } else { item };
        scalar(item).filter(|_| !is_map(item))
    });
    Some(CardValue::List(items.collect()))
}

fn is_item(line: &str) -> bool {
    line == "-" || line.starts_with("- ")
}

fn is_map(item: &str) -> bool {
    !item.starts_with(['"', '\'']) && (item.contains(": ") || item.ends_with(':') || item.starts_with('{'))
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// What stands before ` #`, outside quotes.
fn without_comment(text: &str) -> &str {
    if text.starts_with('#') {
        return "";
    }
    match text.starts_with(['"', '\'']) {
        true => text,
        false => text.split(" #").next().unwrap_or(text).trim_end(),
    }
}

fn is_boolean(text: &str) -> bool {
    matches!(text.to_ascii_lowercase().as_str(), "true" | "false" | "yes" | "no" | "on" | "off")
}

/// A text in quotes or without; `None` for nothing and for truth values.
fn scalar(text: &str) -> Option<String> {
    if let Some(inner) = text.strip_prefix('"') {
        let inner = &inner[..inner.rfind('"')?];
        return Some(inner.replace("\\\"", "\"").replace("\\\\", "\\"));
    }
    if let Some(inner) = text.strip_prefix('\'') {
        return Some(inner[..inner.rfind('\'')?].replace("''", "'"));
    }
    let nothing = matches!(text, "" | "~" | "null" | "Null" | "NULL");
    (!nothing && !is_boolean(text)).then(|| text.to_owned())
}

/// A block scalar: lines as they are (`|`) or joined by spaces (`>`), less their common indentation.
fn block_text(block: &[String], style: char, strip: bool) -> String {
    let margin =
        block.iter().filter(|line| !line.trim().is_empty()).map(|line| indent(line)).min().unwrap_or(0);
    let lines = block.iter().map(|line| line.get(margin..).unwrap_or_default().trim_end());
    let joined = lines.collect::<Vec<_>>().join(if style == '|' { "\n" } else { " " });
    let text = joined.trim_end().to_owned();
    if strip || text.is_empty() { text } else { text + "\n" }
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
        );
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
    fn other_texts_have_none() {
        for text in ["", "license: mit\n", "\n---\nlicense: mit\n---\n", "# Title\n---\na: b\n---\n"] {
            assert_eq!(Card::parse(text), Card::default(), "{text}");
        }
        for text in
            ["---\n[\n---\n", "---\na: \"\n---", "---\na: [\n", "---\n: b\n- a\n", "---\na: '\n  - b\n"]
        {
            Card::parse(text);
        }
    }
}
