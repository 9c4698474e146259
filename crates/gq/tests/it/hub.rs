//! `gq pull`, `gq push` and sources on the Hub, against a Hub on loopback.

use crate::run::{Gq, testdata};
use crate::server::{LoopbackHub, noise};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

const CHUNK: u64 = 16 << 10;
const STREAMS: u64 = 4;

/// A checkpoint on a Hub, and copies of its weights that nobody needs.
fn served() -> LoopbackHub {
    let hub = LoopbackHub::start();
    let file = |name: &str| std::fs::read(testdata(&format!("tiny/llama/{name}"))).unwrap();
    hub.commit(
        "org/tiny",
        "main",
        &[
            ("config.json", file("config.json"), false),
            ("model.safetensors", file("model.safetensors"), true),
            ("pytorch_model.bin", noise(3, 50_000), true),
            ("consolidated.safetensors", noise(4, 60_000), true),
            ("original/model.safetensors", noise(5, 70_000), true),
        ],
    );
    hub
}

fn with_hub(gq: &Gq, hub: &LoopbackHub) -> Command {
    let mut command = gq.command();
    command.env("HF_HOME", gq.path("hf")).env("HF_ENDPOINT", hub.endpoint());
    command
}

/// Runs the program, which must end with this code; gives standard output and error.
fn run(mut command: Command, args: &[&str], code: i32) -> (String, String) {
    let output = command.args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(code), "gq {args:?}: {out}{err}");
    (out, err)
}

#[test]
fn a_model_is_planned_fetched_and_found_again_without_a_network() {
    let (gq, hub) = (Gq::new(), served());
    let (shown, _) = run(with_hub(&gq, &hub), &["pull", "org/tiny", "--dry-run"], 0);
    assert!(shown.contains("model.safetensors") && !shown.contains("pytorch_model.bin"), "{shown}");
    assert!(!shown.contains("consolidated") && !shown.contains("original"), "{shown}");
    assert!(shown.contains("to fetch; 3 other files left on the Hub"), "{shown}");
    assert_eq!(hub.served_bytes(), 0);

    let (path, told) = run(with_hub(&gq, &hub), &["pull", "org/tiny@main"], 0);
    assert!(told.contains("2 files"), "{told}");
    let path = path.trim();
    let weights = std::fs::read(format!("{path}/model.safetensors")).unwrap();
    assert!(weights == std::fs::read(testdata("tiny/llama/model.safetensors")).unwrap());
    let served = hub.served_bytes();

    let (again, _) = run(with_hub(&gq, &hub), &["pull", "org/tiny", "--json"], 0);
    let again: serde_json::Value = serde_json::from_str(&again).unwrap();
    assert_eq!((again["path"].as_str().unwrap(), again["fetched_bytes"].as_u64().unwrap()), (path, 0));

    // Every command that takes a SRC finds it in the cache; the Hub is asked nothing.
    let requests = hub.seen().len();
    let reference = testdata("tiny/llama/reference.safetensors");
    let cases: [&[&str]; 6] = [
        &["plan", "org/tiny"],
        &["inspect", "hf://org/tiny@main"],
        &["convert", "hf://org/tiny"],
        &["verify", "tiny-4.25bpw-uncalibrated.gq"],
        &["eval", "org/tiny", "--reference", &reference],
        &["inspect", "tiny-4.25bpw-uncalibrated.gq"],
    ];
    for args in cases {
        run(with_hub(&gq, &hub), args, 0);
    }
    let mut offline = with_hub(&gq, &hub);
    offline.env("HF_HUB_OFFLINE", "1");
    let (shown, _) = run(offline, &["pull", "org/tiny"], 0);
    assert_eq!(shown.trim(), path);
    assert_eq!((hub.seen().len(), hub.served_bytes()), (requests, served));

    let (_, told) = run(with_hub(&gq, &hub), &["pull", "org/tiny", "--all"], 0);
    assert!(told.contains("180 kB fetched"), "{told}");
    let (shown, _) = run(with_hub(&gq, &hub), &["pull", "org/tiny", "--include", "*.json", "--dry-run"], 0);
    assert!(!shown.contains("safetensors"), "{shown}");
}

#[test]
fn a_source_on_the_hub_is_fetched_when_it_is_needed() {
    let (gq, hub) = (Gq::new(), served());
    let (_, told) = run(with_hub(&gq, &hub), &["inspect", "org/tiny"], 0);
    assert!(told.contains("fetching org/tiny at "), "{told}");
    let served = hub.served_bytes();
    assert!(served > 0 && !gq.path("hf/hub/models--org--tiny").join("pytorch_model.bin").exists());
    run(with_hub(&gq, &hub), &["inspect", "org/tiny"], 0);
    assert_eq!(hub.served_bytes(), served);
    // What is made of it says where it came from.
    run(with_hub(&gq, &hub), &["convert", "hf://org/tiny", "-o", "m.gq", "--bits", "4"], 0);
    let source = &gq.json(&["inspect", "m.gq"])["provenance"]["source"];
    assert_eq!(source["repo"].as_str(), Some("org/tiny"));
    let commit = source["revision"].as_str().unwrap();
    assert!(commit.len() == 40 && gq.path("hf/hub/models--org--tiny/snapshots").join(commit).is_dir());
    assert!(gq.ok(&["inspect", "m.gq"]).contains(&format!("hf://org/tiny@{commit}")));
    // Words and paths are never looked for on the network.
    let requests = hub.seen().len();
    for text in ["nowhere", "./a/b", "a/b/c", "org/typo.gq"] {
        let (_, told) = run(with_hub(&gq, &hub), &["inspect", text], 3);
        assert!(told.contains("No such file"), "{told}");
    }
    assert_eq!(hub.seen().len(), requests);
}

#[test]
fn refusals_are_explained_with_their_exit_codes() {
    let (gq, hub) = (Gq::new(), served());
    {
        hub.commit("org/gated", "main", &[("config.json", b"{}".to_vec(), false)]);
        hub.state.repos.lock().unwrap().get_mut("org/gated").unwrap().gated = true;
    }
    let mut cases: Vec<(Vec<&str>, i32, &str, &str)> = vec![
        (vec!["pull", "org/none"], 3, "repository org/none not found", "set HF_TOKEN"),
        (
            vec!["inspect", "org/none"],
            3,
            "no file or folder org/none here; as hf://org/none: repository",
            "set HF_TOKEN",
        ),
        (vec!["pull", "org/tiny@v9"], 3, "no revision \"v9\"", "branches and tags"),
        (vec!["pull", "hf://org/tiny/absent.gq"], 2, "no file of org/tiny passes", "--all --dry-run"),
        (vec!["pull", "org/tiny", "--include", "*.gguf"], 2, "no file of org/tiny passes", ""),
        (vec!["pull", "not a name"], 2, "is not a repository name", "ORG/NAME"),
        (vec!["pull", "org/tiny@../x"], 2, "is not a revision name", ""),
    ];
    cases.push((vec!["pull", "org/gated"], 4, "org/gated is gated", "accept the conditions"));
    for (args, code, message, hint) in cases {
        let (_, told) = run(with_hub(&gq, &hub), &args, code);
        assert!(told.contains(message) && told.contains(hint), "gq {args:?}: {told}");
        assert_eq!(told.lines().filter(|line| line.starts_with("error:")).count(), 1, "{told}");
    }
    let mut offline = with_hub(&gq, &hub);
    offline.env("HF_HUB_OFFLINE", "1");
    let (_, told) = run(offline, &["inspect", "hf://org/tiny"], 4);
    assert!(told.contains("the network is not to be used") && told.contains("HF_HUB_OFFLINE"), "{told}");
    hub.faults().corrupt = true;
    let (_, told) = run(with_hub(&gq, &hub), &["pull", "org/tiny"], 3);
    assert!(told.contains("hashes to"), "{told}");
}

#[test]
fn killed_at_twenty_random_moments_a_pull_finishes_and_fetches_nothing_twice() {
    let (gq, hub) = (Gq::new(), LoopbackHub::start());
    let files =
        [("model.safetensors", noise(1, 4_000_001), true), ("second.safetensors", noise(2, 131_072), true)];
    hub.commit("org/large", "main", &files);
    let total: u64 = files.iter().map(|f| f.1.len() as u64).sum();
    hub.faults().slow = Some(Duration::from_millis(3));
    let start = || {
        let mut command = with_hub(&gq, &hub);
        command.args(["pull", "org/large", "--streams", &STREAMS.to_string(), "--chunk", &CHUNK.to_string()]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let (mut random, mut kills) = (2026u64, 0u64);
    for _ in 0..20 {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        // Random moments by bytes served, so that slow machines are hit too.
        let until = hub.served_bytes() + (random >> 33) % 150_000;
        let mut child = start();
        while hub.served_so_far() <= until && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        kills += u64::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
    }
    assert!(start().wait().unwrap().success());
    assert!(kills >= 10, "only {kills} kills hit a running download");
    let served = hub.served_bytes();
    assert!(served <= total + kills * STREAMS * CHUNK, "{served} of {total} after {kills} kills");
    let (path, _) = run(with_hub(&gq, &hub), &["pull", "org/large"], 0);
    for (name, bytes, _) in &files {
        assert!(std::fs::read(format!("{}/{name}", path.trim())).unwrap() == *bytes, "{name}");
    }
    assert_eq!(hub.served_bytes(), served);
    let blobs = std::fs::read_dir(gq.path("hf/hub/models--org--large/blobs")).unwrap();
    assert_eq!(blobs.count(), files.len(), "no leftovers");
}

#[test]
fn a_folder_is_pushed_and_pulled_back() {
    let (gq, hub) = (Gq::new(), LoopbackHub::start());
    *hub.state.token.lock().unwrap() = Some("right".to_owned());
    let with_token = || {
        let mut command = with_hub(&gq, &hub);
        std::fs::create_dir_all(gq.path("hf")).unwrap();
        std::fs::write(gq.path("hf/token"), "right\n").unwrap();
        command.env_remove("HF_TOKEN");
        command
    };
    std::fs::create_dir_all(gq.path("release/sub")).unwrap();
    std::fs::write(gq.path("release/README.md"), "card").unwrap();
    std::fs::write(gq.path("release/m.gq"), noise(4, 40_000)).unwrap();
    std::fs::write(gq.path("release/sub/report.html"), "<p>").unwrap();
    let mut refused = with_hub(&gq, &hub);
    refused.env("HF_TOKEN", "wrong");
    let (_, told) = run(refused, &["push", "release", "me/out"], 4);
    assert!(told.contains("hint: make a token"), "{told}");

    let (shown, _) = run(with_token(), &["push", "release", "me/out", "--dry-run"], 0);
    assert!(shown.contains("me/out (to be made): 3 of 3 files to send"), "{shown}");
    assert_eq!(hub.state.uploaded.load(Ordering::Relaxed), 0);
    let (url, told) = run(with_token(), &["push", "release", "me/out"], 0);
    assert!(url.trim().ends_with("/me/out") && told.contains("3 files in one commit"), "{told}");
    let (_, told) = run(with_token(), &["push", "release", "me/out"], 0);
    assert!(told.contains("nothing to send"), "{told}");
    assert_eq!(hub.state.uploaded.load(Ordering::Relaxed), 40_000);

    let (path, _) = run(with_token(), &["pull", "me/out"], 0);
    assert!(std::fs::read(format!("{}/m.gq", path.trim())).unwrap() == noise(4, 40_000));
    let (_, told) = run(with_token(), &["push", "release/m.gq", "me/out"], 3);
    assert!(told.contains("neither a file nor a folder") || told.contains("folder"), "{told}");
}

#[test]
fn a_release_is_pushed_pulled_and_verified() {
    let (gq, hub) = (Gq::new(), LoopbackHub::start());
    std::fs::copy(testdata("demo/eval.txt"), gq.path("eval.txt")).unwrap();
    let recipe = "name = 'demo'\nbase_model = 'a/b'\n[card]\nlicense = 'mit'\n[evaluation]\ntext = 'eval.txt'\n\
                  ctx = 64\nwindows = 2\n[[variant]]\nbits = 4\n";
    std::fs::write(gq.path("release.toml"), recipe).unwrap();
    gq.ok(&["release", &testdata("demo"), "--recipe", "release.toml", "-o", "out", "--cache-limit", "0"]);
    run(with_hub(&gq, &hub), &["push", "out", "me/demo-gq"], 0);
    // Fetched as a whole, without a pull.
    let (shown, told) = run(with_hub(&gq, &hub), &["verify", "hf://me/demo-gq"], 0);
    assert!(shown.contains("ok, 6 files") && told.contains("fetching me/demo-gq"), "{shown}{told}");
    let mut offline = with_hub(&gq, &hub);
    offline.env("HF_HUB_OFFLINE", "1");
    let (shown, _) = run(offline, &["verify", "hf://me/demo-gq"], 0);
    assert!(shown.contains("ok, 6 files"), "{shown}");
    run(with_hub(&gq, &hub), &["run", "hf://me/demo-gq/demo-tq4.gq", "-p", "It is", "-n", "1"], 0);
}

#[test]
fn nobody_waits_for_a_host_that_is_not_there() {
    let gq = Gq::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    for endpoint in [closed.as_str(), "http://gq.invalid"] {
        let mut command = gq.command();
        command.env("HF_HOME", gq.path("hf")).env("HF_ENDPOINT", endpoint);
        let (_, told) = run(command, &["inspect", "org/tiny"], 4);
        assert!(
            told.contains("error: no file or folder org/tiny here; as hf://org/tiny: no connection to"),
            "{told}"
        );
        assert!(
            told.contains("hint: check the network and HF_ENDPOINT") && !told.contains("again in"),
            "{told}"
        );
    }
    let mut offline = gq.command();
    offline.env("HF_HOME", gq.path("hf")).env("HF_HUB_OFFLINE", "1");
    let (_, told) = run(offline, &["convert", "org/tiny"], 4);
    assert!(told.contains("no file or folder org/tiny here; as hf://org/tiny: "), "{told}");
}

#[test]
fn waits_and_refusals_are_told_as_what_they_are() {
    let (gq, hub) = (Gq::new(), served());
    {
        let mut faults = hub.faults();
        (faults.rate_limited, faults.retry_after) = (1, Some(0));
    }
    let (_, told) = run(with_hub(&gq, &hub), &["pull", "org/tiny"], 0);
    assert!(told.contains("model.safetensors: the Hub asked to wait 0.50 s (status 429)"), "{told}");

    hub.faults().forbidden = true;
    let (_, told) = run(with_hub(&gq, &hub), &["pull", "org/tiny"], 4);
    assert!(told.contains("gated or private") && !told.contains("write access"), "{told}");
    *hub.state.token.lock().unwrap() = Some("right".to_owned());
    let mut reader = with_hub(&gq, &hub);
    reader.env("HF_TOKEN", "right");
    let (_, told) = run(reader, &["pull", "org/tiny"], 4);
    assert!(told.contains("token may not read it"), "{told}");
}

#[test]
fn damaged_bytes_of_the_cache_are_fetched_again() {
    let (gq, hub) = (Gq::new(), served());
    let (path, _) = run(with_hub(&gq, &hub), &["pull", "org/tiny"], 0);
    let weights = format!("{}/model.safetensors", path.trim());
    let right = std::fs::read(&weights).unwrap();
    let mut wrong = right.clone();
    wrong[99] ^= 1;
    std::fs::write(&weights, wrong).unwrap();
    let (_, told) = run(with_hub(&gq, &hub), &["pull", "org/tiny"], 0);
    assert!(told.contains("model.safetensors: the cache has other bytes than the Hub promises"), "{told}");
    assert!(std::fs::read(&weights).unwrap() == right);
}
