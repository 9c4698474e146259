//! Failures of loading, running and evaluating models.

use super::sentence;
use crate::failure::{Exit, Failure};
use gq_convert::NotFinite;
use gq_eval::{EvalError, GateError, WindowError};
use gq_model::{GenerationError, LoadError, ModelError};
use gq_text::{ChatError, OutsidePanic, TextsError, TokenizerError};

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Failure {
        let message = sentence(&error);
        match error {
            LoadError::Read(error) => error.into(),
            LoadError::Config(error) => error.into(),
            LoadError::Texts(error) => error.into(),
            _ => Failure::new(Exit::Input, "model.load", message),
        }
    }
}

impl From<TextsError> for Failure {
    fn from(error: TextsError) -> Failure {
        match error {
            TextsError::Container(error) => error.into(),
            TextsError::Checkpoint(error) => error.into(),
        }
    }
}

impl From<TokenizerError> for Failure {
    fn from(error: TokenizerError) -> Failure {
        use TokenizerError as E;
        let (message, file) = (sentence(&error), "tokenizer.json");
        let at = |code| Failure::new(Exit::Input, code, &message).at(file);
        match error {
            E::Missing => at("tokenizer.missing"),
            E::Outside(panic) => panic.into(),
            E::NotAsWritten { part, written, loaded } => {
                at("tokenizer.not_as_written").at(format!("{file}: {part}")).limit(written).actual(loaded)
            }
            E::MovedId { written, loaded, .. } => at("tokenizer.ids").limit(written).actual(loaded),
            E::Grows { part, to, limit, .. } => {
                at("tokenizer.grows").at(format!("{file}: {part}")).limit(limit).actual(to)
            }
            E::BeyondRows { id, rows, .. } => at("tokenizer.rows").limit(rows).actual(id),
            E::SpecialBeyondRows { from, id, rows } => at("tokenizer.rows").at(from).limit(rows).actual(id),
            E::Dropout { dropout } => at("tokenizer.dropout").limit(0).actual(dropout),
            _ => at("tokenizer"),
        }
    }
}

impl From<OutsidePanic> for Failure {
    fn from(panic: OutsidePanic) -> Failure {
        Failure::new(Exit::Input, "outside.panic", &panic).at(panic.part).actual(&panic.message)
    }
}

impl From<ChatError> for Failure {
    fn from(error: ChatError) -> Failure {
        let message = sentence(&error);
        let failure =
            |code: &'static str| Failure::new(Exit::Input, code, message.clone()).at("chat template");
        match error {
            ChatError::Missing => failure("chat_template.missing"),
            ChatError::Outside(panic) => panic.into(),
            ChatError::Steps { limit } => failure("chat_template.limit").limit(format!("{limit} steps")),
            ChatError::Output { limit } => failure("chat_template.limit").limit(format!("{limit} bytes")),
            ChatError::Time { limit } => {
                failure("chat_template.limit").limit(format!("{} s", limit.as_secs_f64()))
            }
            ChatError::UnreadableNamed { name, .. } => {
                failure("chat_template").at(format!("chat template {name}"))
            }
            ChatError::Thread(_) => Failure::new(Exit::Environment, "chat_template.thread", message),
            _ => failure("chat_template"),
        }
    }
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Failure {
        let message = sentence(&error);
        match error {
            ModelError::Activations { tensor, value, .. } => {
                let failure = Failure::new(Exit::Input, "model.not_finite", message).at(tensor);
                failure.limit("finite numbers").actual(value)
            }
            ModelError::Device(error) => error.into(),
            ModelError::NotFinite { value, .. } => {
                let failure = Failure::new(Exit::Input, "model.not_finite", message).at("logits");
                failure.limit("finite numbers").actual(value)
            }
            _ => Failure::new(Exit::Input, "model.run", message),
        }
    }
}

impl From<NotFinite> for Failure {
    fn from(error: NotFinite) -> Failure {
        let message = sentence(&error);
        let mut failure = Failure::from(error.source);
        failure.message = message;
        failure
    }
}

impl From<GenerationError> for Failure {
    fn from(error: GenerationError) -> Failure {
        match error {
            GenerationError::Model(error @ ModelError::Device(_)) => error.into(),
            error => Failure::new(Exit::Input, "model.run", sentence(&error)),
        }
    }
}

impl From<EvalError> for Failure {
    fn from(error: EvalError) -> Failure {
        let message = sentence(&error);
        match error {
            EvalError::Model(error) => error.into(),
            EvalError::Tokenizer(error) => error.into(),
            EvalError::Outputs(error) => error.into(),
            EvalError::Windows(WindowError::Short { limit, actual }) => {
                Failure::new(Exit::Usage, "eval.ctx", message).at("--ctx").limit(limit).actual(actual)
            }
            EvalError::Windows(WindowError::Text { limit, actual }) => {
                Failure::new(Exit::Input, "eval.text_short", message).at("--text").limit(limit).actual(actual)
            }
            EvalError::Vocabulary { limit, actual } => {
                Failure::new(Exit::Input, "eval.vocabulary", message).limit(limit).actual(actual)
            }
        }
    }
}

impl From<GateError> for Failure {
    fn from(error: GateError) -> Failure {
        let failure = Failure::new(Exit::Usage, "eval.gate", &error).at("--fail-above");
        failure.limit(gq_eval::Gate::NAMES.join(", ")).actual(error.actual)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A panic of our own, as one of the tokenizer's library would be.
    #[test]
    fn a_panic_of_another_crate_is_bad_input() {
        let caught = gq_text::guarded("tokenizer.json", || -> u8 { panic!("index {} of a table", 7) });
        let failure = Failure::from(TokenizerError::from(caught.unwrap_err()));
        assert_eq!((failure.exit, failure.code), (Exit::Input, "outside.panic"));
        let json = serde_json::to_value(&failure).unwrap();
        assert_eq!(
            (&json["where"], &json["actual"]),
            (&"tokenizer.json".into(), &"index 7 of a table".into())
        );
        assert!(json["message"].as_str().unwrap().contains("stopped with"), "{json}");
    }
}
