//! Integration tests of the crate, one binary.

mod fixtures;
mod parity;
