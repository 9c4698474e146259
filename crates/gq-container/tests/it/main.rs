//! Tests of the container from outside.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)] // helpers of tests are tests

mod allocations;
mod forge;
mod golden;
mod listing;
mod malformed;
mod mutation;
mod writer;
