//! Names in files to canonical names: those of the text model saved alone.

use crate::declared::is_number;
use crate::family::{is_beside_text, is_module_of_text};

/// What wrappers put in the place of `model.`: newer transformers, older ones.
const WRAPPED: [&str; 2] = ["model.language_model.", "language_model.model."];

/// What towers begin with in a file that has no `model.` before them.
const BARE_TOWERS: [&str; 4] = ["vision_", "audio_tower.", "embed_", "multi_modal_projector."];

/// Everything a wrapper model has in addition to its language model.
const TOWERS: [&str; 6] = [
    "model.vision_tower.",
    "model.vision_embedder.",
    "model.audio_tower.",
    "model.embed_vision.",
    "model.embed_audio.",
    "model.multi_modal_projector.",
];

/// The canonical name of a tensor of any supported file: without wrappers, with the `model.` that a base model saved
/// without its head leaves out.
pub(crate) fn canonical(source: &str) -> String {
    if let Some(rest) = WRAPPED.iter().find_map(|wrapper| source.strip_prefix(wrapper)) {
        return format!("model.{rest}");
    }
    match source.strip_prefix("language_model.") {
        Some(head) if is_beside_text(head) => return head.to_owned(),
        _ => {}
    }
    let bare = is_module_of_text(source) || BARE_TOWERS.iter().any(|tower| source.starts_with(tower));
    if bare { format!("model.{source}") } else { source.to_owned() }
}

/// Whether a canonical name belongs to a vision or audio tower or its projector.
pub(crate) fn is_tower(canonical: &str) -> bool {
    TOWERS.iter().any(|tower| canonical.starts_with(tower))
}

/// Layer number and the rest of a canonical name `model.layers.N.rest`; N without leading zeros.
pub(crate) fn in_layer(canonical: &str) -> Option<(usize, &str)> {
    let (number, rest) = canonical.strip_prefix("model.layers.")?.split_once('.')?;
    Some((number.parse().ok().filter(|_| is_number(number))?, rest))
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
