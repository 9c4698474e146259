//! A Hub on loopback: the API and a CDN on another port, with faults on demand and every byte counted.
#![allow(dead_code)] // shared by the tests and an example, each of which uses a part

mod api;
mod cdn;
mod content;
mod upload;
mod wire;

pub use content::{git_oid, noise, sha256};

use content::hex;
use serde_json::Value;
use sha1::{Digest, Sha1};
use std::collections::{BTreeMap, HashMap};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use wire::serve;

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
