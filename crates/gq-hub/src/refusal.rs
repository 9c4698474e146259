//! Why a request has no usable answer, and which refusals may pass.

use crate::address::without_query;
use crate::error::HubError;
use crate::retry::asked_wait;
use serde_json::Value;
use std::io::Read;
use std::time::{Duration, Instant};
use ureq::Body;
use ureq::http::{HeaderMap, Response};

/// Longest time that the words of a refusal may take, up to the last wait for a piece of them.
const MESSAGE_TIME: Duration = Duration::from_secs(5);

/// A failure that may pass.
#[derive(Debug)]
pub(crate) enum Failure {
    Status { status: u16, asked: Option<Duration>, message: String },
    Transport(ureq::Error),
    Cut { got: u64, expected: u64 },
    Slow { bytes: u64, time: Duration },
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Status { status, .. } => write!(f, "status {status}"),
            Failure::Transport(e) => e.fmt(f),
            Failure::Cut { got, expected } => write!(f, "cut after {got} of {expected} bytes"),
            Failure::Slow { bytes, time } => write!(f, "only {bytes} bytes in {} s", time.as_secs()),
        }
    }
}

impl Failure {
    pub(crate) fn into_error(self, url: &str, attempts: u32) -> HubError {
        let url = without_query(url);
        match self {
            Failure::Status { status: 429, asked, .. } => HubError::RateLimited { url, retry_after: asked },
            Failure::Status { status, message, .. } => HubError::Status { url, status, message },
            Failure::Transport(e) => HubError::Transport { url, attempts, source: Box::new(e) },
            Failure::Cut { got, expected } => HubError::CutShort { url, got, expected, attempts },
            Failure::Slow { bytes, time } => HubError::TooSlow { url, bytes, time, attempts },
        }
    }
}

/// Why a request has no usable answer.
#[derive(Debug)]
pub(crate) enum Refused {
    MayPass(Failure),
    Final(Box<HubError>),
}

impl From<HubError> for Refused {
    fn from(error: HubError) -> Self {
        Refused::Final(Box::new(error))
    }
}

/// Sorts out the statuses that may pass.
pub(crate) fn transient(mut response: Response<Body>) -> Result<Response<Body>, Refused> {
    let status = response.status().as_u16();
    if !matches!(status, 408 | 429 | 500 | 502 | 503 | 504) {
        return Ok(response);
    }
    let headers = response.headers();
    let asked = asked_wait(header(headers, "retry-after"), header(headers, "ratelimit"));
    Err(Refused::MayPass(Failure::Status { status, asked, message: message_of(&mut response) }))
}

/// The server's words: its error header, or the start of the body.
pub(crate) fn message_of(response: &mut Response<Body>) -> String {
    if let Some(message) = header(response.headers(), "x-error-message") {
        return printable(message);
    }
    let body = String::from_utf8_lossy(&start_of(response)).into_owned();
    let json: Option<Value> = serde_json::from_str(&body).ok();
    let error = json.as_ref().and_then(|v| v.get("error")).and_then(Value::as_str);
    printable(error.unwrap_or(&body))
}

/// What comes of a refusal's body within a few seconds: nobody waits for the rest of one that drips.
fn start_of(response: &mut Response<Body>) -> Vec<u8> {
    let (start, mut reader) = (Instant::now(), response.body_mut().with_config().limit(1 << 16).reader());
    let (mut body, mut piece) = (Vec::new(), [0; 4096]);
    while start.elapsed() < MESSAGE_TIME {
        match reader.read(&mut piece) {
            Ok(0) | Err(_) => break,
            Ok(count) => body.extend_from_slice(&piece[..count]),
        }
    }
    body
}

/// At most 300 characters, none that could drive a terminal.
fn printable(text: &str) -> String {
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

pub(crate) fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
