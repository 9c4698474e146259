//! The server over loopback, with the demo model.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod answers;
mod leaving;
mod refusals;
mod server;
mod together;
