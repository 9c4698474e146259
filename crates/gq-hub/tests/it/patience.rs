//! What is waited for and what is not: hosts that are not there, answers that drip, waits that are asked for.

use crate::server::{noise, sha256};
use crate::support::{Bench, config, options, repo, silent, try_pull};
use gq_hub::{Access, CancelToken, Event, Globs, Hub, HubError, PullOptions, RetryPolicy};
use serde_json::json;
use std::sync::Mutex;
use std::time::Duration;

/// Patient where it is patient at all: a test that waits would notice.
fn patient() -> PullOptions {
    PullOptions { retry: RetryPolicy::default(), ..options() }
}

/// An address on which nobody listens.
fn closed() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn a_host_that_is_not_there_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    for endpoint in [closed(), "http://gq.invalid".to_owned()] {
        let hub = Hub::new(config(&endpoint, dir.path())).unwrap();
        let retries = Mutex::new(0);
        let count =
            |event: Event<'_>| *retries.lock().unwrap() += u32::from(matches!(event, Event::Retrying { .. }));
        let error = hub.plan_pull(&repo(), "main", &patient(), &count).unwrap_err();
        assert!(matches!(error, HubError::Transport { attempts: 1, .. }), "{endpoint}: {error:?}");
        assert_eq!(*retries.lock().unwrap(), 0, "{endpoint}");
    }
}

#[test]
fn storage_that_is_not_there_is_not_waited_for_either() {
    let bench = Bench::new();
    bench.server.faults().redirect_to = Some(closed());
    let error = try_pull(&bench.hub(), &patient()).unwrap_err();
    assert!(matches!(error, HubError::Transport { attempts: 1, .. }), "{error:?}");
}

#[test]
fn a_host_that_answered_once_may_be_back_in_a_moment() {
    // A Hub that answers one question and is gone.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().unwrap();
        drop(listener);
        let _ = stream.read(&mut [0; 4096]).unwrap();
        let body = json!({"sha": "a".repeat(40)}).to_string();
        let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).unwrap();
    });
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::new(config(&endpoint, dir.path())).unwrap();
    let retry = RetryPolicy { attempts: 3, ..options().retry };
    let error = hub.plan_pull(&repo(), "main", &PullOptions { retry, ..options() }, &silent).unwrap_err();
    assert!(matches!(error, HubError::Transport { attempts: 3, .. }), "{error:?}");
}

#[test]
fn a_body_that_drips_is_given_up_and_a_slow_one_is_not() {
    let one = PullOptions {
        files: Globs::including(&["second*"]),
        streams: 1,
        rate_window: Duration::from_millis(100),
        least_rate: 10_000,
        ..options()
    };
    let bench = Bench::new();
    bench.server.faults().drip = Some((1 << 14, Duration::from_millis(5)));
    try_pull(&bench.hub(), &one).unwrap();

    let bench = Bench::new();
    let plan = bench.hub().plan_pull(&repo(), "main", &one, &silent).unwrap();
    bench.server.faults().drip = Some((10, Duration::from_millis(10))); // no read is ever silent for long
    let told = Mutex::new(Vec::new());
    let note = |event: Event<'_>| {
        if let Event::Retrying { reason, .. } = event {
            told.lock().unwrap().push(reason.to_owned());
        }
    };
    let error = bench.hub().pull(&plan, &one, &note).unwrap_err();
    let HubError::TooSlow { bytes, time, attempts, .. } = error else { panic!("{error:?}") };
    assert!(bytes < 1000 && time >= Duration::from_millis(100), "{bytes} in {time:?}");
    let told = told.into_inner().unwrap();
    assert_eq!((attempts as usize, told.len()), (one.retry.slow_attempts as usize, 2), "{told:?}");
    assert!(told.iter().all(|reason| reason.starts_with("only ")), "{told:?}");
}

#[test]
fn connections_that_end_after_a_few_bytes_come_no_further() {
    let bench = Bench::new();
    bench.server.faults().cut_after = Some(100);
    let files = Globs::including(&["second*"]);
    let error = try_pull(&bench.hub(), &PullOptions { files, ..options() }).unwrap_err();
    assert!(matches!(error, HubError::CutShort { .. } | HubError::Transport { .. }), "{error:?}");
}

#[test]
fn connections_that_each_end_after_a_kib_do_not_hold_a_pull() {
    let bench = Bench::new();
    bench.server.faults().cut_after = Some(1 << 10);
    let files = Globs::including(&["second*"]);
    let error = try_pull(&bench.hub(), &PullOptions { files, streams: 1, ..options() }).unwrap_err();
    assert!(matches!(error, HubError::CutShort { .. } | HubError::Transport { .. }), "{error:?}");
    assert!(bench.server.served_bytes() <= u64::from(options().retry.attempts) << 10);

    // With attempts without end, the rate counts over all requests for a chunk.
    let bench = Bench::new();
    {
        let mut faults = bench.server.faults();
        (faults.cut_after, faults.drip) = (Some(1 << 10), Some((1 << 10, Duration::from_millis(5))));
    }
    let one = PullOptions {
        files: Globs::including(&["second*"]),
        streams: 1,
        chunk_bytes: 1 << 20,
        rate_window: Duration::from_millis(50),
        least_rate: 10 << 20,
        retry: RetryPolicy { attempts: u32::MAX, slow_attempts: 2, ..options().retry },
        ..options()
    };
    let error = try_pull(&bench.hub(), &one).unwrap_err();
    assert!(matches!(error, HubError::TooSlow { .. }), "{error:?}");
}

#[test]
fn another_process_that_fetches_the_file_is_named_once() {
    let bench = Bench::new();
    let locks = bench.dir.path().join(".locks/models--org--tiny");
    std::fs::create_dir_all(&locks).unwrap();
    let path = locks.join(format!("{}.lock", sha256(&noise(2, 131_072))));
    let held = std::fs::File::create(&path).unwrap();
    held.lock().unwrap();
    let told = Mutex::new(Vec::new());
    let note = |event: Event<'_>| {
        if let Event::Waiting { path, lock } = event {
            told.lock().unwrap().push((path.to_owned(), lock.to_owned()));
        }
    };
    let files = Globs::including(&["second*"]);
    let options = PullOptions { files, ..options() };
    let plan = bench.hub().plan_pull(&repo(), "main", &options, &note).unwrap();
    let error = bench.hub().pull(&plan, &options, &note).unwrap_err();
    assert!(matches!(error, HubError::Locked { .. }), "{error:?}");
    assert_eq!(*told.lock().unwrap(), [("second.safetensors".to_owned(), path)]);

    // The wait ends when somebody says so, and when the other process is done.
    let cancel = CancelToken::new();
    let stopping = PullOptions { cancel: cancel.clone(), lock_wait: Duration::from_secs(3600), ..options };
    let stop = |event: Event<'_>| {
        if matches!(event, Event::Waiting { .. }) {
            cancel.cancel();
        }
    };
    let error = bench.hub().pull(&plan, &stopping, &stop).unwrap_err();
    assert!(matches!(error, HubError::Cancelled), "{error:?}");
    let held = Mutex::new(Some(held));
    let release = |event: Event<'_>| {
        if matches!(event, Event::Waiting { .. }) {
            drop(held.lock().unwrap().take());
        }
    };
    let patient = PullOptions { cancel: CancelToken::new(), ..stopping };
    bench.hub().pull(&plan, &patient, &release).unwrap();
}

#[test]
fn questions_have_a_limit_in_all() {
    let bench = Bench::new();
    bench.server.faults().drip = Some((1, Duration::from_millis(5)));
    let impatient = PullOptions { questions: Duration::from_millis(100), ..options() };
    let error = try_pull(&bench.hub(), &impatient).unwrap_err();
    assert!(matches!(error, HubError::TimeLimit { .. } | HubError::Transport { .. }), "{error:?}");
}

#[test]
fn a_question_without_an_answer_is_told_while_it_is_waited_for() {
    let bench = Bench::new();
    let told = |quiet: u64| {
        let retry = RetryPolicy { quiet: Duration::from_millis(quiet), ..options().retry };
        let (urls, options) = (Mutex::new(Vec::new()), PullOptions { retry, ..options() });
        let note = |event: Event<'_>| {
            if let Event::Unanswered { url } = event {
                urls.lock().unwrap().push(url.to_owned());
            }
        };
        bench.hub().plan_pull(&repo(), "main", &options, &note).unwrap();
        urls.into_inner().unwrap()
    };
    assert_eq!(told(60_000), [""; 0], "answers that come at once");
    bench.server.faults().drip = Some((1 << 8, Duration::from_millis(50)));
    let told = told(5);
    assert!(!told.is_empty() && told.iter().all(|url| url.contains("/api/models/")), "{told:?}");
}

/// Redirects share the limit: each is slow, and none has all of it.
#[test]
fn redirects_of_a_question_have_a_limit_in_all() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = std::sync::Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(300));
            let head =
                "HTTP/1.1 302 Found\r\nConnection: close\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n";
            let _ = stream.write_all(head.as_bytes());
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::new(config(&endpoint, dir.path())).unwrap();
    let impatient = PullOptions { questions: Duration::from_millis(400), ..options() };
    let error = hub.plan_pull(&repo(), "main", &impatient, &silent).unwrap_err();
    assert!(matches!(error, HubError::TimeLimit { .. } | HubError::Transport { .. }), "{error:?}");
    assert!(asked.load(std::sync::atomic::Ordering::SeqCst) <= 2);
}

#[test]
fn an_answer_is_bounded_in_bytes() {
    let bench = Bench::new();
    bench.server.faults().padding = 17 << 20;
    let error = try_pull(&bench.hub(), &options()).unwrap_err();
    assert!(matches!(&error, HubError::BadAnswer { field, .. } if field.contains("more than")), "{error:?}");
    // What nobody asked for is passed over.
    bench.server.faults().padding = 1 << 20;
    try_pull(&bench.hub(), &options()).unwrap();
}

#[test]
fn a_cut_answer_is_asked_for_again() {
    let bench = Bench::new();
    bench.server.faults().dropped = 2;
    try_pull(&bench.hub(), &options()).unwrap();
}

#[test]
fn sizes_that_sum_past_a_number_are_refused() {
    let bench = Bench::new();
    let entry = |path: &str| json!({"type": "file", "path": path, "size": u64::MAX, "oid": "a".repeat(40)});
    bench.server.faults().planted = vec![entry("one.bin"), entry("two.bin")];
    let error = try_pull(&bench.hub(), &options()).unwrap_err();
    assert!(matches!(&error, HubError::BadAnswer { field, .. } if field.contains("2^64")), "{error:?}");
    // One such file is a number, and no room for it.
    bench.server.faults().planted = vec![entry("one.bin")];
    let error = try_pull(&bench.hub(), &options()).unwrap_err();
    assert!(
        matches!(error, HubError::DiskFull { .. })
            || matches!(&error, HubError::BadAnswer { field, .. } if field.contains("2^64")),
        "{error:?}"
    );
}

#[test]
fn a_wait_that_is_asked_for_is_told() {
    let bench = Bench::new();
    {
        let mut faults = bench.server.faults();
        (faults.rate_limited, faults.retry_after) = (1, Some(0));
    }
    let told = Mutex::new(Vec::new());
    let note = |event: Event<'_>| {
        if let Event::Retrying { asked, .. } = event {
            told.lock().unwrap().push(asked);
        }
    };
    let plan = bench.hub().plan_pull(&repo(), "main", &options(), &note).unwrap();
    bench.hub().pull(&plan, &options(), &note).unwrap();
    assert_eq!(*told.lock().unwrap(), [true]);
}

#[test]
fn what_a_403_means_depends_on_what_was_asked() {
    let access = |bench: &Bench, hub: &Hub| match try_pull(hub, &options()).unwrap_err() {
        HubError::Forbidden { access, .. } => {
            assert!(!bench.server.seen().is_empty());
            access
        }
        other => panic!("{other:?}"),
    };
    let bench = Bench::new();
    bench.server.faults().forbidden = true;
    assert_eq!(access(&bench, &bench.hub()), Access::Read { authenticated: false });
    assert_eq!(access(&bench, &bench.hub_with_token("right")), Access::Read { authenticated: true });
    let bench = Bench::new();
    bench.server.faults().storage_forbidden = true;
    assert_eq!(access(&bench, &bench.hub()), Access::Storage);
}

const CHILD: &str = "GQ_HUB_TEST_LONG_LIST";

/// Not a test of its own: lists the files, and says the most memory that it took, in kB.
#[test]
fn child() {
    let Ok(variable) = std::env::var(CHILD) else { return };
    let (endpoint, cache) = variable.split_once(' ').unwrap();
    let hub = Hub::new(config(endpoint, cache.as_ref())).unwrap();
    let plan = hub.plan_pull(&repo(), "main", &options(), &silent).unwrap();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    std::fs::write(std::path::Path::new(cache).join("peak"), format!("{} {peak}", plan.files.len())).unwrap();
}

/// 40 000 files and 12 MB of keys that nobody asked for: a tree of all of it would take some 300 MB.
#[test]
#[cfg(target_os = "linux")]
fn a_long_answer_takes_little_memory() {
    let bench = Bench::new();
    let entry = |i: u32| json!({"type": "file", "path": format!("f{i}"), "size": 1, "oid": "a".repeat(40)});
    {
        let mut faults = bench.server.faults();
        faults.planted = (0..40_000).map(entry).collect();
        faults.padding = 150;
        faults.page = 20_000;
    }
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "patience::child", "--quiet"])
        .env(CHILD, format!("{} {}", bench.server.endpoint(), bench.dir.path().display()))
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let told = std::fs::read_to_string(bench.dir.path().join("peak")).unwrap();
    let words: Vec<&str> = told.split_whitespace().collect();
    assert_eq!(words[0], "40005");
    let peak: u64 = words[2].parse().unwrap();
    assert!(peak < 80_000, "{peak} kB");
}
