//! Reference logits on disk: used, evicted, damaged.

use crate::fixtures::{Made, model_logit, reference_logit};
use gq_eval::{
    CachedReference, EvalReport, Identity, LogitCache, ReferenceLogits, ReferenceRun, Sizes, TextOptions,
    Windows, compare_on_text,
};
use gq_model::RunOptions;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const VOCAB: usize = 50;
/// 4096 bytes of head; 2 windows of 7 positions and a checksum each.
const ENTRY: u64 = 4096 + 2 * (7 * 50 * 4 + 4);

struct Work {
    dir: tempfile::TempDir,
    weights: PathBuf,
}

impl Work {
    fn new() -> Work {
        let dir = tempfile::tempdir().unwrap();
        let weights = dir.path().join("weights");
        std::fs::write(&weights, b"some weights").unwrap();
        Work { dir, weights }
    }

    fn cache(&self, limit: u64) -> LogitCache {
        LogitCache::new(&self.dir.path().join("cache"), limit)
    }

    fn identity(&self, build: &str) -> Identity {
        let (files, dir) = ([self.weights.clone()], self.dir.path().join("cache"));
        Identity::of_files(&files, RunOptions::default(), build, &dir, &mut |_, _| {}).unwrap()
    }

    /// Entries, those used last first.
    fn entries(&self) -> Vec<PathBuf> {
        let Ok(files) = std::fs::read_dir(self.dir.path().join("cache")) else { return Vec::new() };
        let files = files.map(|entry| entry.unwrap().path());
        let mut files: Vec<_> =
            files.filter(|path| path.extension().is_some_and(|e| e == "logits")).collect();
        files.sort_by_key(|path| std::cmp::Reverse(path.metadata().unwrap().modified().unwrap()));
        files
    }
}

/// The report, and tokens that the reference ran.
fn run(cache: Option<(&LogitCache, &Identity)>, seed: u32) -> (EvalReport, usize) {
    let tokens: Vec<u32> = (0..32).map(|i| (i * i + seed) % 50).collect();
    let windows = Windows::new(&tokens, 16, None, None).unwrap();
    let mut model = Made::new(VOCAB, model_logit);
    let mut reference = Made::new(VOCAB, reference_logit);
    let mut again = Made::new(VOCAB, |p, t, e| reference_logit(p, t, e) + if e == 3 { 0.01 } else { 0.0 });
    let run = ReferenceRun { logits: &mut reference, again: Some(("something else", &mut again)) };
    let cache = cache.map(|(cache, identity)| CachedReference { cache, identity });
    let options = TextOptions { cache, ..TextOptions::default() };
    let report =
        compare_on_text(&mut model, run, &windows, Sizes::default(), options, &mut |_, _| {}).unwrap();
    (report, reference.tokens_run + again.tokens_run)
}

/// But for where the logits came from.
fn figures(report: &EvalReport) -> EvalReport {
    EvalReport { reference_logits: ReferenceLogits::Computed, ..report.clone() }
}

#[test]
fn the_second_run_reads_what_the_first_kept() {
    let work = Work::new();
    let (cache, identity) = (work.cache(1 << 20), work.identity("1"));
    let (plain, _) = run(None, 0);
    let (first, tokens) = run(Some((&cache, &identity)), 0);
    assert_eq!((first.reference_logits, tokens), (ReferenceLogits::Stored, 64));
    let (second, tokens) = run(Some((&cache, &identity)), 0);
    assert_eq!((second.reference_logits, tokens), (ReferenceLogits::Cached, 0), "nothing runs");
    assert_eq!((figures(&first), figures(&second)), (plain.clone(), plain.clone()));
    let noise = second.noise.unwrap();
    assert_eq!((noise.arithmetic.as_str(), noise.windows, noise.tokens), ("something else", 2, 14));
    assert!(noise.kld.mean > 0.0 && second.noise_floor == Some(noise.kld.mean));
    assert_eq!(cache.bytes(), ENTRY);
    // Another program, other tokens or other weights are another reference.
    assert_eq!(run(Some((&cache, &work.identity("2"))), 0).0.reference_logits, ReferenceLogits::Stored);
    assert_eq!(run(Some((&cache, &identity)), 1).0.reference_logits, ReferenceLogits::Stored);
    std::fs::write(&work.weights, b"same length!").unwrap();
    assert_ne!(work.identity("1"), identity);
}

#[test]
fn an_identity_is_remembered_until_the_file_changes() {
    let work = Work::new();
    let files = [work.weights.clone()];
    let digested = || {
        let mut bytes = 0;
        let mut progress = |done, _| bytes = done;
        let dir = work.dir.path().join("cache");
        let identity = Identity::of_files(&files, RunOptions::default(), "1", &dir, &mut progress).unwrap();
        (identity, bytes)
    };
    let (first, bytes) = digested();
    assert_eq!(bytes, 12);
    assert_eq!(digested(), (first.clone(), 0));
    std::fs::write(work.dir.path().join("cache/digests.json"), b"{ broken").unwrap();
    assert_eq!(digested(), (first.clone(), 12));
    std::fs::write(&work.weights, b"longer weights").unwrap();
    let (changed, bytes) = digested();
    assert!(changed != first && bytes == 14);
    let missing = [PathBuf::from("nowhere")];
    Identity::of_files(&missing, RunOptions::default(), "1", work.dir.path(), &mut |_, _| {}).unwrap_err();
}

#[test]
fn damage_anywhere_costs_time_and_nothing_else() {
    let work = Work::new();
    let (cache, identity) = (work.cache(1 << 20), work.identity("1"));
    let (good, _) = run(Some((&cache, &identity)), 0);
    let entry = work.entries().remove(0);
    let whole = std::fs::read(&entry).unwrap();
    assert_eq!(whole.len() as u64, ENTRY);
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        bytes
    };
    let last = whole.len() - 1;
    let damaged = [
        ("magic", flipped(0)),
        ("head", flipped(40)),
        ("zeros of the head", flipped(4000)),
        ("first window", flipped(5000)),
        ("second window", flipped(4096 + 1404 + 700)),
        ("checksum", flipped(last)),
        ("cut", whole[..last].to_vec()),
        ("longer", [&whole[..], &[0]].concat()),
        ("empty", Vec::new()),
    ];
    for (name, bytes) in damaged {
        std::fs::write(&entry, bytes).unwrap();
        let (report, tokens) = run(Some((&cache, &identity)), 0);
        assert_eq!(figures(&report), figures(&good), "{name}");
        assert_ne!(report.reference_logits, ReferenceLogits::Cached, "{name}");
        assert!(tokens > 0, "{name}");
        let (report, _) = run(Some((&cache, &identity)), 0);
        assert_eq!(figures(&report), figures(&good), "{name}, once more");
        run(Some((&cache, &identity)), 0);
        assert_eq!(std::fs::read(&entry).unwrap(), whole, "{name}: kept again");
    }
}

fn age(path: &Path, seconds: u64) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
}

#[test]
fn those_not_used_for_longest_go_first() {
    let work = Work::new();
    let (cache, identity) = (work.cache(2 * ENTRY + 10), work.identity("1"));
    run(Some((&cache, &identity)), 0);
    let zero = work.entries().remove(0);
    age(&zero, 2000);
    run(Some((&cache, &identity)), 1);
    let one = work.entries().into_iter().find(|path| *path != zero).unwrap();
    age(&one, 1000);
    // Using the older one makes it the younger one.
    assert_eq!(run(Some((&cache, &identity)), 0).0.reference_logits, ReferenceLogits::Cached);
    assert_eq!(run(Some((&cache, &identity)), 2).0.reference_logits, ReferenceLogits::Stored);
    let left = work.entries();
    assert!(left.contains(&zero) && !left.contains(&one) && left.len() == 2);
    assert!(cache.bytes() <= 2 * ENTRY + 10);
}

#[test]
fn too_large_or_unwritable_is_no_error() {
    let work = Work::new();
    let identity = work.identity("1");
    let small = work.cache(ENTRY - 1);
    assert_eq!(run(Some((&small, &identity)), 0).0.reference_logits, ReferenceLogits::Computed);
    assert!(work.entries().is_empty());
    let nowhere = LogitCache::new(&work.weights, 1 << 20);
    assert_eq!(run(Some((&nowhere, &identity)), 0).0.reference_logits, ReferenceLogits::Computed);
}

#[test]
fn what_a_killed_run_left_is_removed_after_a_day() {
    let work = Work::new();
    let (cache, identity) = (work.cache(1 << 20), work.identity("1"));
    run(Some((&cache, &identity)), 0);
    let at = |name: &str| work.dir.path().join("cache").join(name);
    let [stale, fresh] = ["0123456789abcdef.1.partial", "0123456789abcde0.2.partial"].map(at);
    // What somebody else keeps there.
    let others = ["model.gq.partial", "run.1.partial", "mine.logits"].map(at);
    for path in [&stale, &fresh].into_iter().chain(&others) {
        std::fs::write(path, b"x").unwrap();
    }
    others.iter().chain([&stale]).for_each(|path| age(path, 90_000));
    run(Some((&cache, &identity)), 1);
    assert!(!stale.exists() && fresh.exists());
    assert!(others.iter().all(|path| path.exists()));
}
