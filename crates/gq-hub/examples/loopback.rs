//! A Hub on loopback and a client for it, for `scripts/check_hub_cache.py`.
//!
//! `serve` prints its address and serves a tiny repository until its standard input ends; each line it reads is
//! answered with the body bytes served so far. `pull ENDPOINT CACHE` fetches that repository into a cache and
//! prints the snapshot's folder.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)] // a test tool

#[path = "../tests/it/server/mod.rs"]
mod server;

use gq_hub::{Hub, HubConfig, PullOptions, RepoId};
use std::io::BufRead;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve"] => serve(),
        ["pull", endpoint, cache] => pull(endpoint, cache),
        _ => panic!("usage: loopback serve | pull ENDPOINT CACHE"),
    }
}

fn serve() {
    let hub = server::LoopbackHub::start();
    hub.commit(
        "org/tiny",
        "main",
        &[
            ("config.json", br#"{"model_type": "llama"}"#.to_vec(), false),
            ("model.safetensors", server::noise(1, 3_000_001), true),
            ("sub/dir/with space#1.json", b"{}".to_vec(), false),
            ("empty.txt", vec![], false),
        ],
    );
    println!("{}", hub.endpoint());
    for _ in std::io::stdin().lock().lines() {
        println!("{}", hub.served_bytes());
    }
}

fn pull(endpoint: &str, cache: &str) {
    let config = HubConfig {
        cache_dir: cache.into(),
        endpoint: endpoint.to_owned(),
        token: None,
        offline: false,
        proxy: None,
    };
    let hub = Hub::new(config).unwrap();
    let options = PullOptions { chunk_bytes: 1 << 18, ..PullOptions::default() };
    let plan = hub.plan_pull(&RepoId::new("org/tiny").unwrap(), "main", &options, &|_| {}).unwrap();
    println!("{}", hub.pull(&plan, &options, &|_| {}).unwrap().dir.display());
}
