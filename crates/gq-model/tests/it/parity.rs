//! Every family against its reference implementation.

use crate::fixtures::{Greedy, Reference, TINY, exact, max_error, tiny_model};
use gq_model::{Generation, GenerationOptions, LogitRows, Sampling};
use gq_tensor::Isa;

/// Three times what the reference's own f32 differs from its f64.
#[test]
fn logits_equal_the_reference() {
    for name in TINY {
        let reference = Reference::read(name);
        for level in Isa::available() {
            let model = tiny_model(name, exact(level));
            for (tokens, expected) in reference.rows.iter().zip(&reference.logits) {
                let (mut cache, mut logits) = (model.new_cache(tokens.len()), Vec::new());
                model.forward(tokens, &mut cache, LogitRows::All, &mut logits).unwrap();
                let (error, floor) = (max_error(&logits, expected), reference.facts.floor_max_abs);
                eprintln!("{name} on {}: {error:.1e}, floor {floor:.1e}", level.name());
                assert!(error <= 3.0 * floor, "{name} on {}: {error:e} > 3 x {floor:e}", level.name());
            }
        }
    }
}

/// The end-of-sequence token does not stop the reference's continuations.
#[test]
fn greedy_continuations_equal_the_reference() {
    for name in TINY {
        let model = tiny_model(name, exact(Isa::detect()));
        for Greedy { prompt, tokens } in Reference::read(name).facts.greedy {
            let sampling = Sampling::default();
            let options = GenerationOptions { max_tokens: tokens.len(), sampling, stop: Vec::new() };
            let generation = Generation::start(&model, None, &prompt, options).unwrap();
            let generated: Vec<_> = generation.map(|piece| piece.unwrap().token.unwrap()).collect();
            assert_eq!(generated, tokens, "{name}");
        }
    }
}
