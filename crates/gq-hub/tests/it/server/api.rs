//! The API: what a repository holds, who may see it, and where its files are.

use super::cdn::{bytes, common_faults};
use super::content::{git_oid, sha256};
use super::upload::{batch, commit, create_repo, preupload};
use super::wire::{Reply, Request, error, percent_decode};
use super::{Repo, State};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

pub(super) fn answer_api(state: &State, request: &Request) -> Reply {
    if let Some(reply) = common_faults(state) {
        return reply;
    }
    let wanted = state.token.lock().unwrap().clone();
    let given = request.headers.get("authorization").map(|a| a.trim_start_matches("Bearer ").to_owned());
    if given.is_some() && given != wanted {
        return Reply::Json(401, vec![], json!({"error": "Invalid credentials in Authorization header"}));
    }
    if state.faults.lock().unwrap().forbidden {
        return Reply::Json(403, vec![], json!({"error": "Forbidden: pass a token that may"}));
    }
    let path = request.path();
    if path == "/api/repos/create" {
        return create_repo(state, request);
    }
    let signed_in = given.is_some();
    if let Some(rest) = path.strip_prefix("/api/models/") {
        let raw = request.target.split('?').next().unwrap().trim_start_matches("/api/models/").to_owned();
        let action =
            ["/revision/", "/tree/", "/preupload/", "/commit/"].into_iter().find(|a| raw.contains(a));
        let Some(action) = action else { return error(404, "", rest) };
        let (repo, revision) = raw.split_once(action).unwrap();
        let (repo, revision) = (percent_decode(repo), percent_decode(revision));
        if let Some(refusal) = refuse(state, &repo, signed_in) {
            return refusal;
        }
        return match action {
            "/preupload/" => preupload(request),
            "/commit/" => commit(state, request, &repo, &revision),
            _ => describe(state, request, &repo, &revision, action == "/tree/"),
        };
    }
    if let Some((repo, rest)) = path.split_once("/resolve/") {
        let raw = request.target.split('?').next().unwrap().split_once("/resolve/").unwrap().1;
        let (revision, _) = raw.split_once('/').unwrap();
        let file = rest[percent_decode(revision).len() + 1..].to_owned();
        let repo = repo.trim_start_matches('/');
        return refuse(state, repo, signed_in)
            .unwrap_or_else(|| resolve(state, request, repo, &percent_decode(revision), &file));
    }
    if path.ends_with(".git/info/lfs/objects/batch") {
        return batch(state, request);
    }
    if let Some(oid) = path.strip_prefix("/complete/") {
        let parts = state.parts.lock().unwrap();
        let count = request.json()["parts"].as_array().unwrap().len();
        let whole: Vec<u8> = (1..=count).flat_map(|n| parts[&(oid.to_owned(), n)].clone()).collect();
        assert_eq!(sha256(&whole), oid, "the parts are not the object");
        state.objects.lock().unwrap().insert(oid.to_owned(), whole);
        return Reply::Json(200, vec![], json!({}));
    }
    if path == "/verify" {
        let body = request.json();
        let objects = state.objects.lock().unwrap();
        let len = objects.get(body["oid"].as_str().unwrap()).map(|o| o.len() as u64);
        return if len == body["size"].as_u64() {
            Reply::Json(200, vec![], json!({}))
        } else {
            error(404, "", "")
        };
    }
    error(404, "", "no such page")
}

fn refuse(state: &State, repo: &str, signed_in: bool) -> Option<Reply> {
    let repos = state.repos.lock().unwrap();
    match repos.get(repo) {
        None if signed_in => Some(error(404, "RepoNotFound", "Repository not found")),
        None => Some(error(401, "RepoNotFound", "Invalid username or password.")),
        Some(r) if r.private && !signed_in => {
            Some(error(401, "RepoNotFound", "Invalid username or password."))
        }
        Some(r) if r.gated => {
            Some(error(403, "GatedRepo", "Access to this model is restricted and you must accept its terms"))
        }
        Some(_) => None,
    }
}

fn commit_of(repo: &Repo, revision: &str) -> Option<String> {
    let known = repo.commits.contains_key(revision).then(|| revision.to_owned());
    known.or_else(|| repo.branches.get(revision).cloned())
}

fn describe(state: &State, request: &Request, repo: &str, revision: &str, tree: bool) -> Reply {
    let repos = state.repos.lock().unwrap();
    let Some(commit) = commit_of(&repos[repo], revision) else {
        return error(404, "RevisionNotFound", &format!("Invalid rev id: {revision}"));
    };
    let files = &repos[repo].commits[&commit];
    if !tree {
        let siblings: Vec<_> = files.keys().map(|p| json!({"rfilename": p})).collect();
        return Reply::Json(
            200,
            vec![],
            json!({"id": repo, "modelId": repo, "sha": commit, "siblings": siblings,
            "private": false, "gated": false, "tags": [], "downloads": 0, "likes": 0}),
        );
    }
    let faults = state.faults.lock().unwrap();
    let mut entries: Vec<Value> = files
        .iter()
        .map(|(path, file)| {
            let mut entry =
                json!({"type": "file", "path": path, "size": file.bytes.len(), "oid": git_oid(&file.bytes)});
            if file.lfs {
                entry["lfs"] = json!({"oid": file.etag(), "size": file.bytes.len(), "pointerSize": 130});
            }
            entry
        })
        .collect();
    entries.push(json!({"type": "directory", "path": "sub", "size": 0, "oid": git_oid(b"")}));
    entries.extend(faults.planted.iter().cloned());
    let page = if faults.page == 0 { entries.len() } else { faults.page };
    let start: usize = request.query("cursor").map_or(0, |c| c.parse().unwrap());
    let end = (start + page).min(entries.len());
    let mut headers = vec![];
    if end < entries.len() {
        let api = state.api.lock().unwrap().unwrap();
        let next = format!(
            "<http://{api}/api/models/{repo}/tree/{commit}?recursive=true&cursor={end}>; rel=\"next\""
        );
        headers.push(("Link".into(), next));
    }
    Reply::Json(200, headers, Value::Array(entries[start..end].to_vec()))
}

fn resolve(state: &State, request: &Request, repo: &str, revision: &str, path: &str) -> Reply {
    let repos = state.repos.lock().unwrap();
    let Some(commit) = commit_of(&repos[repo], revision) else {
        return error(404, "RevisionNotFound", revision);
    };
    let Some(file) = repos[repo].commits[&commit].get(path) else {
        let mut reply = error(404, "EntryNotFound", path);
        if let Reply::Json(_, headers, _) = &mut reply {
            headers.push(("X-Repo-Commit".into(), commit));
        }
        return reply;
    };
    let headers =
        vec![("X-Repo-Commit".to_owned(), commit), ("ETag".to_owned(), format!("\"{}\"", file.etag()))];
    if let Some(to) = state.faults.lock().unwrap().redirect_to.clone() {
        return Reply::Redirect(to, headers);
    }
    if !file.lfs {
        return bytes(state, request, file, headers);
    }
    let number = state.counter.fetch_add(1, Ordering::Relaxed).to_string();
    state.signatures.lock().unwrap().insert(number.clone(), 0);
    let cdn = state.cdn.lock().unwrap().unwrap();
    let mut headers = headers;
    headers.push(("X-Linked-Etag".into(), format!("\"{}\"", file.etag())));
    headers.push(("X-Linked-Size".into(), file.bytes.len().to_string()));
    Reply::Redirect(format!("http://{cdn}/cdn/{}?Signature={number}", file.etag()), headers)
}
