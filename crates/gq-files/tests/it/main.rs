//! Tests on a real file system.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use gq_files::{
    Existing, Identity, Kind, Mapped, Placed, begin, cut, free_bytes, hold_while_naming, is_begun, is_held,
    kind, mapped, note_begun, open_own, partial_path, place, put_in_place, remove_begun, write_whole,
};
use std::fs::{self, File};
use std::io::{Read, Write};

#[cfg(unix)]
#[test]
fn planted_links_pipes_and_second_names_are_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("victim"), "precious").unwrap();
    std::os::unix::fs::symlink(at("victim"), at("link")).unwrap();
    std::os::unix::fs::symlink(at("nowhere"), at("broken")).unwrap();
    fs::hard_link(at("victim"), at("second")).unwrap();
    fs::create_dir(at("folder")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(at("pipe")).status();
    assert!(made.unwrap().success());
    for (name, why) in [
        ("link", "link"),
        ("broken", "link"),
        ("second", "second name"),
        ("folder", "folder"),
        ("pipe", "pipe"),
    ] {
        for error in [open_own(&at(name)).unwrap_err(), begin(&at(name)).unwrap_err()] {
            assert!(error.to_string().contains(why), "{name}: {error}");
        }
    }
    assert_eq!(fs::read(at("victim")).unwrap(), b"precious");
    assert!(!at("nowhere").exists());
}

#[test]
fn what_an_earlier_run_left_is_taken_up_or_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.partial");
    begin(&path).unwrap().write_all(b"begun").unwrap();
    let mut kept = String::new();
    open_own(&path).unwrap().read_to_string(&mut kept).unwrap();
    assert_eq!(kept, "begun");
    let held = begin(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    assert!(begin(&path).unwrap_err().to_string().contains("another gq"));
    drop(held);
    assert!(soon(|| begin(&path).is_ok()));
}

/// Whether something becomes true: a child that another test begins has a copy of each lock until it becomes its program.
fn soon(true_now: impl Fn() -> bool) -> bool {
    (0..500).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        true_now()
    })
}

/// Another process's file of the same name is not this one's to remove.
#[test]
fn only_what_was_begun_here_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("other"), "x").unwrap();
    assert!(!is_begun(&at("other")) && !is_begun(&at("nothing")));
    remove_begun(&at("other")).unwrap();
    assert!(at("other").exists());
    let held = begin(&at("own")).unwrap();
    assert!(is_begun(&at("own")) && is_held(&at("own")) && !is_held(&at("other")));
    // By whatever name.
    put_in_place(&at("own"), &at("moved")).unwrap();
    assert!(is_begun(&at("moved")) && !is_begun(&at("own")));
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(at("moved"), at("link")).unwrap();
        remove_begun(&at("link")).unwrap();
        assert!(at("link").is_symlink());
    }
    drop(held);
    assert!(soon(|| !is_held(&at("moved"))));
    remove_begun(&at("moved")).unwrap();
    assert!(!at("moved").exists());
    fs::create_dir(at("folder")).unwrap();
    fs::write(at("folder/x"), "x").unwrap();
    remove_begun(&at("folder")).unwrap();
    assert!(at("folder/x").exists());
    note_begun(&at("folder"));
    remove_begun(&at("folder")).unwrap();
    assert!(!at("folder").exists());
}

/// Seen from what is held, a finished file has its old name while that lives and the new one afterwards.
#[test]
fn something_is_held_while_a_file_gets_its_name() {
    use std::path::{Path, PathBuf};
    use std::sync::Mutex;
    static SEEN: Mutex<Vec<(bool, bool)>> = Mutex::new(Vec::new());
    struct Watch(PathBuf);
    fn look(old: &Path) {
        let new = old.with_file_name("held-new");
        SEEN.lock().unwrap().push((old.exists(), new.exists()));
    }
    impl Drop for Watch {
        fn drop(&mut self) {
            look(&self.0);
        }
    }
    hold_while_naming(|finished| match finished.ends_with("held-old") {
        true => {
            look(finished);
            Box::new(Watch(finished.to_owned()))
        }
        // Other tests name files meanwhile.
        false => Box::new(()),
    });
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for existing in [Existing::Kept, Existing::Replaced] {
        fs::write(at("held-old"), "x").unwrap();
        assert_eq!(place(&at("held-old"), &at("held-new"), existing).unwrap(), Placed::There);
        assert_eq!(
            std::mem::take(&mut *SEEN.lock().unwrap()),
            [(true, existing == Existing::Replaced), (false, true)]
        );
    }
}

#[test]
fn whole_files_replace_links_without_following_them() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("victim"), "precious").unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(at("victim"), at("out")).unwrap();
    write_whole(&at("out"), b"new").unwrap();
    assert_eq!(fs::read(at("out")).unwrap(), b"new");
    assert!(!fs::symlink_metadata(at("out")).unwrap().is_symlink());
    assert_eq!(fs::read(at("victim")).unwrap(), b"precious");
    assert!(!partial_path(&at("out")).exists());
    // A folder keeps its name, and nothing is left.
    fs::create_dir(at("folder")).unwrap();
    assert!(write_whole(&at("folder"), b"new").is_err());
    assert!(!partial_path(&at("folder")).exists());
}

#[test]
fn one_file_has_one_identity() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("a"), "a").unwrap();
    fs::write(at("b"), "a").unwrap();
    fs::hard_link(at("a"), at("c")).unwrap();
    let id = |name: &str| Identity::of(&at(name)).unwrap();
    assert_ne!(id("a"), id("b"));
    #[cfg(unix)]
    {
        assert_eq!(id("a"), id("c"));
        std::os::unix::fs::symlink("a", at("d")).unwrap();
        assert_eq!(id("a"), id("d"));
        std::os::unix::fs::symlink("nowhere", at("e")).unwrap();
        assert_eq!(kind(&at("e")).unwrap(), Kind::BrokenLink);
        assert_eq!(kind(std::path::Path::new("/dev/null")).unwrap(), Kind::Special);
    }
    assert_eq!(kind(&at("a")).unwrap(), Kind::File);
    assert_eq!(kind(dir.path()).unwrap(), Kind::Folder);
    assert_eq!(kind(&at("f")).unwrap(), Kind::Nothing);
    assert!(free_bytes(dir.path()).is_none_or(|bytes| bytes > 0));
}

#[test]
fn a_mapped_file_that_is_cut_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weights");
    fs::write(&path, vec![7; 10_000]).unwrap();
    let map = Mapped::new(&path, &File::open(&path).unwrap()).unwrap();
    let ours = || cut().into_iter().find(|cut| cut.path == path);
    assert_eq!((map.len(), map[9_999], ours()), (10_000, 7, None));
    // Another file under the same name is not the one that is mapped.
    let other = dir.path().join("other");
    fs::write(&other, "short").unwrap();
    let moved = dir.path().join("moved");
    fs::rename(&path, &moved).unwrap();
    put_in_place(&other, &path).unwrap();
    assert_eq!(ours(), None);
    File::options().write(true).open(&moved).unwrap().set_len(10).unwrap();
    let found = ours().unwrap();
    assert_eq!((found.was, found.is), (10_000, Some(10)));
    drop(map);
    assert!(ours().is_none() && !mapped().contains(&path));
}
