//! Text that a model writes itself: calibration and evaluation without a corpus, on what the model says.

use crate::ModelError;
use crate::chat::{ChatError, ChatMessage, ChatOptions, ChatTemplate};
use crate::generation::{Generation, GenerationError, GenerationOptions};
use crate::model::Model;
use crate::sampler::Sampling;
use crate::tokenizer::{SpecialText, Tokenizer, TokenizerError};

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

/// How much is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OwnTextOptions {
    /// Tokens wanted, prompts included; a little more is given.
    pub tokens: usize,
    /// Most tokens of one answer.
    pub answer: usize,
    /// Source of randomness.
    pub seed: u64,
}

/// A model that does not write.
#[derive(Debug, thiserror::Error)]
pub enum OwnTextError {
    /// The chat template refuses a request.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// The tokenizer refuses a request.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The model refuses a prompt.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Generation stopped with an error.
    #[error(transparent)]
    Generation(#[from] GenerationError),
}

/// Asks the model one request after the other, at temperature 1, and gives all tokens in one stream: each conversation
/// as its chat template renders it. A model without a template goes on from the requests as from any text.
///
/// `progress` is called with the tokens so far.
///
/// # Errors
/// [`OwnTextError`].
pub fn own_text(
    model: &Model,
    tokenizer: &Tokenizer,
    chat: Option<&ChatTemplate>,
    options: OwnTextOptions,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<u32>, OwnTextError> {
    let mut tokens = Vec::new();
    let stop = tokenizer.stop_tokens(chat);
    for (round, request) in (0u64..).zip(REQUESTS.iter().cycle()) {
        if tokens.len() >= options.tokens {
            break;
        }
        let prompt = match chat {
            Some(chat) => {
                let options = ChatOptions { add_generation_prompt: true, ..ChatOptions::default() };
                let turn = [ChatMessage::new("user", request)];
                tokenizer.prompt(&chat.render(&turn, &options)?, SpecialText::Parsed)?
            }
            None => tokenizer.prompt(request, SpecialText::Plain)?,
        };
        let seed = options.seed.wrapping_add(round);
        let sampling = Sampling { temperature: 1.0, seed, ..Sampling::default() };
        let how = GenerationOptions { max_tokens: options.answer, sampling, stop: stop.clone() };
        let generation = Generation::start(model, None, &prompt, how)?;
        tokens.extend(prompt);
        for piece in generation {
            tokens.extend(piece?.token);
        }
        tokens.extend(stop.first());
        progress(tokens.len().min(options.tokens));
    }
    Ok(tokens)
}
