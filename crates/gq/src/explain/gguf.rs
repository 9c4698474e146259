//! Failures of reading and writing GGUF.

use super::config::config;
use super::tensors::tensors;
use crate::failure::{Exit, Failure};
use gq_checkpoint::gguf::GgufError;
use gq_checkpoint::gguf_model::ExportError;

/// Completes the failure of a file; `failure` has its path, `message` the whole sentence.
pub(super) fn gguf(failure: Failure, message: &str, error: &GgufError) -> Failure {
    use GgufError as E;
    let file = failure.place.clone().unwrap_or_default();
    let at = |code, name: &str| -> Failure {
        let place = if file.is_empty() { name.to_owned() } else { format!("{file}: {name}") };
        Failure::new(Exit::Input, code, message).at(place)
    };
    match error {
        E::Io { path, source } => Failure::io(path, source),
        E::Magic { actual } => failure.limit("GGUF").actual(format!("{actual:02x?}")),
        E::Version { actual } => failure.limit("2 or 3").actual(actual),
        E::Truncated { at, needed } => failure.limit(format!("{needed} bytes at {at}")).actual("the end"),
        E::HeaderTooLong { limit } => failure.limit(limit),
        E::Count { actual, limit, .. }
        | E::StringLen { actual, limit, .. }
        | E::ArrayLen { actual, limit, .. }
        | E::Alignment { actual, limit } => failure.limit(limit).actual(actual),
        E::TooDeep { limit, .. } => failure.limit(limit),
        E::Utf8 { at } => failure.limit("UTF-8").actual(format!("byte {at}")),
        E::ValueType { actual, .. } => failure.limit("0 to 12").actual(actual),
        E::Bool { actual, .. } => failure.limit("0 or 1").actual(actual),
        E::DuplicateKey { key } => at("gguf.duplicate", key).limit("each key once").actual("twice"),
        E::DuplicateTensor { name } => at("gguf.duplicate", name).limit("each tensor once").actual("twice"),
        E::UnknownType { name, actual } => at("gguf.type", name).actual(actual),
        E::UndecodableType { name, kind } => at("gguf.type", name).actual(kind),
        E::Dims { name, dims } => at("gguf.format", name).actual(format!("{dims:?}")),
        E::RowLen { name, cols, block, .. } => at("gguf.format", name).limit(block).actual(cols),
        E::Place { name, fault, .. } => at("gguf.format", name).actual(fault),
        E::MissingKey { key } => at("gguf.key_missing", key).limit(key).actual("missing"),
        E::UnknownKey { key, actual } => {
            at("gguf.unknown_key", key).limit("keys of docs/GGUF.md").actual(actual)
        }
        E::KeyType { key, actual, expected } => at("gguf.key", key).limit(expected).actual(actual),
        E::Unsupported { key, actual, supported } => at("gguf.key", key).limit(supported).actual(actual),
        E::NoPreTokenizer { known } => at("gguf.pre", "tokenizer.ggml.pre").limit(known).actual("missing"),
        E::TurnTokens { tokens, .. } => {
            let kind = "tokenizer.ggml.token_type";
            at("gguf.turn_tokens", kind).limit("CONTROL or USER_DEFINED").actual(tokens.join(" "))
        }
        E::NotCarried { part, actual } => {
            let place = format!("tokenizer.json: {part}");
            Failure::new(Exit::Input, "export.tokens", message).at(place).actual(actual)
        }
        E::Contradiction { key, fault } => at("gguf.key", key).actual(fault),
        E::TemplateNames { key, fault } => at("export.templates", key).actual(fault),
        E::Split { path, fault } => at("gguf.split", &path.display().to_string()).actual(fault),
        E::UnknownTensor { name, architecture } => at("gguf.tensor", name).limit(architecture).actual(name),
        E::Config { source } => config(failure, source),
        E::Tensors { source } => tensors(message, source),
        E::OutOfRange { name, requested, actual } => at("gguf.range", name).limit(actual).actual(requested),
        _ => failure,
    }
}

impl From<GgufError> for Failure {
    fn from(error: GgufError) -> Failure {
        let message = error.to_string();
        let mut failure = Failure::new(Exit::Input, "gguf.format", &message);
        failure.place = None;
        gguf(failure, &message, &error)
    }
}

impl<E: std::error::Error + Into<Failure> + 'static> From<ExportError<E>> for Failure {
    fn from(error: ExportError<E>) -> Failure {
        match error {
            ExportError::Write(error) => error.into(),
            ExportError::Read { source, .. } => source.into(),
            ExportError::NotFinite { ref name, row, value } => {
                let failure = Failure::new(Exit::Input, "tensor.not_finite", &error);
                failure.at(format!("{name}[{row}]")).limit("finite numbers").actual(value)
            }
            ExportError::Beyond { ref tensors } => {
                let failure = Failure::new(Exit::Input, "gguf.range", &error);
                let largest = tensors.iter().map(|beyond| beyond.largest).fold(0.0, f32::max);
                failure.at(tensors.first().map_or("", |beyond| &beyond.name)).actual(format!("{largest:e}"))
            }
        }
    }
}
