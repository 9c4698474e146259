//! `gq run`: generates text and shows it as it comes.

use crate::adapters::Adapters;
use crate::cli::Global;
use crate::clock;
use crate::failure::Failure;
use crate::source::{self, Loaded};
use gq_model::{
    ChatMessage, ChatOptions, ChatTemplate, Generation, GenerationOptions, Sampling, SpecialText, StopReason,
    Tokenizer,
};
use std::path::PathBuf;
use std::time::Instant;

/// Generate text from a .gq file, a checkpoint directory or a GGUF.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  gq run smol.gq -p 'Once upon a time' -n 100
  gq run smol.gq --chat -p 'Why is the sky blue?' --temp 0.7 --top-p 0.9 --seed 1")]
pub struct RunArgs {
    /// A .gq file, a checkpoint directory or a GGUF, here or on the Hub (hf://ORG/NAME, hf://ORG/NAME/FILE.gq).
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    #[command(flatten)]
    loras: Adapters,
    /// The text to continue, or the question under --chat.
    #[arg(short, long)]
    prompt: String,
    /// Wrap the prompt in the model's own chat template.
    #[arg(long)]
    chat: bool,
    /// A system turn before the prompt.
    #[arg(long, requires = "chat", value_name = "TEXT")]
    system: Option<String>,
    /// Most tokens to generate.
    #[arg(short = 'n', long, default_value_t = 64, value_name = "N")]
    tokens: usize,
    /// Temperature; 0 always takes the likeliest token.
    #[arg(long, default_value_t = 0.0, value_name = "T")]
    temp: f32,
    /// Sample among the K likeliest tokens; 0 for all.
    #[arg(long, default_value_t = 0, value_name = "K")]
    top_k: usize,
    /// Sample among the likeliest tokens that hold this share of the probability.
    #[arg(long, default_value_t = 1.0, value_name = "P")]
    top_p: f32,
    /// Leave out tokens less likely than this share of the likeliest.
    #[arg(long, default_value_t = 0.0, value_name = "P")]
    min_p: f32,
    /// Source of randomness.
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Arithmetic of activations [default: int8 for a .gq file, f32 for a checkpoint].
    #[arg(long, value_name = "KIND")]
    activations: Option<super::Activations>,
    /// Storage of keys and values: f16 halves their memory, q8 quarters it.
    #[arg(long, default_value = "f32", value_name = "KIND")]
    kv: super::Kv,
}

/// What was generated.
pub struct Answer {
    /// The text.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// Tokens of the prompt.
    pub prompt: Vec<u32>,
    /// Seconds until the first token could be chosen.
    pub prompt_seconds: f64,
    /// Seconds for the rest.
    pub seconds: f64,
    /// Why it ended.
    pub stop: &'static str,
}

pub fn run(args: &RunArgs, global: &Global) -> Result<(), Failure> {
    source::with_threads(global, || generate_and_show(args, global))?
}

fn generate_and_show(args: &RunArgs, global: &Global) -> Result<(), Failure> {
    let output = global.output();
    let found = source::find(&args.model, global)?;
    let loaded = source::model_how(&found.path, &args.loras, (args.activations, args.kv), global)?;
    let sampling = Sampling {
        temperature: args.temp,
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
        seed: args.seed,
    };
    let turns = args.chat.then(|| {
        let system = args.system.iter().map(|text| ChatMessage::new("system", text));
        system.chain([ChatMessage::new("user", &args.prompt)]).collect::<Vec<_>>()
    });
    let mut show = |piece: &str| match output.json {
        true => Ok(()),
        false => output.data(piece),
    };
    let answer = answer(&loaded, &args.prompt, turns.as_deref(), args.tokens, sampling, &mut show)?;
    let rate = |n: usize, seconds: f64| n as f64 / seconds.max(1e-9);
    let decode_rate = rate(answer.tokens.len().saturating_sub(1), answer.seconds);
    if output.json {
        return output.document(&serde_json::json!({
            "text": answer.text,
            "tokens": answer.tokens,
            "prompt_tokens": answer.prompt,
            "stop": answer.stop,
            "prompt_tokens_per_second": rate(answer.prompt.len(), answer.prompt_seconds),
            "tokens_per_second": decode_rate,
        }));
    }
    output.data("\n")?;
    output.note(&format!(
        "{} prompt tokens at {:.1}/s, {} generated at {decode_rate:.1}/s, ended by {}",
        answer.prompt.len(),
        rate(answer.prompt.len(), answer.prompt_seconds),
        answer.tokens.len(),
        answer.stop,
    ));
    Ok(())
}

/// Generates; `show` gets every piece of text as it becomes certain.
pub fn answer(
    loaded: &Loaded,
    prompt: &str,
    turns: Option<&[ChatMessage]>,
    max_tokens: usize,
    sampling: Sampling,
    show: &mut dyn FnMut(&str) -> Result<(), Failure>,
) -> Result<Answer, Failure> {
    let model = &loaded.model;
    let tokenizer = Tokenizer::new(model.texts(), model.spec())?;
    let template = turns.map(|_| ChatTemplate::new(model.texts())).transpose()?;
    let template = template.map(|template| template.with_clock(clock::clock(None)));
    let prompt = match (&template, turns) {
        (Some(template), Some(turns)) => {
            let options = ChatOptions { add_generation_prompt: true, ..ChatOptions::default() };
            tokenizer.encode(&template.render(turns, &options)?, SpecialText::Parsed)?
        }
        _ => tokenizer.prompt(prompt, SpecialText::Plain)?,
    };
    let started = Instant::now();
    let options = GenerationOptions { max_tokens, sampling, stop: tokenizer.stop_tokens(template.as_ref()) };
    let mut generation = Generation::start(model, Some(&tokenizer), &prompt, options)?;
    let prompt_seconds = started.elapsed().as_secs_f64();
    let started = Instant::now();
    let (mut text, mut tokens) = (String::new(), Vec::new());
    for piece in &mut generation {
        let piece = piece?;
        tokens.extend(piece.token);
        show(&piece.text)?;
        text += &piece.text;
    }
    let stop = match generation.stop_reason() {
        Some(StopReason::Stop(_)) => "stop token",
        Some(StopReason::CacheFull) => "full cache",
        Some(StopReason::MaxTokens) | None => "token limit",
    };
    Ok(Answer { text, tokens, prompt, prompt_seconds, seconds: started.elapsed().as_secs_f64(), stop })
}
