//! Perplexity, KL divergence, agreement and reports.
//!
//! This crate does not know conversion, the network or a terminal.
