//! Files that are written to or cut while a command reads them.
#![cfg(target_os = "linux")]

use crate::chat::endless;
use crate::live::{is_mapped, names, shown, started, until};
use crate::run::{Gq, testdata};
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// How a file is changed without a signal: its last page stays mapped.
#[derive(Clone, Copy, Debug)]
enum How {
    /// Its last byte is another one.
    Rewritten,
    /// It lacks its last byte.
    Cut,
}

impl How {
    fn change(self, path: &Path) {
        let mut file = File::options().read(true).write(true).open(path).unwrap();
        let bytes = file.metadata().unwrap().len();
        match self {
            How::Rewritten => {
                file.seek(SeekFrom::Start(bytes - 1)).unwrap();
                file.write_all(&[0xA5]).unwrap();
            }
            How::Cut => file.set_len(bytes - 1).unwrap(),
        }
    }
}

/// A file with these bytes that is known to be older than what is done to it.
fn restore(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    let before = SystemTime::now() - Duration::from_secs(3600);
    File::options().write(true).open(path).unwrap().set_modified(before).unwrap();
}

#[test]
fn a_gq_file_that_changes_while_it_is_read_is_refused() {
    let gq = Gq::new();
    let (demo, text) = (testdata("demo"), testdata("demo/eval.txt"));
    let source = endless(&gq);
    gq.ok(&["convert", &source, "-o", "m.gq", "--encoding", "tq8", "--no-grid", "--no-check"]);
    let path = gq.path("m.gq");
    let whole = fs::read(&path).unwrap();
    // The last page is not a whole one, so that a cut in it raises no signal.
    assert!(whole.len() % 4096 > 1);
    let slow = ["--threads", "1", "--cpu", "scalar"];
    let eval = ["eval", "m.gq", "--reference", &demo, "--text", &text, "--cache-limit", "0"];
    let saved =
        [&eval[..], &["--save-outputs", "out.safetensors", "--windows", "8", "--html", "out.html"]].concat();
    let eval = [&eval[..], &["--windows", "8"]].concat();
    let again = ["m.gq", "--reference", &source, "--calibration", &text];
    let refine = [&["refine"][..], &again, &["--steps", "4", "--calibration-ctx", "64"]].concat();
    let refined = [&refine[..], &["-o", "out.gq"]].concat();
    let reround =
        [&["reround"][..], &again, &["--calibration-ctx", "64", "--calibration-tokens", "1024"]].concat();
    let export = ["export", "m.gq", "--gguf", "-o", "out.gguf", "--no-measure", "--type", "Q4_K", "--force"];
    let run = ["run", "m.gq", "--raw", "-p", "It is a truth", "-n", "600", "--temp", "0"];
    let run_json = [&run[..], &["--json"]].concat();
    for how in [How::Rewritten, How::Cut] {
        for args in [&eval[..], &saved, &refine, &refined, &reround, &export, &run, &run_json] {
            restore(&path, &whole);
            let args = [args, &slow].concat();
            let mut child = started(&gq, &args);
            let mapped = is_mapped(&child, &path);
            assert!(until(&mut child, mapped), "gq {args:?} ended by itself");
            how.change(&path);
            let output = child.wait_with_output().unwrap();
            let json = args.contains(&"--json");
            let said =
                if json { String::from_utf8_lossy(&output.stdout).into_owned() } else { shown(&output) };
            assert_eq!(output.status.code(), Some(4), "gq {args:?}, {how:?}: {said}");
            assert!(said.contains("m.gq: changed while it was read"), "gq {args:?}, {how:?}: {said}");
            if json {
                let document: serde_json::Value = serde_json::from_str(&said).unwrap();
                assert_eq!(document["error"]["code"], "file.changed");
            }
            assert_eq!(names(gq.dir.path()), ["endless", "m.gq"], "gq {args:?}, {how:?}");
        }
    }
    // Another file under the name leaves the one that is read alone.
    restore(&path, &whole);
    restore(&gq.path("other"), &whole[..100]);
    let args = [&eval[..], &slow].concat();
    let mut child = started(&gq, &args);
    let mapped = is_mapped(&child, &path);
    assert!(until(&mut child, mapped), "gq {args:?} ended by itself");
    fs::rename(gq.path("other"), &path).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    // What is changed in place does not replace another file, though.
    restore(&path, &whole);
    restore(&gq.path("other"), &whole[..100]);
    let args = [&reround[..], &slow].concat();
    let mut child = started(&gq, &args);
    let mapped = is_mapped(&child, &path);
    assert!(until(&mut child, mapped), "gq {args:?} ended by itself");
    fs::rename(gq.path("other"), &path).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", shown(&output));
    assert!(shown(&output).contains("m.gq: changed while it was read: its file under this name"));
    assert_eq!(fs::read(&path).unwrap(), &whole[..100]);
}

#[test]
fn a_file_that_is_cut_under_run_is_named() {
    let gq = Gq::new();
    let source = endless(&gq);
    gq.ok(&["convert", &source, "-o", "m.gq", "--encoding", "tq8", "--no-grid", "--no-check"]);
    for (model, victim) in [("m.gq", "m.gq"), ("endless", "endless/model.safetensors")] {
        let path = gq.path(victim);
        let args = ["run", model, "--raw", "-p", "It is a truth", "--ctx", "32k", "--temp", "0"];
        let mut child = started(&gq, &[&args[..], &["--threads", "1", "--cpu", "scalar"]].concat());
        let mapped = is_mapped(&child, &path);
        assert!(until(&mut child, mapped), "gq {args:?} ended by itself");
        File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = shown(&output);
        assert_eq!(output.status.code(), Some(4), "gq {args:?}: {said}");
        assert!(said.contains(victim) && said.contains("was cut from"), "gq {args:?}: {said}");
    }
}
