//! Numbers that are none: the weights that met them first.

use crate::deterministic::{Observation, Overlay};
use crate::pass::{HEAD_ROWS, Run, State, Walk, logits};
use gq_model::{Model, ModelError};

/// Runs a sequence from position 0 in deterministic arithmetic to see whether all that a model computes is finite:
/// inputs of products, the residual stream and the logits. Takes a forward pass; memory is that of one layer's work.
///
/// # Errors
/// [`ModelError::Activations`] with the first weights that meet numbers which are not finite, or give such
/// logits; for an empty sequence or a token beyond the vocabulary.
pub fn check_activations(model: &Model, tokens: &[u32]) -> Result<(), ModelError> {
    model.check_tokens(tokens)?;
    let mut found: Option<ModelError> = None;
    let mut observe = |seen: Observation<'_>| {
        if found.is_none() {
            found = seen.weights.first().and_then(|weight| ModelError::of_input(weight.name(), seen.input));
        }
    };
    let (walk, mut state) = (Walk::new(model, tokens), State::default());
    for layer in 0..model.graph().layers() {
        let run = Run { observer: Some(&mut observe), ..Run::default() };
        state = walk.layer_from(layer, state, run, true);
    }
    if let Some(error) = found {
        return Err(error);
    }
    let (hidden, head) = (state.x, model.graph().head().name());
    // What comes of the last layer goes to the final norm and the head.
    ModelError::of_input(head, &hidden).map_or(Ok(()), Err)?;
    for block in 0..tokens.len().div_ceil(HEAD_ROWS) {
        let logits = logits(model, &hidden, block, Overlay::default());
        if let Some(at) = logits.data.iter().position(|logit| !logit.is_finite()) {
            let value = logits.data[at].to_string();
            let (row, index) = (block * HEAD_ROWS + at / logits.width, at % logits.width);
            return Err(ModelError::NotFinite { row, index, value });
        }
    }
    Ok(())
}
