//! Codes multiplied in place against the same model dequantized.

use crate::fixtures::{Recipe, Reference, TINY, contained, difference, exact, prefill, rewritten, tiny};
use gq_codec::{Decoder, Rotation};
use gq_container::Container;
use gq_model::{ActivationMode, LogitRows, Model, RunOptions};
use gq_tensor::{Encoding, Isa, RotationKind, Storage};
use std::sync::Arc;

/// The checkpoint whose weights are what the container's codes stand for.
fn dequantized(container: &Container, name: &str, dir: &std::path::Path) -> Model {
    let source = tiny(name);
    let checkpoint = rewritten(&source, dir, |name, cols, values| {
        let entry = container.tensor(name).unwrap();
        let matrix = container.matrix(entry).unwrap();
        let decoder = Decoder::new(Storage::new(entry.encoding, entry.rotation), cols).unwrap();
        let rotation = Rotation::new(entry.rotation, cols).unwrap();
        for (row, out) in values.chunks_mut(cols).enumerate() {
            decoder.decode_row(Isa::Scalar, &matrix, row, out);
            rotation.inverse(Isa::Scalar, out, &mut Vec::new());
        }
    });
    Model::from_checkpoint(checkpoint, exact(Isa::detect())).unwrap()
}

/// Logits of the first row, in a batch and then token by token.
fn both_ways(model: &Model, tokens: &[u32]) -> [Vec<f32>; 2] {
    let (mut cache, mut one_by_one, mut logits) = (model.new_cache(tokens.len()), Vec::new(), Vec::new());
    for &token in tokens {
        model.forward(&[token], &mut cache, LogitRows::Last, &mut logits).unwrap();
        one_by_one.extend_from_slice(&logits);
    }
    [prefill(model, tokens), one_by_one]
}

#[test]
fn codes_are_the_weights_they_stand_for() {
    let recipes = [
        ("tq4", RotationKind::Hadamard),
        ("tq8", RotationKind::Hadamard),
        ("tq3-g32", RotationKind::Hadamard),
        ("tq2", RotationKind::Haar),
        ("tqp3", RotationKind::Hadamard),
        ("polar4222", RotationKind::Hadamard),
        ("tt3", RotationKind::Hadamard),
    ];
    for (name, (encoding, rotation)) in TINY.iter().cycle().zip(recipes.iter().cycle()).take(24) {
        let recipe = Recipe { encoding: Encoding::from_name(encoding).unwrap(), rotation: *rotation };
        let dir = tempfile::tempdir().unwrap();
        let container = contained(&tiny(name), recipe, &dir.path().join("model.gq"));
        let reference = dequantized(&container, name, dir.path());
        let tokens = &Reference::read(name).rows[0];
        let expected = prefill(&reference, tokens);
        let spread = root_mean_square(&expected);
        for level in Isa::available() {
            let mut model = Model::from_container(container.clone(), exact(level)).unwrap();
            for logits in both_ways(&model, tokens) {
                let error = difference(&logits, &expected);
                assert!(error < 1e-4 * spread, "{name} in {encoding} on {}: {error:e}", level.name());
            }
            // Int8 moves logits by little; where it moves a router's input, another expert may be chosen.
            let limit = if name.ends_with("moe") || name.starts_with("gpt-oss") { 0.15 } else { 0.05 };
            model.set_options(RunOptions { activations: ActivationMode::Int8, ..exact(level) });
            for logits in both_ways(&model, tokens) {
                let moved: Vec<_> = logits.iter().zip(&expected).map(|(a, b)| a - b).collect();
                let moved = root_mean_square(&moved) / spread;
                assert!(moved > 1e-4 && moved < limit, "{name} in {encoding}: {moved:e}");
            }
        }
    }
}

/// Weights kept as floats meet f32 activations in either mode: the same bits.
#[test]
fn exact_weights_are_left_exact() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = Recipe { encoding: Encoding::Exact(gq_tensor::DType::BF16), rotation: RotationKind::None };
    let container: Arc<Container> = contained(&tiny("gemma4-moe"), recipe, &dir.path().join("model.gq"));
    let tokens = &Reference::read("gemma4-moe").rows[1];
    let options = exact(Isa::detect());
    let int8 = RunOptions { activations: ActivationMode::Int8, ..options };
    let from_file = Model::from_container(container, int8).unwrap();
    let from_directory = Model::from_checkpoint(tiny("gemma4-moe"), options).unwrap();
    assert_eq!(both_ways(&from_file, tokens), both_ways(&from_directory, tokens));
}

fn root_mean_square(values: &[f32]) -> f64 {
    let sum: f64 = values.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    (sum / values.len() as f64).sqrt()
}
