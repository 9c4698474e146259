//! Integration tests: one binary, one module per behavior.

mod configs;
mod open;
mod ropes;
mod support;
