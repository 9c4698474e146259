//! A Hub on loopback: the API and a CDN on another port, with faults on demand and every byte counted.
#![allow(dead_code)] // shared by the tests and an example, each of which uses a part

use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

#[derive(Clone)]
pub struct File {
    pub bytes: Arc<Vec<u8>>,
    pub lfs: bool,
}

impl File {
    pub fn etag(&self) -> String {
        if self.lfs { sha256(&self.bytes) } else { git_oid(&self.bytes) }
    }
}

#[derive(Clone, Default)]
pub struct Repo {
    pub commits: HashMap<String, BTreeMap<String, File>>,
    pub branches: HashMap<String, String>,
    pub gated: bool,
    pub private: bool,
}

/// What goes wrong. Counters are used up.
#[derive(Default)]
pub struct Faults {
    /// Answers of 429 to downloads, and the seconds they ask to wait.
    pub rate_limited: u32,
    pub retry_after: Option<u64>,
    /// Answers of 503 to anything.
    pub unavailable: u32,
    /// Connections dropped before an answer.
    pub dropped: u32,
    /// Bodies cut in the middle.
    pub cut: u32,
    /// Bodies that all end after this many bytes.
    pub cut_after: Option<usize>,
    /// Flip a byte of LFS bodies.
    pub corrupt: bool,
    /// Send the whole file whatever the range.
    pub ignore_range: bool,
    /// Pause after each 16 KiB of a body.
    pub slow: Option<Duration>,
    /// Send bodies, answers too, in pieces of so many bytes with a pause after each.
    pub drip: Option<(usize, Duration)>,
    /// Characters of a key nobody knows that every answer of the API has.
    pub padding: usize,
    /// Answer 403 to every question and download of the API, or of the storage.
    pub forbidden: bool,
    pub storage_forbidden: bool,
    /// Uses of a signed address before it expires; 0 for ever.
    pub signature_uses: u32,
    /// Entries per page of a file list; 0 for all.
    pub page: usize,
    /// Redirect downloads to this address.
    pub redirect_to: Option<String>,
    /// Commits that are made and not answered.
    pub lost_commits: u32,
    /// Uploads that end in a dropped connection, after this many that do not.
    pub uploads_until_drop: Option<u32>,
    /// Part size of multipart uploads; 0 for a single PUT.
    pub part_bytes: usize,
    /// Extra entries of the file list, as JSON.
    pub planted: Vec<Value>,
}

#[derive(Clone, Debug)]
pub struct Seen {
    pub cdn: bool,
    pub method: String,
    pub target: String,
    pub authorization: Option<String>,
    pub range: Option<String>,
}

#[derive(Default)]
pub struct State {
    pub repos: Mutex<HashMap<String, Repo>>,
    pub faults: Mutex<Faults>,
    pub objects: Mutex<HashMap<String, Vec<u8>>>,
    pub parts: Mutex<HashMap<(String, usize), Vec<u8>>>,
    pub seen: Mutex<Vec<Seen>>,
    /// Body bytes of file contents written to sockets, by etag.
    pub served: Mutex<HashMap<String, u64>>,
    /// Answers being written.
    pub busy: AtomicU64,
    pub uploaded: AtomicU64,
    pub token: Mutex<Option<String>>,
    signatures: Mutex<HashMap<String, u32>>,
    counter: AtomicU64,
    api: Mutex<Option<SocketAddr>>,
    cdn: Mutex<Option<SocketAddr>>,
}

pub struct LoopbackHub {
    pub state: Arc<State>,
}

impl LoopbackHub {
    pub fn start() -> LoopbackHub {
        let state = Arc::new(State::default());
        for cdn in [false, true] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            *if cdn { state.cdn.lock().unwrap() } else { state.api.lock().unwrap() } = Some(address);
            let state = Arc::clone(&state);
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let state = Arc::clone(&state);
                    std::thread::spawn(move || serve(&state, stream.unwrap(), cdn));
                }
            });
        }
        LoopbackHub { state }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.state.api.lock().unwrap().unwrap())
    }

    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        self.state.faults.lock().unwrap()
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// Body bytes of files so far, once no answer is being written.
    pub fn served_bytes(&self) -> u64 {
        while self.state.busy.load(Ordering::SeqCst) > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.served_so_far()
    }

    pub fn served_so_far(&self) -> u64 {
        self.state.served.lock().unwrap().values().sum()
    }

    /// Commits `files` on top of nothing, as the head of `branch`; gives the commit.
    pub fn commit(&self, repo: &str, branch: &str, files: &[(&str, Vec<u8>, bool)]) -> String {
        let tree: BTreeMap<_, _> = files
            .iter()
            .map(|(path, bytes, lfs)| {
                ((*path).to_owned(), File { bytes: Arc::new(bytes.clone()), lfs: *lfs })
            })
            .collect();
        let mut repos = self.state.repos.lock().unwrap();
        add_commit(repos.entry(repo.to_owned()).or_default(), branch, tree)
    }

    pub fn head(&self, repo: &str) -> BTreeMap<String, File> {
        let repos = self.state.repos.lock().unwrap();
        let repo = &repos[repo];
        repo.commits[&repo.branches["main"]].clone()
    }
}

fn add_commit(repo: &mut Repo, branch: &str, tree: BTreeMap<String, File>) -> String {
    let mut hasher = Sha1::new();
    hasher.update(format!("{branch} {}", repo.commits.len()));
    tree.iter().for_each(|(path, file)| hasher.update(format!("{path} {}\n", file.etag())));
    let commit = hex(&hasher.finalize());
    repo.commits.insert(commit.clone(), tree);
    repo.branches.insert(branch.to_owned(), commit.clone());
    commit
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub fn git_oid(bytes: &[u8]) -> String {
    let mut hasher = Sha1::new();
    hasher.update(format!("blob {}\0", bytes.len()));
    hasher.update(bytes);
    hex(&hasher.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

struct Request {
    method: String,
    target: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Request {
    fn path(&self) -> String {
        percent_decode(self.target.split('?').next().unwrap())
    }

    fn query(&self, key: &str) -> Option<String> {
        let query = self.target.split_once('?')?.1;
        query.split('&').filter_map(|p| p.split_once('=')).find(|p| p.0 == key).map(|p| percent_decode(p.1))
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut i) = (Vec::new(), 0);
    while i < bytes.len() {
        if bytes[i] == b'%' {
            out.push(u8::from_str_radix(&text[i + 1..i + 3], 16).unwrap());
            i += 3;
        } else {
            out.push(bytes[i]);
            i += 1;
        }
    }
    String::from_utf8(out).unwrap()
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut parts = line.split_whitespace();
    let (method, target) = (parts.next()?.to_owned(), parts.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length: usize = headers.get("content-length").map_or(0, |l| l.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, target, headers, body })
}

enum Reply {
    Json(u16, Vec<(String, String)>, Value),
    Redirect(String, Vec<(String, String)>),
    Bytes { file: File, range: Option<(usize, usize)>, headers: Vec<(String, String)> },
    Drop,
}

fn error(status: u16, code: &str, message: &str) -> Reply {
    let headers = vec![("X-Error-Code".into(), code.into()), ("X-Error-Message".into(), message.into())];
    Reply::Json(status, headers, json!({"error": message}))
}

fn serve(state: &State, stream: TcpStream, cdn: bool) {
    stream.set_nodelay(true).unwrap();
    let mut out = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader) {
        state.busy.fetch_add(1, Ordering::SeqCst);
        state.seen.lock().unwrap().push(Seen {
            cdn,
            method: request.method.clone(),
            target: request.target.clone(),
            authorization: request.headers.get("authorization").cloned(),
            range: request.headers.get("range").cloned(),
        });
        let reply = if cdn { answer_cdn(state, &request) } else { answer_api(state, &request) };
        let written = write_reply(state, &mut out, &request, reply);
        state.busy.fetch_sub(1, Ordering::SeqCst);
        if written.is_none() {
            out.shutdown(std::net::Shutdown::Both).ok();
            return;
        }
    }
}

fn write_reply(state: &State, out: &mut TcpStream, request: &Request, reply: Reply) -> Option<()> {
    let head = request.method == "HEAD";
    let (drip, padding) = {
        let faults = state.faults.lock().unwrap();
        (faults.drip, faults.padding)
    };
    let mut send = |status: u16, headers: &[(String, String)], body: &[u8]| {
        let mut text = format!("HTTP/1.1 {status} Status\r\n");
        headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
        if !headers.iter().any(|(name, _)| name == "Content-Length") {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        out.write_all(text.as_bytes()).ok()?;
        if head { Some(()) } else { write_pieces(out, body, drip) }
    };
    match reply {
        Reply::Drop => None,
        Reply::Json(status, mut headers, value) => {
            headers.push(("Content-Type".into(), "application/json".into()));
            let mut value = value;
            if padding > 0 {
                let objects = match &mut value {
                    Value::Array(list) => list.iter_mut().collect(),
                    other => vec![other],
                };
                objects.into_iter().for_each(|object| object["padding"] = json!("x".repeat(padding)));
            }
            send(status, &headers, value.to_string().as_bytes())
        }
        Reply::Redirect(location, mut headers) => {
            headers.push(("Location".into(), location));
            send(302, &headers, b"")
        }
        Reply::Bytes { file, range, mut headers } => {
            let (start, end) = range.unwrap_or((0, file.bytes.len()));
            let (cut_after, corrupt, slow) = {
                let mut faults = state.faults.lock().unwrap();
                let middle = (faults.cut > 0).then(|| (end - start) / 2);
                faults.cut = faults.cut.saturating_sub(1);
                (middle.or(faults.cut_after), faults.corrupt, faults.slow)
            };
            headers.push(("Content-Length".into(), (end - start).to_string()));
            if range.is_some() {
                headers.push((
                    "Content-Range".into(),
                    format!("bytes {start}-{}/{}", end - 1, file.bytes.len()),
                ));
            }
            send(if range.is_some() { 206 } else { 200 }, &headers, b"")?;
            if head {
                return Some(());
            }
            let mut body = file.bytes[start..end].to_vec();
            if corrupt && file.lfs && start == 0 {
                body[0] ^= 1;
            }
            let stop = cut_after.unwrap_or(body.len()).min(body.len());
            let (piece, slow) = drip.map_or((1 << 14, slow), |(piece, pause)| (piece, Some(pause)));
            for piece in body[..stop].chunks(piece) {
                out.write_all(piece).ok()?;
                *state.served.lock().unwrap().entry(file.etag()).or_default() += piece.len() as u64;
                if let Some(pause) = slow {
                    std::thread::sleep(pause);
                }
            }
            (stop == body.len()).then_some(())
        }
    }
}

fn write_pieces(out: &mut TcpStream, body: &[u8], drip: Option<(usize, Duration)>) -> Option<()> {
    let Some((piece, pause)) = drip else { return out.write_all(body).ok() };
    for piece in body.chunks(piece) {
        out.write_all(piece).ok()?;
        std::thread::sleep(pause);
    }
    Some(())
}

fn common_faults(state: &State) -> Option<Reply> {
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

fn answer_cdn(state: &State, request: &Request) -> Reply {
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

fn bytes(state: &State, request: &Request, file: &File, headers: Vec<(String, String)>) -> Reply {
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

fn answer_api(state: &State, request: &Request) -> Reply {
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

fn create_repo(state: &State, request: &Request) -> Reply {
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

fn preupload(request: &Request) -> Reply {
    let files: Vec<_> = request.json()["files"].as_array().unwrap().iter().map(|f| {
        let path = f["path"].as_str().unwrap();
        assert!(f["sample"].is_string() && f["size"].is_u64());
        let lfs = path.ends_with(".safetensors") || path.ends_with(".gq") || f["size"].as_u64().unwrap() > 10_000_000;
        json!({"path": path, "uploadMode": if lfs {"lfs"} else {"regular"}, "shouldIgnore": path.ends_with(".ignored")})
    }).collect();
    Reply::Json(200, vec![], json!({"files": files}))
}

fn batch(state: &State, request: &Request) -> Reply {
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

fn commit(state: &State, request: &Request, repo: &str, branch: &str) -> Reply {
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

fn base64_decode(text: &str) -> Vec<u8> {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut out = Vec::new();
    for group in text.trim_end_matches('=').as_bytes().chunks(4) {
        let word = group.iter().fold(0u32, |w, &c| w << 6 | u32::from(digit(c))) << (6 * (4 - group.len()));
        out.extend_from_slice(&word.to_be_bytes()[1..group.len()]);
    }
    out
}

/// `len` bytes that no compression or repetition could hide a mistake in.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}
