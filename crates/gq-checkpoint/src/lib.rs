//! Foreign formats as facts: safetensors shards, `config.json`, tensor names and roles.
//!
//! [`Checkpoint::open`] validates a directory and holds no weights; [`parse_config`] alone turns a configuration
//! into a [`ModelSpec`], everything a graph needs. Validation is pure functions of bytes underneath:
//! [`safetensors`], [`check_tensors`].
//!
//! This crate does not know the network, our container or our codecs.

mod assembly;
mod card;
mod catalog;
mod checkpoint;
mod config;
mod config_error;
mod declared;
mod digest;
mod error;
mod expected;
mod family;
mod family_kind;
mod folder;
mod fused;
pub mod gguf;
pub mod gguf_model;
mod integers;
mod json;
pub mod keys;
pub mod limits;
mod lora;
mod map;
mod named_templates;
mod names;
mod note;
mod open_options;
mod packed;
mod parse_config;
mod read;
mod read_at;
mod read_error;
mod reader;
mod role;
pub mod safetensors;
mod scale;
mod shards;
mod source_file;
mod spec;
mod special_settings;
mod stacked;
mod stamp;
mod stand_in;
mod tensor;
mod tensor_error;
mod texts;

pub use assembly::Assembly;
pub use card::{Card, CardError, CardValue};
pub use catalog::{Shard, check_tensors};
pub use checkpoint::Checkpoint;
pub use config_error::ConfigError;
pub use declared::{Declared, Dim, Fused, Layout, Part, When};
pub use error::{CheckpointError, ReadError};
pub use expected::ExpectedTensor;
pub use family_kind::Family;
pub use fused::{FusedPart, FusedTensor};
pub use integers::{Integers, Packing};
pub use lora::{Adapter, AdapterError, AdapterFile, TakenTexts, TextsFrom};
pub use map::MappedWeights;
pub use note::Note;
pub use open_options::{OpenOptions, TurnTokens};
pub use parse_config::{parse_config, parse_config_accepting};
pub use reader::TensorReader;
pub use role::Role;
pub use source_file::{FileKind, SourceFile};
pub use spec::{
    Activation, AttentionSpec, Curve, ExpertGroups, LayerSpec, LongFrequencies, MlpSpec, ModelSpec, MoeSpec,
    NormPlacement, PerLayerEmbedding, QueryGrowth, RopeKind, RopeSpec, RouterSpec, Scoring,
};
pub use special_settings::SpecialSettings;
pub use stacked::HubTensor;
pub use stamp::Stamp;
pub use stand_in::StandIn;
pub use tensor::{SourceTensor, TensorPiece};
pub use tensor_error::TensorError;
pub use texts::{NamedText, Texts};
