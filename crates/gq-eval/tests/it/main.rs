//! Evaluations on made-up logits, worked by hand or recomputed, and on the tiny checkpoints.

mod cache;
mod figures;
mod fixtures;
mod models;
mod outputs;
mod recompute;
mod text;
