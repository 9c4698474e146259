//! Text that a model writes itself: calibration and evaluation without a corpus, on what the model says.
//!
//! Conversations are written side by side, so that the weights are read once for a token of each, and in deterministic
//! arithmetic: what is calibrated on such text has the same bytes everywhere.

use gq_checkpoint::ModelSpec;
use gq_model::{KvCache, KvType, Matrix, Model, ModelError, Sampler, Sampling, kv_cache_bytes};
use gq_text::{ChatError, ChatMessage, ChatOptions, ChatTemplate, SpecialText, Tokenizer, TokenizerError};
use rayon::prelude::*;

/// What the model is asked: prose, facts, code, mathematics, dialogue, several languages.
const REQUESTS: [&str; 40] = [
    "Write a short story about a lighthouse keeper who finds a message in a bottle.",
    "Explain how a refrigerator works to a curious ten-year-old.",
    "Write a Python function that merges two sorted lists, with tests.",
    "Solve step by step: a train travels 180 km in 2.5 hours. What is its mean speed, and how long does it take for 300 km?",
    "Summarize the causes of the First World War.",
    "Schreibe einen Brief an einen Freund, in dem du von einer Wanderung in den Alpen erzählst.",
    "Explique la différence entre la météo et le climat.",
    "Escribe una receta de tortilla de patatas con todos los pasos.",
    "What are the main parts of a plant cell, and what does each do?",
    "Write a Rust program that counts the words of a text file.",
    "Prove that the square root of two is irrational.",
    "Write a dialogue between a doctor and a patient who sleeps badly.",
    "Give me five ideas for a small garden on a balcony.",
    "Напиши короткий рассказ о первом снеге.",
    "用中文介绍一下茶的历史。",
    "日本の四季について短い文章を書いてください。",
    "Write an SQL query that lists each customer with the sum of their orders, and explain it.",
    "List the planets of the solar system with one fact about each, as a table.",
    "Explain what a hash table is and when it is slow.",
    "Write a polite e-mail asking for a meeting to be moved to Thursday.",
    "What happened during the Industrial Revolution in Britain?",
    "Compute the derivative of x^3 * sin(x) and explain each step.",
    "Write a poem about the sea at night.",
    "Descreva as vantagens e as desvantagens de morar numa cidade grande.",
    "Write a JavaScript function that debounces another function.",
    "How do vaccines work?",
    "Write a product description of a hand-made wooden chair.",
    "A box holds 3 red and 5 blue balls. Two are drawn without putting them back. What is the probability that both are red?",
    "Explain the rules of chess to a beginner.",
    "Spiega come si prepara un buon caffè.",
    "Write a bash script that renames all .jpeg files in a folder to .jpg.",
    "Describe the water cycle.",
    "Write a review of a film that you made up.",
    "اكتب فقرة عن أهمية القراءة.",
    "What is the difference between TCP and UDP?",
    "Write a JSON document that describes a library with three books.",
    "Plan a three-day visit to Rome.",
    "Explain inflation with an example.",
    "Write a C function that reverses a linked list, and say what its cost is.",
    "Translate into French and German: The weather was fine, so we walked along the river until it got dark.",
];

/// Conversations that are written side by side at most.
pub const MOST_CONVERSATIONS: usize = REQUESTS.len();

/// How much is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SelfTextOptions {
    /// Tokens wanted, prompts included; a little more is given.
    pub tokens: usize,
    /// Most tokens of one answer.
    pub answer: usize,
    /// Source of randomness.
    pub seed: u64,
    /// Bytes for conversations ([`conversation_bytes`]): as many are written side by side as fit, at least one. The text
    /// does not depend on it.
    pub memory: u64,
}

/// Bytes that a conversation of `tokens` tokens takes while it is written: keys and values, logits twice, and the
/// sampler's candidates.
pub fn conversation_bytes(spec: &ModelSpec, tokens: usize) -> u64 {
    kv_cache_bytes(spec, tokens, KvType::F32) + (2 * 4 + 16) * spec.vocab_size as u64
}

/// A model that does not write.
#[derive(Debug, thiserror::Error)]
pub enum SelfTextError {
    /// The chat template refuses a request.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// The tokenizer refuses a request.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The model cannot go on.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// Asks the model one request after the other, around and around, at temperature 1, and gives all tokens in one stream:
/// each conversation as its chat template renders it. A model without a template goes on from the requests as from any text.
///
/// `progress` is called with the tokens so far.
///
/// # Errors
/// [`SelfTextError`].
pub fn self_text(
    model: &Model,
    tokenizer: &Tokenizer,
    chat: Option<&ChatTemplate>,
    options: SelfTextOptions,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<u32>, SelfTextError> {
    let prompts = REQUESTS.iter().map(|request| match chat {
        Some(chat) => {
            let options = ChatOptions { add_generation_prompt: true, ..ChatOptions::default() };
            let turn = [ChatMessage::new("user", request)];
            Ok(tokenizer.encode(&chat.render(&turn, &options)?, SpecialText::Parsed)?)
        }
        None => Ok(tokenizer.prompt(request, SpecialText::Plain)?),
    });
    let prompts = prompts.collect::<Result<Vec<Vec<u32>>, SelfTextError>>()?;
    Ok(conversations(model, &prompts, &tokenizer.stop_tokens(chat), options, progress)?)
}

/// Prompts and what the model says to them, around and around until there are as many tokens as are wanted.
fn conversations(
    model: &Model,
    prompts: &[Vec<u32>],
    stop: &[u32],
    options: SelfTextOptions,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<u32>, ModelError> {
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0) + options.answer;
    let fitting = options.memory / conversation_bytes(model.spec(), longest).max(1);
    let fitting = usize::try_from(fitting).unwrap_or(usize::MAX).clamp(1, MOST_CONVERSATIONS);
    let mut tokens = Vec::new();
    let mut rounds = (0u64..).zip(prompts.iter().cycle());
    while tokens.len() < options.tokens {
        // No more than are needed if every answer is as long as it may be.
        let needed = (options.tokens - tokens.len()).div_ceil(options.answer.max(1));
        let talks = rounds.by_ref().take(needed.min(fitting)).map(|(round, prompt)| {
            let sampling =
                Sampling { temperature: 1.0, seed: options.seed.wrapping_add(round), ..Sampling::default() };
            Conversation {
                tokens: prompt.clone(),
                left: options.answer,
                cache: model.new_cache_of(prompt.len() + options.answer, KvType::F32),
                sampler: Sampler::new(sampling),
            }
        });
        let mut talks: Vec<_> = talks.collect();
        if talks.is_empty() {
            break;
        }
        let before = tokens.len();
        write(model, &mut talks, stop, &mut |written| progress((before + written).min(options.tokens)))?;
        for talk in talks {
            if tokens.len() >= options.tokens {
                break;
            }
            tokens.extend(talk.tokens);
            tokens.extend(stop.first());
        }
    }
    progress(options.tokens);
    Ok(tokens)
}

struct Conversation {
    /// The prompt and what has been said to it.
    tokens: Vec<u32>,
    /// Tokens that may still be said.
    left: usize,
    cache: KvCache,
    sampler: Sampler,
}

/// Goes on with every conversation to its end.
fn write(
    model: &Model,
    talks: &mut [Conversation],
    stop: &[u32],
    progress: &mut dyn FnMut(usize),
) -> Result<(), ModelError> {
    loop {
        let mut going: Vec<&mut Conversation> = talks.iter_mut().filter(|talk| talk.left > 0).collect();
        if going.is_empty() {
            return Ok(());
        }
        let new = going.iter_mut().map(|talk| {
            let Conversation { tokens, cache, .. } = &mut **talk;
            (&tokens[cache.len()..], cache)
        });
        let Matrix { width, data } = model.forward_deterministic(new.collect())?;
        going.into_par_iter().zip(data.par_chunks_exact(width)).for_each(|(talk, logits)| {
            let token = talk.sampler.sample(logits);
            if stop.contains(&token) {
                talk.left = 0;
            } else {
                talk.tokens.push(token);
                talk.left -= 1;
            }
        });
        progress(talks.iter().map(|talk| talk.tokens.len()).sum());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gq_suite::tiny as model;
    use gq_tensor::Isa;

    const TINY: [&str; 7] =
        ["llama", "qwen2", "qwen3-moe", "gemma3", "gemma4-e2b", "gemma4-moe", "gemma4-dense"];

    fn prompts(model: &Model, lengths: &[usize]) -> Vec<Vec<u32>> {
        let token = |i: usize| (i * i * 7 + 3 * i + 5) as u32 % model.vocab_size() as u32;
        lengths.iter().map(|&length| (length..2 * length).map(token).collect()).collect()
    }

    #[test]
    fn the_same_text_everywhere_however_many_write() {
        for name in TINY {
            let write = |level: Isa, threads: usize, memory: u64| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let model = model(name, level);
                let options = SelfTextOptions { tokens: 150, answer: 20, seed: 3, memory };
                let mut last = 0;
                let mut progress = |done| last = done;
                let text = pool.install(|| {
                    let prompts = prompts(&model, &[3, 17, 1, 40]);
                    conversations(&model, &prompts, &[1, 2], options, &mut progress).unwrap()
                });
                assert_eq!(last, 150, "{name}");
                text
            };
            let two = 2 * conversation_bytes(model(name, Isa::detect()).spec(), 60);
            let first = write(Isa::detect(), 1, 0);
            assert!(first.len() >= 150 && first.len() < 150 + 61, "{name}: {}", first.len());
            assert_eq!(first, write(Isa::detect(), 3, u64::MAX), "{name}");
            for level in Isa::available() {
                assert_eq!(first, write(level, 2, two), "{name} on {}", level.name());
            }
        }
    }
}
