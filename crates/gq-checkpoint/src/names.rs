//! Names in files to canonical names: those of the text model saved alone.

/// Prefixes in files and what they become; the first that fits is taken.
///
/// `model.language_model.` is written by newer transformers, `language_model.model.` by older ones,
/// bare names by a base model saved without its head.
const PREFIXES: [(&str, &str); 12] = [
    ("model.language_model.", "model."),
    ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."),
    ("model.", "model."),
    ("lm_head.", "lm_head."),
    ("layers.", "model.layers."),
    ("embed_tokens", "model.embed_tokens"),
    ("norm.", "model.norm."),
    ("per_layer_", "model.per_layer_"),
    ("vision_", "model.vision_"),
    ("audio_tower.", "model.audio_tower."),
    ("embed_", "model.embed_"),
];

/// Everything a wrapper model has beside its language model.
const TOWERS: [&str; 6] = [
    "model.vision_tower.",
    "model.vision_embedder.",
    "model.audio_tower.",
    "model.embed_vision.",
    "model.embed_audio.",
    "model.multi_modal_projector.",
];

/// The canonical name of a tensor of any supported file.
pub(crate) fn canonical(source: &str) -> String {
    let renamed = PREFIXES.iter().find_map(|(from, to)| Some(format!("{to}{}", source.strip_prefix(from)?)));
    match renamed {
        Some(name) => name,
        None if source.starts_with("multi_modal_projector.") => format!("model.{source}"),
        None => source.to_owned(),
    }
}

/// Whether a canonical name belongs to a vision or audio tower or its projector.
pub(crate) fn is_tower(canonical: &str) -> bool {
    TOWERS.iter().any(|tower| canonical.starts_with(tower))
}

/// Layer number and the rest of a canonical name `model.layers.N.rest`; N without leading zeros.
pub(crate) fn in_layer(canonical: &str) -> Option<(usize, &str)> {
    let (number, rest) = canonical.strip_prefix("model.layers.")?.split_once('.')?;
    let plain = number == "0" || !number.starts_with('0');
    let digits = number.bytes().all(|b| b.is_ascii_digit());
    Some((number.parse().ok().filter(|_| plain && digits)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_spelling() {
        for (source, expected) in [
            ("model.layers.3.mlp.up_proj.weight", "model.layers.3.mlp.up_proj.weight"),
            ("model.language_model.layers.3.mlp.up_proj.weight", "model.layers.3.mlp.up_proj.weight"),
            ("language_model.model.norm.weight", "model.norm.weight"),
            ("language_model.lm_head.weight", "lm_head.weight"),
            ("layers.0.layer_scalar", "model.layers.0.layer_scalar"),
            ("embed_tokens_per_layer.weight", "model.embed_tokens_per_layer.weight"),
            ("per_layer_projection_norm.weight", "model.per_layer_projection_norm.weight"),
            ("vision_tower.a", "model.vision_tower.a"),
            ("embed_vision.a", "model.embed_vision.a"),
            ("multi_modal_projector.a", "model.multi_modal_projector.a"),
            ("foo", "foo"),
        ] {
            assert_eq!(canonical(source), expected);
        }
        assert!(is_tower(&canonical("model.audio_tower.x")) && !is_tower("model.layers.0.x"));
        assert_eq!(in_layer("model.layers.12.mlp.x"), Some((12, "mlp.x")));
        assert_eq!(in_layer("model.layers.012.mlp.x"), None);
        assert_eq!(in_layer("model.layers.+1.mlp.x"), None);
    }
}
