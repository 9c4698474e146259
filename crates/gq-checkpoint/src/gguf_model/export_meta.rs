//! Metadata of a model, key by key as llama.cpp's converter writes it.

use super::export_rope::stored_keys;
use super::export_source::{ExportOptions, ExportSource, ExportTensor};
use super::naming::{NameSources, name_metadata};
use crate::gguf::{Array, GgmlType, GgufError, Metadata, Value, int};
use crate::{Activation, LayerSpec, ModelSpec, Role};

/// Version of block layouts.
const QUANTIZATION_VERSION: u32 = 2;

/// Writes `general.*` and the architecture's keys.
pub(super) fn model_metadata(
    metadata: &mut Metadata,
    source: ExportSource<'_>,
    options: &ExportOptions,
    tensors: &[ExportTensor],
) -> Result<(), GgufError> {
    let spec = source.spec;
    metadata.set("general.architecture", text(spec.family.name()));
    metadata.set("general.type", text("model"));
    sampling(metadata, source.texts.generation_config.as_deref());
    let names = NameSources {
        card: &source.texts.card,
        config: &source.texts.config,
        folder: &options.folder,
        name: options.name.as_deref(),
        parameters: tensors.iter().map(|tensor| tensor.new.shape.iter().product::<usize>() as u64).sum(),
        size_label: size_label(tensors),
    };
    name_metadata(metadata, &names);
    let first = spec.layers.first().ok_or_else(|| unsupported("block_count", "no layers", "one or more"))?;
    check_graph(spec)?;
    let mut set = |key: &str, value: Value| metadata.set(&format!("{}.{key}", spec.family.name()), value);
    set("block_count", int(spec.layers.len()));
    set("context_length", int(spec.max_positions));
    set("embedding_length", int(spec.hidden_size));
    if let Some(widths) = mlp_widths(spec, &source.texts.config) {
        set("feed_forward_length", widths);
    }
    set("attention.head_count", int(first.attention.heads));
    set("attention.head_count_kv", per_layer(spec, |layer| layer.attention.kv_heads));
    stored_keys(spec)?.into_iter().for_each(|(key, value)| set(key, value));
    set("attention.layer_norm_rms_epsilon", Value::F32(spec.norm_eps));
    if let Some(moe) = spec.layers.iter().find_map(|layer| layer.moe) {
        set("expert_count", int(moe.experts));
        set("expert_used_count", int(moe.router.top_k));
    }
    (spec.family.file().gguf.metadata)(&mut set, spec);
    if let Some(file_type) = file_type(options.kind, tensors) {
        metadata.set("general.file_type", Value::U32(file_type));
    }
    metadata.set("general.quantization_version", Value::U32(QUANTIZATION_VERSION));
    Ok(())
}

fn text(value: &str) -> Value {
    Value::String(value.to_owned())
}

fn unsupported(key: &str, actual: impl ToString, supported: &str) -> GgufError {
    GgufError::Unsupported {
        key: key.to_owned(),
        actual: actual.to_string(),
        supported: supported.to_owned(),
    }
}

/// One number when all layers agree, else one per layer.
fn per_layer(spec: &ModelSpec, of: impl Fn(&LayerSpec) -> usize) -> Value {
    let list: Vec<usize> = spec.layers.iter().map(of).collect();
    match list.windows(2).all(|pair| pair[0] == pair[1]) {
        true => int(list.first().copied().unwrap_or(0)),
        false => {
            Value::Array(Array::I32(list.iter().map(|&v| i32::try_from(v).unwrap_or(i32::MAX)).collect()))
        }
    }
}

/// Widths of dense MLPs. Where all layers have experts instead the configuration's, as the converter writes it: no
/// reader computes with that.
fn mlp_widths(spec: &ModelSpec, config: &str) -> Option<Value> {
    if spec.layers.iter().any(|layer| layer.mlp.is_some()) {
        return Some(per_layer(spec, LayerSpec::mlp_width));
    }
    let config: serde_json::Value = serde_json::from_str(config).ok()?;
    Some(int(usize::try_from(config.get("intermediate_size")?.as_u64()?).ok()?))
}

/// What is not stored, because readers derive it: the scale of attention, activations, which projections have biases,
/// which layers have experts, whether their weights are brought back to a sum of one.
fn check_graph(spec: &ModelSpec) -> Result<(), GgufError> {
    let rules = &spec.family.file().gguf;
    (rules.loads)(spec)?;
    let (key, activation) = rules.activation;
    let sparse = spec.layers.iter().filter(|layer| layer.moe.is_some()).count();
    if sparse > 0 && sparse < spec.layers.len() {
        let actual = format!("for {sparse} of {} layers", spec.layers.len());
        let supported = "every layer: decoder_sparse_step 1 and no mlp_only_layers";
        return Err(unsupported("expert_count", actual, supported));
    }
    for layer in &spec.layers {
        let attention = &layer.attention;
        let width = (rules.score_width)(spec, attention);
        let derived = (1.0 / (width as f64).sqrt()) as f32;
        if (attention.scale / derived - 1.0).abs() > 1e-5 {
            let scalar = (f64::from(attention.scale).powi(-2) * 1e4).round() / 1e4;
            return Err(unsupported("query_pre_attn_scalar", scalar, &width.to_string()));
        }
        let mlp = layer.mlp.map(|mlp| mlp.activation);
        let used = mlp.into_iter().chain(layer.moe.map(|moe| moe.activation));
        if let Some(other) = used.into_iter().find(|used| *used != activation) {
            return Err(unsupported(key, activation_name(other), &activation_name(activation)));
        }
        if layer.moe.is_some_and(|moe| !moe.router.renormalize) {
            return Err(unsupported("norm_topk_prob", "false", "true"));
        }
        let never = attention.window.filter(|window| *window < spec.max_positions && !rules.windows);
        if let Some(window) = never {
            return Err(unsupported("sliding_window", window, "null: the engine's graph has no windows"));
        }
        if attention.bias && !rules.attention_bias {
            return Err(unsupported("attention_bias", "true", "false"));
        }
    }
    Ok(())
}

fn activation_name(activation: Activation) -> String {
    match activation {
        Activation::SILU => "silu".to_owned(),
        Activation::GELU_TANH => "gelu_pytorch_tanh".to_owned(),
        other => format!("{other:?}"),
    }
}

/// Settings of generation that the model comes with.
fn sampling(metadata: &mut Metadata, generation_config: Option<&str>) {
    let config: Option<serde_json::Value> =
        generation_config.and_then(|text| serde_json::from_str(text).ok());
    let number =
        |key: &str| config.as_ref().and_then(|config| config.get(key)).and_then(serde_json::Value::as_f64);
    if let Some(top_k) = number("top_k") {
        metadata.set("general.sampling.top_k", Value::I32(top_k as i32));
    }
    let rest = [
        ("top_p", "top_p"),
        ("min_p", "min_p"),
        ("temperature", "temp"),
        ("repetition_penalty", "penalty_repeat"),
    ];
    for (key, name) in rest {
        if let Some(value) = number(key) {
            metadata.set(&format!("general.sampling.{name}"), Value::F32(value as f32));
        }
    }
}

/// `general.file_type`: that of the type most weights have.
fn file_type(wanted: GgmlType, tensors: &[ExportTensor]) -> Option<u32> {
    if tensors.iter().any(|tensor| tensor.new.kind == wanted) {
        return wanted.file_type();
    }
    let largest = tensors.iter().max_by_key(|tensor| tensor.new.bytes());
    largest.and_then(|tensor| tensor.new.kind.file_type())
}

/// Parameters in two digits or more: `270M`, `8x138K`.
fn size_label(tensors: &[ExportTensor]) -> String {
    let (mut all, mut experts, mut counts) = (0, 0, Vec::new());
    for tensor in tensors {
        let size: usize = tensor.new.shape.iter().product();
        if matches!(tensor.role, Role::ExpertGateUp | Role::ExpertDown) {
            experts += size / tensor.new.shape[0].max(1);
            counts.push(tensor.new.shape[0]);
        } else {
            all += size;
        }
    }
    match counts.len() {
        0 => rounded(all),
        n => format!("{}x{}", counts.iter().sum::<usize>() / n, rounded(all + experts)),
    }
}

pub(super) fn rounded(parameters: usize) -> String {
    let n = parameters as f64;
    let scales = [(1e12, 1e-12, "T"), (1e9, 1e-9, "B"), (1e6, 1e-6, "M")];
    let (scale, suffix) = scales
        .into_iter()
        .find(|(above, ..)| n > *above)
        .map_or((1e-3, "K"), |(_, scale, suffix)| (scale, suffix));
    let scaled = n * scale;
    let digits = format!("{scaled:.0}").trim_start_matches('0').len();
    format!("{scaled:.*}{suffix}", 2usize.saturating_sub(digits))
}
