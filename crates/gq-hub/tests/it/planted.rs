//! What somebody else put into the cache: links are not written through, wrong bytes are found.

use crate::server::{noise, sha256};
use crate::support::{Bench, assert_complete, files, options, repo, silent, try_pull};
use gq_hub::{CancelToken, Event, FileState, HubError, PullOptions};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// A file outside of the cache that a link could lead to.
fn victim(bench: &Bench) -> PathBuf {
    let path = bench.dir.path().join("victim");
    std::fs::write(&path, noise(7, 300_001)).unwrap();
    path
}

fn unharmed(path: &Path) {
    assert!(std::fs::read(path).unwrap() == noise(7, 300_001), "the victim was written to");
}

#[test]
fn unfinished_files_and_journals_are_not_links() {
    let weight = sha256(&noise(1, 300_001));
    for hard in [false, true] {
        for planted in [&["gq.incomplete"][..], &["gq.journal"], &["gq.incomplete", "gq.journal"]] {
            let bench = Bench::new();
            let victim = victim(&bench);
            let blobs = bench.repo_dir().join("blobs");
            std::fs::create_dir_all(&blobs).unwrap();
            for end in planted {
                let at = blobs.join(format!("{weight}.{end}"));
                if hard { std::fs::hard_link(&victim, &at).unwrap() } else { symlink(&victim, &at).unwrap() }
            }
            assert_complete(&bench.snapshot());
            unharmed(&victim);
        }
    }
}

#[test]
fn an_unfinished_file_behind_a_link_is_not_continued() {
    let bench = Bench::new();
    let cancel = CancelToken::new();
    let stopping = PullOptions { cancel: cancel.clone(), ..options() };
    let plan = bench.hub().plan_pull(&repo(), "main", &stopping, &silent).unwrap();
    let stop = |event: Event<'_>| {
        if matches!(event, Event::Moved { .. }) {
            cancel.cancel();
        }
    };
    assert!(matches!(bench.hub().pull(&plan, &stopping, &stop), Err(HubError::Cancelled)));
    let partial =
        bench.repo_dir().join("blobs").join(format!("{}.gq.incomplete", sha256(&noise(1, 300_001))));
    let victim = victim(&bench); // as long as the unfinished file
    std::fs::remove_file(&partial).ok();
    symlink(&victim, &partial).unwrap();
    assert_complete(&bench.snapshot());
    unharmed(&victim);
}

#[test]
fn temporary_names_are_not_links() {
    let bench = Bench::new();
    let victim = victim(&bench);
    let refs = bench.repo_dir().join("refs");
    std::fs::create_dir_all(&refs).unwrap();
    for count in 0..2000 {
        symlink(&victim, refs.join(format!("main.{}-{count}.tmp", std::process::id()))).unwrap();
    }
    assert_complete(&bench.snapshot());
    unharmed(&victim);
}

#[test]
fn nothing_is_written_below_a_linked_folder() {
    let commit = Bench::new().snapshot().commit; // the same in every bench
    let folders =
        ["snapshots", &format!("snapshots/{commit}"), &format!("snapshots/{commit}/sub"), "refs", "blobs"];
    let locks = ["../.locks", "../.locks/models--org--tiny"];
    for planted in folders.into_iter().chain(locks) {
        let bench = Bench::new();
        let elsewhere = bench.dir.path().join("elsewhere");
        std::fs::create_dir_all(&elsewhere).unwrap();
        std::fs::write(elsewhere.join("config.json"), "mine").unwrap();
        let at = match planted.strip_prefix("../") {
            Some(planted) => bench.dir.path().join(planted),
            None => bench.repo_dir().join(planted),
        };
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        symlink(&elsewhere, &at).unwrap();
        let error = try_pull(&bench.hub(), &options()).unwrap_err();
        assert!(matches!(&error, HubError::PlantedLink { path } if *path == at), "{planted}: {error:?}");
        assert_eq!(crate::support::names(&elsewhere), ["config.json"], "{planted}");
        assert_eq!(std::fs::read_to_string(elsewhere.join("config.json")).unwrap(), "mine");
    }
    // A repository's folder on another disk is a thing that people do.
    let bench = Bench::new();
    let elsewhere = bench.dir.path().join("elsewhere");
    std::fs::create_dir_all(&elsewhere).unwrap();
    symlink(&elsewhere, bench.repo_dir()).unwrap();
    assert_complete(&bench.snapshot());
}

#[test]
fn a_blob_behind_a_link_is_fetched_and_a_lock_behind_one_refused() {
    // The right bytes, which whoever planted the link could change at any time.
    let bench = Bench::new();
    let elsewhere = bench.dir.path().join("elsewhere");
    std::fs::write(&elsewhere, noise(1, 300_001)).unwrap();
    let blob = bench.repo_dir().join("blobs").join(sha256(&noise(1, 300_001)));
    std::fs::create_dir_all(blob.parent().unwrap()).unwrap();
    symlink(&elsewhere, &blob).unwrap();
    let plan = bench.hub().plan_pull(&repo(), "main", &options(), &silent).unwrap();
    assert!(plan.files.iter().all(|file| file.state == FileState::Missing), "{:?}", plan.files);
    assert_complete(&bench.snapshot());
    assert!(!std::fs::symlink_metadata(&blob).unwrap().is_symlink());
    assert!(std::fs::read(&elsewhere).unwrap() == noise(1, 300_001));

    let bench = Bench::new();
    let locks = bench.dir.path().join(".locks/models--org--tiny");
    std::fs::create_dir_all(&locks).unwrap();
    let lock = locks.join(format!("{}.lock", sha256(&noise(1, 300_001))));
    symlink(bench.dir.path().join("created by the link"), &lock).unwrap();
    let error = try_pull(&bench.hub(), &options()).unwrap_err();
    assert!(matches!(&error, HubError::PlantedLink { path } if *path == lock), "{error:?}");
    assert!(!bench.dir.path().join("created by the link").exists());
}

/// Pulls; gives which files were hashed as they lay there and which were found damaged.
fn pull_again(bench: &Bench) -> (Vec<String>, Vec<String>) {
    let seen = Mutex::new((Vec::new(), Vec::new()));
    let note = |event: Event<'_>| match event {
        Event::Verifying { path } => seen.lock().unwrap().0.push(path.to_owned()),
        Event::Damaged { path } => seen.lock().unwrap().1.push(path.to_owned()),
        _ => {}
    };
    let plan = bench.hub().plan_pull(&repo(), "main", &options(), &silent).unwrap();
    assert_complete(&bench.hub().pull(&plan, &options(), &note).unwrap());
    seen.into_inner().unwrap()
}

#[test]
fn wrong_bytes_of_the_right_length_are_found_and_right_ones_hashed_once() {
    let bench = Bench::new();
    bench.snapshot();
    let none = (Vec::<String>::new(), Vec::<String>::new());
    assert_eq!(pull_again(&bench), none, "what a pull has hashed is not hashed again");

    let blob = bench.repo_dir().join("blobs").join(sha256(&noise(1, 300_001)));
    let modified = std::fs::metadata(&blob).unwrap().modified().unwrap();
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[1234] ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    // As old as before, to whoever asks for that alone.
    std::fs::File::options().write(true).open(&blob).unwrap().set_modified(modified).unwrap();
    let (_, damaged) = pull_again(&bench);
    assert_eq!(damaged, ["model.safetensors"]);
    assert_eq!(pull_again(&bench), none);

    // A cache that the Hub's own tools filled is hashed the first time.
    std::fs::remove_file(bench.repo_dir().join("gq-verified.json")).unwrap();
    let (hashed, damaged) = pull_again(&bench);
    assert_eq!((hashed.len(), damaged.len()), (files().len(), 0));
    assert_eq!(pull_again(&bench), none);
    // Notes that are none are as good as none.
    std::fs::write(bench.repo_dir().join("gq-verified.json"), "[1").unwrap();
    assert_eq!(pull_again(&bench).0.len(), files().len());
}
