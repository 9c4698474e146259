//! Files from and to the Hub and its cache.
//!
//! This crate does not know tensors: it moves files.
