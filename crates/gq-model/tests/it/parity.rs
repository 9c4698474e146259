//! Every family against its reference implementation.

use crate::fixtures::{Greedy, Reference, TINY, difference, exact, max_error, testdata, tiny_model};
use gq_model::{Generation, GenerationOptions, LogitRows, Model, Sampling};
use gq_tensor::Isa;
use std::sync::Arc;

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

/// Of LongRoPE's lists the size of the cache chooses, whatever is in it: the reference goes by the length of the text, and
/// is the same where the text fills the cache.
#[test]
fn lists_of_frequencies_are_chosen_by_the_context() {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(testdata("tiny/phi3")).unwrap().map(|entry| entry.unwrap()) {
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    let level = Isa::detect();
    let model = tiny_model("phi3", exact(level));
    let path = dir.path().join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    // The same model in a context that is always a long one.
    config["rope_parameters"]["attention_factor"] = model.spec().ropes[0].attention_factor.into();
    config["original_max_position_embeddings"] = 4.into();
    std::fs::write(&path, config.to_string()).unwrap();
    let long = Arc::new(gq_checkpoint::Checkpoint::open(dir.path()).unwrap());
    let long = Model::from_checkpoint(long, exact(level)).unwrap();
    let tokens = &Reference::read("phi3").rows[0];
    let logits = |model: &Model, context: usize| {
        let (mut cache, mut logits) = (model.new_cache(context), Vec::new());
        model.forward(tokens, &mut cache, LogitRows::All, &mut logits).unwrap();
        logits
    };
    assert_eq!(model.spec().short_context(), Some(128));
    let short = logits(&model, tokens.len());
    assert_eq!(logits(&model, 128), short);
    assert_eq!(logits(&model, 129), logits(&long, tokens.len()));
    assert!(difference(&logits(&model, 129), &short) > 1.0);
}
