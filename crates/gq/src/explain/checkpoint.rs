//! Failures of reading checkpoints.

use super::gguf::gguf;
use crate::failure::{Exit, Failure};
use gq_checkpoint::safetensors::{HeaderError, IndexError};
use gq_checkpoint::{CheckpointError, ConfigError, ReadError, StandIn, TensorError};
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

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        config(Failure::new(Exit::Input, "config", format!("config: {error}")).at("config"), &error)
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Failure {
        read(&error.to_string(), &error)
    }
}

pub(super) fn config(failure: Failure, error: &ConfigError) -> Failure {
    use ConfigError as E;
    let file = failure.place.clone().unwrap_or_default();
    let at = |failure: Failure, code, field: &str| failure.code(code).at(format!("{file}: {field}"));
    match error {
        E::Json { source } => failure.code("config.json").limit("JSON").actual(source),
        E::UnknownKey { key, model_type } => {
            at(failure, "config.unknown_key", key).limit(format!("keys of {model_type}")).actual(key)
        }
        E::Missing { field } => at(failure, "config.missing", field).limit(field).actual("missing"),
        E::WrongType { field, expected, actual } => {
            at(failure, "config.wrong_type", field).limit(expected).actual(actual)
        }
        E::OutOfRange { field, actual, min, max } => {
            at(failure, "config.out_of_range", field).limit(format!("{min} to {max}")).actual(actual)
        }
        E::Unsupported { field, value, supported } => {
            let code = match field.starts_with("quantization_config") {
                true => "config.quantization",
                false => "config.unsupported",
            };
            at(failure, code, field).limit(supported).actual(value)
        }
        E::Disagree { field, value, other, other_value } => {
            at(failure, "config.disagree", field).limit(format!("{other} says {other_value}")).actual(value)
        }
        E::LayerCount { field, actual, layers } => {
            at(failure, "config.layer_count", field).limit(layers).actual(actual)
        }
        E::FactorCount { field, actual, pairs } => {
            at(failure, "config.factor_count", field).limit(pairs).actual(actual)
        }
        E::Null { field, absent } => at(failure, "config.null", field).limit(absent).actual("null"),
        E::HeadGroups { layer, heads, kv_heads } => {
            at(failure, "config.head_groups", &format!("layer {layer}"))
                .limit(format!("a multiple of {kv_heads}"))
                .actual(heads)
        }
        E::NoSharedCache { layer, layer_type } => {
            at(failure, "config.no_shared_cache", &format!("layer {layer}"))
                .limit(format!("an earlier {layer_type} layer"))
                .actual("none")
        }
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

pub(super) fn tensors(message: &str, error: &TensorError) -> Failure {
    use TensorError as E;
    let bad = |code, name: &str| Failure::new(Exit::Input, code, message).at(name);
    match error {
        E::Duplicate { name, first, second } => bad("tensor.duplicate", name).limit(first).actual(second),
        E::NameClash { name, first, second } => bad("tensor.duplicate", name).limit(first).actual(second),
        E::NotInShard { name, file } => bad("tensor.not_in_shard", name).limit(file).actual("missing"),
        E::WrongShard { name, actual, indexed } => {
            bad("tensor.wrong_shard", name).limit(indexed).actual(actual)
        }
        E::NotInIndex { name, file } => bad("tensor.not_in_index", name).limit("the index").actual(file),
        E::TooMany { actual, limit } => bad("tensor.too_many", "checkpoint").limit(limit).actual(actual),
        E::Missing { name } => bad("tensor.missing", name).limit(name).actual("missing"),
        E::Unexpected { name, family } => bad(unexpected(name), name).limit(family).actual(name),
        E::Unmerged { name } => bad("tensor.unmerged", name).limit("merged weights").actual("factors"),
        E::WrongShape { name, actual, expected } => {
            bad("tensor.shape", name).limit(format!("{expected:?}")).actual(format!("{actual:?}"))
        }
        E::NotFloat { name, dtype } => {
            bad("tensor.dtype", name).limit("a floating point dtype").actual(dtype)
        }
        E::MixedTypes { name, dtype, first } => bad("tensor.dtype", name).limit(first).actual(dtype),
        E::ScaleWithoutWeight { name, weight } => {
            bad("tensor.scale", name).limit(weight).actual("no such F8 tensor")
        }
        E::TwoScales { name, first, second } => bad("tensor.scale", name).limit(first).actual(second),
        E::NoScale { name, dtype } => bad("tensor.scale", name).limit("weight_scale").actual(dtype),
        E::ScaleShape { name, actual, weight } => {
            bad("tensor.scale", name).limit(format!("{weight:?}")).actual(format!("{actual:?}"))
        }
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

/// Ends of the names that quantizers give to what they store next to the weights.
const QUANTIZED: [&str; 15] = [
    "_scale",
    "_scales",
    "_scale_inv",
    "_blocks",
    "_packed",
    "_zero_point",
    ".absmax",
    ".nested_absmax",
    ".quant_map",
    ".nested_quant_map",
    ".SCB",
    ".weight_format",
    ".qweight",
    ".qzeros",
    ".g_idx",
];

/// The code for a tensor that a model has no place for: what a quantizer stored, one of an expert's own, or anything.
fn unexpected(name: &str) -> &'static str {
    let of_one_expert =
        name.split_once(".experts.").is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()));
    match name {
        _ if QUANTIZED.iter().any(|end| name.ends_with(end)) || name.contains(".quant_state.") => {
            "tensor.quantized"
        }
        _ if of_one_expert => "tensor.one_expert",
        _ => "tensor.unexpected",
    }
}
