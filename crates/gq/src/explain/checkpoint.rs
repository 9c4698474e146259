//! Failures of reading checkpoints.

use super::config::config;
use super::gguf::gguf;
use super::tensors::tensors;
use crate::failure::{Exit, Failure};
use gq_checkpoint::safetensors::{HeaderError, IndexError};
use gq_checkpoint::{CheckpointError, ReadError, StandIn};
use std::path::Path;

impl From<CheckpointError> for Failure {
    fn from(error: CheckpointError) -> Failure {
        use CheckpointError as E;
        let message = error.to_string();
        let bad = |code, path: &Path| Failure::new(Exit::Input, code, &message).at(path.display());
        match &error {
            E::Io { path, source } => Failure::io(path, source),
            E::NoConfig { dir } => {
                bad("checkpoint.no_config", dir).limit("config.json").actual("no such file")
            }
            E::ManyGguf { dir, files } => bad("checkpoint.many_gguf", dir)
                .limit("one GGUF, or the files of one split")
                .actual(files.len()),
            E::NoWeights { dir } => {
                bad("checkpoint.no_weights", dir).limit("*.safetensors").actual("no such file")
            }
            E::StrayWeights { path } => {
                bad("checkpoint.stray_weights", path).limit("files that the index names")
            }
            E::SecondWeights { path } => {
                bad("checkpoint.second_weights", path).limit("one set of weights").actual("two")
            }
            E::ShardMissing { dir, file, of } => bad("checkpoint.shard_missing", dir)
                .limit(format!("{of} shards"))
                .actual(format!("no {file}")),
            E::Unfinished { path } => bad("checkpoint.unfinished", path).limit("a finished download"),
            E::Pickle { path } => bad("checkpoint.pickle", path).limit("*.safetensors").actual("a pickle"),
            E::IsAdapter { dir } => {
                bad("checkpoint.is_adapter", dir).limit("config.json").actual("adapter_config.json")
            }
            E::StandIn { path, what } => stand_in(path, what, &message),
            E::TextTooLong { path, actual, limit } => {
                bad("checkpoint.text_too_long", path).limit(limit).actual(actual)
            }
            E::TextNotUtf8 { path, at } => {
                bad("checkpoint.text_not_utf8", path).limit("UTF-8").actual(format!("byte {at}"))
            }
            E::TextJson { path, source } => bad("checkpoint.text_json", path).limit("JSON").actual(source),
            E::Config { path, source } => config(bad("config", path), source),
            E::Header { path, source } => header(bad("safetensors", path), source),
            E::Index { path, source } => index(bad("index", path), source),
            E::Gguf { path, source } => gguf(bad("gguf.format", path), &message, source),
            E::Tensors(source) => tensors(&message, source),
            E::Read(source) => read(&message, source),
        }
    }
}

/// Something in the place of a file.
pub(super) fn stand_in(path: &Path, what: &StandIn, message: &str) -> Failure {
    let (code, actual) = match what {
        StandIn::LfsPointer { .. } => ("source.lfs_pointer", "a Git LFS pointer"),
        StandIn::AnnexPointer => ("source.annex_pointer", "a git-annex pointer"),
        StandIn::WebPage => ("source.web_page", "a web page"),
        StandIn::Empty => ("source.empty", "0 bytes"),
    };
    Failure::new(Exit::Input, code, message).at(path.display()).limit("the file itself").actual(actual)
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Failure {
        read(&error.to_string(), &error)
    }
}

pub(super) fn header(failure: Failure, error: &HeaderError) -> Failure {
    use HeaderError as E;
    let file = failure.place.clone().unwrap_or_default();
    let at = |failure: Failure, code, name: &str| failure.code(code).at(format!("{file}: {name}"));
    match error {
        E::TooShort { actual } => {
            failure.code("safetensors.too_short").limit("at least 8 bytes").actual(actual)
        }
        E::TooLong { actual, limit } => {
            failure.code("safetensors.header_too_long").limit(limit).actual(actual)
        }
        E::BeyondFile { header, file } => failure.code("safetensors.truncated").limit(file).actual(header),
        E::NotAnObject { actual } => {
            failure.code("safetensors.json").limit("{").actual(format!("{actual:#04x}"))
        }
        E::Json { source } => failure.code("safetensors.json").limit("a safetensors header").actual(source),
        E::TooManyTensors { actual, limit } => {
            failure.code("safetensors.too_many").limit(limit).actual(actual)
        }
        E::NameLength { name, actual, limit } => {
            at(failure, "safetensors.name_length", name).limit(limit).actual(actual)
        }
        E::Duplicate { name } => {
            at(failure, "safetensors.duplicate", name).limit("each name once").actual("twice")
        }
        E::UnknownDType { name, dtype } => at(failure, "safetensors.dtype", name).actual(dtype),
        E::Overflow { name, shape } => at(failure, "safetensors.overflow", name).actual(format!("{shape:?}")),
        E::WrongLength { name, begin, end, expected } => {
            at(failure, "safetensors.length", name).limit(expected).actual(format!("{begin}..{end}"))
        }
        E::Overlap { name, begin, end, .. } => {
            at(failure, "safetensors.overlap", name).limit(end).actual(begin)
        }
        E::Gap { name, begin, end } => {
            at(failure, "safetensors.gap", name).limit("no gaps").actual(format!("{begin}..{end}"))
        }
        E::Truncated { name, end, data } => {
            at(failure, "safetensors.truncated", name).limit(end).actual(data)
        }
        E::Trailing { actual } => failure.code("safetensors.trailing").limit(0).actual(actual),
    }
}

fn index(failure: Failure, error: &IndexError) -> Failure {
    use IndexError as E;
    match error {
        E::Json { source } => failure.code("index.json").limit("JSON with weight_map").actual(source),
        E::BadFileName { file } => failure.code("index.file_name").limit("a plain name").actual(file),
        E::FileMissing { file } => failure.code("index.file_missing").limit(file).actual("no such file"),
        E::Empty => failure.code("index.empty").limit("at least 1 tensor").actual(0),
        E::TooManyFiles { actual, limit } => failure.code("index.too_many").limit(limit).actual(actual),
    }
}

fn read(message: &str, error: &ReadError) -> Failure {
    use ReadError as E;
    let bad = |code, name: &str| Failure::new(Exit::Input, code, message).at(name);
    match error {
        E::Io { path, source } => Failure::io(path, source),
        E::Changed { path, limit, actual, .. } => Failure::new(Exit::Input, "source.changed", message)
            .at(path.display())
            .limit(limit)
            .actual(actual),
        E::RowsOutOfRange { name, rows, actual } => {
            bad("tensor.range", name).limit(actual).actual(format!("{rows:?}"))
        }
        E::BytesOutOfRange { name, range, actual } => {
            bad("tensor.range", name).limit(actual).actual(format!("{range:?}"))
        }
        E::WrongBuffer { name, expected, actual } => bad("tensor.range", name).limit(expected).actual(actual),
        E::NotFinite { name, row, col, value } => {
            bad("tensor.not_finite", &format!("{name}[{row}, {col}]")).limit("finite numbers").actual(value)
        }
    }
}
