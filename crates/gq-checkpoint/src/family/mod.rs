//! One file per family: fields of its configuration to a specification.

pub(crate) mod gemma3;
pub(crate) mod gemma4;
pub(crate) mod llama;
mod shared;
