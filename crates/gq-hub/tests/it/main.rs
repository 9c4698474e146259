//! Transfers against a Hub on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

mod hf_hub_faults;
mod kill;
mod patience;
mod planted;
mod pull;
mod push;
mod resolve;
mod server;
mod support;
