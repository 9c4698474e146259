//! What can be wrong with a `config.json`. Foreign text is escaped when shown.

use gq_files::{Escaped, Sentence};

/// A `config.json` that is not understood in full.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not one JSON value, or a key appears twice.
    #[error("not valid JSON: {}", Sentence(.source))]
    Json {
        /// What the parser says, with line and column.
        #[source]
        source: serde_json::Error,
    },
    /// A key that this family does not know: it could change the graph.
    #[error("unknown key {} for model type {}", Escaped(.key), Escaped(.model_type))]
    UnknownKey {
        /// Dotted path of the key.
        key: String,
        /// `model_type` of the configuration.
        model_type: String,
    },
    /// A field without which the graph is not known.
    #[error("field {} is missing", Escaped(.field))]
    Missing {
        /// Dotted path of the field.
        field: String,
    },
    /// A value of another JSON type.
    #[error("field {} is {}, expected {expected}", Escaped(.field), Escaped(.actual))]
    WrongType {
        /// Dotted path of the field.
        field: String,
        /// What would be right.
        expected: &'static str,
        /// The value, as JSON.
        actual: String,
    },
    /// A number out of range.
    #[error("field {} is {actual}, allowed are {min} to {max}", Escaped(.field))]
    OutOfRange {
        /// Dotted path of the field.
        field: String,
        /// The value, as JSON.
        actual: String,
        /// Smallest allowed value.
        min: f64,
        /// Largest allowed value.
        max: f64,
    },
    /// A value that means a graph which is not supported.
    #[error("field {} is {}, supported: {supported}", Escaped(.field), Escaped(.value))]
    Unsupported {
        /// Dotted path of the field.
        field: String,
        /// The value, as JSON.
        value: String,
        /// Supported values.
        supported: &'static str,
    },
    /// Two spellings of one fact that contradict each other.
    #[error("field {} says {value}, field {} says {other_value}", Escaped(.field), Escaped(.other))]
    Disagree {
        /// Dotted path of the first field.
        field: String,
        /// What it says.
        value: String,
        /// Dotted path of the second field.
        other: String,
        /// What that says.
        other_value: String,
    },
    /// A list with one entry per layer that has another length.
    #[error("field {} has {actual} entries for {layers} layers", Escaped(.field))]
    LayerCount {
        /// Dotted path of the field.
        field: String,
        /// Entries it has.
        actual: usize,
        /// Layers of the model.
        layers: usize,
    },
    /// A list with one factor per rotary pair that has another length.
    #[error("field {} has {actual} factors for {pairs} pairs", Escaped(.field))]
    FactorCount {
        /// Dotted path of the field.
        field: String,
        /// Factors it has.
        actual: usize,
        /// Pairs of a head.
        pairs: usize,
    },
    /// A null where the reference needs a value; leaving the key out means its default.
    #[error("field {} is null, which has no meaning there; without the key it is {absent}", Escaped(.field))]
    Null {
        /// Dotted path of the field.
        field: String,
        /// What the reference takes when the key is absent.
        absent: &'static str,
    },
    /// Query heads that cannot be divided among the key-value heads.
    #[error("layer {layer}: {heads} query heads are not a multiple of {kv_heads} key-value heads")]
    HeadGroups {
        /// Layer.
        layer: usize,
        /// Query heads.
        heads: usize,
        /// Key-value heads.
        kv_heads: usize,
    },
    /// A layer that shares keys and values, but no earlier layer of its type makes them.
    #[error("layer {layer} shares keys and values, but no earlier {} layer makes them", Escaped(.layer_type))]
    NoSharedCache {
        /// Layer.
        layer: usize,
        /// Its type.
        layer_type: String,
    },
}
