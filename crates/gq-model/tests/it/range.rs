//! The overflow probe: a residual beyond the range of fp16 passes everywhere.

use crate::fixtures::{Recipe, Reference, TINY, contained, exact, prefill, rewritten, tiny};
use gq_model::{ActivationMode, Model, RunOptions};
use gq_tensor::{Encoding, Isa, RotationKind};

/// Embeddings are enlarged until residuals pass 1e5; logits must come out finite, which `forward` checks.
#[test]
fn large_residuals_pass_every_operator() {
    for name in TINY {
        let dir = tempfile::tempdir().unwrap();
        let checkpoint = rewritten(&tiny(name), dir.path(), |name, _, values| {
            if name == "model.embed_tokens.weight" {
                let rms = (values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32).sqrt();
                values.iter_mut().for_each(|x| *x *= 1e5 / rms);
            }
        });
        let tokens = &Reference::read(name).rows[0];
        for level in Isa::available() {
            let model = Model::from_checkpoint(checkpoint.clone(), exact(level)).unwrap();
            prefill(&model, tokens);
            prefill(&model, &tokens[..1]);
            for encoding in ["tq4", "tq8"] {
                let encoding = Encoding::from_name(encoding).unwrap();
                let recipe = Recipe { encoding, rotation: RotationKind::Hadamard };
                let container = contained(&checkpoint, recipe, &dir.path().join("model.gq"));
                let options = RunOptions { activations: ActivationMode::Int8, ..exact(level) };
                let model = Model::from_container(container, options).unwrap();
                prefill(&model, tokens);
                prefill(&model, &tokens[..1]);
            }
        }
    }
}
