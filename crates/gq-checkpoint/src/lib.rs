//! Foreign formats as facts: safetensors shards, `config.json`, tensor names and roles.
//!
//! This crate does not know the network, our container or our codecs.
