//! Tests of the program as a person runs it, and of the repository's layout.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod adapter_layouts;
mod adapters;
mod budgets;
mod calibration;
mod changed;
#[cfg(unix)]
mod chat;
mod chat_template;
mod checkpoints;
mod compressed_tensors;
mod contract;
mod device;
mod doctor;
mod experts;
mod finite;
mod first;
mod gguf;
mod gguf_mix;
mod gpt_oss;
mod grid;
mod guard;
#[cfg(unix)]
mod harmony;
mod help;
mod hub;
mod interrupted;
mod job;
mod large;
mod layout;
mod left;
mod live;
mod lora;
mod memory;
mod meta;
mod mistral;
mod mix_interrupted;
mod phi3;
mod plan_table;
mod quantized;
mod rederive;
mod release;
mod room;
mod run;
mod seen;
#[cfg(unix)]
mod serve;
#[path = "../../../gq-hub/tests/it/server/mod.rs"]
mod server;
mod signals;
mod signatures;
mod taken;
mod tidy;
mod tokens;
mod usage;
mod waiting;
