//! `gq serve`: a model behind OpenAI's HTTP interface.

use super::run;
use crate::adapters::Adapters;
use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::machine::Machine;
use crate::output::Output;
use crate::source::{self, Loaded};
use crate::talk::{Most, SamplingArgs, Settings};
use crate::{clock, signals, units};
use gq_model::cpu::Sums;
use gq_model::{Model, kv_cache_bytes};
use gq_serve::{Defaults, Engine, Limits, Service, Setup};
use gq_text::{ChatError, ChatTemplate, Tokenizer};
use jiff::civil::DateTime;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Answers that are generated at once on the CPU, unless --parallel says otherwise.
const PARALLEL: u16 = 4;

/// Serve a model to OpenAI's clients: /v1/chat/completions, /v1/completions and /v1/models.
///
/// Requests are answered together, --parallel at a time; what is more waits in a queue, and what is more than that is
/// refused with 429. It listens on this machine alone unless --host says otherwise. Ctrl-C takes no new requests, finishes
/// those that are under way, and leaves; a second one leaves at once.
/// docs/SERVE.md has the parameters that requests may have, and what of OpenAI's interface is not done.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  gq serve smol.gq                                      on http://127.0.0.1:8080/v1
  gq serve smol.gq --parallel 16 --ctx 4k --kv f16      sixteen answers at once
  gq serve smol.gq --host 0.0.0.0 --api-key-file key.txt
  curl http://127.0.0.1:8080/v1/chat/completions -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}'")]
pub struct ServeArgs {
    /// A .gq file, a checkpoint directory or a GGUF, here or on the Hub (hf://ORG/NAME, hf://ORG/NAME/FILE.gq).
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    #[command(flatten)]
    loras: Adapters,
    /// What the model is called in requests [default: its file's name without the ending].
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    name: Option<String>,
    /// Address to listen on; 0.0.0.0 is every network of this machine.
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    host: String,
    /// Port to listen on; 0 takes a free one and says which.
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    port: u16,
    /// What clients have to give as a bearer token [default: nothing].
    #[arg(long, value_name = "KEY", conflicts_with = "api_key_file")]
    api_key: Option<String>,
    /// The same, on the first line of a file, where other users of this machine do not see it.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Tokens of a prompt and its answer together, such as 32k [default: 8192, or the model's own limit, or the end of its
    /// short contexts (LongRoPE), if that is less].
    #[arg(long, value_name = "N", value_parser = run::context)]
    ctx: Option<usize>,
    /// Answers that are generated at once, each with keys and values of its own [default: 4, on a GPU 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: Option<u16>,
    /// Requests that wait; one more is refused with 429.
    #[arg(long, value_name = "N", default_value_t = 64)]
    queue: u16,
    /// Most tokens of an answer; a request for more is refused [default: as the context has].
    #[arg(short = 'n', long, value_name = "N", value_parser = units::parse_positive)]
    max_tokens: Option<usize>,
    /// Most bytes of a request's body.
    #[arg(long, value_name = "BYTES", default_value = "4MiB", value_parser = units::parse_bytes)]
    max_body: u64,
    /// Connections at once; one more is told so and closed.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    max_connections: u16,
    /// Most seconds of a request, the queue included.
    #[arg(long, value_name = "S", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
    timeout: u32,
    /// Most seconds for a request's head, for its body, and for a client that does not read.
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    idle_timeout: u32,
    /// Seconds that answers have to finish when the server is told to stop.
    #[arg(long, value_name = "S", default_value_t = 30)]
    drain: u32,
    /// Take sums in the one order that is the same on every CPU: an answer does not depend on who else is served, to the
    /// bit. Activations are f32; slower.
    #[arg(long, conflicts_with = "activations")]
    deterministic: bool,
    /// What a chat template that asks for the date is told, such as 2025-07-26 or 2025-07-26T13:05 [default: now].
    #[arg(long, value_name = "DATE", value_parser = clock::parse_date)]
    date: Option<DateTime>,
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

pub fn run(args: &ServeArgs, global: &Global) -> Result<(), Failure> {
    let output = global.output();
    let key = key(args)?;
    let found = source::find(&args.model, global)?;
    // Before the model is loaded: a port that is taken is told at once.
    let listener = listen(args)?;
    let address = listener.local_addr().map_err(|e| refused(args, &e))?;
    let pool = source::threads(global)?;
    let mut loaded =
        pool.install(|| source::model_how(&found.path, &args.loras, args.activations, args.kv, global))?;
    let context = args.ctx.unwrap_or_else(|| run::usual_context(loaded.model.spec()));
    args.device.place(&mut loaded, context, global)?;
    let parallel = parallel(args, &loaded)?;
    let model = &loaded.model;
    run::warn_beyond(args.ctx, model, output);
    let tokenizer = Arc::new(Tokenizer::new(model.texts(), model.spec())?);
    let template = match ChatTemplate::new(model.texts()) {
        Ok(template) => Some(template.with_clock(clock::clock(args.date))),
        Err(ChatError::Missing) => {
            output.warn("the model has no chat template: /v1/chat/completions is refused");
            None
        }
        Err(error) => return Err(error.into()),
    };
    let settings = Settings::of(model, &args.sampling, output)?;
    let limits = limits(args, context, parallel);
    say_memory(model, limits, output)?;
    let name = args.name.clone().unwrap_or_else(|| called(&found.name));
    let sums = match args.deterministic {
        true => Sums::Deterministic,
        false => Sums::Fastest(model.options().activations),
    };
    let defaults = defaults(&settings);
    let Loaded { model, .. } = loaded;
    let setup = Setup { model, tokenizer: Arc::clone(&tokenizer), sums, limits, pool };
    let engine = Engine::start(setup)
        .map_err(|e| Failure::new(Exit::Environment, "threads", format!("threads: {e}")))?;
    if !address.ip().is_loopback() && key.is_none() {
        output.warn("anybody who reaches this machine can use the model: --api-key-file wants a key");
    }
    let told = Arc::new(AtomicBool::new(false));
    let _caught = signals::catch_first(&told);
    output.note(&format!("serving {} on http://{address}/v1; Ctrl-C stops", units::printable(&name)));
    let service = Service { engine, tokenizer, template, name: name.clone(), defaults, limits, key };
    let stop = || told.load(Ordering::Relaxed);
    let served = gq_serve::serve(listener, service, &stop).map_err(|error| {
        let message = match std::error::Error::source(&error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        Failure::new(Exit::Environment, "serve.io", message).at("serve")
    })?;
    if output.json {
        return output.document(&serde_json::json!({
            "model": name,
            "address": address.to_string(),
            "requests": served.requests,
            "tokens": served.tokens,
            "finished": served.finished,
        }));
    }
    let left = if served.finished { "" } else { "; some answers were given up" };
    output.note(&format!(
        "stopped after {} requests and {} tokens{left}",
        units::count(served.requests),
        units::count(served.tokens)
    ));
    Ok(())
}

/// The key that clients have to give.
fn key(args: &ServeArgs) -> Result<Option<String>, Failure> {
    let (key, place) = match (&args.api_key, &args.api_key_file) {
        (Some(key), _) => (key.clone(), "--api-key".to_owned()),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path).map_err(|error| Failure::io(path, &error))?;
            (text.lines().next().unwrap_or_default().trim().to_owned(), path.display().to_string())
        }
        (None, None) => return Ok(None),
    };
    // What a header can hold.
    match !key.is_empty() && key.chars().all(|c| c.is_ascii_graphic()) {
        true => Ok(Some(key)),
        false => {
            let message = format!("{place}: a key is one or more printable ASCII characters without spaces");
            Err(Failure::new(Exit::Usage, "serve.key", message).at(place))
        }
    }
}

fn listen(args: &ServeArgs) -> Result<TcpListener, Failure> {
    TcpListener::bind((args.host.as_str(), args.port)).map_err(|error| refused(args, &error))
}

fn refused(args: &ServeArgs, error: &std::io::Error) -> Failure {
    let place = format!("{}:{}", args.host, args.port);
    Failure::new(Exit::Environment, "serve.address", format!("{place}: {error}")).at(place)
}

/// As many answers at once as were asked for; the backend for GPUs runs one sequence.
fn parallel(args: &ServeArgs, loaded: &Loaded) -> Result<usize, Failure> {
    let most = if loaded.model.gpu().is_some() { 1 } else { PARALLEL };
    match (args.parallel, loaded.model.gpu()) {
        (Some(asked @ 2..), Some(_)) => {
            let message = format!("--parallel {asked}: on a GPU one answer is generated at a time");
            Err(Failure::new(Exit::Usage, "serve.parallel", message).at("--parallel").limit(1).actual(asked))
        }
        (asked, _) => Ok(usize::from(asked.unwrap_or(most))),
    }
}

fn limits(args: &ServeArgs, context: usize, parallel: usize) -> Limits {
    let seconds = |s: u32| Duration::from_secs(u64::from(s));
    Limits {
        parallel,
        context,
        queue: usize::from(args.queue),
        answer: args.max_tokens.unwrap_or(usize::MAX),
        body: usize::try_from(args.max_body).unwrap_or(usize::MAX),
        connections: usize::from(args.max_connections),
        time: seconds(args.timeout),
        idle: seconds(args.idle_timeout),
        drain: seconds(args.drain),
    }
}

/// Says what caches take when they are full, and refuses more than the machine has.
fn say_memory(model: &Model, limits: Limits, output: Output) -> Result<(), Failure> {
    let Limits { parallel, context, .. } = limits;
    let bytes = parallel as u64 * kv_cache_bytes(model.spec(), context, model.options().kv);
    let machine = Machine::detect();
    if let Some(memory) = machine.memory_bytes.filter(|&memory| bytes > memory && model.gpu().is_none()) {
        let message = format!(
            "keys and values of {parallel} answers of {} tokens take {}, and this machine has {}",
            units::count(context as u64),
            units::bytes(bytes),
            units::bytes(memory)
        );
        let failure = Failure::new(Exit::Environment, "serve.memory", message).at("--parallel");
        return Err(failure.limit(memory).actual(bytes));
    }
    output.note(&format!(
        "{parallel} answers at once, {} tokens each: up to {} for keys and values",
        units::count(context as u64),
        units::bytes(bytes)
    ));
    Ok(())
}

/// What applies where a request says nothing.
fn defaults(settings: &Settings) -> Defaults {
    let (new_tokens, all_tokens) = match settings.most {
        Some(Most::Asked(count) | Most::New(count)) => (Some(count), None),
        Some(Most::Length(count)) => (None, Some(count)),
        None => (None, None),
    };
    Defaults { sampling: settings.sampling, new_tokens, all_tokens }
}

/// A file's name without its ending.
fn called(name: &str) -> String {
    let ending = [".gq", ".gguf"].into_iter().find_map(|ending| name.strip_suffix(ending));
    ending.filter(|name| !name.is_empty()).unwrap_or(name).to_owned()
}
