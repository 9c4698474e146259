//! Failures of loading, running and evaluating models.

use super::sentence;
use crate::failure::{Exit, Failure};
use gq_eval::{EvalError, GateError, WindowError};
use gq_model::{ChatError, GenerationError, LoadError, ModelError, TokenizerError};

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Failure {
        let message = sentence(&error);
        match error {
            LoadError::CheckpointText(error) => error.into(),
            LoadError::Read(error) => error.into(),
            LoadError::Config(error) => error.into(),
            LoadError::Text(error) => error.into(),
            _ => Failure::new(Exit::Input, "model.load", message),
        }
    }
}

impl From<TokenizerError> for Failure {
    fn from(error: TokenizerError) -> Failure {
        let code = match error {
            TokenizerError::Missing => "tokenizer.missing",
            _ => "tokenizer",
        };
        Failure::new(Exit::Input, code, sentence(&error)).at("tokenizer.json")
    }
}

impl From<ChatError> for Failure {
    fn from(error: ChatError) -> Failure {
        Failure::new(Exit::Input, "chat_template", sentence(&error)).at("chat template")
    }
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Failure {
        Failure::new(Exit::Input, "model.run", sentence(&error))
    }
}

impl From<GenerationError> for Failure {
    fn from(error: GenerationError) -> Failure {
        Failure::new(Exit::Input, "model.run", sentence(&error))
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
