//! Why downloads are not hf-hub's: each test fails when the crate gets better, and then it can be used for more.

use crate::server::{noise, sha256};
use crate::support::{Bench, REPO};
use hf_hub::api::sync::ApiBuilder;
use hf_hub::{Cache, Repo, RepoType};

fn api(bench: &Bench) -> hf_hub::api::sync::ApiRepo {
    ApiBuilder::from_cache(Cache::new(bench.dir.path().to_owned()))
        .with_endpoint(bench.server.endpoint())
        .with_progress(false)
        .build()
        .unwrap()
        .model(REPO.to_owned())
}

#[test]
fn layout_and_addresses_are_right_and_used() {
    let bench = Bench::new();
    let path = api(&bench).download("model.safetensors").unwrap();
    assert!(std::fs::read(path).unwrap() == noise(1, 300_001));
    // What it wrote is what we would have written: nothing is fetched again.
    let before = bench.server.served_bytes();
    let plan = bench.hub().plan_pull(
        &gq_hub::RepoId::new(REPO).unwrap(),
        "main",
        &crate::support::options(),
        &crate::support::silent,
    );
    let cached: Vec<_> =
        plan.unwrap().files.into_iter().filter(|f| f.state == gq_hub::FileState::Cached).collect();
    assert_eq!(cached.len(), 1);
    assert_eq!(bench.server.served_bytes(), before);
    assert_eq!(Repo::new(REPO.into(), RepoType::Model).folder_name(), "models--org--tiny");
}

#[test]
fn fault_wrong_bytes_are_stored_under_the_right_name() {
    let bench = Bench::new();
    bench.server.faults().corrupt = true;
    let path = api(&bench).download("model.safetensors").unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let name = std::fs::canonicalize(&path).unwrap();
    assert_ne!(sha256(&bytes), name.file_name().unwrap().to_str().unwrap(), "no checksum");
}

#[test]
fn fault_an_interrupted_file_is_continued_without_a_look_at_its_bytes() {
    let bench = Bench::new();
    let blobs = bench.repo_dir().join("blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    let part = blobs.join(sha256(&noise(1, 300_001))).with_extension("part");
    std::fs::write(part, vec![0; 200_000]).unwrap(); // a preallocated file after a crash
    let path = api(&bench).download("model.safetensors").unwrap();
    assert!(std::fs::read(path).unwrap() != noise(1, 300_001));
}

const CHILD: &str = "GQ_HUB_TEST_HF_HUB";

/// Not a test of its own: runs with the environment set.
#[test]
fn child() {
    let Ok(endpoint) = std::env::var(CHILD) else { return };
    let api = ApiBuilder::from_env().with_endpoint(endpoint).with_progress(false).build().unwrap();
    api.model(REPO.to_owned()).download("model.safetensors").unwrap();
}

#[test]
fn fault_the_environment_is_mostly_not_read() {
    let bench = Bench::new();
    let (home, cache) = (bench.dir.path().join("home"), bench.dir.path().join("cache"));
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "hf_hub_faults::child", "--quiet"])
        .env(CHILD, bench.server.endpoint())
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_TOKEN", "hf_x")
        .env("HF_HOME", &home)
        .env("HF_HUB_CACHE", &cache)
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "HF_HUB_OFFLINE did not stop it");
    let seen = bench.server.seen();
    assert!(!seen.is_empty());
    assert!(seen.iter().all(|s| s.authorization.is_none()), "HF_TOKEN is not read");
    assert!(home.join("hub").exists() && !cache.exists(), "HF_HUB_CACHE is not read");
}

#[test]
fn fault_refusals_lose_the_hubs_reason() {
    let bench = Bench::new();
    bench.server.state.repos.lock().unwrap().get_mut(REPO).unwrap().gated = true;
    let error = api(&bench).download("config.json").unwrap_err().to_string();
    assert!(!error.contains("Gated") && !error.contains("accept"), "{error}");
}

#[test]
fn fault_paths_are_not_encoded() {
    let bench = Bench::new();
    assert!(api(&bench).url("sub/with space#1.json").contains("with space#1"));
    assert!(api(&bench).download("sub/with space#1.json").is_err());
}

#[test]
fn fault_a_short_wait_is_not_asked_for() {
    let bench = Bench::new();
    bench.server.faults().rate_limited = 1;
    assert!(api(&bench).download("model.safetensors").is_err(), "429 is final");
}
