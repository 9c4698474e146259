//! JSON answers, read as they come: bounded in bytes, and without a tree of everything that is in them.

use crate::HubError;
use crate::address::without_query;
use crate::refusal::{Failure, Refused};
use serde::de::DeserializeOwned;
use std::io::BufReader;
use ureq::Body;
use ureq::http::Response;

/// Most bytes of an answer; a page of a file list has a thousand entries of a few hundred bytes.
pub(crate) const MAX_ANSWER_BYTES: u64 = 16 << 20;

/// Reads `T` from an answer; what `T` does not name is passed over and takes no memory.
///
/// # Errors
/// [`HubError::BadAnswer`] when the body is too long or not what `T` describes; what a cut connection leaves may pass.
pub(crate) fn read<T: DeserializeOwned>(url: &str, mut response: Response<Body>) -> Result<T, Refused> {
    let bad = |field: String| HubError::BadAnswer { url: without_query(url), field };
    let body = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).reader();
    serde_json::from_reader(BufReader::new(body)).map_err(|error| {
        if !error.is_io() {
            return bad(format!("JSON: {error}")).into();
        }
        match ureq::Error::from(std::io::Error::from(error)) {
            ureq::Error::BodyExceedsLimit(limit) => bad(format!("more than {limit} bytes")).into(),
            other => Refused::MayPass(Failure::Transport(other)),
        }
    })
}

/// The same where a request must not be made again.
pub(crate) fn read_once<T: DeserializeOwned>(url: &str, response: Response<Body>) -> Result<T, HubError> {
    read(url, response).map_err(|refused| match refused {
        Refused::Final(error) => *error,
        Refused::MayPass(failure) => failure.into_error(url, 1),
    })
}
