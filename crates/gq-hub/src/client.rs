//! Requests to the Hub: addresses by `hf-hub`, everything that can fail by us.

use crate::address::{encode_path, join, next_page, origin, same_origin, without_query};
use crate::error::{Access, HubError};
use crate::refusal::{Failure, Refused, header, message_of, transient};
use crate::repo_id::RepoId;
use crate::retry::Failures;
use crate::{CancelToken, Event, HubConfig, Progress, RetryPolicy, answer, connect};
use hf_hub::api::sync::{Api, ApiBuilder};
use hf_hub::{Cache, Repo, RepoType};
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use ureq::http::Response;
use ureq::typestate::{WithBody, WithoutBody};
use ureq::{Agent, Body, RequestBuilder};

const MAX_REDIRECTS: usize = 5;
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

    /// Does `work`, and says that `url` has not answered when it takes longer than that goes without saying.
    fn unless_quiet<T>(&self, url: &str, work: impl FnOnce() -> T) -> T {
        let (done, waiting) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // Nothing is ever sent: the other end goes away when the work is done.
                if waiting.recv_timeout(self.retry.quiet) == Err(RecvTimeoutError::Timeout) {
                    (self.progress)(Event::Unanswered { url: &without_query(url) });
                }
            });
            let result = work();
            drop(done);
            result
        })
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
        self.api.repo(repo).url(&encode_path(path)) // hf-hub does not encode the path
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
            let next =
                header(response.headers(), "link").and_then(next_page).and_then(|next| join(url, &next));
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
            let failure = match control.unless_quiet(url, &mut send) {
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
