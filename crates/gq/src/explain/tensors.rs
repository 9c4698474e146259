//! Failures of tensors: their names, shapes and types.

use crate::failure::{Exit, Failure};
use gq_checkpoint::TensorError;

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
        E::NotCodes { name, dtype } => bad("tensor.dtype", name).limit("U8").actual(dtype),
        E::NotWords { name, dtype } => bad("tensor.dtype", name).limit("I32").actual(dtype),
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
