//! What is said of interrupted work, and what is left.

use super::*;

#[test]
fn what_is_left_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let (partial, missing) = (dir.path().join("m.gq.partial"), dir.path().join("m.gq"));
    std::fs::write(&partial, [0; 1000]).unwrap();
    let said = |work: &[Work]| stopped(work, &[], "gq convert m").message;
    let kept = Work::that_continues([partial.clone(), missing.clone()]);
    let text = said(&[kept]);
    assert!(text.contains("m.gq.partial (1.00 kB); the same command continues: gq convert m"), "{text}");
    let text = said(&[Work::that_continues([missing.clone()])]);
    assert!(text.contains("nothing is kept; the same command begins again"), "{text}");
    let text = said(&[Work::begun_again([missing.clone()]).leaving(&partial)]);
    assert!(text.contains("m.gq.partial is as it was; the same command begins again"), "{text}");
    let cached = Work::begun_again([]).with_cache(dir.path());
    let text = said(&[cached]);
    assert!(text.contains(&format!("nothing is kept but what {} holds; the", dir.path().display())));
    assert_eq!(said(&[]), "interrupted");
}

/// A folder counts with all of its files once a mark is there; before, what this process made in it goes.
#[test]
fn a_folder_is_kept_by_its_mark() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("m");
    let (mark, moments) = (folder.join("mark"), folder.join("moments"));
    let work = Work::that_continues([]).keeping_in(&folder, [mark.clone()], [folder.join("scratch")]);
    let work = [work];
    let said = || stopped(&work, &[], "gq convert m").message;
    std::fs::create_dir(&folder).unwrap();
    gq_files::write_whole(&moments, &[0; 900]).unwrap();
    gq_files::write_whole(&folder.join("scratch"), &[0; 900]).unwrap();
    assert!(said().contains("nothing is kept; the same command begins again"), "{}", said());
    gq_files::write_whole(&mark, &[0; 100]).unwrap();
    clean(&work);
    assert!(moments.exists() && !folder.join("scratch").exists());
    assert!(said().contains("/m (1.00 kB in 2 files); the same command continues"), "{}", said());
    std::fs::remove_file(&mark).unwrap();
    // What somebody else put there stays.
    std::fs::write(folder.join("mine"), "mine").unwrap();
    clean(&work);
    assert!(!moments.exists() && folder.join("mine").exists());
    std::fs::remove_file(folder.join("mine")).unwrap();
    clean(&work);
    assert!(!folder.exists());
}

#[test]
fn a_file_that_has_its_name_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("m.gq.partial"), [0; 1000]).unwrap();
    std::fs::write(at("m.gq"), "old").unwrap();
    let whole = [Identity::of(&at("m.gq.partial")).unwrap()];
    let work = Work::that_continues([at("m.gq.partial"), at("m.gq.journal")]);
    let work =
        [work.leaving(&at("m.gq")).making([at("m.gq"), at("m.Modelfile")], "its cost is not measured")];
    let said = || stopped(&work, &whole, "gq export m");
    // Whole, but without its name.
    let failure = said();
    assert!(failure.message.contains("m.gq.partial (1.00 kB); the same command continues"), "{failure}");
    std::fs::rename(at("m.gq.partial"), at("m.gq")).unwrap();
    std::fs::write(at("m.gq.journal"), [0; 10]).unwrap();
    let failure = said();
    let message = &failure.message;
    assert!(message.contains("m.gq (1.00 kB) is finished"), "{message}");
    assert!(message.contains("m.Modelfile is not; its cost is not measured; left next to it"), "{message}");
    assert!(!message.contains("as it was") && !message.contains("same command"), "{message}");
    assert_eq!(failure.actual.as_deref(), Some("finished"));
}

/// An interruption while a file gets its name is told when it has it.
#[test]
fn what_is_told_waits_for_a_name_that_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("m.gq.partial"), [0; 1000]).unwrap();
    whole_when_named(&at("m.gq.partial"));
    let naming = naming(&at("m.gq.partial"));
    let work = Work::that_continues([at("m.gq.partial")]).making([at("m.gq")], "");
    let (begun, begins) = mpsc::channel();
    let told = std::thread::spawn(move || {
        begun.send(()).unwrap();
        let state = state();
        stopped(&[work], &state.whole, "gq convert m").message
    });
    begins.recv().unwrap();
    assert!(matches!(STATE.try_lock(), Err(TryLockError::WouldBlock)));
    std::fs::rename(at("m.gq.partial"), at("m.gq")).unwrap();
    drop(naming);
    let told = told.join().unwrap();
    assert!(told.contains("m.gq (1.00 kB) is finished") && !told.contains("kept"), "{told}");
}
