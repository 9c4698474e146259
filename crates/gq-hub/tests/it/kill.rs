//! Interrupted anywhere, a pull goes on where it was: by cancellation at many points, and by a killed process.

use crate::support::{
    Bench, CHUNK, STREAMS, assert_complete, config, files, options, repo, silent, try_pull,
};
use gq_hub::{CancelToken, Event, Hub, HubError, PullOptions};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

fn total() -> u64 {
    files().iter().map(|f| f.1.len() as u64).sum()
}

/// What one interruption may cost: a chunk per stream.
const LOSS: u64 = STREAMS as u64 * CHUNK;

#[test]
fn cancelled_at_many_points_each_byte_is_served_once_but_for_a_chunk_per_stream() {
    for stop in (0..total()).step_by(29_000) {
        let bench = Bench::new();
        let cancel = CancelToken::new();
        let stopping = PullOptions { cancel: cancel.clone(), ..options() };
        let moved = AtomicU64::new(0);
        let progress = |event: Event<'_>| {
            if let Event::Moved { bytes, .. } = event
                && moved.fetch_add(bytes, Ordering::Relaxed) + bytes > stop
            {
                cancel.cancel();
            }
        };
        let hub = bench.hub();
        let plan = hub.plan_pull(&repo(), "main", &stopping, &progress).unwrap();
        let result = hub.pull(&plan, &stopping, &progress);
        assert!(result.is_ok() || matches!(result, Err(HubError::Cancelled)), "{result:?}");
        let left = hub.plan_pull(&repo(), "main", &options(), &silent).unwrap().fetch_bytes();
        assert!(left <= total() - stop.saturating_sub(LOSS), "stopped at {stop}, {left} left");
        let before = bench.server.served_bytes();
        assert_complete(&try_pull(&hub, &options()).unwrap());
        assert_eq!(bench.server.served_bytes() - before, left, "exactly what the plan said");
        assert!(bench.server.served_bytes() <= total() + LOSS);
        assert_eq!(bench.blobs().len(), files().len(), "no leftovers");
    }
}

#[test]
fn interrupted_again_and_again_it_arrives() {
    let bench = Bench::new();
    let mut runs = 0;
    loop {
        runs += 1;
        let cancel = CancelToken::new();
        let stopping = PullOptions { cancel: cancel.clone(), ..options() };
        let moved = AtomicU64::new(0);
        let hub = bench.hub();
        let plan = hub.plan_pull(&repo(), "main", &stopping, &silent).unwrap();
        let result = hub.pull(&plan, &stopping, &|event| {
            if let Event::Moved { bytes, .. } = event
                && moved.fetch_add(bytes, Ordering::Relaxed) > 5 * CHUNK
            {
                cancel.cancel();
            }
        });
        if let Ok(snapshot) = result {
            assert_complete(&snapshot);
            break;
        }
    }
    assert!(runs > 2);
    assert!(bench.server.served_bytes() <= total() + (runs - 1) * LOSS);
}

#[test]
fn a_torn_chunk_is_found_and_fetched_again() {
    let bench = Bench::new();
    let cancel = CancelToken::new();
    let stopping = PullOptions { cancel: cancel.clone(), streams: 1, ..options() };
    let moved = AtomicU64::new(0);
    let hub = bench.hub();
    let plan = hub.plan_pull(&repo(), "main", &stopping, &silent).unwrap();
    let result = hub.pull(&plan, &stopping, &|event| {
        if let Event::Moved { bytes, .. } = event
            && moved.fetch_add(bytes, Ordering::Relaxed) > 6 * CHUNK
        {
            cancel.cancel();
        }
    });
    assert!(matches!(result, Err(HubError::Cancelled)));
    let partial = bench.blobs().into_iter().find(|n| n.ends_with(".gq.incomplete")).unwrap();
    let path = bench.repo_dir().join("blobs").join(partial);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 1; // as a power cut might leave it
    std::fs::write(&path, bytes).unwrap();
    let before = bench.server.served_bytes();
    let left = hub.plan_pull(&repo(), "main", &options(), &silent).unwrap().fetch_bytes();
    assert_complete(&try_pull(&hub, &options()).unwrap());
    assert_eq!(bench.server.served_bytes() - before, left + CHUNK);
}

const CHILD: &str = "GQ_HUB_TEST_CHILD";

/// Not a test of its own: what the killed process runs.
#[test]
fn child() {
    let Ok(variable) = std::env::var(CHILD) else { return };
    let (endpoint, cache) = variable.split_once(' ').unwrap();
    let hub = Hub::new(config(endpoint, cache.as_ref())).unwrap();
    assert_complete(
        &try_pull(&hub, &PullOptions { lock_wait: Duration::from_secs(20), ..options() }).unwrap(),
    );
}

#[test]
fn killed_twenty_times_at_random_moments_it_finishes_with_the_same_bytes() {
    let bench = Bench::new();
    bench.server.faults().slow = Some(Duration::from_millis(3));
    let program = std::env::current_exe().unwrap();
    let run = || {
        Command::new(&program)
            .args(["--exact", "kill::child", "--quiet"])
            .env(CHILD, format!("{} {}", bench.server.endpoint(), bench.dir.path().display()))
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut random = 12345u64;
    let mut kills = 0;
    let mut per_kill = Vec::new();
    for _ in 0..20 {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let before = bench.server.served_bytes();
        let mut child = run();
        // Random moments between start and end: by bytes served, so that slow machines are hit too.
        let until = before + (random >> 33) % 60_000;
        while bench.server.served_so_far() <= until && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        kills += u64::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        per_kill.push(bench.server.served_bytes() - before);
    }
    assert!(run().wait().unwrap().success());
    assert!(kills >= 5, "only {kills} kills hit a running download");
    let served = bench.server.served_bytes();
    assert!(served <= total() + kills * LOSS, "{served} of {} after {kills} kills: {per_kill:?}", total());
    let snapshot = bench.snapshot();
    assert_complete(&snapshot);
    assert_eq!(bench.server.served_bytes(), served, "the last run had everything");
    assert_eq!(bench.blobs().len(), files().len());
}

#[test]
fn a_journal_left_beside_a_finished_file_goes_away() {
    let bench = Bench::new();
    bench.snapshot();
    let blobs = bench.blobs();
    let stale = bench.repo_dir().join("blobs").join(format!("{}.gq.journal", blobs[0]));
    std::fs::write(stale, b"as a kill between rename and removal leaves it").unwrap();
    bench.snapshot();
    assert_eq!(bench.blobs(), blobs);
}
