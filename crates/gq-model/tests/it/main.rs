//! Integration tests of the crate, one binary.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod cache;
mod codes;
mod cuda;
mod cuda_faults;
mod cuda_memory;
mod fixtures;
mod generation;
mod parity;
mod range;
mod refusals;
mod sampling;
mod sequences;
mod suite;
