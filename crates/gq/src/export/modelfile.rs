//! A Modelfile for Ollama: the chat template in Go's language, stop strings, sampling parameters.
//!
//! The template is not translated but learned: the model's own template is rendered with marked words, and what stands
//! between the words is what Ollama has to write there. Longer conversations then have to come out the same.

use gq_text::{ChatMessage, ChatOptions, ChatTemplate, ModelTexts, Tokenizer};
use serde_json::Value;
use std::cell::Cell;
use std::fmt::Write;

/// A Modelfile and what could not be put in it.
#[derive(Debug)]
pub struct Modelfile {
    /// Content.
    pub text: String,
    /// What a person has to know.
    pub warnings: Vec<String>,
}

/// What a template writes between the words of a conversation.
#[derive(Debug, PartialEq)]
struct Pieces {
    /// Before a system message, and between it and the first question; `None` when the template refuses one.
    system: Option<(String, String)>,
    /// Before the first question without a system message.
    start: String,
    /// From a question to its answer.
    answer: String,
    /// From an answer to the next question.
    question: String,
    /// After the last question.
    prompt: String,
}

/// Writes the Modelfile of a GGUF that lies next to it under the name `file`.
pub fn modelfile(file: &str, texts: &ModelTexts, tokenizer: Option<&Tokenizer>) -> Modelfile {
    let mut text = format!("FROM ./{file}\n");
    let mut warnings = Vec::new();
    let chat = ChatTemplate::new(texts).ok();
    let bos = tokenizer.and_then(|tokenizer| tokenizer.content(tokenizer.bos()?));
    match chat.as_ref().map(|chat| Pieces::learn(chat, bos.as_deref())) {
        None => warnings.push("the model has no chat template, and the Modelfile none either".to_owned()),
        Some(Some((pieces, begins))) => {
            if let (Some(bos), false) = (&bos, begins) {
                warnings.push(format!(
                    "the chat template does not begin with {bos}, but Ollama puts it in front of every chat: answers may differ"
                ));
            }
            let _ = writeln!(text, "TEMPLATE \"\"\"{}\"\"\"", pieces.template());
        }
        Some(None) => warnings.push(
            "the chat template cannot be said in Ollama's language: the Modelfile has none, write it by hand"
                .to_owned(),
        ),
    }
    let stops = tokenizer.map_or_else(Vec::new, |tokenizer| tokenizer.stop_tokens(chat.as_ref()));
    for stop in stops.iter().filter_map(|&token| tokenizer.and_then(|tokenizer| tokenizer.content(token))) {
        let _ = writeln!(text, "PARAMETER stop {}", Value::from(stop));
    }
    let settings: Value = texts
        .generation_config
        .as_deref()
        .map_or(Value::Null, |text| serde_json::from_str(text).unwrap_or_default());
    let names = [
        ("temperature", "temperature"),
        ("top_k", "top_k"),
        ("top_p", "top_p"),
        ("min_p", "min_p"),
        ("repetition_penalty", "repeat_penalty"),
    ];
    for (key, name) in names {
        if let Some(number) = settings.get(key).filter(|value| value.is_number()) {
            let _ = writeln!(text, "PARAMETER {name} {number}");
        }
    }
    Modelfile { text, warnings }
}

/// Words that no template has.
const SYSTEM: &str = "gqSystemWords";
const QUESTIONS: [&str; 3] = ["gqQuestionOne", "gqQuestionTwo", "gqQuestionThree"];
const ANSWERS: [&str; 2] = ["gqAnswerOne", "gqAnswerTwo"];

impl Pieces {
    /// The pieces, and whether the template begins with `bos`; `None` when it does not put the same between the words
    /// of every conversation.
    fn learn(chat: &ChatTemplate, bos: Option<&str>) -> Option<(Pieces, bool)> {
        let begins = Cell::new(true);
        let render = |system: bool, turns: usize| -> Option<String> {
            let mut messages = Vec::new();
            messages.extend(system.then(|| ChatMessage::new("system", SYSTEM)));
            for turn in 0..turns {
                messages.push(ChatMessage::new("user", QUESTIONS[turn]));
                messages.extend((turn + 1 < turns).then(|| ChatMessage::new("assistant", ANSWERS[turn])));
            }
            let options = ChatOptions { add_generation_prompt: true, ..ChatOptions::default() };
            let text = chat.render(&messages, &options).ok()?;
            // The tokenizer adds the first token by itself.
            let rest = bos.and_then(|bos| text.strip_prefix(bos));
            begins.set(begins.get() && rest.is_some());
            Some(rest.unwrap_or(&text).to_owned())
        };
        let two = render(false, 2)?;
        let (start, rest) = two.split_once(QUESTIONS[0])?;
        let (answer, rest) = rest.split_once(ANSWERS[0])?;
        let (question, prompt) = rest.split_once(QUESTIONS[1])?;
        let system = render(true, 1).and_then(|text| {
            let (before, rest) = text.split_once(SYSTEM)?;
            let (between, _) = rest.split_once(QUESTIONS[0])?;
            Some((before.to_owned(), between.to_owned()))
        });
        let own = |text: &str| text.to_owned();
        let pieces = Pieces {
            system,
            start: own(start),
            answer: own(answer),
            question: own(question),
            prompt: own(prompt),
        };
        let same = (1..=3).all(|turns| render(false, turns) == Some(pieces.conversation(false, turns)));
        let with_system = pieces.system.is_none()
            || (1..=3).all(|turns| render(true, turns) == Some(pieces.conversation(true, turns)));
        let parts = [&pieces.start, &pieces.answer, &pieces.question, &pieces.prompt];
        let system = pieces.system.iter().flat_map(|(before, between)| [before, between]);
        let sayable =
            parts.into_iter().chain(system).all(|part| !part.contains("{{") && !part.contains("\"\"\""));
        (same && with_system && sayable).then_some((pieces, begins.get()))
    }

    /// What the Go template makes of a conversation.
    fn conversation(&self, system: bool, turns: usize) -> String {
        let mut text = match (&self.system, system) {
            (Some((before, between)), true) => format!("{before}{SYSTEM}{between}"),
            _ => self.start.clone(),
        };
        for turn in 0..turns {
            if turn > 0 {
                text += &format!("{}{}{}", self.answer, ANSWERS[turn - 1], self.question);
            }
            text += QUESTIONS[turn];
        }
        text + &self.prompt
    }

    /// In Go's language.
    fn template(&self) -> String {
        let Pieces { system, start, answer, question, prompt } = self;
        let start = match system {
            Some((before, between)) => {
                format!(
                    "{{{{ if .System }}}}{before}{{{{ .System }}}}{between}{{{{ else }}}}{start}{{{{ end }}}}"
                )
            }
            None => start.clone(),
        };
        format!(
            "{{{{ $again := false }}}}{start}{{{{ range .Messages }}}}{{{{ if eq .Role \"user\" }}}}\
             {{{{ if $again }}}}{question}{{{{ end }}}}{{{{ .Content }}}}\
             {{{{ else if eq .Role \"assistant\" }}}}{answer}{{{{ .Content }}}}{{{{ $again = true }}}}\
             {{{{ end }}}}{{{{ end }}}}{prompt}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(template: &str) -> ModelTexts {
        let config = r#"{"bos_token": "<bos>"}"#.to_owned();
        ModelTexts {
            chat_template: Some(template.to_owned()),
            tokenizer_config: Some(config),
            generation_config: Some(r#"{"top_k": 64, "temperature": 0.7, "do_sample": true}"#.to_owned()),
            ..ModelTexts::default()
        }
    }

    #[test]
    fn a_default_system_message_is_kept() {
        let template = "{% if messages[0].role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}\
            {% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}\
            {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
        let made = modelfile("m.gguf", &texts(template), None);
        assert!(made.warnings.is_empty(), "{:?}", made.warnings);
        assert_eq!(
            made.text,
            "FROM ./m.gguf\nTEMPLATE \"\"\"{{ $again := false }}{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n\
             <|im_start|>user\n{{ else }}<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n{{ end }}\
             {{ range .Messages }}{{ if eq .Role \"user\" }}{{ if $again }}<|im_end|>\n<|im_start|>user\n{{ end }}\
             {{ .Content }}{{ else if eq .Role \"assistant\" }}<|im_end|>\n<|im_start|>assistant\n{{ .Content }}\
             {{ $again = true }}{{ end }}{{ end }}<|im_end|>\n<|im_start|>assistant\n\"\"\"\n\
             PARAMETER temperature 0.7\nPARAMETER top_k 64\n"
        );
    }

    #[test]
    fn the_first_token_is_left_to_the_tokenizer_and_system_messages_may_be_refused() {
        let template = "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}\
            {{ raise_exception('no') }}{% endif %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]";
        let texts = texts(template);
        let (pieces, begins) = Pieces::learn(&ChatTemplate::new(&texts).unwrap(), Some("<bos>")).unwrap();
        assert!(begins && !Pieces::learn(&ChatTemplate::new(&texts).unwrap(), Some("<s>")).unwrap().1);
        assert_eq!((pieces.start.as_str(), &pieces.system), ("[user]", &None));
    }

    #[test]
    fn a_template_that_changes_with_the_conversation_is_not_guessed() {
        let template = "{% for m in messages %}{{ loop.index }}{{ m.content }}{% endfor %}";
        let made = modelfile("m.gguf", &texts(template), None);
        assert!(made.warnings[0].contains("by hand") && !made.text.contains("TEMPLATE"));
    }
}
