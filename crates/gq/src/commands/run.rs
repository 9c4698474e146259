//! `gq run`: a chat on a terminal, or one answer shown as it comes.

use crate::adapters::Adapters;
use crate::clock;
use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::output::Output;
use crate::source::{self, Loaded};
use crate::talk::{self, Answer, Conversation, End, Manner, Most, SamplingArgs, Settings};
use crate::units;
use gq_checkpoint::ModelSpec;
use gq_model::{Model, Sampling};
use gq_text::{ChatError, ChatTemplate, Part, Tokenizer};
use jiff::civil::DateTime;
use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// Tokens of context unless --ctx says otherwise; memory for keys and values is touched as they come.
const CONTEXT: usize = 8192;

/// Talk to a model: a .gq file, a checkpoint directory or a GGUF.
///
/// On a terminal it opens a chat; /help there says how. With -p, or with text on standard input, it answers once.
/// A model with a chat template is asked through it, as transformers renders it; --raw continues the text as it is.
/// Tokens are chosen as the model's generation_config.json asks for.
/// Weights are read without comparing their digests; `gq verify` does that.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  gq run smol.gq                                        a chat
  gq run smol.gq -p 'Why is the sky blue?' --temp 0.7 --seed 1
  gq run smol.gq --raw -p 'Once upon a time' -n 100     go on with a text
  gq run smol.gq < question.txt")]
pub struct RunArgs {
    /// A .gq file, a checkpoint directory or a GGUF, here or on the Hub (hf://ORG/NAME, hf://ORG/NAME/FILE.gq).
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    #[command(flatten)]
    loras: Adapters,
    /// What to answer, or with --raw to go on with [default: a chat on a terminal, else standard input].
    #[arg(short, long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Insist on the model's chat template, which is used anyway where there is one.
    #[arg(long, conflicts_with = "raw")]
    chat: bool,
    /// Go on with the text as it is, without the chat template.
    #[arg(long)]
    raw: bool,
    /// A system turn before the first one.
    #[arg(long, conflicts_with = "raw", value_name = "TEXT")]
    system: Option<String>,
    /// What a chat template that asks for the date is told, such as 2025-07-26 or 2025-07-26T13:05 [default: now].
    #[arg(long, conflicts_with = "raw", value_name = "DATE", value_parser = clock::parse_date)]
    date: Option<DateTime>,
    /// Most tokens of an answer [default: as generation_config.json says, else until the model ends its turn or the
    /// context is full].
    #[arg(short = 'n', long, value_name = "N")]
    tokens: Option<usize>,
    /// Tokens of prompts and answers together, such as 32k [default: 8192, or the model's own limit, or the end of its short
    /// contexts (LongRoPE), if that is less].
    #[arg(long, value_name = "N", value_parser = context)]
    ctx: Option<usize>,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Arithmetic of activations [default: int8 for a .gq file, f32 for a checkpoint].
    #[arg(long, value_name = "KIND")]
    activations: Option<crate::options::kinds::Activations>,
    /// Storage of keys and values: f16 halves their memory, q8 quarters it.
    #[arg(long, default_value = "f32", value_name = "KIND")]
    kv: crate::options::kinds::Kv,
    #[command(flatten)]
    device: crate::device::DeviceArgs,
}

/// Parses `--ctx`.
pub fn context(text: &str) -> Result<usize, String> {
    units::parse_tokens(text)
        .and_then(|n| if n < 16 { Err("expected at least 16 tokens".to_owned()) } else { Ok(n) })
}

pub fn run(args: &RunArgs, global: &Global) -> Result<(), Failure> {
    source::with_threads(global, || talk_to(args, global))?
}

fn talk_to(args: &RunArgs, global: &Global) -> Result<(), Failure> {
    let output = global.output();
    let (reads, shows) = (std::io::stdin().is_terminal(), std::io::stdout().is_terminal());
    let chat = args.prompt.is_none() && reads && shows && !output.json;
    let found = source::find(&args.model, global)?;
    let prompt = match &args.prompt {
        Some(prompt) => Some(prompt.clone()),
        None if chat => None,
        None => {
            if reads {
                output.note("reading the prompt from the terminal: Ctrl-D ends it");
            }
            Some(piped()?)
        }
    };
    let mut loaded = source::model_how(&found.path, &args.loras, args.activations, args.kv, global)?;
    let context = args.ctx.unwrap_or_else(|| usual_context(loaded.model.spec()));
    args.device.place(&mut loaded, context, global)?;
    let model = &loaded.model;
    let tokenizer = Tokenizer::new(model.texts(), model.spec())?;
    let template = match ChatTemplate::new(model.texts()) {
        _ if args.raw => None,
        Ok(template) => Some(template.with_clock(clock::clock(args.date))),
        Err(ChatError::Missing) if !args.chat && args.system.is_none() => None,
        Err(error) => return Err(error.into()),
    };
    let settings = Settings::of(model, &args.sampling, output)?;
    warn_beyond(args.ctx, model, output);
    let manner = Manner {
        system: args.system.clone(),
        context,
        most: args.tokens.map(Most::Asked).or(settings.most),
        sampling: settings.sampling,
    };
    let mut talk = Conversation::new(&loaded, &tokenizer, template.as_ref(), manner);
    let done = match prompt {
        Some(prompt) => answer_once(&mut talk, &prompt, shows, global, &loaded),
        None => {
            let how = match talk.is_chat() {
                true => "type a message",
                false if args.raw => "type a text that it goes on with",
                false => "it has no chat template: type a text that it goes on with",
            };
            output.note(&format!(
                "{}: {how}; /help lists commands, Ctrl-D leaves",
                units::printable(&found.name)
            ));
            talk::chat(talk, output)?;
            loaded.check_unchanged()
        }
    };
    done?;
    args.device.after(model, global);
    Ok(())
}

/// Says where more tokens are asked for than the model was made for, or than its short contexts have.
pub fn warn_beyond(asked: Option<usize>, model: &Model, output: Output) {
    let (own, short) = (model.spec().max_positions, model.spec().short_context());
    if let (Some(asked), Some(short)) =
        (asked, short.filter(|&short| asked.is_some_and(|asked| asked > short)))
    {
        let said = "the rotary frequencies are those of long contexts, from the first token on";
        output.note(&format!("--ctx {asked} is beyond {short} tokens: {said}"));
    }
    if let Some(asked) = asked.filter(|&asked| asked > own) {
        output.warn(&format!("--ctx {asked} is beyond the {own} tokens that the model was made for"));
    }
}

/// The prompt on standard input, without the line end that every text has.
fn piped() -> Result<String, Failure> {
    let refused = |message: String| Failure::new(Exit::Usage, "run.no_prompt", message).at("standard input");
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().read_to_end(&mut bytes);
    read.map_err(|e| refused(format!("standard input: {e}")))?;
    let text =
        String::from_utf8(bytes).map_err(|e| refused(format!("standard input: {}", e.utf8_error())))?;
    let text = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    match text.trim().is_empty() {
        true => Err(refused("there is no prompt: standard input is empty".to_owned())),
        false => Ok(text.to_owned()),
    }
}

fn answer_once(
    talk: &mut Conversation<'_>,
    prompt: &str,
    on_terminal: bool,
    global: &Global,
    loaded: &Loaded,
) -> Result<(), Failure> {
    let output = global.output();
    let mut shown = talk::Shown::new(output);
    let mut show = |part: Part, piece: &str| match (output.json, on_terminal) {
        (true, _) => Ok(()),
        (false, true) => shown.piece(part, piece),
        (false, false) if part == Part::Thinking => Ok(()),
        (false, false) => output.data(piece),
    };
    let answer = talk.say(prompt, &mut show, &AtomicBool::new(false))?;
    loaded.check_unchanged()?;
    if output.json {
        return output.document(&serde_json::json!({
            "text": answer.text,
            "thinking": Some(&answer.thinking).filter(|thinking| !thinking.is_empty()),
            "tokens": answer.tokens,
            "prompt_tokens": answer.prompt,
            "stop": answer.end.name(),
            "prompt_tokens_per_second": answer.prompt_rate(),
            "tokens_per_second": answer.rate(),
        }));
    }
    output.data("\n")?;
    if !on_terminal && !answer.thinking.is_empty() {
        output.note("what the model thought first is left out; --json has it");
    }
    let ended = match answer.end {
        End::Limit => match talk.manner().most {
            Some(most) => format!("cut: {}", most.source()),
            None => "cut".to_owned(),
        },
        End::Context => format!("cut: the context of {} tokens is full (--ctx)", talk.manner().context),
        end => format!("ended by {}", end.name()),
    };
    output.note(&format!(
        "{} prompt tokens at {:.1}/s, {} generated at {:.1}/s, {ended}",
        answer.prompt.len(),
        answer.prompt_rate(),
        answer.tokens.len(),
        answer.rate(),
    ));
    Ok(())
}

/// The context without a word. Frequencies are chosen by it: they are those of short texts, as a short text has them
/// elsewhere.
pub fn usual_context(spec: &ModelSpec) -> usize {
    CONTEXT.min(spec.max_positions).min(spec.short_context().unwrap_or(usize::MAX))
}

/// Goes on with a text.
pub fn answer(
    loaded: &Loaded,
    prompt: &str,
    max_tokens: usize,
    sampling: Sampling,
) -> Result<Answer, Failure> {
    let tokenizer = Tokenizer::new(loaded.model.texts(), loaded.model.spec())?;
    let context = usual_context(loaded.model.spec());
    let manner = Manner { system: None, context, most: Some(Most::Asked(max_tokens)), sampling };
    let mut talk = Conversation::new(loaded, &tokenizer, None, manner);
    talk.say(prompt, &mut |_, _| Ok(()), &AtomicBool::new(false))
}
