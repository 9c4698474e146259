//! Integration tests of the crate, one binary.

mod cache;
mod chat;
mod codes;
mod fixtures;
mod generation;
mod parity;
mod range;
mod refusals;
mod sampling;
mod tokenizer;
