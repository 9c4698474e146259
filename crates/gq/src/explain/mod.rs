//! Errors of the libraries as failures: code, exit code, where, limit and actual.

mod adapter;
mod calibration;
mod checkpoint;
mod config;
mod conversion;
mod devices;
mod files;
mod gguf;
mod hub;
mod models;
mod note;
mod tensors;

pub use conversion::{broken, took_room};
pub use files::taken;
pub use note::tell;

use std::error::Error;

/// An error and its causes in one sentence; a cause that the error already says is not repeated.
pub(crate) fn sentence(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text += &format!(": {said}");
        }
        cause = error.source();
    }
    text
}
