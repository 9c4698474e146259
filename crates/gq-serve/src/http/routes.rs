//! Addresses, and what happens to a request on its way.

use super::Service;
use super::ask::{Ask, Defaults};
use super::chat::Chat;
use super::completion::Completion;
use super::error::ApiError;
use super::events::Events;
use super::fields::Fields;
use super::prometheus::{Counts, Facts, page};
use super::reply::{Kind, Reply};
use crate::engine::{Engine, EngineError, Event, Task, Ticket, add};
use crate::limits::Limits;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_core::Stream;
use gq_model::kv_cache_bytes;
use gq_text::{ChatTemplate, Tokenizer};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::time::timeout;

/// What all requests share.
pub(super) struct App {
    pub(super) engine: Engine,
    tokenizer: Arc<Tokenizer>,
    template: Option<ChatTemplate>,
    stop_tokens: [Vec<u32>; 2],
    name: String,
    defaults: Defaults,
    pub(super) limits: Limits,
    /// Digest of the key: equal lengths, whatever was given.
    key: Option<[u8; 32]>,
    pub(super) counts: Counts,
    pub(super) connections: AtomicUsize,
    began: SystemTime,
    asked: AtomicU64,
}

impl App {
    pub(super) fn new(service: Service) -> App {
        let Service { engine, tokenizer, template, name, defaults, limits, key } = service;
        App {
            stop_tokens: [tokenizer.stop_tokens(template.as_ref()), tokenizer.stop_tokens(None)],
            engine,
            tokenizer,
            template,
            name,
            defaults,
            limits,
            key: key.map(|key| Sha256::digest(key.as_bytes()).into()),
            counts: Counts::default(),
            connections: AtomicUsize::new(0),
            began: SystemTime::now(),
            asked: AtomicU64::new(0),
        }
    }

    fn created(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
    }

    /// Whether the key is right, in a time that does not tell how much of it is.
    fn admits(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(key) = &self.key else { return Ok(()) };
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| {
            let (scheme, key) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
        });
        let digest: [u8; 32] = Sha256::digest(given.unwrap_or_default().as_bytes()).into();
        let differs = key.iter().zip(&digest).fold(0, |differs, (a, b)| differs | (a ^ b));
        match std::hint::black_box(differs) == 0 && given.is_some() {
            true => Ok(()),
            false => Err(ApiError::key(given.is_some())),
        }
    }
}

/// All addresses.
pub(super) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completion))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(Arc::clone(&app), watch))
        .with_state(app)
}

/// Asks for the key, and counts responses.
async fn watch(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let free = request.uri().path() == "/health";
    let response = match app.admits(request.headers()) {
        Err(error) if !free => error.into_response(),
        _ => next.run(request).await,
    };
    let hundreds = usize::from(response.status().as_u16() / 100);
    if let Some(count) = hundreds.checked_sub(2).and_then(|at| app.counts.responses.get(at)) {
        add(count, 1);
    }
    response
}

async fn unknown(request: Request) -> ApiError {
    let path: String = request.uri().path().chars().take(200).collect();
    ApiError::invalid(format!("there is nothing at {path}")).status(StatusCode::NOT_FOUND).code("unknown_url")
}

async fn wrong_method(request: Request) -> ApiError {
    let message = format!("{} is not allowed here", request.method());
    ApiError::invalid(message).status(StatusCode::METHOD_NOT_ALLOWED).code("method_not_allowed")
}

fn document(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

async fn health(State(app): State<Arc<App>>) -> Response {
    match app.engine.is_open() {
        true => document(&json!({"status": "ok"})),
        false => ApiError::from(EngineError::Stopping).into_response(),
    }
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let model = app.engine.model();
    let Limits { parallel, context, .. } = app.limits;
    let facts = Facts {
        slots: parallel,
        context,
        cache_bytes: parallel as u64 * kv_cache_bytes(model.spec(), context, model.options().kv),
        connections: app.connections.load(Ordering::Relaxed),
    };
    let text = page(app.engine.metrics(), &app.counts, &facts);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

fn described(app: &App) -> Value {
    let created = app.began.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    json!({"id": app.name, "object": "model", "created": created, "owned_by": "gq",
           "max_model_len": app.limits.context})
}

async fn models(State(app): State<Arc<App>>) -> Response {
    document(&json!({"object": "list", "data": [described(&app)]}))
}

async fn model(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Response, ApiError> {
    same_model(&app, Some(&name))?;
    Ok(document(&described(&app)))
}

fn same_model(app: &App, asked: Option<&str>) -> Result<(), ApiError> {
    match asked {
        Some(asked) if asked != app.name => {
            let asked: String = asked.chars().take(200).collect();
            let message = format!("the model '{asked}' is not served here; '{}' is", app.name);
            Err(ApiError::param("model", message).status(StatusCode::NOT_FOUND).code("model_not_found"))
        }
        _ => Ok(()),
    }
}

async fn chat(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    answer(app, request, Kind::Chat).await
}

async fn completion(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    answer(app, request, Kind::Completion).await
}

/// So many times as long as allowed a body may be and still be read to its end, for nothing: a client that sends gets its
/// answer only then.
const READ_ON: usize = 8;

/// A body within its bounds.
async fn read_body(app: &App, body: Body) -> Result<Vec<u8>, ApiError> {
    let Limits { body: most, idle, .. } = app.limits;
    let (mut stream, mut whole, mut length) = (body.into_data_stream(), Vec::new(), 0usize);
    let read = async {
        loop {
            let next: Option<Result<Bytes, axum::Error>> =
                poll_fn(|context| Pin::new(&mut stream).poll_next(context)).await;
            let piece = match next {
                Some(Ok(piece)) => piece,
                Some(Err(error)) => return Err(ApiError::invalid(format!("the body was cut: {error}"))),
                None if length <= most => return Ok(whole),
                None => return Err(too_long(most)),
            };
            length = length.saturating_add(piece.len());
            if length <= most {
                whole.extend_from_slice(&piece);
            } else if length > most.saturating_mul(READ_ON) {
                return Err(too_long(most));
            } else {
                whole = Vec::new();
            }
        }
    };
    timeout(idle, read).await.unwrap_or_else(|_| {
        let message = format!("the body did not come within {} s", idle.as_secs());
        Err(ApiError::invalid(message).status(StatusCode::REQUEST_TIMEOUT))
    })
}

fn too_long(most: usize) -> ApiError {
    ApiError::invalid(format!("the body is longer than {most} bytes")).status(StatusCode::PAYLOAD_TOO_LARGE)
}

async fn answer(app: Arc<App>, request: Request, kind: Kind) -> Result<Response, ApiError> {
    let since = Instant::now();
    let body = read_body(&app, request.into_body()).await?;
    let ticket = app.engine.admit()?;
    let number = app.asked.fetch_add(1, Ordering::Relaxed);
    let own = Arc::clone(&app);
    let here = Arc::new(());
    let client = Arc::downgrade(&here);
    // Templates and tokenizers take their time. The place is held until they are through, whether or not the client waits
    // for it: no more bodies wait here than there are places.
    let prepared = tokio::task::spawn_blocking(move || {
        if client.strong_count() == 0 {
            return Err(ApiError::server("the client has left"));
        }
        prepare(&own, &body, kind, number, since).map(|prepared| (ticket, prepared))
    });
    let (ticket, Prepared { task, reply, stream }) = prepared
        .await
        .map_err(|error| ApiError::server(format!("the request could not be prepared: {error}")))??;
    drop(here);
    respond(ticket, task, reply, stream).await
}

async fn respond(ticket: Ticket, task: Task, mut reply: Reply, stream: bool) -> Result<Response, ApiError> {
    let mut events = ticket.submit(task)?;
    if stream {
        let body = Body::from_stream(Events::new(events, reply));
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        return Ok(response);
    }
    let mut deltas = Vec::new();
    loop {
        match events.recv().await {
            Some(Event::Delta(delta)) => deltas.push(delta),
            Some(Event::End(finish, usage)) => return Ok(document(&reply.whole(&deltas, finish, usage))),
            Some(Event::Failed(error)) => return Err(error.into()),
            None => return Err(EngineError::Stopping.into()),
        }
    }
}

struct Prepared {
    task: Task,
    reply: Reply,
    stream: bool,
}

fn prepare(app: &App, body: &[u8], kind: Kind, number: u64, since: Instant) -> Result<Prepared, ApiError> {
    let mut fields = Fields::parse(body)?;
    let seed = app.defaults.sampling.seed.wrapping_add(number);
    let answer = app.limits.answer.min(app.limits.context);
    let ask = Ask::take(&mut fields, &app.defaults, seed, answer)?;
    same_model(app, ask.model.as_deref())?;
    let [after_turn, after_text] = &app.stop_tokens;
    let (prompt, ask, logprobs, stop_tokens) = match kind {
        Kind::Chat => {
            let chat = Chat::take(ask, fields)?;
            let prompt = chat.prompt(app.template.as_ref(), &app.tokenizer)?;
            (prompt, chat.ask, chat.logprobs, after_turn)
        }
        Kind::Completion => {
            let completion = Completion::take(ask, fields)?;
            let prompt = completion.prompt(&app.tokenizer)?;
            (prompt, completion.ask, completion.logprobs, after_text)
        }
    };
    let max_tokens = ask.max_tokens.unwrap_or_else(|| app.defaults.most(prompt.len())).min(answer);
    let began = app.began.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    let prefix = if kind == Kind::Chat { "chatcmpl" } else { "cmpl" };
    let reply = Reply {
        kind,
        id: format!("{prefix}-{began:016x}{number:08x}"),
        created: app.created(),
        model: app.name.clone(),
        include_usage: ask.include_usage,
        logprobs: logprobs.is_some(),
        offset: 0,
    };
    let task = Task {
        prompt,
        max_tokens,
        sampling: ask.sampling,
        stop: ask.stop,
        stop_tokens: if ask.ignore_eos { Vec::new() } else { stop_tokens.clone() },
        parts: kind == Kind::Chat,
        logprobs,
        deadline: since + app.limits.time,
    };
    Ok(Prepared { task, reply, stream: ask.stream })
}
