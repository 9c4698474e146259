//! The storage: bodies of files behind signed addresses, and uploads.

use super::content::sha256;
use super::wire::{Reply, Request, error};
use super::{File, State};
use serde_json::json;
use std::sync::atomic::Ordering;

pub(super) fn common_faults(state: &State) -> Option<Reply> {
    let mut faults = state.faults.lock().unwrap();
    if faults.dropped > 0 {
        faults.dropped -= 1;
        return Some(Reply::Drop);
    }
    if faults.unavailable > 0 {
        faults.unavailable -= 1;
        return Some(Reply::Json(503, vec![], json!({"error": "down for a moment"})));
    }
    None
}

pub(super) fn answer_cdn(state: &State, request: &Request) -> Reply {
    if let Some(reply) = common_faults(state) {
        return reply;
    }
    let path = request.path();
    if request.method == "PUT" {
        return put_object(state, request, &path);
    }
    {
        let mut faults = state.faults.lock().unwrap();
        if faults.rate_limited > 0 {
            faults.rate_limited -= 1;
            let headers = faults.retry_after.map(|s| ("Retry-After".to_owned(), s.to_string()));
            return Reply::Json(429, headers.into_iter().collect(), json!({"error": "slow down"}));
        }
    }
    if state.faults.lock().unwrap().storage_forbidden {
        return error(403, "", "the address is not signed");
    }
    let signature = request.query("Signature").unwrap_or_default();
    let limit = state.faults.lock().unwrap().signature_uses;
    match state.signatures.lock().unwrap().get_mut(&signature) {
        Some(uses) if limit == 0 || *uses < limit => *uses += 1,
        _ => return error(403, "", "expired"),
    }
    let etag = path.rsplit('/').next().unwrap().to_owned();
    let repos = state.repos.lock().unwrap();
    let mut files = repos.values().flat_map(|r| r.commits.values()).flat_map(|c| c.values());
    match files.find(|f| f.lfs && f.etag() == etag) {
        Some(file) => bytes(state, request, file, vec![]),
        None => error(404, "", "no such object"),
    }
}

pub(super) fn bytes(state: &State, request: &Request, file: &File, headers: Vec<(String, String)>) -> Reply {
    let range = request.headers.get("range").filter(|_| !state.faults.lock().unwrap().ignore_range);
    let range = range.map(|text| {
        let (start, end) = text.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let end = if end.is_empty() { file.bytes.len() } else { end.parse::<usize>().unwrap() + 1 };
        (start.parse().unwrap(), end.min(file.bytes.len()))
    });
    Reply::Bytes { file: file.clone(), range, headers }
}

fn put_object(state: &State, request: &Request, path: &str) -> Reply {
    {
        let mut faults = state.faults.lock().unwrap();
        match &mut faults.uploads_until_drop {
            Some(0) => return Reply::Drop,
            Some(left) => *left -= 1,
            None => {}
        }
    }
    state.uploaded.fetch_add(request.body.len() as u64, Ordering::Relaxed);
    let mut parts = path.trim_start_matches("/upload/").split('/');
    let oid = parts.next().unwrap().to_owned();
    match parts.next() {
        None => {
            assert_eq!(sha256(&request.body), oid, "the body is not the object");
            state.objects.lock().unwrap().insert(oid, request.body.clone());
        }
        Some(part) => {
            state.parts.lock().unwrap().insert((oid, part.parse().unwrap()), request.body.clone());
        }
    }
    Reply::Json(200, vec![("ETag".into(), format!("\"{}\"", &sha256(&request.body)[..8]))], json!({}))
}
