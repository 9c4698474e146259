use crate::server::noise;
use crate::support::{Bench, options, silent};
use gq_hub::{HubError, PushOptions, PushPlan, PushReport, PushState, RepoId};
use std::path::Path;
use std::sync::atomic::Ordering;

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let put = |path: &str, bytes: &[u8]| {
        let at = dir.path().join(path);
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        std::fs::write(at, bytes).unwrap();
    };
    put("README.md", b"---\nlicense: apache-2.0\n---\n");
    put("a.gq", &noise(5, 100_000));
    put("sub/b.gq", &noise(6, 70_000));
    put("sub/empty.gq", b"");
    put("scratch.ignored", b"x");
    put(".cache/huggingface/x", b"x");
    dir
}

fn push_options() -> PushOptions {
    PushOptions { retry: options().retry, ..PushOptions::default() }
}

fn push(bench: &Bench, dir: &Path) -> Result<(PushPlan, PushReport), HubError> {
    let hub = bench.hub_with_token("right");
    let repo = RepoId::new("me/release").unwrap();
    let plan = hub.plan_push(&repo, dir, &push_options(), &silent)?;
    let report = hub.push(&plan, &push_options(), &silent)?;
    Ok((plan, report))
}

fn uploaded(bench: &Bench) -> u64 {
    bench.server.state.uploaded.load(Ordering::Relaxed)
}

fn assert_there(bench: &Bench, dir: &Path) {
    let head = bench.server.head("me/release");
    for path in ["README.md", "a.gq", "sub/b.gq", "sub/empty.gq"] {
        let file = &head[path];
        assert!(*file.bytes == std::fs::read(dir.join(path)).unwrap(), "{path}");
        assert_eq!(file.lfs, path.ends_with(".gq") && !file.bytes.is_empty());
    }
    assert!(!head.contains_key("scratch.ignored") && !head.keys().any(|k| k.contains(".cache")));
}

#[test]
fn a_folder_becomes_a_repository_in_one_commit() {
    for part_bytes in [0, 30_000] {
        let (bench, dir) = (Bench::new(), folder());
        bench.server.faults().part_bytes = part_bytes;
        let (plan, report) = push(&bench, dir.path()).unwrap();
        assert!(plan.create && plan.files.iter().all(|f| f.state == PushState::New));
        assert_eq!((report.committed, report.lfs_bytes, uploaded(&bench)), (4, 170_000, 170_000));
        assert_there(&bench, dir.path());
        assert!(bench.server.seen().iter().filter(|s| s.cdn).all(|s| s.authorization.is_none()));

        // Again: only what the server ignores is still open, and no byte moves.
        let (plan, _) = push(&bench, dir.path()).unwrap();
        assert_eq!(plan.to_send().map(|f| f.path.as_str()).collect::<Vec<_>>(), ["scratch.ignored"]);
        assert_eq!(uploaded(&bench), 170_000);

        // One changed file is one file sent.
        std::fs::write(dir.path().join("sub/b.gq"), noise(7, 1000)).unwrap();
        let (plan, report) = push(&bench, dir.path()).unwrap();
        assert!(plan.files.iter().any(|f| f.path == "sub/b.gq" && f.state == PushState::Changed));
        assert_eq!((report.lfs_bytes, uploaded(&bench)), (1000, 171_000));
        assert_there(&bench, dir.path());
    }
}

#[test]
fn an_interrupted_push_does_not_send_an_object_twice() {
    let (bench, dir) = (Bench::new(), folder());
    bench.server.faults().uploads_until_drop = Some(1);
    let error = push(&bench, dir.path()).unwrap_err();
    assert!(matches!(error, HubError::Transport { .. }), "{error:?}");
    bench.server.faults().uploads_until_drop = None;
    push(&bench, dir.path()).unwrap();
    assert_eq!(uploaded(&bench), 170_000);
    assert_there(&bench, dir.path());
}

#[test]
fn transient_faults_and_a_lost_answer_do_not_commit_twice() {
    let (bench, dir) = (Bench::new(), folder());
    push(&bench, dir.path()).unwrap();
    std::fs::write(dir.path().join("a.gq"), noise(8, 5000)).unwrap();
    let commits = || bench.server.state.repos.lock().unwrap()["me/release"].commits.len();
    let before = commits();
    {
        let mut faults = bench.server.faults();
        (faults.unavailable, faults.lost_commits) = (2, 1);
    }
    let (_, report) = push(&bench, dir.path()).unwrap();
    assert_eq!(commits(), before + 1);
    let head = bench.server.state.repos.lock().unwrap()["me/release"].branches["main"].clone();
    assert_eq!(report.commit, Some(head));
    assert_there(&bench, dir.path());
}

#[test]
fn refused_objects_and_moved_branches_are_errors() {
    let (bench, dir) = (Bench::new(), folder());
    std::fs::write(dir.path().join("unlucky.gq"), [0; 13]).unwrap();
    let error = push(&bench, dir.path()).unwrap_err();
    assert!(
        matches!(error, HubError::ObjectRefused { ref path, code: 422, .. } if path == "unlucky.gq"),
        "{error:?}"
    );
    std::fs::remove_file(dir.path().join("unlucky.gq")).unwrap();
    push(&bench, dir.path()).unwrap();

    std::fs::write(dir.path().join("README.md"), b"new").unwrap();
    let hub = bench.hub_with_token("right");
    let repo = RepoId::new("me/release").unwrap();
    let plan = hub.plan_push(&repo, dir.path(), &push_options(), &silent).unwrap();
    bench.server.commit("me/release", "main", &[("other.txt", b"x".to_vec(), false)]);
    let error = hub.push(&plan, &push_options(), &silent).unwrap_err();
    assert!(matches!(error, HubError::Status { status: 412, .. }), "{error:?}");
    std::fs::write(dir.path().join("README.md"), b"changed since").unwrap();
    let plan = PushPlan { parent: None, ..plan };
    let error = hub.push(&plan, &push_options(), &silent).unwrap_err();
    assert!(matches!(error, HubError::SourceChanged { .. }), "{error:?}");
}
