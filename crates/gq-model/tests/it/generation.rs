//! Generation: pieces, stop tokens and reasons.

use crate::fixtures::{exact, testdata, tiny_model};
use gq_checkpoint::Checkpoint;
use gq_model::{
    Generation, GenerationOptions, Model, RunOptions, Sampling, SpecialText, StopReason, Tokenizer,
};
use gq_tensor::CpuLevel;
use std::sync::Arc;

fn options(max_tokens: usize, stop: Vec<u32>) -> GenerationOptions {
    GenerationOptions { max_tokens, sampling: Sampling::default(), stop }
}

fn run(model: &Model, options: GenerationOptions) -> (Vec<u32>, Option<StopReason>) {
    let mut generation = Generation::start(model, None, &[2, 117, 184, 113], options).unwrap();
    let tokens = generation.by_ref().map(|piece| piece.unwrap().token.unwrap()).collect();
    (tokens, generation.stop_reason())
}

#[test]
fn ends_where_it_should() {
    let model = tiny_model("gemma4-e4b", exact(CpuLevel::detect()));
    let (tokens, reason) = run(&model, options(12, vec![]));
    assert_eq!((tokens.len(), reason), (12, Some(StopReason::MaxTokens)));
    let stop = tokens[5];
    let first = tokens.iter().position(|&token| token == stop).unwrap();
    let (until, reason) = run(&model, options(12, vec![stop]));
    assert_eq!((until.as_slice(), reason), (&tokens[..first], Some(StopReason::Stop(stop))));
    assert_eq!(run(&model, options(0, vec![])), (vec![], Some(StopReason::MaxTokens)));
}

#[test]
fn a_seed_fixes_the_text() {
    let checkpoint = Arc::new(Checkpoint::open(testdata("demo")).unwrap());
    let model = Model::from_checkpoint(checkpoint, RunOptions::default()).unwrap();
    let tokenizer = Tokenizer::new(model.texts(), model.spec()).unwrap();
    let prompt = tokenizer.prompt("Elizabeth was", SpecialText::Plain).unwrap();
    let text = |seed| {
        let sampling = Sampling { temperature: 0.8, top_p: 0.95, seed, ..Sampling::default() };
        let options = GenerationOptions { sampling, ..options(24, tokenizer.eos().to_vec()) };
        let generation = Generation::start(&model, Some(&tokenizer), &prompt, options).unwrap();
        let pieces: Vec<_> = generation.map(|piece| piece.unwrap()).collect();
        let tokens: Vec<_> = pieces.iter().filter_map(|piece| piece.token).collect();
        let text: String = pieces.into_iter().map(|piece| piece.text).collect();
        assert_eq!(text, tokenizer.decode(&tokens).unwrap());
        text
    };
    assert_eq!(text(1), text(1));
    assert_ne!(text(1), text(2));
}
