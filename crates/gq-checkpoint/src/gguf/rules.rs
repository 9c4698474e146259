//! How a family stands in a GGUF, and what families read metadata and write it with.

use super::keys::Keys;
use super::rope::RopeFactors;
use super::{Gguf, GgufError, Value as Metadatum};
use crate::declared::{Declared, Part, numbered};
use crate::{Activation, AttentionSpec, LayerSpec, ModelSpec};
use serde_json::{Map, Value, json};

/// Reads a GGUF's metadata as keys of `config.json`.
type ConfigOf = fn(&Gguf, &Keys<'_>) -> Result<Map<String, Value>, GgufError>;

/// How one family stands in a GGUF.
pub(crate) struct GgufRules {
    /// Metadata to the keys of `config.json` that are this family's.
    pub(crate) config: ConfigOf,
    /// Writes the keys that are this family's.
    pub(crate) metadata: fn(&mut Set<'_>, &ModelSpec),
    /// The activation that engines take, and the key of `config.json` that says so.
    pub(crate) activation: (&'static str, Activation),
    /// Engines scale scores by the inverse root of this.
    pub(crate) score_width: fn(&ModelSpec, &AttentionSpec) -> usize,
    /// Whether engines add biases of attention.
    pub(crate) attention_bias: bool,
    /// Whether rows of the embedding beyond the vocabulary get tokens that stand for nothing.
    pub(crate) pads_vocabulary: bool,
    /// Whether engines give layers windows.
    pub(crate) windows: bool,
    /// Refuses models of the family that engines do not load, by the key of `config.json` and what they do load.
    pub(crate) loads: fn(&ModelSpec) -> Result<(), GgufError>,
    /// Whether sliding layers have rotary keys of their own.
    pub(crate) sliding_rope: bool,
    /// Whether the ramp of a YaRN that keys describe begins and ends at whole pairs in the models that these files are of.
    pub(crate) yarn_truncates: bool,
    /// Whether engines read YaRN's betas and what its own factor on cosines and sines is divided by.
    pub(crate) yarn_keys: bool,
    /// Whether engines read divisors of rotary frequencies from a tensor.
    pub(crate) rope_factors: RopeFactors,
}

/// The GGUF name of a part of a model, or of one of its layers.
pub(super) fn gguf_name_of(list: &[Declared], part: Part, layer: Option<usize>) -> Option<String> {
    let declared = list.iter().find(|declared| declared.part == part)?;
    Some(numbered(declared.gguf?, layer))
}

impl Gguf {
    /// Whether the file has this part of a family's model, or of one of its layers.
    pub(crate) fn has(&self, list: &[Declared], part: Part, layer: impl Into<Option<usize>>) -> bool {
        gguf_name_of(list, part, layer.into()).is_some_and(|name| self.tensor(&name).is_some())
    }

    /// Rows of a part of the model.
    pub(crate) fn rows_of(&self, list: &[Declared], part: Part) -> Result<usize, GgufError> {
        let name = gguf_name_of(list, part, None).unwrap_or_default();
        let tensor = self.tensor(&name).ok_or(GgufError::MissingKey { key: name })?;
        Ok(tensor.info.rows())
    }
}

/// The fields of an object.
pub(crate) fn object(value: Value) -> Map<String, Value> {
    if let Value::Object(map) = value { map } else { Map::new() }
}

/// What all families say alike: number of layers, and keys of the configuration.
pub(crate) fn common(keys: &Keys<'_>) -> Result<(usize, Map<String, Value>), GgufError> {
    let layers = keys.int("block_count")?;
    if layers == 0 || layers > crate::limits::LAYERS {
        return Err(keys.contradiction("block_count", format!("{layers} layers")));
    }
    let layers = layers as usize;
    let config = object(json!({
        "hidden_size": keys.int("embedding_length")?,
        "num_hidden_layers": layers,
        "num_attention_heads": keys.alike("attention.head_count", layers)?.ok_or_else(|| keys.missing("attention.head_count"))?,
        "rms_norm_eps": keys.float("attention.layer_norm_rms_epsilon")?,
        "max_position_embeddings": keys.int("context_length")?,
    }));
    Ok((layers, config))
}

/// A whole number of a configuration.
pub(crate) fn number(config: &Map<String, Value>, key: &str) -> u64 {
    config.get(key).and_then(Value::as_u64).unwrap_or(0)
}

/// Width of heads, which must be that of keys, of values and of their rotary part.
pub(crate) fn head_dim(keys: &Keys<'_>, config: &Map<String, Value>) -> Result<u64, GgufError> {
    let heads = number(config, "num_attention_heads").max(1);
    let derived = number(config, "hidden_size") / heads;
    let dim = keys.opt_int("attention.key_length")?.unwrap_or(derived);
    keys.same("attention.value_length", dim, derived)?;
    keys.same("rope.dimension_count", dim, dim)?;
    Ok(dim)
}

/// The same for a family with one kind of attention: with the width of heads, which is given too, and how many keys and
/// values have.
pub(crate) fn with_heads(keys: &Keys<'_>) -> Result<(usize, Map<String, Value>, u64), GgufError> {
    let (layers, mut config) = common(keys)?;
    let dim = head_dim(keys, &config)?;
    let heads = number(&config, "num_attention_heads");
    let kv_heads = keys.alike("attention.head_count_kv", layers)?.unwrap_or(heads);
    config.extend(object(json!({"num_key_value_heads": kv_heads, "head_dim": dim})));
    Ok((layers, config, dim))
}

/// Types of layers by name, from whether they slide.
pub(crate) fn named_types(sliding: &[bool]) -> Value {
    sliding.iter().map(|&sliding| if sliding { "sliding_attention" } else { "full_attention" }).collect()
}

/// A cap of 0 is none.
pub(crate) fn softcap(keys: &Keys<'_>, absent: f64) -> Result<Option<f64>, GgufError> {
    let cap = keys.opt_float("final_logit_softcapping")?.unwrap_or(absent);
    Ok(Some(cap).filter(|cap| *cap != 0.0))
}

/// Where keys below the architecture are written to.
pub(crate) type Set<'a> = dyn FnMut(&str, Metadatum) + 'a;

/// A number as the format keeps it.
pub(crate) fn int(value: usize) -> Metadatum {
    Metadatum::U32(u32::try_from(value).unwrap_or(u32::MAX))
}

/// Width of a head on full layers; readers take the hidden size divided by the heads without it.
pub(crate) fn head_widths(set: &mut Set<'_>, spec: &ModelSpec) {
    let width = full_layer(spec).map_or(0, |layer| layer.attention.head_dim);
    set("attention.key_length", int(width));
    set("attention.value_length", int(width));
}

/// The first layer that sees everything, or the first.
pub(crate) fn full_layer(spec: &ModelSpec) -> Option<&LayerSpec> {
    spec.layers.iter().find(|layer| layer.attention.window.is_none()).or(spec.layers.first())
}

/// Tokens that layers with a window see; 0 where no layer has one.
pub(crate) fn window(spec: &ModelSpec) -> Option<usize> {
    spec.layers.iter().find_map(|layer| layer.attention.window)
}

/// Whether layers have a window.
pub(crate) fn pattern(spec: &ModelSpec) -> Vec<bool> {
    spec.layers.iter().map(|layer| layer.attention.window.is_some()).collect()
}
