//! OpenAI's interface over HTTP/1.1.

mod ask;
mod chat;
mod completion;
mod connections;
mod error;
mod events;
mod fields;
mod prometheus;
mod reply;
mod routes;
mod stalled;

pub use ask::Defaults;

use crate::engine::{Engine, read};
use crate::limits::Limits;
use gq_text::{ChatTemplate, Tokenizer};
use routes::App;
use std::net::TcpListener;
use std::sync::Arc;

/// Threads that speak with clients; answers are computed by the engine's.
const THREADS: usize = 2;
/// Prompts that are rendered and tokenized at once.
const PROMPTS: usize = 8;

/// What is served, and how.
pub struct Service {
    /// What answers.
    pub engine: Engine,
    /// The model's tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// Its chat template, with its clock; without one, conversations are refused.
    pub template: Option<ChatTemplate>,
    /// What it is called.
    pub name: String,
    /// What applies where a request says nothing.
    pub defaults: Defaults,
    /// Of these: bodies, connections and times; the engine has the rest.
    pub limits: Limits,
    /// What clients have to give as a bearer token.
    pub key: Option<String>,
}

/// What a server did until it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// Requests that got to the engine and ended there, whole or not.
    pub requests: u64,
    /// Tokens of answers.
    pub tokens: u64,
    /// Whether all answers were finished when it ended.
    pub finished: bool,
}

/// A server that cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The system gives no threads, or the listener cannot be used.
    #[error("the server cannot begin")]
    Io(#[from] std::io::Error),
}

/// Answers requests on `listener` until `stop` says so, which is asked many times a second; takes no new ones then, and
/// waits for those that are under way.
///
/// # Errors
/// When the system refuses what a server needs. What goes wrong with a connection ends that one alone.
pub fn serve(
    listener: TcpListener,
    service: Service,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<Served, ServeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .max_blocking_threads(PROMPTS)
        .thread_name("http")
        .enable_io()
        .enable_time()
        .build()?;
    listener.set_nonblocking(true)?;
    let app = Arc::new(App::new(service));
    let finished = runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let router = routes::router(Arc::clone(&app));
        Ok::<bool, std::io::Error>(connections::run(listener, router, Arc::clone(&app), stop).await)
    })?;
    runtime.shutdown_background();
    app.engine.abort();
    app.engine.join();
    let metrics = app.engine.metrics();
    Ok(Served { requests: metrics.all_ended(), tokens: read(&metrics.answer_tokens), finished })
}
