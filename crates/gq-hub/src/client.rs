//! Requests to the Hub: addresses by `hf-hub`, everything that can fail by us.

use crate::error::{Access, HubError};
use crate::repo::RepoId;
use crate::retry::{Failures, asked_wait};
use crate::{CancelToken, Event, HubConfig, Progress, RetryPolicy, answer, connect};
use hf_hub::api::sync::{Api, ApiBuilder};
use hf_hub::{Cache, Repo, RepoType};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::HashSet;
use std::io::Read;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use ureq::http::{HeaderMap, Response, Uri};
use ureq::typestate::{WithBody, WithoutBody};
use ureq::{Agent, Body, RequestBuilder};

const MAX_REDIRECTS: usize = 5;
/// Longest time that the words of a refusal may take, up to the last wait for a piece of them.
const MESSAGE_TIME: Duration = Duration::from_secs(5);
/// Longest silence of the API.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait for what a posted body leads to; a large commit takes its time.
const POST_TIMEOUT: Duration = Duration::from_secs(300);

/// A Hub, a cache, and perhaps a token.
pub struct Hub {
    config: HubConfig,
    agent: Agent,
    api: Api,
    /// Scheme, host and port of whoever has answered once.
    met: Mutex<HashSet<String>>,
}

/// What bounds a running transfer.
pub(crate) struct Control<'a> {
    pub retry: RetryPolicy,
    pub cancel: &'a CancelToken,
    pub progress: &'a Progress<'a>,
    /// Until when questions about files may take, and how long that is.
    pub until: Option<(Instant, Duration)>,
}

impl Control<'_> {
    pub(crate) fn check(&self) -> Result<(), HubError> {
        if self.cancel.is_cancelled() { Err(HubError::Cancelled) } else { Ok(()) }
    }

    fn sleep(&self, wait: Duration) -> Result<(), HubError> {
        let end = Instant::now() + wait;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }

    /// Waits before the next try after a further failure, or turns it into an error.
    pub(crate) fn pause(
        &self,
        what: &str,
        url: &str,
        failures: &mut Failures,
        failure: Failure,
    ) -> Result<(), HubError> {
        let asked = match &failure {
            Failure::Status { asked, .. } => *asked,
            Failure::Transport(_) | Failure::Cut { .. } | Failure::Slow { .. } => None,
        };
        let left = self.until.map(|(end, _)| end.saturating_duration_since(Instant::now()));
        let wait = self.retry.wait(failures, asked, left);
        let attempt = failures.count;
        let slow = matches!(failure, Failure::Slow { .. }) && attempt >= self.retry.slow_attempts;
        match wait.filter(|_| !slow) {
            Some(wait) => {
                let reason = failure.to_string();
                let asked = asked.is_some();
                (self.progress)(Event::Retrying { path: what, attempt, wait, asked, reason: &reason });
                self.sleep(wait)
            }
            None => Err(failure.into_error(url, attempt)),
        }
    }

    /// Time that a question may still take.
    fn left(&self, url: &str) -> Result<Duration, HubError> {
        let Some((end, limit)) = self.until else { return Ok(ANSWER_TIMEOUT) };
        match end.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(HubError::TimeLimit { url: without_query(url), limit }),
            left => Ok(left.min(ANSWER_TIMEOUT)),
        }
    }
}

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

/// What a request was about, for the error that a refusal becomes.
#[derive(Clone, Copy)]
pub(crate) enum Asked<'a> {
    Revision(&'a str),
    File(&'a str),
    Action,
}

impl Hub {
    /// A client. Nothing is sent yet.
    ///
    /// # Errors
    /// When the endpoint is not an http or https address, or the proxy's address is malformed.
    pub fn new(config: HubConfig) -> Result<Hub, HubError> {
        let agent = connect::agent(&config)?;
        let api = ApiBuilder::from_cache(Cache::new(config.cache_dir.clone()))
            .with_endpoint(config.endpoint.clone())
            .with_token(None)
            .with_progress(false)
            .build()
            .map_err(|_| HubError::BadAnswer {
                url: config.endpoint.clone(),
                field: "hf-hub refuses the configuration".to_owned(),
            })?;
        Ok(Hub { config, agent, api, met: Mutex::default() })
    }

    /// The configuration it was made with.
    pub fn config(&self) -> &HubConfig {
        &self.config
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.config.endpoint
    }

    /// Where a file of a commit is fetched from.
    pub(crate) fn file_url(&self, repo: &RepoId, commit: &str, path: &str) -> String {
        let repo = Repo::with_revision(repo.to_string(), RepoType::Model, commit.to_owned());
        self.api.repo(repo).url(&crate::tree::encode_path(path)) // hf-hub does not encode the path
    }

    pub(crate) fn online(&self, what: impl FnOnce() -> String) -> Result<(), HubError> {
        if self.config.offline { Err(HubError::Offline { what: what() }) } else { Ok(()) }
    }

    /// Where the Hub describes a repository at a revision.
    pub(crate) fn info_url(&self, repo: &RepoId, revision: &str) -> String {
        let named = Repo::with_revision(repo.to_string(), RepoType::Model, revision.to_owned());
        format!("{}/api/{}", self.endpoint(), named.api_url())
    }

    /// What is wanted of a JSON answer, and the address of the next page.
    pub(crate) fn get_json<T: DeserializeOwned>(
        &self,
        repo: &RepoId,
        asked: Asked<'_>,
        url: &str,
        control: &Control<'_>,
    ) -> Result<(T, Option<String>), HubError> {
        self.online(|| url.to_owned())?;
        self.call(url, control, || {
            let left = || control.left(url).map(|left| (left, Some(left)));
            let response = transient(self.follow(url, None, &left)?.0)?;
            if !response.status().is_success() {
                return Err(self.refusal(repo, asked, url, response).into());
            }
            let next = next_page(response.headers()).and_then(|next| join(url, &next));
            Ok((answer::read(url, response)?, next))
        })
    }

    /// Posts `body` with the token. Made again only for failures that happen before the server acts.
    pub(crate) fn post(
        &self,
        repo: &RepoId,
        url: &str,
        content_type: &str,
        body: &[u8],
        control: &Control<'_>,
    ) -> Result<Response<Body>, HubError> {
        self.online(|| url.to_owned())?;
        let response = self.call(url, control, || {
            let request = self.body_request(self.agent.post(url), url);
            let request = request.header("Content-Type", content_type).config();
            let request =
                request.timeout_per_read(Some(ANSWER_TIMEOUT)).timeout_per_write(Some(ANSWER_TIMEOUT));
            let request =
                request.timeout_recv_response(Some(POST_TIMEOUT)).timeout_recv_body(Some(POST_TIMEOUT));
            transient(self.hear(url, request.build().send(body))?)
        })?;
        if response.status().is_success() || response.status().as_u16() == 409 {
            return Ok(response);
        }
        Err(self.refusal(repo, Asked::Action, url, response))
    }

    pub(crate) fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Makes a request again until it is answered with something definite.
    pub(crate) fn call<T>(
        &self,
        url: &str,
        control: &Control<'_>,
        mut send: impl FnMut() -> Result<T, Refused>,
    ) -> Result<T, HubError> {
        let mut failures = Failures::default();
        loop {
            control.check()?;
            let failure = match send() {
                Ok(response) => return Ok(response),
                Err(Refused::MayPass(failure)) => failure,
                Err(Refused::Final(error)) => return Err(*error),
            };
            control.pause(&without_query(url), url, &mut failures, failure)?;
        }
    }

    /// Sorts an answer or a failure of `url`: a host that has never answered and cannot be reached is not tried again,
    /// one that has may be back in a moment.
    pub(crate) fn hear(
        &self,
        url: &str,
        outcome: Result<Response<Body>, ureq::Error>,
    ) -> Result<Response<Body>, Refused> {
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        let origin = origin(url).map(|(scheme, host, port)| format!("{scheme}://{host}:{port}"));
        match outcome {
            Ok(response) => {
                met.extend(origin);
                Ok(response)
            }
            Err(error) if connect::no_way(&error) && !origin.is_some_and(|o| met.contains(&o)) => {
                let url = without_query(url);
                Err(HubError::Transport { url, attempts: 1, source: Box::new(error) }.into())
            }
            Err(error) => Err(Refused::MayPass(Failure::Transport(error))),
        }
    }

    /// Gets `url`, following redirects; the token goes to the Hub's own origin only.
    ///
    /// `times` is asked before each request: how long the wait for a piece of the answer may be, and the request to its last
    /// byte. Also gives the address that answered.
    pub(crate) fn follow(
        &self,
        url: &str,
        range: Option<&str>,
        times: &dyn Fn() -> Result<(Duration, Option<Duration>), HubError>,
    ) -> Result<(Response<Body>, String), Refused> {
        let mut at = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.get_request(&at);
            if let Some(range) = range {
                request = request.header("Range", range);
            }
            let (silence, whole) = times()?;
            let silence = Some(silence);
            let config = request.config().timeout_per_read(silence).timeout_recv_response(silence);
            let response = self.hear(&at, config.timeout_global(whole).build().call())?;
            if !response.status().is_redirection() || response.status().as_u16() == 304 {
                return Ok((response, at));
            }
            let location = header(response.headers(), "location").unwrap_or_default().to_owned();
            let downgrade = at.starts_with("https:") && location.starts_with("http:");
            at = match join(&at, &location).filter(|_| !downgrade) {
                Some(next) => next,
                None => return Err(HubError::BadRedirect { url: without_query(&at), location }.into()),
            };
        }
        Err(HubError::BadRedirect { url: without_query(url), location: without_query(&at) }.into())
    }

    fn get_request(&self, url: &str) -> RequestBuilder<WithoutBody> {
        // Compressed bodies would make ranges and sizes meaningless.
        let request = self.agent.get(url).header("Accept-Encoding", "identity");
        match self.bearer(url) {
            Some(bearer) => request.header("Authorization", bearer),
            None => request,
        }
    }

    pub(crate) fn body_request(
        &self,
        request: RequestBuilder<WithBody>,
        url: &str,
    ) -> RequestBuilder<WithBody> {
        match self.bearer(url) {
            Some(bearer) => request.header("Authorization", bearer),
            None => request,
        }
    }

    fn bearer(&self, url: &str) -> Option<String> {
        let token = self.config.token.as_ref()?;
        same_origin(url, &self.config.endpoint).then(|| format!("Bearer {}", token.expose()))
    }

    /// The error that an answer other than success means.
    pub(crate) fn refusal(
        &self,
        repo: &RepoId,
        asked: Asked<'_>,
        url: &str,
        mut response: Response<Body>,
    ) -> HubError {
        let status = response.status().as_u16();
        let code = header(response.headers(), "x-error-code").unwrap_or_default().to_owned();
        let message = message_of(&mut response);
        let authenticated = self.config.token.is_some();
        let repo = repo.clone();
        match (status, code.as_str(), asked) {
            (_, "GatedRepo", _) => HubError::Gated { repo, message, authenticated },
            (_, "RevisionNotFound", Asked::Revision(revision)) => {
                HubError::RevisionNotFound { repo, revision: revision.to_owned() }
            }
            (_, "EntryNotFound", Asked::File(path)) => HubError::FileNotFound { repo, path: path.to_owned() },
            // The Hub answers 401 for repositories that do not exist, unless the token itself is wrong.
            (401, code, _) if code != "RepoNotFound" && message.contains("Invalid credentials") => {
                HubError::Unauthorized { message }
            }
            (_, "RepoNotFound", _) | (401 | 404, _, Asked::Revision(_)) => {
                HubError::RepoNotFound { repo, endpoint: self.config.endpoint.clone(), authenticated }
            }
            (401, _, _) => HubError::Unauthorized { message },
            (404, _, Asked::File(path)) => HubError::FileNotFound { repo, path: path.to_owned() },
            (403, _, _) => HubError::Forbidden {
                url: without_query(url),
                message,
                access: match asked {
                    Asked::Action => Access::Write,
                    _ if same_origin(url, &self.config.endpoint) => Access::Read { authenticated },
                    _ => Access::Storage,
                },
            },
            _ => HubError::Status { url: without_query(url), status, message },
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
fn message_of(response: &mut Response<Body>) -> String {
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

/// Signed addresses carry their signature in the query: it is left out of messages.
pub(crate) fn without_query(url: &str) -> String {
    url.split('?').next().unwrap_or(url).to_owned()
}

/// Scheme, host and port.
fn origin(url: &str) -> Option<(String, String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_owned();
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    Some((scheme, uri.host()?.to_ascii_lowercase(), port))
}

pub(crate) fn same_origin(a: &str, b: &str) -> bool {
    origin(a).is_some_and(|a| Some(a) == origin(b))
}

/// `location` as seen from `base`; `None` when it is not an http address or path.
fn join(base: &str, location: &str) -> Option<String> {
    if location.starts_with("http://") || location.starts_with("https://") {
        return location.parse::<Uri>().ok().map(|_| location.to_owned());
    }
    let base: Uri = base.parse().ok()?;
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    let next = match location.strip_prefix("//") {
        Some(rest) => format!("{scheme}://{rest}"),
        None if location.starts_with('/') => format!("{scheme}://{authority}{location}"),
        None => return None,
    };
    next.parse::<Uri>().ok().map(|_| next)
}

/// The address that a `Link` header calls next.
fn next_page(headers: &HeaderMap) -> Option<String> {
    let link = header(headers, "link")?;
    link.split(',').find_map(|part| {
        let (address, relation) = part.split_once(';')?;
        let address = address.trim().strip_prefix('<')?.strip_suffix('>')?;
        relation.contains("rel=\"next\"").then(|| address.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_and_joined_addresses() {
        assert!(same_origin("https://h/a", "https://H:443/b"));
        assert!(!same_origin("https://h/a", "http://h/a") && !same_origin("http://h:1/", "http://h:2/"));
        assert!(!same_origin("http://hub.example.evil/", "http://hub.example/"));
        assert_eq!(join("http://h:1/a/b?x", "/c?y").as_deref(), Some("http://h:1/c?y"));
        assert_eq!(join("http://h/a", "https://cdn/x").as_deref(), Some("https://cdn/x"));
        assert_eq!(join("http://h/a", "//cdn/x").as_deref(), Some("http://cdn/x"));
        assert_eq!(join("http://h/a", "file:///etc/passwd"), None);
        assert_eq!(join("http://h/a", ""), None);
    }
}
