//! What commands promise to take in memory, and what they take: by `ru_maxrss` of the program as the only child of a
//! process of its own, less the pages of files that it had mapped, which promises do not count.
#![cfg(target_os = "linux")]

use crate::checkpoints::{Shape, write_adapter, write_f8, write_llama};
use crate::run::{Gq, testdata};
use gq_calibrate::fisher_diagonal;
use gq_checkpoint::{Adapter, Checkpoint};
use gq_model::{KvType, LogitRows, Model, RunOptions};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::json;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Names the arguments of the run to measure, for [`the_only_child_of_a_small_process`].
const MEASURED: &str = "GQ_TEST_MEASURED";

/// Most anonymous memory of a run, in bytes.
fn taken(gq: &Gq, args: &[&str]) -> u64 {
    // A child's `ru_maxrss` begins with what its parent has at that moment, and `getrusage` knows all children together:
    // neither is of use in a process that runs many tests.
    let small = std::env::current_exe().unwrap();
    let name = "memory::the_only_child_of_a_small_process";
    let output = Command::new(small)
        .args(["--exact", name, "--nocapture", "--test-threads", "1"])
        .env(MEASURED, serde_json::to_string(args).unwrap())
        .current_dir(gq.dir.path())
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    let peak = shown.lines().find_map(|line| line.split_once("anonymous bytes: "));
    let shown_errors = String::from_utf8_lossy(&output.stderr);
    peak.unwrap_or_else(|| panic!("gq {args:?}: {shown}{shown_errors}")).1.trim().parse().unwrap()
}

#[test]
fn the_only_child_of_a_small_process() {
    let args = std::env::var(MEASURED).unwrap_or_else(|_| r#"["help"]"#.to_owned());
    let args: Vec<String> = serde_json::from_str(&args).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gq"));
    let mut child = command.args(&args).env_clear().stdout(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let (mut anonymous, mut mapped) = (0, 0);
    let finished = loop {
        if let Some(finished) = child.try_wait().unwrap() {
            break finished;
        }
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let bytes = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
            kilobytes.unwrap_or(0) << 10
        };
        (anonymous, mapped) = (bytes("RssAnon:").max(anonymous), bytes("RssFile:").max(mapped));
        std::thread::sleep(Duration::from_millis(1));
    };
    assert!(finished.success(), "gq {args:?}");
    let most = (getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss() as u64) << 10;
    assert!(most > 1 << 20, "gq {args:?}: {most} bytes");
    // What was looked at every millisecond is a lower bound, too.
    println!("anonymous bytes: {}", most.saturating_sub(mapped).max(anonymous));
}

/// Reads a promise of `--json`.
fn promised(gq: &Gq, args: &[&str]) -> u64 {
    let told = gq.json(args);
    let of = [&told["peak_memory_bytes"], &told["memory"]["peak"], &told["rounds"]["peak_memory_bytes"]];
    of.into_iter().find_map(serde_json::Value::as_u64).unwrap()
}

#[test]
fn no_more_memory_is_taken_than_was_promised() {
    let gq = Gq::new();
    let (demo, text) = (testdata("demo"), testdata("demo/eval.txt"));
    let threads = ["--threads", "2"];
    let fast = ["--calibration-ctx", "128", "--calibration-tokens", "4096", "--gradient-tokens", "512"];
    let measurements =
        [&["calibrate", &demo, "-o", "t", "--calibration", &text][..], &fast, &threads].concat();
    let promise = promised(&gq, &[&measurements[..], &["--dry-run"]].concat());
    let most = taken(&gq, &measurements);
    assert!(most <= promise, "gq calibrate: {most} bytes taken, {promise} promised");
    let own = [&["calibrate", &demo, "-o", "own", "--calibration", "self"][..], &fast, &threads].concat();
    for limit in [&[][..], &["--max-memory", "125MB"]] {
        let own = [&own[..], limit].concat();
        let promise = promised(&gq, &[&own[..], &["--dry-run"]].concat());
        let most = taken(&gq, &own);
        assert!(most <= promise, "gq {own:?}: {most} bytes taken, {promise} promised");
        assert!(limit.is_empty() || promise <= 125_000_000);
        std::fs::remove_dir_all(gq.path("own")).unwrap();
    }
    for (file, recipe) in [
        ("scalar.gq", &["--bits", "4"][..]),
        ("calibrated.gq", &["--measurements", "t", "--encoding", "tt3"]),
        ("groups.gq", &["--measurements", "t", "--encoding", "tq4-g32"]),
        ("budget.gq", &["--measurements", "t", "--size", "1.8MB"]),
        ("largest.gq", &["--measurements", "t", "--encoding", "tt2-s14"]),
    ] {
        let recipe = [&[demo.as_str()][..], recipe, &threads].concat();
        let promise = promised(&gq, &[&["plan"][..], &recipe].concat());
        let most = taken(&gq, &[&["convert", "--no-check"][..], &recipe, &["-o", file]].concat());
        eprintln!("convert {recipe:?}: {most} bytes taken, {promise} promised");
        // Of a model of 6 MB, whose conversions take 4 to 20 MB, not within a tenth: the program, the texts' compression and
        // what threads' heaps keep are a third of that and do not grow with the model. A tenth is tested on larger ones.
        let ratio = promise as f64 / most as f64;
        assert!((1.0..1.5).contains(&ratio), "gq convert {recipe:?}: {most} bytes taken, {promise} promised");
    }
    let again = [
        &[
            "improve",
            "--rounds",
            "scalar.gq",
            "-o",
            "again.gq",
            "--force",
            "--reference",
            &demo,
            "--calibration",
            &text,
        ][..],
        &fast[..4],
    ];
    let again = [&again.concat()[..], &threads].concat();
    let most = taken(&gq, &again);
    let promise = promised(&gq, &again);
    assert!(most <= promise, "gq improve --rounds: {most} bytes taken, {promise} promised");
}

#[test]
fn what_a_check_takes_is_said_and_kept_to() {
    let gq = Gq::new();
    let recipe = [&testdata("demo"), "--encoding", "tq4", "--no-grid", "--threads", "2"];
    let plan = gq.json(&[&["plan"][..], &recipe].concat());
    let (peak, check) =
        (plan["memory"]["peak"].as_u64().unwrap(), plan["check_memory_bytes"].as_u64().unwrap());
    let most = taken(&gq, &[&["convert"][..], &recipe, &["-o", "m.gq"]].concat());
    eprintln!("with a check: {most} bytes taken, {peak} and {check} promised");
    assert!(check > 0 && most <= peak.max(check), "{most} bytes taken, {peak} and {check} promised");
    let told = gq.ok(&[&["plan"][..], &recipe].concat());
    assert!(
        told.contains("of memory to try the tokenizer, before and after the work; --no-check leaves it out"),
        "{told}"
    );
    // Where that is more than is allowed, it is not done, and nothing is said of it.
    let limit = peak.max(check - 1).to_string();
    let plan = gq.json(&[&["plan"][..], &recipe, &["--max-memory", &limit]].concat());
    let expected = if peak < check { 0 } else { check };
    assert_eq!(plan["check_memory_bytes"].as_u64(), Some(expected));
}

/// A tokenizer of 18,278 tokens, all but 26 of them merged, with merges that are lists.
fn write_tokenizer(path: &Path) {
    let letters: Vec<String> = ('a'..='z').map(String::from).collect();
    let (mut tokens, mut merges, mut last) = (letters.clone(), Vec::new(), letters.clone());
    for _ in 0..2 {
        let pairs =
            last.iter().flat_map(|token| letters.iter().map(move |letter| (token.clone(), letter.clone())));
        let pairs: Vec<_> = pairs.collect();
        last = pairs.iter().map(|(token, letter)| format!("{token}{letter}")).collect();
        tokens.extend(last.clone());
        merges.extend(pairs);
    }
    let vocab: BTreeMap<_, _> = tokens.into_iter().zip(0..).collect();
    let model = json!({"type": "BPE", "vocab": vocab, "merges": merges});
    std::fs::write(path, json!({"version": "1.0", "added_tokens": [], "model": model}).to_string()).unwrap();
}

/// Where a check takes more than the conversion: its promise is kept, is no more than half above, and is what
/// `--max-memory` is compared with.
#[test]
fn a_check_that_takes_more_than_its_conversion_is_kept_within_a_limit() {
    let gq = Gq::new();
    write_llama(&gq.path("m"), Shape { hidden: 64, width: 64, layers: 1, vocab: 18_278 }, |x| x);
    write_tokenizer(&gq.path("m/tokenizer.json"));
    let recipe = ["m", "--encoding", "tq4", "--no-grid", "--threads", "2"];
    let plan = gq.json(&[&["plan"][..], &recipe].concat());
    let (peak, check) =
        (plan["memory"]["peak"].as_u64().unwrap(), plan["check_memory_bytes"].as_u64().unwrap());
    for (limit, checked) in [(check, true), (check - 1, false)] {
        let limit = limit.to_string();
        let convert = [&["convert"][..], &recipe, &["-o", "m.gq", "--max-memory", &limit]].concat();
        let report = gq.json(&convert);
        assert_eq!(report["seen"]["tokenizes"].as_bool(), checked.then_some(true), "{report}");
        std::fs::remove_file(gq.path("m.gq")).unwrap();
        let most = taken(&gq, &convert);
        std::fs::remove_file(gq.path("m.gq")).unwrap();
        eprintln!("checked {checked}: {most} bytes taken, {peak} and {check} promised");
        let promise = if checked { peak.max(check) } else { peak };
        assert!(most <= promise, "{most} bytes taken, {peak} and {check} promised");
        assert!(
            !checked || (check > peak && 2 * check <= 3 * most),
            "{most} bytes taken, {peak} and {check} promised"
        );
    }
}

/// Every kind of code on one, two and three threads: never more than promised, and no more promised than a tenth above.
#[test]
fn what_a_conversion_promises_is_what_it_takes() {
    let gq = Gq::new();
    let shape = Shape { hidden: 576, width: 640, layers: 1, vocab: 8192 };
    write_llama(&gq.path("plain"), shape, |x| x);
    write_llama(&gq.path("grid"), shape, |x| (x * 28.0).round().clamp(-7.0, 7.0) / 64.0);
    let codes = [
        ("plain", &["exact", "tq4", "tq8", "tq4-g32", "tqp3", "tqpo3", "polar4222"][..]),
        ("plain", &["tt2", "tt4", "tt3-s12", "tt2-s14"]),
        ("grid", &["grid"]),
    ];
    for (source, encoding) in
        codes.iter().flat_map(|(source, all)| all.iter().map(move |one| (*source, *one)))
    {
        keeps_its_promise(&gq, &[source, "--encoding", encoding]);
    }
}

/// With measurements, of inputs wide enough that a factor's buffers go back to the system: within a tenth as well.
#[test]
fn what_a_calibrated_conversion_promises_is_what_it_takes() {
    let gq = Gq::new();
    write_llama(&gq.path("wide"), Shape { hidden: 768, width: 1024, layers: 1, vocab: 1536 }, |x| x);
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(testdata(&format!("demo/{name}")), gq.path("wide").join(name)).unwrap();
    }
    let text = testdata("demo/eval.txt");
    let amounts = ["--calibration-ctx", "128", "--calibration-tokens", "1024", "--gradient-tokens", "0"];
    let measured = ["calibrate", "wide", "-o", "t", "--calibration", &text, "--trial-tokens", "0"];
    gq.ok(&[&measured[..], &amounts].concat());
    for encoding in ["tq4", "tq4-g32", "tt2", "tt4", "tt3-s12"] {
        keeps_its_promise(&gq, &["wide", "--measurements", "t", "--encoding", encoding]);
    }
}

/// A conversion on one, two and three threads takes what was promised, and a tenth of that at most is promised in addition.
/// Which threads are at work at once depends on the machine and on what else it does: a run of eight is enough for the latter,
/// and none takes more than a fiftieth above the promise. Threads that share a core rarely have all of their buffers full at
/// one moment: a fifth; those that share all cores with the rest of the machine a little more than a tenth.
fn keeps_its_promise(gq: &Gq, recipe: &[&str]) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for (threads, count) in [("1", 1), ("2", 2), ("3", 3)] {
        let most_promised = match count.cmp(&cores) {
            Ordering::Less => 1.1,
            Ordering::Equal => 1.12,
            Ordering::Greater => 1.2,
        };
        let recipe = [recipe, &["--threads", threads]].concat();
        let promise = promised(gq, &[&["plan"][..], &recipe].concat());
        let convert = [&["convert", "--no-check"][..], &recipe, &["-o", "m.gq", "--force"]].concat();
        let mut seen = Vec::new();
        while seen.len() < 8 && !seen.iter().any(|ratio| (1.0..=most_promised).contains(ratio)) {
            seen.push(promise as f64 / taken(gq, &convert) as f64);
        }
        assert!(seen.iter().all(|ratio| *ratio > 0.98), "{recipe:?}: {promise} promised, {seen:.3?}");
        let last = seen[seen.len() - 1];
        assert!((1.0..=most_promised).contains(&last), "{recipe:?}: {promise} promised, {seen:.3?}");
    }
}

/// The same model in bf16, `plain`, in F8 with scales, `f8`, and in blocks of a GGUF, `blocks.gguf`; and an adapter.
fn write_sources(gq: &Gq, shape: Shape) {
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        for dir in ["plain", "f8"] {
            std::fs::create_dir_all(gq.path(dir)).unwrap();
            std::fs::copy(testdata(&format!("demo/{name}")), gq.path(dir).join(name)).unwrap();
        }
    }
    write_llama(&gq.path("plain"), shape, |x| x);
    write_f8(&gq.path("f8"), shape);
    write_adapter(&gq.path("adapter"), shape);
    gq.ok(&["export", "plain", "--no-measure", "--gguf", "--type", "Q8_0", "-o", "blocks.gguf"]);
}

#[test]
fn weights_decoded_as_they_are_used_have_the_bits_of_held_ones() {
    let gq = Gq::new();
    write_sources(&gq, Shape { hidden: 256, width: 512, layers: 2, vocab: 1536 });
    let options = RunOptions { kv: KvType::F32, ..RunOptions::default() };
    for (source, adapter) in [("f8", None), ("plain", Some("adapter")), ("blocks.gguf", None)] {
        let checkpoint = Checkpoint::open(gq.path(source)).unwrap();
        let adapters = adapter.map(|dir| Adapter::open(gq.path(dir), 1.0).unwrap());
        let checkpoint = Arc::new(checkpoint.with_adapters(adapters.into_iter().collect()).unwrap());
        let logits = |model: Model| {
            let tokens: Vec<u32> = (0..40).map(|i| i * i * 7 % 1536).collect();
            let (mut cache, mut many, mut one) = (model.new_cache(64), Vec::new(), Vec::new());
            model.forward(&tokens, &mut cache, LogitRows::All, &mut many).unwrap();
            model.forward(&[5], &mut cache, LogitRows::Last, &mut one).unwrap();
            let measured = fisher_diagonal(&model, &[tokens], 3, &mut |_| ()).unwrap();
            (many, one, measured)
        };
        let held = logits(Model::from_checkpoint(checkpoint.clone(), options).unwrap());
        let as_used = logits(Model::from_checkpoint_unheld(checkpoint, options).unwrap());
        assert!(held == as_used, "{source}");
    }
}

/// Weights that are decoded as they are used, whatever holds them. A promise is kept, and what it leaves is less than all
/// weights would take as f32: holding them would break it.
#[test]
fn no_copy_of_the_weights_is_held() {
    let gq = Gq::new();
    let text = testdata("demo/eval.txt");
    let shape = Shape { hidden: 256, width: 512, layers: 40, vocab: 1536 };
    write_sources(&gq, shape);
    let decoded = 4 * shape.weights();
    let tokens = ["--calibration-ctx", "128", "--calibration-tokens", "256", "--threads", "2"];
    for (source, more) in
        [("plain", &[][..]), ("f8", &[]), ("plain", &["--lora", "adapter"]), ("blocks.gguf", &[])]
    {
        let measure = [&["calibrate", source, "-o", "t", "--calibration", &text][..], &tokens, more];
        let measure = [&measure.concat()[..], &["--gradient-tokens", "128", "--trial-tokens", "0"]].concat();
        let promise = promised(&gq, &[&measure[..], &["--dry-run"]].concat());
        let most = taken(&gq, &measure);
        std::fs::remove_dir_all(gq.path("t")).unwrap();
        eprintln!("calibrate {source} {more:?}: {most} bytes taken, {promise} promised, {decoded} decoded");
        assert!(most <= promise, "gq {measure:?}: {most} taken, {promise} promised");
        assert!(promise - most < decoded, "gq {measure:?}: {most} taken, {promise} promised");

        let made = [&["convert", source, "-o", "m.gq", "--encoding", "tq4", "--allow-requantize"][..], more];
        gq.ok(&made.concat());
        let again =
            ["improve", "--rounds", "m.gq", "-o", "again.gq", "--reference", source, "--calibration", &text];
        let again = [&again[..], &tokens, more].concat();
        let most = taken(&gq, &again);
        let promise = promised(&gq, &[&again[..], &["--force"]].concat());
        eprintln!("improve {source} {more:?}: {most} bytes taken, {promise} promised");
        assert!(most <= promise, "gq {again:?}: {most} taken, {promise} promised");
        assert!(promise - most < decoded, "gq {again:?}: {most} taken, {promise} promised");
        for file in ["m.gq", "again.gq"] {
            std::fs::remove_file(gq.path(file)).unwrap();
        }
    }
}

/// Blocks of a GGUF are decoded as they are used while it is looked at: whatever memory there is, a token is made.
#[test]
fn what_is_looked_at_is_not_held_decoded() {
    let gq = Gq::new();
    let shape = Shape { hidden: 512, width: 1024, layers: 6, vocab: 8192 };
    write_llama(&gq.path("model"), shape, |x| x);
    let weights = std::fs::metadata(gq.path("model/model.safetensors")).unwrap().len() / 2;
    let args =
        |out| ["export", "model", "--gguf", "--type", "Q8_0", "--no-measure", "--threads", "2", "-o", out];
    let without = taken(&gq, &[&args("a.gguf")[..], &["--no-check"]].concat());
    let with = taken(&gq, &args("b.gguf"));
    assert!(with < without + weights, "{with} bytes with a look at {weights} weights, {without} without");
    assert!(gq.json(&args("c.gguf"))["seen"]["token"].is_u64());
}
