//! Plans and executions on small checkpoints written here and in `testdata/`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod calibrated;
mod changed;
mod execute;
mod finite;
mod grid;
mod importances;
mod lora;
mod plan;
mod rounds;
mod scales;
mod support;
mod trials;
