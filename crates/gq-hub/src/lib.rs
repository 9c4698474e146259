//! Files from and to the Hub and its cache: resumed, verified, offline when told.
//!
//! This crate does not know tensors: it moves files. It reads no environment ([`HubConfig`] is a value),
//! prints nothing and draws no bar ([`Progress`] is a callback).
#![forbid(unsafe_code)]

mod address;
mod answer;
mod cache;
mod client;
mod config;
mod connect;
mod digest;
mod error;
mod glob;
mod progress;
mod pull;
mod push;
mod refusal;
mod repo;
mod repo_id;
mod resolve;
mod retry;
mod tree;
mod verified;

pub use cache::Snapshot;
pub use client::Hub;
pub use config::{HubConfig, Token};
pub use digest::FileDigest;
pub use error::{Access, HubError};
pub use glob::Globs;
pub use progress::{CancelToken, Event, Progress};
pub use pull::{FileState, PlannedFile, PullOptions, PullPlan};
pub use push::{PushFile, PushOptions, PushPlan, PushReport, PushState};
pub use repo::RepoRef;
pub use repo_id::RepoId;
pub use resolve::{Located, Network, Source};
pub use retry::RetryPolicy;
pub use tree::RemoteFile;

/// Files that a model folder consists of, but for [`OTHER_COPIES`]; see [`Globs::model`].
pub const MODEL_FILES: [&str; 7] =
    ["*.safetensors", "*.json", "*.jinja", "LICENSE*", "LICENCE*", "NOTICE*", "README.md"];

/// Of those, what no reader of a model folder reads: another program's copy of the same weights, such as GPT-OSS's
/// `original/` and Mistral's `consolidated.safetensors`, and what else lies in folders.
pub const OTHER_COPIES: [&str; 3] = ["*/*.safetensors", "*/*.json", "consolidated*.safetensors"];
