//! Evaluations on made-up logits, worked by hand or recomputed, and on the tiny checkpoints.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod cache;
mod figures;
mod fixtures;
mod models;
mod outputs;
mod page;
mod recompute;
mod text;
