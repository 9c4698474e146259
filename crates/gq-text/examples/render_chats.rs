//! Renders many conversations: one JSON object a line with `template`, `messages` and, where wanted,
//! `tokenizer_config`, `add_generation_prompt`, `variables` and `now` (what `strftime_now` returns). For each, a line
//! with `text` or `error` is written. `scripts/check_chat_templates.py` compares them with the Hub's library.

use gq_text::{ChatMessage, ChatOptions, ChatTemplate, ModelTexts};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::error::Error;
use std::io::{BufRead, Write};
use std::sync::Arc;

#[derive(Deserialize)]
struct Case {
    template: String,
    messages: Vec<ChatMessage>,
    #[serde(default)]
    tokenizer_config: Value,
    #[serde(default)]
    add_generation_prompt: bool,
    #[serde(default)]
    variables: Map<String, Value>,
    now: Option<String>,
}

fn render(case: Case) -> Result<String, Box<dyn Error>> {
    let config = if case.tokenizer_config.is_null() { json!({}) } else { case.tokenizer_config };
    let texts = ModelTexts {
        chat_template: Some(case.template),
        tokenizer_config: Some(config.to_string()),
        ..ModelTexts::default()
    };
    let mut template = ChatTemplate::new(&texts)?;
    if let Some(now) = case.now {
        template = template.with_clock(Arc::new(move |_: &str| Ok(now.clone())));
    }
    let options = ChatOptions { add_generation_prompt: case.add_generation_prompt, extra: case.variables };
    Ok(template.render(&case.messages, &options)?)
}

/// An error and what it comes from.
fn chain(error: &dyn Error) -> String {
    let source = error.source().map(|source| format!(": {}", chain(source)));
    format!("{error}{}", source.unwrap_or_default())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let answer = match render(serde_json::from_str(&line?)?) {
            Ok(text) => json!({"text": text}),
            Err(error) => json!({"error": chain(error.as_ref())}),
        };
        writeln!(out, "{answer}")?;
    }
    Ok(())
}
