//! A Hub, a cache in a scratch folder, and options that do not wait.

use crate::server::{LoopbackHub, noise};
use gq_hub::{Event, Hub, HubConfig, PullOptions, RepoId, RetryPolicy, Token};
use std::path::Path;
use std::time::Duration;

pub const REPO: &str = "org/tiny";
pub const CHUNK: u64 = 16 << 10;
pub const STREAMS: usize = 4;

pub struct Bench {
    pub server: LoopbackHub,
    pub dir: tempfile::TempDir,
}

impl Bench {
    /// A repository with two weight files, three small ones, one of them nested and one empty.
    pub fn new() -> Bench {
        let server = LoopbackHub::start();
        server.commit(REPO, "main", &files());
        Bench { server, dir: tempfile::tempdir().unwrap() }
    }

    pub fn config(&self) -> HubConfig {
        config(&self.server.endpoint(), self.dir.path())
    }

    pub fn hub(&self) -> Hub {
        Hub::new(self.config()).unwrap()
    }

    pub fn hub_with_token(&self, token: &str) -> Hub {
        *self.server.state.token.lock().unwrap() = Some("right".to_owned());
        Hub::new(HubConfig { token: Token::new(token), ..self.config() }).unwrap()
    }

    pub fn snapshot(&self) -> gq_hub::Snapshot {
        try_pull(&self.hub(), &options()).unwrap()
    }

    pub fn repo_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("models--org--tiny")
    }

    /// Names in `blobs/`, sorted.
    pub fn blobs(&self) -> Vec<String> {
        names(&self.repo_dir().join("blobs"))
    }
}

pub fn names(dir: &Path) -> Vec<String> {
    let Ok(list) = std::fs::read_dir(dir) else { return vec![] };
    let mut names: Vec<_> = list.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub fn files() -> Vec<(&'static str, Vec<u8>, bool)> {
    vec![
        ("config.json", br#"{"model_type": "llama"}"#.to_vec(), false),
        ("model.safetensors", noise(1, 300_001), true),
        ("second.safetensors", noise(2, 131_072), true),
        ("sub/with space#1.json", b"{}".to_vec(), false),
        ("empty.txt", vec![], false),
    ]
}

pub fn config(endpoint: &str, cache: &Path) -> HubConfig {
    HubConfig {
        cache_dir: cache.to_owned(),
        endpoint: endpoint.to_owned(),
        token: None,
        offline: false,
        proxy: None,
    }
}

pub fn options() -> PullOptions {
    PullOptions {
        streams: STREAMS,
        chunk_bytes: CHUNK,
        retry: RetryPolicy {
            base: Duration::from_millis(1),
            cap: Duration::from_millis(4),
            ..RetryPolicy::default()
        },
        read_timeout: Duration::from_secs(5),
        lock_wait: Duration::from_millis(200),
        reserve_bytes: 0,
        ..PullOptions::default()
    }
}

pub fn repo() -> RepoId {
    RepoId::new(REPO).unwrap()
}

pub fn silent(_: Event<'_>) {}

pub fn try_pull(hub: &Hub, options: &PullOptions) -> Result<gq_hub::Snapshot, gq_hub::HubError> {
    let plan = hub.plan_pull(&repo(), "main", options, &silent)?;
    hub.pull(&plan, options, &silent)
}

/// Every file of the repository is in the snapshot, with its bytes, through a relative link.
pub fn assert_complete(snapshot: &gq_hub::Snapshot) {
    for (path, bytes, _) in files() {
        let at = snapshot.dir.join(path);
        assert!(std::fs::read(&at).unwrap() == bytes, "{path}");
        let link = std::fs::read_link(&at).unwrap();
        assert!(link.is_relative() && link.to_str().unwrap().contains("../blobs/"), "{link:?}");
    }
}
