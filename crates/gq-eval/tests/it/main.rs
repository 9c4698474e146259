//! Evaluations on made-up logits, worked by hand or recomputed, and on the tiny checkpoints.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::useless_vec)] // helpers of tests are tests

mod cache;
mod figures;
mod fixtures;
mod models;
mod outputs;
mod recompute;
mod text;
