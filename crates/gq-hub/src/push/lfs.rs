//! LFS uploads: one batch question, then per object nothing, one PUT, or a PUT per part.

use super::{PushFile, PushOptions};
use crate::address::same_origin;
use crate::answer;
use crate::client::{Asked, Control, Hub};
use crate::refusal::{header, transient};
use crate::{Event, HubError, RepoId};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::time::Duration;
use ureq::http::Response;
use ureq::{Body, SendBody};

const LFS_JSON: &str = "application/vnd.git-lfs+json";
/// Objects per question: an answer names an address for every part of every one of them.
const BATCH: usize = 4;
const SILENCE: Duration = Duration::from_secs(60);
/// Longest wait for the answer to an upload.
const ANSWER: Duration = Duration::from_secs(300);

/// Sends the objects that LFS does not have; gives the bytes sent.
pub(super) fn upload(
    hub: &Hub,
    repo: &RepoId,
    files: &[&PushFile],
    options: &PushOptions,
    control: &Control<'_>,
) -> Result<u64, HubError> {
    let mut seen = HashSet::new();
    let files: Vec<&PushFile> = files.iter().copied().filter(|f| seen.insert(f.sha256)).collect();
    let url = format!("{}/{repo}.git/info/lfs/objects/batch", hub.endpoint());
    let mut sent = 0;
    for batch in files.chunks(BATCH) {
        let objects: Vec<Value> =
            batch.iter().map(|f| json!({"oid": f.sha256.to_hex(), "size": f.size})).collect();
        let body = json!({"operation": "upload", "transfers": ["basic", "multipart"], "objects": objects,
                          "hash_algo": "sha256", "ref": {"name": options.revision}});
        let answer = post_lfs(hub, repo, &url, &body, control)?;
        let answers = answer.get("objects").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        for file in batch {
            let oid = file.sha256.to_hex();
            let object = answers.iter().find(|o| o.get("oid").and_then(Value::as_str) == Some(&oid));
            let object = object.ok_or_else(|| HubError::BadAnswer {
                url: url.clone(),
                field: format!("no answer about {:?}", file.path),
            })?;
            sent += upload_object(hub, repo, file, object, control)?;
        }
    }
    Ok(sent)
}

fn post_lfs(
    hub: &Hub,
    repo: &RepoId,
    url: &str,
    body: &Value,
    control: &Control<'_>,
) -> Result<Value, HubError> {
    answer::read_once(url, hub.post(repo, url, LFS_JSON, body.to_string().as_bytes(), control)?)
}

fn upload_object(
    hub: &Hub,
    repo: &RepoId,
    file: &PushFile,
    object: &Value,
    control: &Control<'_>,
) -> Result<u64, HubError> {
    if let Some(error) = object.get("error") {
        return Err(HubError::ObjectRefused {
            path: file.path.clone(),
            code: error.get("code").and_then(Value::as_i64).unwrap_or(0),
            message: error.get("message").and_then(Value::as_str).unwrap_or_default().to_owned(),
        });
    }
    let Some(action) = object.get("actions").and_then(|a| a.get("upload")) else {
        (control.progress)(Event::Started { path: &file.path, size: file.size, have: file.size });
        (control.progress)(Event::Finished { path: &file.path });
        return Ok(0); // LFS has it
    };
    let bad = |field: String| HubError::BadAnswer { url: hub.endpoint().to_owned(), field };
    let href = action.get("href").and_then(Value::as_str);
    let href = href.ok_or_else(|| bad(format!("no address to upload {:?} to", file.path)))?;
    (control.progress)(Event::Started { path: &file.path, size: file.size, have: 0 });
    let headers = action.get("header").and_then(Value::as_object);
    let chunk_size = headers.and_then(|h| h.get("chunk_size"));
    match chunk_size {
        None => {
            put(hub, repo, file, href, 0..file.size, control)?;
        }
        Some(chunk_size) => {
            let text = chunk_size.as_str().map_or_else(|| chunk_size.to_string(), str::to_owned);
            let chunk: u64 =
                text.parse().ok().filter(|&c| c > 0).ok_or_else(|| bad(format!("chunk_size {text:?}")))?;
            let numbered = headers.into_iter().flatten();
            let parts: BTreeMap<u64, &str> =
                numbered.filter_map(|(k, v)| Some((k.parse().ok()?, v.as_str()?))).collect();
            if parts.len() as u64 != file.size.div_ceil(chunk) {
                return Err(bad(format!("{} parts for {} bytes of {text}", parts.len(), file.size)));
            }
            let mut done = Vec::new();
            for (index, (&number, &address)) in (0..).zip(&parts) {
                let range = index * chunk..((index + 1) * chunk).min(file.size);
                let response = put(hub, repo, file, address, range, control)?;
                let etag = header(response.headers(), "etag").unwrap_or_default().to_owned();
                if etag.is_empty() {
                    return Err(bad(format!("part {number} of {:?} has no etag", file.path)));
                }
                done.push(json!({"partNumber": number, "etag": etag}));
            }
            let body = json!({"oid": file.sha256.to_hex(), "parts": done});
            hub.post(repo, href, LFS_JSON, body.to_string().as_bytes(), control)?;
        }
    }
    let verify = object.get("actions").and_then(|a| a.get("verify")).and_then(|v| v.get("href"));
    if let Some(verify) = verify.and_then(Value::as_str) {
        let body = json!({"oid": file.sha256.to_hex(), "size": file.size}).to_string();
        hub.post(repo, verify, "application/json", body.as_bytes(), control)?;
    }
    (control.progress)(Event::Finished { path: &file.path });
    Ok(file.size)
}

/// Sends one range of a file; stores want its length first.
fn put(
    hub: &Hub,
    repo: &RepoId,
    file: &PushFile,
    url: &str,
    range: Range<u64>,
    control: &Control<'_>,
) -> Result<Response<Body>, HubError> {
    let length = range.end - range.start;
    let response = hub.call(url, control, || {
        let mut source = File::open(&file.source).map_err(HubError::io("open", &file.source))?;
        source.seek(SeekFrom::Start(range.start)).map_err(HubError::io("read", &file.source))?;
        let mut reader = Watched { source: source.take(length), path: &file.path, control };
        let mut request = hub.agent().put(url).header("Content-Length", length.to_string());
        if same_origin(url, hub.endpoint()) {
            request = hub.body_request(request, url);
        }
        let config = request.config().timeout_per_write(Some(SILENCE)).timeout_per_read(Some(SILENCE));
        let config = config.timeout_recv_response(Some(ANSWER)).timeout_recv_body(Some(ANSWER));
        match config.build().send(SendBody::from_reader(&mut reader)) {
            Err(_) if control.cancel.is_cancelled() => Err(HubError::Cancelled.into()),
            outcome => transient(hub.hear(url, outcome)?),
        }
    })?;
    if response.status().is_success() {
        Ok(response)
    } else {
        Err(hub.refusal(repo, Asked::Action, url, response))
    }
}

/// Reports what is read, and stops reading when asked.
struct Watched<'a, 'c> {
    source: std::io::Take<File>,
    path: &'a str,
    control: &'a Control<'c>,
}

impl Read for Watched<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.control.cancel.is_cancelled() {
            return Err(std::io::Error::other("cancelled"));
        }
        let n = self.source.read(buffer)?;
        (self.control.progress)(Event::Moved { path: self.path, bytes: n as u64 });
        Ok(n)
    }
}
