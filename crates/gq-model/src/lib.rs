//! Tokenizer, chat template, model graphs, KV cache, backends and sampling.
//!
//! This crate does not know conversion, the network or a terminal.
