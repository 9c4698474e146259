use crate::server::{git_oid, noise, sha256};
use crate::support::{
    Bench, CHUNK, REPO, STREAMS, assert_complete, files, names, options, repo, silent, try_pull,
};
use gq_hub::{Event, FileState, Globs, HubError, PullOptions, RetryPolicy};
use serde_json::json;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

fn total() -> u64 {
    files().iter().map(|f| f.1.len() as u64).sum()
}

#[test]
fn the_cache_has_the_standard_layout_and_every_byte_is_served_once() {
    let bench = Bench::new();
    bench.server.faults().page = 2; // the file list comes in pages
    let snapshot = bench.snapshot();
    assert_complete(&snapshot);
    assert_eq!(bench.server.served_bytes(), total());
    assert_eq!(std::fs::read_to_string(bench.repo_dir().join("refs/main")).unwrap(), snapshot.commit);
    let mut expected: Vec<_> =
        files().iter().map(|(_, bytes, lfs)| if *lfs { sha256(bytes) } else { git_oid(bytes) }).collect();
    expected.sort();
    assert_eq!(bench.blobs(), expected, "nothing but whole blobs");
    let tree = bench.repo_dir().join("trees").join(format!("{}.json", snapshot.commit));
    let tree: serde_json::Value = serde_json::from_slice(&std::fs::read(tree).unwrap()).unwrap();
    assert_eq!(tree["format_version"], 1);
    assert_eq!(tree["files"]["model.safetensors"]["lfs_sha256"], sha256(&noise(1, 300_001)));

    // The second pull asks three questions and fetches nothing.
    bench.snapshot();
    assert_eq!(bench.server.served_bytes(), total());
}

#[test]
fn a_dry_run_says_sizes_and_touches_nothing() {
    let bench = Bench::new();
    let plan = bench.hub().plan_pull(&repo(), "main", &options(), &silent).unwrap();
    assert_eq!((plan.total_bytes(), plan.fetch_bytes(), plan.skipped_files()), (total(), total(), 0));
    assert!(plan.files.iter().all(|f| f.state == FileState::Missing));
    assert_eq!(names(bench.dir.path()), [""; 0]);
    assert_eq!(bench.server.served_bytes(), 0);
    bench.snapshot();
    let plan = bench.hub().plan_pull(&repo(), "main", &options(), &silent).unwrap();
    assert_eq!(plan.fetch_bytes(), 0);
    assert!(plan.files.iter().all(|f| f.state == FileState::Cached));
}

#[test]
fn globs_choose_files() {
    let bench = Bench::new();
    let files = Globs { include: vec!["*.json".into()], exclude: vec!["sub/".into()] };
    let snapshot = try_pull(&bench.hub(), &PullOptions { files, ..options() }).unwrap();
    assert_eq!(names(&snapshot.dir), ["config.json"]);
    let none = PullOptions { files: Globs::including(&["*.bin"]), ..options() };
    assert!(matches!(try_pull(&bench.hub(), &none), Err(HubError::NothingSelected { files: 5, .. })));
}

#[test]
fn the_revision_is_resolved_once() {
    let bench = Bench::new();
    let hub = bench.hub();
    let plan = hub.plan_pull(&repo(), "main", &options(), &silent).unwrap();
    bench.server.commit(REPO, "main", &[("config.json", b"moved on".to_vec(), false)]);
    assert_complete(&hub.pull(&plan, &options(), &silent).unwrap());
    let asked = bench.server.seen();
    assert!(asked.iter().filter(|s| s.target.contains("/resolve/")).all(|s| s.target.contains(&plan.commit)));
    assert_eq!(asked.iter().filter(|s| s.target.contains("/revision/")).count(), 1);
}

#[test]
fn a_branch_with_a_slash_and_a_bare_commit() {
    let bench = Bench::new();
    let commit = bench.server.commit(REPO, "refs/pr/1", &[("a.json", b"1".to_vec(), false)]);
    let hub = bench.hub();
    for revision in ["refs/pr/1", &commit] {
        let plan = hub.plan_pull(&repo(), revision, &options(), &silent).unwrap();
        assert_eq!(plan.commit, commit);
        hub.pull(&plan, &options(), &silent).unwrap();
    }
    assert_eq!(names(&bench.repo_dir().join("refs")), ["refs"]);
    assert_eq!(std::fs::read_to_string(bench.repo_dir().join("refs/refs/pr/1")).unwrap(), commit);
}

#[test]
fn the_token_stays_on_the_hubs_own_origin() {
    let bench = Bench::new();
    bench.server.state.repos.lock().unwrap().get_mut(REPO).unwrap().private = true;
    let hub = bench.hub_with_token("right");
    assert_complete(&try_pull(&hub, &options()).unwrap());
    let seen = bench.server.seen();
    assert!(seen.iter().any(|s| s.cdn) && seen.iter().any(|s| !s.cdn));
    assert!(seen.iter().filter(|s| s.cdn).all(|s| s.authorization.is_none()));
    assert!(seen.iter().filter(|s| !s.cdn).all(|s| s.authorization.as_deref() == Some("Bearer right")));
}

#[test]
fn faults_that_pass_cost_no_byte_that_came() {
    let bench = Bench::new();
    {
        let mut faults = bench.server.faults();
        (faults.unavailable, faults.dropped, faults.cut, faults.rate_limited) = (3, 3, 5, 3);
    }
    let moved = AtomicU64::new(0);
    let retries = Mutex::new(Vec::new());
    let progress = |event: Event<'_>| match event {
        Event::Moved { bytes, .. } => {
            moved.fetch_add(bytes, Ordering::Relaxed);
        }
        Event::Retrying { reason, .. } => retries.lock().unwrap().push(reason.to_owned()),
        _ => {}
    };
    let hub = bench.hub();
    let plan = hub.plan_pull(&repo(), "main", &options(), &progress).unwrap();
    assert_complete(&hub.pull(&plan, &options(), &progress).unwrap());
    assert_eq!(bench.server.served_bytes(), total(), "cut bodies are continued, not repeated");
    assert_eq!(moved.load(Ordering::Relaxed), total());
    let retries = retries.into_inner().unwrap();
    assert!(
        retries.iter().any(|r| r.contains("503")) && retries.iter().any(|r| r.contains("429")),
        "{retries:?}"
    );
}

#[test]
fn retry_after_is_obeyed() {
    let bench = Bench::new();
    {
        let mut faults = bench.server.faults();
        (faults.rate_limited, faults.retry_after) = (1, Some(1));
    }
    let start = Instant::now();
    let options = PullOptions { files: Globs::including(&["second*"]), streams: 1, ..options() };
    try_pull(&bench.hub(), &options).unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));

    // Longer than the caller is willing to wait: an error that names the wait, at once.
    let bench = Bench::new();
    {
        let mut faults = bench.server.faults();
        (faults.rate_limited, faults.retry_after) = (1, Some(3600));
    }
    let error = try_pull(&bench.hub(), &options).unwrap_err();
    assert!(
        matches!(error, HubError::RateLimited { retry_after: Some(w), .. } if w == Duration::from_secs(3600)),
        "{error:?}"
    );
}

#[test]
fn faults_that_stay_are_named() {
    let few = RetryPolicy { attempts: 3, ..options().retry };
    let options = PullOptions { retry: few, ..options() };
    let bench = Bench::new();
    bench.server.faults().unavailable = u32::MAX;
    assert!(matches!(try_pull(&bench.hub(), &options), Err(HubError::Status { status: 503, .. })));
    let bench = Bench::new();
    bench.server.faults().dropped = u32::MAX;
    assert!(matches!(try_pull(&bench.hub(), &options), Err(HubError::Transport { attempts: 3, .. })));
    let bench = Bench::new();
    bench.server.faults().cut_after = Some(0);
    let error = try_pull(&bench.hub(), &options).unwrap_err();
    assert!(matches!(error, HubError::CutShort { .. } | HubError::Transport { .. }), "{error:?}");
}

#[test]
fn a_connection_that_always_ends_early_still_gets_there() {
    let bench = Bench::new();
    bench.server.faults().cut_after = Some(3000); // progress resets the count of failures
    let files = Globs::including(&["second*"]);
    try_pull(&bench.hub(), &PullOptions { files, ..options() }).unwrap();
    assert_eq!(bench.server.served_bytes(), 131_072);
}

#[test]
fn a_slow_body_is_not_a_stall_and_a_stall_is_not_for_ever() {
    let bench = Bench::new();
    bench.server.faults().slow = Some(Duration::from_millis(20));
    let quick = PullOptions { read_timeout: Duration::from_millis(500), ..options() };
    assert_complete(&try_pull(&bench.hub(), &quick).unwrap());

    let bench = Bench::new();
    bench.server.faults().slow = Some(Duration::from_secs(1));
    let retry = RetryPolicy { attempts: 2, ..options().retry };
    let impatient = PullOptions {
        read_timeout: Duration::from_millis(100),
        chunk_bytes: 64 << 10,
        retry,
        streams: 1,
        files: Globs::including(&["second*"]),
        ..options()
    };
    let stalls = AtomicU64::new(0);
    let count = |event: Event<'_>| {
        stalls.fetch_add(u64::from(matches!(event, Event::Retrying { .. })), Ordering::Relaxed);
    };
    let hub = bench.hub();
    let plan = hub.plan_pull(&repo(), "main", &impatient, &silent).unwrap();
    hub.pull(&plan, &impatient, &count).unwrap();
    assert!(stalls.load(Ordering::Relaxed) >= 4, "each body stalled and was continued");
}

#[test]
fn wrong_bytes_are_refused_and_leave_nothing() {
    let bench = Bench::new();
    bench.server.faults().corrupt = true;
    let one = PullOptions { files: Globs::including(&["model*"]), ..options() };
    let error = try_pull(&bench.hub(), &one).unwrap_err();
    let HubError::HashMismatch { path, expected, actual, .. } = error else { panic!("{error:?}") };
    assert!(path.ends_with(".safetensors") && expected != actual);
    let blob = bench.repo_dir().join("blobs").join(&expected);
    assert!(!blob.exists() && !blob.with_extension("gq.incomplete").exists());
    bench.server.faults().corrupt = false;
    assert_complete(&bench.snapshot());

    // Small files have git's checksum.
    let bench = Bench::new();
    let lie = json!({"type": "file", "path": "lie.json", "size": 2, "oid": git_oid(b"no")});
    bench.server.commit(REPO, "main", &[("lie.json", b"{}".to_vec(), false)]);
    bench.server.faults().planted = vec![lie];
    let error = try_pull(&bench.hub(), &options()).unwrap_err();
    assert!(matches!(error, HubError::BadAnswer { ref field, .. } if field.contains("twice")), "{error:?}");
}

#[test]
fn git_files_are_verified_too() {
    let bench = Bench::new();
    let honest = bench.hub().plan_pull(&repo(), "main", &options(), &silent).unwrap();
    // The same commit id, other bytes of the same length: a mirror that lies.
    {
        let mut repos = bench.server.state.repos.lock().unwrap();
        let tree = repos.get_mut(REPO).unwrap().commits.get_mut(&honest.commit).unwrap();
        tree.get_mut("config.json").unwrap().bytes = br#"{"model_type": "LLAMA"}"#.to_vec().into();
    }
    let error = bench.hub().pull(&honest, &options(), &silent).unwrap_err();
    assert!(matches!(error, HubError::HashMismatch { ref path, .. } if path == "config.json"), "{error:?}");
}

#[test]
fn a_server_without_ranges_is_not_mistaken_for_one_with() {
    let bench = Bench::new();
    bench.server.faults().ignore_range = true;
    let error = try_pull(&bench.hub(), &options()).unwrap_err();
    assert!(matches!(error, HubError::WrongRange { .. }), "{error:?}");
    // Files of one chunk need no range.
    let files = Globs::including(&["*.json", "empty.txt"]);
    try_pull(&bench.hub(), &PullOptions { files, ..options() }).unwrap();
}

#[test]
fn expired_addresses_are_asked_for_again() {
    let bench = Bench::new();
    bench.server.faults().signature_uses = 3;
    assert_complete(&bench.snapshot());
    assert_eq!(bench.server.served_bytes(), total());
}

#[test]
fn redirects_to_nowhere_are_refused() {
    for to in ["file:///etc/passwd", "", "nowhere", "ftp://x/y"] {
        let bench = Bench::new();
        bench.server.faults().redirect_to = Some(to.to_owned());
        assert!(matches!(try_pull(&bench.hub(), &options()), Err(HubError::BadRedirect { .. })), "{to}");
    }
    let bench = Bench::new();
    bench.server.faults().redirect_to = Some("/org/tiny/resolve/main/config.json".to_owned());
    assert!(matches!(try_pull(&bench.hub(), &options()), Err(HubError::BadRedirect { .. })), "a circle");
}

#[test]
fn refusals_are_explained() {
    let bench = Bench::new();
    let ask = |hub: &gq_hub::Hub, repo: &str, revision: &str| {
        let repo = gq_hub::RepoId::new(repo).unwrap();
        hub.plan_pull(&repo, revision, &options(), &silent).unwrap_err()
    };
    let anonymous = bench.hub();
    let error = ask(&anonymous, "org/missing", "main");
    assert!(matches!(error, HubError::RepoNotFound { authenticated: false, .. }), "{error:?}");
    let error = ask(&anonymous, REPO, "v9");
    assert!(
        matches!(error, HubError::RevisionNotFound { ref revision, .. } if revision == "v9"),
        "{error:?}"
    );
    let error = ask(&bench.hub_with_token("right"), "org/missing", "main");
    assert!(matches!(error, HubError::RepoNotFound { authenticated: true, .. }), "{error:?}");
    let error = ask(&bench.hub_with_token("wrong"), REPO, "main");
    assert!(matches!(error, HubError::Unauthorized { .. }), "{error:?}");
    bench.server.state.repos.lock().unwrap().get_mut(REPO).unwrap().gated = true;
    let error = ask(&bench.hub_with_token("right"), REPO, "main");
    assert!(
        matches!(error, HubError::Gated { authenticated: true, ref message, .. } if message.contains("accept")),
        "{error:?}"
    );
}

#[test]
fn hostile_file_lists_are_refused() {
    let oid = git_oid(b"");
    let entries = [
        json!({"type": "file", "path": "../escape", "size": 0, "oid": oid}),
        json!({"type": "file", "path": "/abs", "size": 0, "oid": oid}),
        json!({"type": "file", "path": "a\\b", "size": 0, "oid": oid}),
        json!({"type": "file", "path": "ok", "size": 0, "oid": "../../x"}),
        json!({"type": "file", "path": "ok", "size": -1, "oid": oid}),
        json!({"type": "file", "path": "ok", "size": 0, "oid": oid, "lfs": {"oid": "short", "size": 0}}),
        json!({"type": "file"}),
        json!(7),
    ];
    for entry in entries {
        let bench = Bench::new();
        bench.server.faults().planted = vec![entry.clone()];
        let error = try_pull(&bench.hub(), &options()).unwrap_err();
        assert!(
            matches!(error, HubError::UnsafePath { .. } | HubError::BadAnswer { .. }),
            "{entry}: {error:?}"
        );
        assert_eq!(names(bench.dir.path()), [""; 0]);
    }
}

#[test]
fn a_full_disk_is_noticed_before_the_first_byte() {
    let bench = Bench::new();
    let error =
        try_pull(&bench.hub(), &PullOptions { reserve_bytes: u64::MAX / 2, ..options() }).unwrap_err();
    assert!(
        matches!(error, HubError::DiskFull { needed, available, .. } if needed == total() && available > 0)
    );
    assert_eq!(bench.server.served_bytes(), 0);
}

#[test]
fn a_file_that_another_process_fetches_is_waited_for() {
    let bench = Bench::new();
    let weight = sha256(&noise(1, 300_001));
    let locks = bench.dir.path().join(".locks/models--org--tiny");
    std::fs::create_dir_all(&locks).unwrap();
    let held = std::fs::File::create(locks.join(format!("{weight}.lock"))).unwrap();
    held.lock().unwrap();
    assert!(matches!(try_pull(&bench.hub(), &options()), Err(HubError::Locked { .. })));
    let patient = PullOptions { lock_wait: Duration::from_secs(20), ..options() };
    let hub = bench.hub();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| try_pull(&hub, &patient));
        std::thread::sleep(Duration::from_millis(100));
        drop(held);
        assert_complete(&waiting.join().unwrap().unwrap());
    });
}

#[test]
fn two_pulls_at_once_share_the_work() {
    let bench = Bench::new();
    let patient = PullOptions { lock_wait: Duration::from_secs(20), ..options() };
    bench.server.faults().slow = Some(Duration::from_millis(2));
    let (first, second) = (bench.hub(), bench.hub());
    std::thread::scope(|scope| {
        let other = scope.spawn(|| try_pull(&first, &patient));
        assert_complete(&try_pull(&second, &patient).unwrap());
        assert_complete(&other.join().unwrap().unwrap());
    });
    assert_eq!(bench.server.served_bytes(), total());
}

#[test]
fn content_that_occurs_twice_is_fetched_once() {
    let bench = Bench::new();
    let bytes = noise(9, 40_000);
    bench.server.commit(
        REPO,
        "main",
        &[("a.safetensors", bytes.clone(), true), ("b.safetensors", bytes, true)],
    );
    let plan = bench.hub().plan_pull(&repo(), "main", &options(), &silent).unwrap();
    assert_eq!((plan.total_bytes(), plan.fetch_bytes()), (80_000, 40_000));
    let snapshot = bench.hub().pull(&plan, &options(), &silent).unwrap();
    assert_eq!(names(&snapshot.dir), ["a.safetensors", "b.safetensors"]);
    assert_eq!(bench.server.served_bytes(), 40_000);
}

#[test]
fn a_broken_link_or_a_short_blob_is_repaired() {
    let bench = Bench::new();
    let snapshot = bench.snapshot();
    let blob = bench.repo_dir().join("blobs").join(sha256(&noise(1, 300_001)));
    std::fs::write(&blob, b"short").unwrap();
    let link = snapshot.dir.join("config.json");
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    assert_complete(&bench.snapshot());
}

#[test]
fn offline_means_no_request_at_all() {
    let bench = Bench::new();
    let mut config = bench.config();
    config.offline = true;
    let hub = gq_hub::Hub::new(config).unwrap();
    assert!(matches!(try_pull(&hub, &options()), Err(HubError::Offline { .. })));
    assert!(bench.server.seen().is_empty());
    assert!(STREAMS as u64 * CHUNK < total());
}
