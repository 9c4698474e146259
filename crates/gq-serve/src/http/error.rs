//! Errors as OpenAI shapes them.

use crate::engine::{EngineError, SubmitError};
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use gq_text::{ChatError, TokenizerError};
use serde_json::{Value, json};
use std::error::Error;

/// A request that is not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    message: String,
    kind: &'static str,
    param: Option<String>,
    code: Option<&'static str>,
    retry_after: Option<u64>,
}

/// Longest message; what a template says may be as long as what it was given.
const LONGEST: usize = 2000;

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> ApiError {
        let mut message = message.into();
        if message.len() > LONGEST {
            let end = (0..=LONGEST).rev().find(|&at| message.is_char_boundary(at)).unwrap_or(0);
            message.truncate(end);
            message.push('…');
        }
        ApiError { status, message, kind, param: None, code: None, retry_after: None }
    }

    /// The request is wrong.
    pub(super) fn invalid(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// A parameter is wrong.
    pub(super) fn param(name: &str, message: impl Into<String>) -> ApiError {
        ApiError { param: Some(name.to_owned()), ..ApiError::invalid(message) }
    }

    /// A parameter that is not done here.
    pub(super) fn unsupported(name: &str, message: impl Into<String>) -> ApiError {
        ApiError { code: Some("unsupported_parameter"), ..ApiError::param(name, message) }
    }

    /// The same with another status.
    pub(super) fn status(self, status: StatusCode) -> ApiError {
        ApiError { status, ..self }
    }

    /// The same with a code.
    pub(super) fn code(self, code: &'static str) -> ApiError {
        ApiError { code: Some(code), ..self }
    }

    /// The key is missing or wrong.
    pub(super) fn key(given: bool) -> ApiError {
        let message = match given {
            true => "the API key is not the one of this server",
            false => "this server wants an API key: Authorization: Bearer KEY",
        };
        ApiError::new(StatusCode::UNAUTHORIZED, "invalid_request_error", message).code("invalid_api_key")
    }

    /// Something of the server failed.
    pub(super) fn server(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    /// More than the server takes on.
    pub(super) fn busy(status: StatusCode, message: impl Into<String>, retry_after: u64) -> ApiError {
        let error = ApiError::new(status, "rate_limit_error", message).code("rate_limit_exceeded");
        ApiError { retry_after: Some(retry_after), ..error }
    }

    /// As it is sent.
    pub(super) fn body(&self) -> Value {
        let ApiError { message, kind, param, code, .. } = self;
        json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body().to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// An error with its causes.
pub(super) fn sentence(error: &dyn Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> ApiError {
        let message = sentence(&error);
        match error {
            SubmitError::Full { retry_after, .. } => {
                ApiError::busy(StatusCode::TOO_MANY_REQUESTS, message, retry_after)
            }
            SubmitError::Stopping => EngineError::Stopping.into(),
            SubmitError::Prompt(_) => ApiError::param("prompt", message),
            SubmitError::Long { .. } => ApiError::invalid(message).code("context_length_exceeded"),
        }
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> ApiError {
        let server = ApiError::server(sentence(&error));
        match error {
            EngineError::Late => server.status(StatusCode::GATEWAY_TIMEOUT).code("timeout"),
            EngineError::Stopping => server.status(StatusCode::SERVICE_UNAVAILABLE).code("stopping"),
            _ => server,
        }
    }
}

impl From<ChatError> for ApiError {
    fn from(error: ChatError) -> ApiError {
        match error {
            ChatError::Missing => ApiError::param(
                "messages",
                "the model has no chat template: /v1/completions goes on with a text",
            ),
            ChatError::Thread(_) | ChatError::Outside(_) => ApiError::server(sentence(&error)),
            _ => ApiError::param("messages", sentence(&error)),
        }
    }
}

impl From<TokenizerError> for ApiError {
    fn from(error: TokenizerError) -> ApiError {
        ApiError::invalid(sentence(&error))
    }
}
