use crate::support::{Bench, REPO, files, names, options, repo, silent, try_pull};
use gq_hub::{Globs, Hub, HubConfig, HubError, Located, Network, PullOptions};

fn offline(bench: &Bench) -> Hub {
    Hub::new(HubConfig { offline: true, ..bench.config() }).unwrap()
}

#[test]
fn a_path_comes_before_everything() {
    let bench = Bench::new();
    let file = bench.dir.path().join("m.gguf");
    std::fs::write(&file, b"x").unwrap();
    for path in [bench.dir.path(), &file] {
        let Located::Here(source) = bench.hub().locate(path.to_str().unwrap()).unwrap() else { panic!() };
        assert_eq!((source.path.as_path(), source.snapshot), (path, None));
    }
    for text in ["./nothing", "/no/such/place", "a/b/c/d", "not a name"] {
        assert!(matches!(bench.hub().locate(text), Err(HubError::NotFound { .. })), "{text}");
    }
    assert!(bench.server.seen().is_empty());
}

#[test]
fn offline_first_and_network_only_when_allowed() {
    let bench = Bench::new();
    let resolve = |hub: &Hub, text: &str, network| hub.resolve(text, network, &options(), &silent);
    assert!(matches!(resolve(&offline(&bench), REPO, Network::Allowed), Err(HubError::Offline { .. })));
    assert!(matches!(resolve(&bench.hub(), REPO, Network::Never), Err(HubError::Offline { .. })));
    assert!(bench.server.seen().is_empty());

    let source = resolve(&bench.hub(), "hf://org/tiny", Network::Allowed).unwrap();
    assert_eq!(names(&source.path), ["config.json", "model.safetensors", "second.safetensors"]);
    let requests = bench.server.seen().len();
    // Now it is here: by id, by address, by commit, with and without a network.
    let commit = source.snapshot.clone().unwrap().commit;
    for text in [REPO.to_owned(), "hf://org/tiny@main".into(), format!("org/tiny@{commit}")] {
        assert_eq!(resolve(&offline(&bench), &text, Network::Never).unwrap(), source);
        assert_eq!(resolve(&bench.hub(), &text, Network::Allowed).unwrap(), source);
    }
    let one = resolve(&bench.hub(), "hf://org/tiny/config.json", Network::Allowed).unwrap();
    assert_eq!(one.path, source.path.join("config.json"));
    assert_eq!(bench.server.seen().len(), requests);
    // A file that was left out is fetched, alone.
    let extra = resolve(&bench.hub(), "hf://org/tiny/empty.txt", Network::Allowed).unwrap();
    assert!(extra.path.exists());
}

#[test]
fn a_partial_snapshot_is_not_taken_for_a_model() {
    let bench = Bench::new();
    let some = PullOptions { files: Globs::including(&["config.json", "second*"]), ..options() };
    let snapshot = try_pull(&bench.hub(), &some).unwrap();
    for keep_list in [true, false] {
        if !keep_list {
            std::fs::remove_dir_all(bench.repo_dir().join("trees")).unwrap(); // as older Python clients leave it
        }
        let error = offline(&bench).resolve(REPO, Network::Never, &options(), &silent).unwrap_err();
        let HubError::Incomplete { missing, .. } = error else { panic!("{error:?}") };
        assert!(missing.contains(&"model.safetensors".to_owned()), "{missing:?}");
    }
    let index = br#"{"weight_map": {"a": "second.safetensors", "b": "third.safetensors"}}"#;
    std::fs::write(snapshot.dir.join("model.safetensors.index.json"), index).unwrap();
    let Located::Partly { missing, .. } = offline(&bench).locate(REPO).unwrap() else { panic!() };
    assert_eq!(missing, ["third.safetensors"]);
    // With a network the rest is fetched, and only the rest.
    let before = bench.server.served_bytes();
    let whole = bench.hub().resolve(REPO, Network::Allowed, &options(), &silent).unwrap();
    assert!(whole.path.join("model.safetensors").exists());
    let second = files().iter().find(|f| f.0.starts_with("second")).unwrap().1.len() as u64;
    assert!(bench.server.served_bytes() - before <= before + 300_003 - second + second);
    assert_eq!(bench.hub().plan_pull(&repo(), "main", &some, &silent).unwrap().fetch_bytes(), 0);
}
