//! What configurations of all families have in common.

use crate::config::Fields;
use crate::{Activation, AttentionSpec, ConfigError, RopeSpec, limits};
use serde_json::Value;

/// Beginning, end and padding of sequences.
pub(crate) struct SpecialTokens {
    pub bos: Option<u32>,
    pub eos: Vec<u32>,
    pub pad: Option<u32>,
}

/// Tokens that the reference takes where a configuration has no such key.
#[derive(Clone, Copy, Default)]
pub(crate) struct Defaults {
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub pad: Option<u32>,
}

impl Defaults {
    pub(crate) const LLAMA: Defaults = Defaults { bos: Some(1), eos: Some(2), pad: None };
    pub(crate) const GEMMA: Defaults = Defaults { bos: Some(2), eos: Some(1), pad: Some(0) };
}

impl SpecialTokens {
    /// As they stand; a key that is absent means what the reference takes then, null and -1 mean none.
    pub(crate) fn read(fields: &Fields<'_>, absent: Defaults) -> Result<SpecialTokens, ConfigError> {
        let unless_there = |key: &str, token: Option<u32>| token.filter(|_| !fields.has(key));
        let eos = fields.tokens("eos_token_id")?;
        Ok(SpecialTokens {
            bos: fields.opt_token("bos_token_id")?.or(unless_there("bos_token_id", absent.bos)),
            eos: eos.unwrap_or_else(|| unless_there("eos_token_id", absent.eos).into_iter().collect()),
            pad: fields.opt_token("pad_token_id")?.or(unless_there("pad_token_id", absent.pad)),
        })
    }

    /// Those of a wrapper count before those of its text part.
    pub(crate) fn or(self, text: SpecialTokens) -> SpecialTokens {
        SpecialTokens {
            bos: self.bos.or(text.bos),
            eos: if self.eos.is_empty() { text.eos } else { self.eos },
            pad: self.pad.or(text.pad),
        }
    }
}

/// The activation under the family's own key.
pub(crate) fn activation(
    fields: &Fields<'_>,
    key: &str,
    absent: Activation,
) -> Result<Activation, ConfigError> {
    match fields.opt_string(key)? {
        None => Ok(absent),
        Some("silu" | "swish") => Ok(Activation::SILU),
        Some("gelu_pytorch_tanh") => Ok(Activation::GELU_TANH),
        Some(name) => Err(fields.unsupported(key, &Value::from(name), "silu, gelu_pytorch_tanh")),
    }
}

/// A layer that attends to a window only, or to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LayerType {
    Sliding,
    Full,
}

impl LayerType {
    pub(crate) const ALL: [LayerType; 2] = [LayerType::Sliding, LayerType::Full];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            LayerType::Sliding => "sliding_attention",
            LayerType::Full => "full_attention",
        }
    }
}

/// `layer_types`, else every `pattern`-th layer full.
pub(crate) fn layer_types(
    fields: &Fields<'_>,
    layers: usize,
    pattern: usize,
) -> Result<Vec<LayerType>, ConfigError> {
    let Some(list) = fields.opt_list("layer_types")? else {
        let full = |layer: usize| (layer + 1).is_multiple_of(pattern);
        let of = |layer| if full(layer) { LayerType::Full } else { LayerType::Sliding };
        return Ok((0..layers).map(of).collect());
    };
    if list.len() != layers {
        return Err(ConfigError::LayerCount {
            field: fields.path("layer_types"),
            actual: list.len(),
            layers,
        });
    }
    let of = |value: &Value| LayerType::ALL.into_iter().find(|layer_type| *value == layer_type.name());
    let supported = "sliding_attention, full_attention";
    list.iter()
        .map(|value| of(value).ok_or_else(|| fields.unsupported("layer_types", value, supported)))
        .collect()
}

/// Integer codes of compressed-tensors, as [`quantization`] calls them: some matrices with zero points, none, or all.
pub(crate) const PACKED: &str = "pack-quantized";
pub(crate) const PACKED_SYMMETRIC: &str = "pack-quantized symmetric";
pub(crate) const PACKED_ASYMMETRIC: &str = "pack-quantized asymmetric";

/// What follows one of these where files say the group of each column.
pub(crate) const BY_INDEX: &str = " by g_idx";
/// Codes of GPTQ whose zero points are less by one, and as they are, and of AWQ.
pub(crate) const GPTQ: &str = "gptq";
pub(crate) const GPTQ_SECOND: &str = "gptq_v2";
pub(crate) const AWQ: &str = "awq";

/// `quantization_config`: only F8 with scales, and integer codes in groups, that this crate applies on reading.
pub(crate) fn quantization(fields: &Fields<'_>) -> Result<Option<String>, ConfigError> {
    let Some(config) = fields.opt_object("quantization_config")? else { return Ok(None) };
    let method = config.string("quant_method")?;
    let supported = match method {
        "fp8" => match config.value("weight_block_size") {
            None => true,
            Some(value) if *value == serde_json::json!([128, 128]) => true,
            Some(value) => return Err(config.unsupported("weight_block_size", value, "[128, 128]")),
        },
        "compressed-tensors" => {
            let groups = config.value("config_groups");
            match config.value("format") {
                Some(Value::String(format)) if format == "float-quantized" => true,
                Some(Value::String(format)) if format == PACKED => {
                    return packed(&config, groups).map(Some);
                }
                value => {
                    let value = value.cloned().unwrap_or(Value::Null);
                    return Err(config.unsupported("format", &value, "float-quantized, pack-quantized"));
                }
            }
        }
        "gptq" => return gptq(&config).map(|form| Some(form.to_owned())),
        "awq" => return awq(&config).map(|form| Some(form.to_owned())),
        _ => false,
    };
    match supported {
        true => Ok(Some(method.to_owned())),
        false => {
            let value = Value::from(method);
            Err(config.unsupported("quant_method", &value, "fp8, compressed-tensors, gptq, awq"))
        }
    }
}

/// Which GPTQ: `checkpoint_format` is that of the first version where there is none. Shapes say the bits of each matrix.
fn gptq(config: &Fields<'_>) -> Result<&'static str, ConfigError> {
    one_of(config, "bits", &[4.into(), 8.into()], "4, 8")?;
    one_of(config, "pack_dtype", &[Value::Null, "int32".into()], "int32")?;
    let second = one_of(
        config,
        "checkpoint_format",
        &[Value::Null, "gptq".into(), "gptq_v2".into()],
        "gptq, gptq_v2: save it so with GPTQModel",
    )?;
    Ok(if second == "gptq_v2" { GPTQ_SECOND } else { GPTQ })
}

/// AWQ for GEMM kernels.
fn awq(config: &Fields<'_>) -> Result<&'static str, ConfigError> {
    one_of(config, "bits", &[4.into()], "4")?;
    one_of(config, "version", &[Value::Null, "gemm".into(), "GEMM".into()], "gemm")?;
    Ok(AWQ)
}

/// The value of a key, null where it is absent; refused when it is none of these.
fn one_of(
    config: &Fields<'_>,
    key: &str,
    known: &[Value],
    supported: &'static str,
) -> Result<Value, ConfigError> {
    let value = config.value(key).cloned().unwrap_or(Value::Null);
    match known.contains(&value) {
        true => Ok(value),
        false => Err(config.unsupported(key, &value, supported)),
    }
}

/// How integer codes stand in a file, by its `config_groups`: whether matrices have zero points.
fn packed(config: &Fields<'_>, groups: Option<&Value>) -> Result<String, ConfigError> {
    let groups = groups.and_then(Value::as_object).filter(|groups| !groups.is_empty());
    let groups = groups.ok_or_else(|| config.missing("config_groups"))?;
    let one_of = |value: &Value, known: &[Value]| known.contains(value);
    let (null, mut symmetric, mut by_index) = (Value::Null, Vec::new(), false);
    for group in groups.values() {
        let weights = &group["weights"];
        let order =
            [null.clone(), false.into(), "static".into(), "weight".into(), "dynamic".into(), "group".into()];
        let checks = [
            (&weights["type"], one_of(&weights["type"], &["int".into()])),
            (&weights["num_bits"], one_of(&weights["num_bits"], &[4.into(), 8.into()])),
            (&weights["strategy"], one_of(&weights["strategy"], &["group".into(), "channel".into()])),
            (&weights["symmetric"], weights["symmetric"].is_boolean()),
            (&weights["actorder"], one_of(&weights["actorder"], &order)),
        ];
        if let Some((value, _)) = checks.into_iter().find(|(_, supported)| !supported) {
            let supported = "weights of type int, 4 or 8 bits, in groups or channels, columns in the order of weights or \
                             of g_idx";
            return Err(config.unsupported("config_groups", value, supported));
        }
        symmetric.push(weights["symmetric"] == true);
        by_index |= ["dynamic", "group"].into_iter().any(|order| weights["actorder"] == order);
    }
    let form = match (symmetric.contains(&true), symmetric.contains(&false)) {
        (true, false) => PACKED_SYMMETRIC,
        (false, _) => PACKED_ASYMMETRIC,
        (true, true) => PACKED,
    };
    Ok(if by_index { format!("{form}{BY_INDEX}") } else { form.to_owned() })
}

/// The index of a rotary embedding in the list, adding it when it is new.
pub(crate) fn rope_index(ropes: &mut Vec<RopeSpec>, rope: RopeSpec) -> usize {
    match ropes.iter().position(|known| *known == rope) {
        Some(index) => index,
        None => {
            ropes.push(rope);
            ropes.len() - 1
        }
    }
}

/// Refuses query heads that cannot be divided among the key-value heads.
pub(crate) fn check_heads(layer: usize, attention: &AttentionSpec) -> Result<(), ConfigError> {
    let AttentionSpec { heads, kv_heads, .. } = *attention;
    match heads.is_multiple_of(kv_heads) {
        true => Ok(()),
        false => Err(ConfigError::HeadGroups { layer, heads, kv_heads }),
    }
}

/// Query heads and key-value heads of every layer, both said, `head_dim` wide.
pub(crate) fn said_heads(fields: &Fields<'_>, head_dim: usize) -> Result<AttentionSpec, ConfigError> {
    let heads = fields.int("num_attention_heads", 1..=limits::HEADS)?;
    let kv_heads = fields.int("num_key_value_heads", 1..=limits::HEADS)?;
    let attention = AttentionSpec::new(heads, kv_heads, head_dim);
    check_heads(0, &attention)?;
    Ok(attention)
}

/// Width of a head: even, as its halves turn against each other.
pub(crate) fn check_head_dim(fields: &Fields<'_>, key: &str, head_dim: usize) -> Result<(), ConfigError> {
    match head_dim % 2 {
        0 => Ok(()),
        _ => Err(fields.unsupported(key, &Value::from(head_dim), "even numbers")),
    }
}

/// `head_dim`, else the hidden size divided among the heads.
pub(crate) fn head_dim_or_quotient(
    fields: &Fields<'_>,
    hidden_size: usize,
    heads: usize,
) -> Result<usize, ConfigError> {
    let head_dim = match fields.opt_int("head_dim", 2..=limits::HEAD_DIM)? {
        Some(head_dim) => head_dim,
        None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => {
            let supported = "divisors of hidden_size without head_dim";
            return Err(fields.unsupported("num_attention_heads", &Value::from(heads), supported));
        }
    };
    check_head_dim(fields, "head_dim", head_dim)?;
    Ok(head_dim)
}

/// `1 / sqrt(x)` rounded to f32.
pub(crate) fn inverse_sqrt(x: f64) -> f32 {
    (1.0 / x.sqrt()) as f32
}

/// Of Qwen: windows are on with `use_sliding_window` alone, which is refused as other switches are: without it their size
/// says nothing, and every layer is full.
pub(crate) fn full_layers_only(fields: &Fields<'_>, layers: usize) -> Result<(), ConfigError> {
    fields.irrelevant(&["sliding_window"]);
    match layer_types(fields, layers, 1)?.contains(&LayerType::Sliding) {
        true => Err(fields.unsupported("layer_types", &Value::from("sliding_attention"), "full_attention")),
        false => Ok(()),
    }
}
