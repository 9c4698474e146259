//! Behaviour of the codecs, seen from outside.
// The whole crate is a test; helpers may do what test functions may.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod blocks;
mod calibrated;
mod code;
mod codebook;
mod distortion;
mod golden;
mod grid;
mod levels;
mod registry;
mod rotation;
mod source;
mod trellis;
mod worked_example;
