//! Tests of the program as a person runs it, and of the repository's layout.

mod help;
mod tidy;
