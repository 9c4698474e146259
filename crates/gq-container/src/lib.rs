//! The `.gq` file: header, table, sections, limits, validation, reader, streaming writer, digests.
//!
//! This crate does not know what any encoding means or what a model is.
