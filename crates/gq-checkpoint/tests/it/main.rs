//! Integration tests: one binary, one module per behavior.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)] // helpers of tests fail as tests do

mod assembled;
mod configs;
mod f8;
mod gguf;
mod headers;
mod heads;
mod integers;
mod keys;
mod lora;
mod malformed;
mod mutation;
mod open;
mod ropes;
mod sources;
mod spelled;
mod stacks;
mod support;
