//! Files that are written to or cut while a command reads them.
#![cfg(target_os = "linux")]

use crate::chat::endless;
use crate::live::{is_mapped, names, shown, started, until};
use crate::run::{Gq, testdata};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// How a file is changed without a signal: its last page stays mapped.
#[derive(Clone, Copy, Debug)]
enum How {
    /// Its last byte is written, as it was.
    Touched,
    /// Its last byte is another one.
    Rewritten,
    /// It lacks its last byte.
    Cut,
}

impl How {
    fn change(self, path: &Path) {
        let mut file = File::options().read(true).write(true).open(path).unwrap();
        let bytes = file.metadata().unwrap().len();
        let mut last = [0];
        file.seek(SeekFrom::Start(bytes - 1)).unwrap();
        file.read_exact(&mut last).unwrap();
        file.seek(SeekFrom::Start(bytes - 1)).unwrap();
        match self {
            How::Touched => file.write_all(&last).unwrap(),
            How::Rewritten => file.write_all(&[last[0] ^ 0xFF]).unwrap(),
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

/// Starts the program, does something once it has read the file to its end, and waits for it.
fn meanwhile(gq: &Gq, args: &[&str], act: impl Fn()) -> (Option<i32>, String) {
    let slow = ["--threads", "1", "--isa", "scalar"];
    let args = [args, if args[0] == "improve" { &slow[..2] } else { &slow[..] }].concat();
    let mut child = started(gq, &args);
    let mapped = is_mapped(&child, &gq.path("m.gq"));
    // What is mapped next, or begun: the file before was validated by then.
    let next = is_mapped(&child, &gq.path("endless/model.safetensors"));
    let begun = ["out.gguf.unchecked.partial", "out.gguf.unchecked"].map(|name| gq.path(name));
    let ready = || match args[0] {
        "run" => mapped(),
        "export" => begun.iter().any(|path| path.exists()),
        _ => mapped() && next(),
    };
    assert!(until(&mut child, ready), "gq {args:?} ended by itself");
    act();
    let output = child.wait_with_output().unwrap();
    let json = args.contains(&"--json");
    let said = if json { String::from_utf8_lossy(&output.stdout).into_owned() } else { shown(&output) };
    (output.status.code(), said)
}

#[test]
fn a_gq_file_that_changes_while_it_is_read_is_refused() {
    let gq = Gq::new();
    let text = testdata("demo/eval.txt");
    let source = endless(&gq);
    gq.ok(&["convert", &source, "-o", "m.gq", "--encoding", "tq2", "--no-grid", "--no-check"]);
    let path = gq.path("m.gq");
    let whole = fs::read(&path).unwrap();
    // The last page is not a whole one, so that a cut in it raises no signal.
    assert!(whole.len() % 4096 > 1);
    let eval = [
        "eval",
        "m.gq",
        "--reference",
        &source,
        "--text",
        &text,
        "--cache-limit",
        "0",
        "--windows",
        "4",
        "--ctx",
        "64",
    ];
    let saved = [&eval[..], &["--save-outputs", "out.safetensors", "--html", "out.html"]].concat();
    let again = ["m.gq", "--reference", &source, "--calibration", &text, "--calibration-ctx", "64"];
    let scales = [&["improve", "--scales"][..], &again, &["--steps", "1", "--batch", "1"]].concat();
    let copied = [&scales[..], &["-o", "out.gq"]].concat();
    let rounds = [&["improve", "--rounds"][..], &again, &["--calibration-tokens", "1024"]].concat();
    let export = ["export", "m.gq", "--gguf", "-o", "out.gguf", "--no-measure", "--type", "Q8_0"];
    let run = ["run", "m.gq", "--raw", "-p", "It is a truth", "-n", "400", "--temp", "0"];
    let run_json = [&run[..], &["--json"]].concat();
    let cases: [(&[&str], How); 9] = [
        (&eval, How::Rewritten),
        (&saved, How::Cut),
        (&scales, How::Rewritten),
        (&copied, How::Cut),
        (&rounds, How::Cut),
        (&export, How::Cut),
        (&export, How::Rewritten),
        // Nothing tells when it was validated.
        (&run, How::Touched),
        (&run_json, How::Touched),
    ];
    for (args, how) in cases {
        restore(&path, &whole);
        let (code, said) = meanwhile(&gq, args, || how.change(&path));
        assert_eq!(code, Some(4), "gq {args:?}, {how:?}: {said}");
        let plain = said.replace('\\', "");
        assert!(plain.contains("m.gq: changed while it was read"), "gq {args:?}, {how:?}: {said}");
        if args.contains(&"--json") {
            let document: serde_json::Value = serde_json::from_str(&said).unwrap();
            assert_eq!(document["error"]["code"], "file.changed");
        }
        assert_eq!(names(gq.dir.path()), ["endless", "m.gq"], "gq {args:?}, {how:?}");
    }
    // Another file under the name leaves the one that is read alone.
    let replace = || {
        restore(&gq.path("other"), &whole[..100]);
        fs::rename(gq.path("other"), &path).unwrap();
    };
    restore(&path, &whole);
    let (code, said) = meanwhile(&gq, &eval, replace);
    assert_eq!(code, Some(0), "{said}");
    // What is changed in place does not replace another file, though.
    restore(&path, &whole);
    let (code, said) = meanwhile(&gq, &rounds, replace);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("changed while it was read: its length was"), "{said}");
    assert_eq!(fs::read(&path).unwrap(), &whole[..100]);
}

/// Logits are read as they are needed, and so is what tells that the file is another one by then.
#[test]
fn reference_outputs_that_change_while_they_are_read_are_refused() {
    let gq = Gq::new();
    let text = testdata("demo/eval.txt");
    let source = endless(&gq);
    gq.ok(&["convert", &source, "-o", "m.gq", "--encoding", "tq2", "--no-grid", "--no-check"]);
    let eval = ["eval", "m.gq", "--reference"];
    let save = ["--text", &text, "--cache-limit", "0", "--windows", "4", "--ctx", "64"];
    gq.ok(&[&eval[..], &[&*source], &save, &["--save-outputs", "ref.safetensors"]].concat());
    let path = gq.path("ref.safetensors");
    let whole = fs::read(&path).unwrap();
    let args = [&eval[..], &["ref.safetensors", "--threads", "1", "--isa", "scalar"]].concat();
    for how in [How::Touched, How::Rewritten, How::Cut] {
        restore(&path, &whole);
        let mut child = started(&gq, &args);
        let begun = is_begun(&child, &path);
        assert!(until(&mut child, begun), "gq {args:?} ended by itself");
        how.change(&path);
        let output = child.wait_with_output().unwrap();
        let said = shown(&output);
        assert_eq!(output.status.code(), Some(4), "{how:?}: {said}");
        assert!(said.contains("ref.safetensors: changed while it was read"), "{how:?}: {said}");
    }
    restore(&path, &whole);
    gq.ok(&args);
}

/// Whether a running program has read something of a file that it opened.
fn is_begun(child: &std::process::Child, path: &Path) -> impl Fn() -> bool + use<> {
    let process = Path::new("/proc").join(child.id().to_string());
    let path = path.canonicalize().unwrap();
    move || {
        let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        let mut ours = open.filter(|entry| fs::read_link(entry.path()).is_ok_and(|found| found == path));
        ours.any(|entry| {
            let at = fs::read_to_string(process.join("fdinfo").join(entry.file_name())).unwrap_or_default();
            at.lines().any(|line| line.strip_prefix("pos:").is_some_and(|at| at.trim() != "0"))
        })
    }
}

#[test]
fn a_file_that_is_cut_under_run_is_named() {
    let gq = Gq::new();
    let source = endless(&gq);
    gq.ok(&["convert", &source, "-o", "m.gq", "--encoding", "tq8", "--no-grid", "--no-check"]);
    for (model, victim) in [("m.gq", "m.gq"), ("endless", "endless/model.safetensors")] {
        let path = gq.path(victim);
        let args = ["run", model, "--raw", "-p", "It is a truth", "--ctx", "32k", "--temp", "0"];
        let mut child = started(&gq, &[&args[..], &["--threads", "1", "--isa", "scalar"]].concat());
        let mapped = is_mapped(&child, &path);
        assert!(until(&mut child, mapped), "gq {args:?} ended by itself");
        File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = shown(&output);
        assert_eq!(output.status.code(), Some(4), "gq {args:?}: {said}");
        assert!(said.contains(victim) && said.contains("was cut from"), "gq {args:?}: {said}");
    }
}
