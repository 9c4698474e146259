//! Generation: pieces, stop tokens and reasons.

use crate::fixtures::{exact, testdata, tiny_model};
use gq_checkpoint::Checkpoint;
use gq_model::{Asked, Generation, GenerationOptions, Model, RunOptions, Sampling, StopReason};
use gq_tensor::Isa;
use gq_text::{SpecialText, Tokenizer};
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
    let model = tiny_model("gemma4-e4b", exact(Isa::detect()));
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

/// The next turn of a conversation runs what is new in it, and says what a fresh start would say.
#[test]
fn a_second_prompt_costs_what_is_new() {
    // Full attention, a window that the second turn passes, and one that the first turn has passed already.
    for (name, first, second) in
        [("llama", 20, 12), ("gemma3", 5, 30), ("gemma3", 60, 20), ("gemma4-e2b", 60, 9)]
    {
        let model = tiny_model(name, exact(Isa::detect()));
        let token = |i: usize| (i * i * 7 + 3 * i + 5) as u32 % model.vocab_size() as u32;
        let answer = |generation: &mut Generation<'_>| -> Vec<u32> {
            generation.by_ref().map(|piece| piece.unwrap().token.unwrap()).collect()
        };
        let mut talk = Generation::new(&model, None, 256, Sampling::default(), vec![]);
        let mut prompt: Vec<u32> = (0..first).map(token).collect();
        assert_eq!(talk.ask(&prompt, 8, &|| true).unwrap(), Asked::Ready { reused: 0 });
        prompt.extend(answer(&mut talk));
        let seen = talk.seen().to_vec();
        assert_eq!(seen, prompt[..prompt.len() - 1], "the last token was not run yet");
        prompt.extend((0..second).map(|i| token(i + 1000)));
        assert_eq!(talk.ask(&prompt, 8, &|| true).unwrap(), Asked::Ready { reused: seen.len() }, "{name}");
        let again = answer(&mut talk);
        let fresh = |prompt: &[u32]| {
            answer(&mut Generation::start(&model, None, prompt, options(8, vec![])).unwrap())
        };
        assert_eq!(again, fresh(&prompt), "{name}");

        // Another past: only what is the same is kept, or nothing where a window has slid over it.
        prompt[first / 2] ^= 1;
        let Asked::Ready { reused } = talk.ask(&prompt, 8, &|| true).unwrap() else { panic!() };
        assert!(reused == first / 2 || reused == 0 && name != "llama", "{name}: {reused}");
        assert_eq!(answer(&mut talk), fresh(&prompt), "{name}");
        // The same once more: the last token alone.
        let Asked::Ready { reused } = talk.ask(&prompt, 8, &|| true).unwrap() else { panic!() };
        assert!(reused == prompt.len() - 1 || reused == 0 && name != "llama", "{name}: {reused}");
        assert_eq!(answer(&mut talk), fresh(&prompt), "{name}");
        talk.clear();
        assert_eq!(talk.ask(&prompt, 8, &|| true).unwrap(), Asked::Ready { reused: 0 });
        assert_eq!(answer(&mut talk), fresh(&prompt), "{name}");
    }
}

#[test]
fn a_prompt_can_be_stopped_and_taken_up() {
    let model = tiny_model("llama", exact(Isa::detect()));
    let prompt: Vec<u32> = (0..1200).map(|i| (i * 13 + 7) % model.vocab_size() as u32).collect();
    let mut talk = Generation::new(&model, None, 1300, Sampling::default(), vec![]);
    let left = std::cell::Cell::new(2);
    let going = || left.replace(left.get() - 1) > 0;
    assert_eq!(talk.ask(&prompt, 4, &going).unwrap(), Asked::Stopped);
    assert_eq!((talk.seen().len(), talk.next().is_none()), (1024, true));
    assert_eq!(talk.ask(&prompt, 4, &|| true).unwrap(), Asked::Ready { reused: 1024 });
    let too_long = vec![1; 1301];
    assert!(matches!(talk.ask(&too_long, 4, &|| true), Err(gq_model::ModelError::CacheFull { .. })));
}
