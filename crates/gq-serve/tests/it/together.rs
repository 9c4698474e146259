//! Answers that are generated together are those that each has alone.

use crate::server::{engine, model};
use gq_model::cpu::Sums;
use gq_model::{ActivationMode, Sampling};
use gq_serve::{Engine, Event, Finish, Limits, Task, Usage};
use gq_text::{SpecialText, Tokenizer};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;

const LIMITS: fn() -> Limits = || Limits { parallel: 5, context: 700, ..Limits::default() };

fn task(prompt: Vec<u32>, max_tokens: usize, sampling: Sampling) -> Task {
    Task {
        prompt,
        max_tokens,
        sampling,
        stop: Vec::new(),
        stop_tokens: Vec::new(),
        parts: false,
        logprobs: Some(0),
        deadline: Instant::now() + Duration::from_secs(300),
    }
}

/// All of an answer: its bytes token by token, and how likely each was.
fn collect(mut events: UnboundedReceiver<Event>) -> (Vec<(Vec<u8>, f32)>, Finish, Usage) {
    let mut tokens = Vec::new();
    loop {
        match events.blocking_recv().expect("an answer ends with an event") {
            Event::Delta(delta) => {
                tokens.extend(delta.logprobs.into_iter().map(|one| (one.bytes, one.logprob)))
            }
            Event::End(finish, usage) => return (tokens, finish, usage),
            Event::Failed(error) => panic!("{error}"),
        }
    }
}

/// Ragged prompts, some longer than a step takes, with answers of several lengths.
fn tasks() -> Vec<Task> {
    let model = model();
    let tokenizer = Tokenizer::new(model.texts(), model.spec()).unwrap();
    let text = "When the train stopped in the snow nobody moved, and the lamps along the line were out. ";
    let task = |index: usize| {
        let start = index * 3 % 40;
        let text = &text.repeat(20)[start..start + [8, 30, 700, 90, 1500, 12, 260, 40][index % 8]];
        let temperature = if index.is_multiple_of(3) { 0.0 } else { 0.8 + 0.1 * index as f32 };
        let sampling = Sampling { temperature, top_p: 0.97, seed: index as u64, ..Sampling::default() };
        let prompt = tokenizer.prompt(text, SpecialText::Plain).unwrap();
        task(prompt, 4 + index * 7 % 25, sampling)
    };
    (0..12).map(task).collect()
}

fn submit(engine: &Engine, task: Task) -> UnboundedReceiver<Event> {
    engine.admit().unwrap().submit(task).unwrap()
}

#[test]
fn deterministic_sums_give_each_its_own_bits() {
    let alone: Vec<_> = {
        let engine = engine(Limits { parallel: 1, ..LIMITS() }, Sums::Deterministic);
        tasks().into_iter().map(|task| collect(submit(&engine, task))).collect()
    };
    let engine = engine(LIMITS(), Sums::Deterministic);
    let events: Vec<_> = tasks().into_iter().map(|task| submit(&engine, task)).collect();
    for (index, (events, alone)) in events.into_iter().zip(alone).enumerate() {
        let (tokens, finish, usage) = collect(events);
        assert_eq!((usage.prompt, usage.answer), (alone.2.prompt, alone.2.answer), "{index}");
        assert_eq!((tokens, finish), (alone.0, alone.1), "{index}");
    }
}

/// The fastest sums agree to rounding: the likeliest tokens are the same, and as likely.
#[test]
fn fastest_sums_choose_the_same_tokens() {
    let sums = Sums::Fastest(ActivationMode::F32);
    let greedy =
        || tasks().into_iter().map(|task| Task { sampling: Sampling::default(), ..task }).collect::<Vec<_>>();
    let alone: Vec<_> = {
        let engine = engine(Limits { parallel: 1, ..LIMITS() }, sums);
        greedy().into_iter().map(|task| collect(submit(&engine, task))).collect()
    };
    let engine = engine(LIMITS(), sums);
    let events: Vec<_> = greedy().into_iter().map(|task| submit(&engine, task)).collect();
    for (index, (events, alone)) in events.into_iter().zip(alone).enumerate() {
        let (tokens, ..) = collect(events);
        for (one, other) in tokens.iter().zip(&alone.0) {
            assert_eq!(one.0, other.0, "{index}");
            assert!((one.1 - other.1).abs() < 1e-3, "{index}: {} {}", one.1, other.1);
        }
        assert_eq!(tokens.len(), alone.0.len());
    }
}

/// What a cache has of a prompt is not read again, and what is answered is the same.
#[test]
fn a_conversation_goes_on_in_its_cache() {
    let engine = engine(LIMITS(), Sums::Deterministic);
    let first = tasks().remove(3);
    let (tokens, ..) = collect(submit(&engine, first.clone()));
    let other = tasks().remove(6);
    collect(submit(&engine, other.clone()));
    // Another cache was taken for that one; this one has both.
    let (again, _, usage) = collect(submit(&engine, first.clone()));
    assert_eq!((again, usage.cached), (tokens, first.prompt.len() - 1));
    let (_, _, usage) =
        collect(submit(&engine, Task { prompt: [first.prompt.clone(), vec![9, 9]].concat(), ..first }));
    assert!(usage.cached >= usage.prompt - 2, "{usage:?}");
}

/// A prompt of thousands of tokens does not keep others waiting until it is read.
#[test]
fn a_long_prompt_does_not_stall_a_short_one() {
    let limits = Limits { parallel: 2, context: 5000, ..Limits::default() };
    let engine = engine(limits, Sums::Fastest(ActivationMode::F32));
    let mut long = submit(&engine, task(vec![5; 4000], 1, Sampling::default()));
    let short = submit(&engine, task(vec![5, 6, 7], 8, Sampling::default()));
    let (tokens, ..) = collect(short);
    assert_eq!(tokens.len(), 8);
    assert!(long.try_recv().is_err(), "the long one is not read yet");
    let (tokens, finish, _) = collect(long);
    assert_eq!((tokens.len(), finish), (1, Finish::Length));
}

#[test]
fn what_cannot_be_begun_is_refused() {
    let limits = Limits { parallel: 1, queue: 1, context: 16, ..Limits::default() };
    let engine = engine(limits, Sums::Deterministic);
    let refused = |prompt: Vec<u32>| {
        let error = engine.admit().unwrap().submit(task(prompt, 4, Sampling::default())).unwrap_err();
        error.to_string()
    };
    assert!(refused(vec![]).contains("no tokens"));
    assert!(refused(vec![1 << 20]).contains("beyond the vocabulary"));
    assert!(refused(vec![5; 16]).contains("16 tokens"));
    // As many tickets as are answered and may wait; one comes back when it is dropped.
    let tickets = [engine.admit().unwrap(), engine.admit().unwrap()];
    assert!(engine.admit().err().unwrap().to_string().contains("1 requests are waiting"));
    drop(tickets);
    // An answer ends where the context does, and one without time is given up.
    let (tokens, finish, usage) = collect(submit(&engine, task(vec![5; 10], 100, Sampling::default())));
    assert_eq!((tokens.len(), finish, usage.answer), (6, Finish::Length, 6));
    let late = Task { deadline: Instant::now(), ..task(vec![5; 10], 4, Sampling::default()) };
    let mut events = submit(&engine, late);
    assert!(
        matches!(events.blocking_recv(), Some(Event::Failed(error)) if error.to_string().contains("longer"))
    );
    engine.close();
    assert!(engine.admit().is_err());
    engine.join();
}
