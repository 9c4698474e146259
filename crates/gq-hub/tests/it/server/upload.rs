//! Repositories that are made, and commits to them.

use super::content::base64_decode;
use super::wire::{Reply, Request, error};
use super::{File, Repo, State, add_commit};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) fn create_repo(state: &State, request: &Request) -> Reply {
    let body = request.json();
    let name = body["name"].as_str().unwrap();
    let id = body["organization"].as_str().map_or(name.to_owned(), |o| format!("{o}/{name}"));
    let mut repos = state.repos.lock().unwrap();
    if repos.contains_key(&id) {
        return error(409, "", "You already created this model repo");
    }
    let mut repo = Repo { private: body["visibility"] == "private", ..Repo::default() };
    let attributes = File { bytes: Arc::new(b"*.safetensors filter=lfs\n".to_vec()), lfs: false };
    add_commit(&mut repo, "main", BTreeMap::from([(".gitattributes".to_owned(), attributes)]));
    repos.insert(id.clone(), repo);
    Reply::Json(200, vec![], json!({"url": format!("http://hub/{id}"), "name": id}))
}

pub(super) fn preupload(request: &Request) -> Reply {
    let files: Vec<_> = request.json()["files"].as_array().unwrap().iter().map(|f| {
        let path = f["path"].as_str().unwrap();
        assert!(f["sample"].is_string() && f["size"].is_u64());
        let lfs = path.ends_with(".safetensors") || path.ends_with(".gq") || f["size"].as_u64().unwrap() > 10_000_000;
        json!({"path": path, "uploadMode": if lfs {"lfs"} else {"regular"}, "shouldIgnore": path.ends_with(".ignored")})
    }).collect();
    Reply::Json(200, vec![], json!({"files": files}))
}

pub(super) fn batch(state: &State, request: &Request) -> Reply {
    let body = request.json();
    let part = state.faults.lock().unwrap().part_bytes;
    let (api, cdn) = (state.api.lock().unwrap().unwrap(), state.cdn.lock().unwrap().unwrap());
    let objects = state.objects.lock().unwrap();
    let answer: Vec<_> = body["objects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| {
            let oid = o["oid"].as_str().unwrap();
            let size = o["size"].as_u64().unwrap() as usize;
            if objects.contains_key(oid) {
                return json!({"oid": oid, "size": size});
            }
            if size == 13 {
                return json!({"oid": oid, "size": size, "error": {"code": 422, "message": "unlucky size"}});
            }
            let verify = json!({"href": format!("http://{api}/verify")});
            if part == 0 {
                let upload = json!({"href": format!("http://{cdn}/upload/{oid}")});
                return json!({"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}});
            }
            let mut header = json!({"chunk_size": part.to_string()});
            for n in 1..=size.div_ceil(part) {
                header[format!("{n:05}")] = json!(format!("http://{cdn}/upload/{oid}/{n}"));
            }
            let upload = json!({"href": format!("http://{api}/complete/{oid}"), "header": header});
            json!({"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}})
        })
        .collect();
    Reply::Json(200, vec![], json!({"transfer": "basic", "objects": answer}))
}

pub(super) fn commit(state: &State, request: &Request, repo: &str, branch: &str) -> Reply {
    let text = String::from_utf8(request.body.clone()).unwrap();
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let mut repos = state.repos.lock().unwrap();
    let entry = repos.get_mut(repo).unwrap();
    let head = entry.branches.get(branch).cloned();
    let header = &lines[0]["value"];
    assert!(lines[0]["key"] == "header" && header["summary"].is_string());
    if header["parentCommit"].is_string() && header["parentCommit"].as_str() != head.as_deref() {
        return error(412, "", "A commit has happened since. Please refresh and try again.");
    }
    let mut tree = head.and_then(|h| entry.commits.get(&h).cloned()).unwrap_or_default();
    for line in &lines[1..] {
        let value = &line["value"];
        let (bytes, lfs) = match line["key"].as_str().unwrap() {
            "file" => (base64_decode(value["content"].as_str().unwrap()), false),
            "lfsFile" => match state.objects.lock().unwrap().get(value["oid"].as_str().unwrap()) {
                Some(object) => (object.clone(), true),
                None => return error(400, "", "LFS pointer pointed to a file that does not exist"),
            },
            other => panic!("unknown operation {other}"),
        };
        tree.insert(value["path"].as_str().unwrap().to_owned(), File { bytes: Arc::new(bytes), lfs });
    }
    let oid = add_commit(entry, branch, tree);
    let mut faults = state.faults.lock().unwrap();
    if faults.lost_commits > 0 {
        faults.lost_commits -= 1;
        return Reply::Drop;
    }
    Reply::Json(
        200,
        vec![],
        json!({"success": true, "commitOid": oid, "commitUrl": format!("http://hub/{repo}/commit/{oid}")}),
    )
}
