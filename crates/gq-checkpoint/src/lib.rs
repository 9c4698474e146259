//! Foreign formats as facts: safetensors shards, `config.json`, tensor names and roles.
//!
//! This crate does not know the network, our container or our codecs.

mod role;
mod spec;

pub use role::Role;
pub use spec::{
    Activation, AttentionSpec, Family, LayerSpec, MlpSpec, ModelSpec, MoeSpec, NormPlacement, PerLayerEmbedding,
    RopeKind, RopeSpec,
};
