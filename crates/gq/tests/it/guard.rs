//! Outputs are looked at before any work: nothing that is read is destroyed, nothing is replaced unasked.
#![cfg(unix)]

use crate::run::{Gq, testdata};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

#[path = "../../src/guard/table.rs"]
mod table;

use table::{PATHS, Use};

/// A checkpoint, a file made from it, a text and a recipe.
fn scene() -> Gq {
    let gq = Gq::new();
    fs::create_dir(gq.path("model")).unwrap();
    for entry in fs::read_dir(testdata("demo")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, gq.path("model").join(path.file_name().unwrap())).unwrap();
    }
    fs::copy(testdata("demo/eval.txt"), gq.path("text.txt")).unwrap();
    fs::write(gq.path("recipe.toml"), "[evaluation]\ntext = \"text.txt\"\n[[variant]]\nbits = 4\n").unwrap();
    gq.ok(&["convert", "model", "-o", "m.gq", "--encoding", "tq4", "--no-grid"]);
    gq
}

/// A command that writes `out` by this option, and what it reads.
fn command<'a>(name: &str, option: &str, out: &'a str) -> (Vec<&'a str>, Vec<&'a str>) {
    let model = ["model/model.safetensors", "model/config.json", "model/tokenizer.json"];
    let with = |more: &[&'static str]| [more, &model[..1]].concat();
    match (name, option) {
        ("convert", "output") => (vec!["convert", "model", "-o", out], model.to_vec()),
        ("demo", "output") => (vec!["demo", "-o", out], vec![]),
        ("eval", "html") => (
            vec!["eval", "m.gq", "--reference", "model", "--text", "text.txt", "--html", out],
            with(&["m.gq", "text.txt"]),
        ),
        ("eval", "save_outputs") => (
            vec!["eval", "m.gq", "--reference", "model", "--text", "text.txt", "--save-outputs", out],
            with(&["m.gq", "text.txt"]),
        ),
        ("export", "output") => {
            (vec!["export", "m.gq", "--gguf", "--reference", "model", "-o", out], with(&["m.gq"]))
        }
        ("meta set", "output") => {
            (vec!["meta", "set", "m.gq", "chat_template=@text.txt", "-o", out], vec!["m.gq", "text.txt"])
        }
        ("improve", "output") => {
            let reads = with(&["m.gq", "text.txt"]);
            (vec!["improve", "m.gq", "--reference", "model", "--calibration", "text.txt", "-o", out], reads)
        }
        ("release", "output") => {
            (vec!["release", "model", "--recipe", "recipe.toml", "-o", out], vec!["model"])
        }
        ("calibrate", "output") => (vec!["calibrate", "model", "-o", out], vec!["model"]),
        other => panic!("say here how {other:?} is tried"),
    }
}

fn outputs() -> impl Iterator<Item = (&'static str, &'static str, Use)> {
    let written = |row: &&(&str, &str, Use)| !matches!(row.2, Use::Read | Use::Cache);
    PATHS.iter().filter(written).copied()
}

/// Every file below a folder with its bytes; links as what they lead to.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match fs::symlink_metadata(&path).unwrap() {
            kind if kind.is_dir() => found.extend(snapshot(&path)),
            kind if kind.is_file() => drop(found.insert(path.clone(), fs::read(&path).unwrap())),
            _ => drop(found.insert(path.clone(), b"link or device".to_vec())),
        }
    }
    found
}

#[test]
fn what_is_read_is_never_written_by_any_path_or_link() {
    let gq = scene();
    for (name, option, _) in outputs() {
        let (_, reads) = command(name, option, "");
        for read in reads {
            for way in ["same", "detour", "link", "second name", "way.partial", "way.unchecked"] {
                let link = gq.path("way");
                let _ = (fs::remove_file(&link), fs::remove_file(gq.path("way.partial")));
                let _ = fs::remove_file(gq.path("way.unchecked"));
                let out = match way {
                    "same" => read.to_owned(),
                    "detour" => format!("./model/../{read}"),
                    "link" => {
                        symlink(gq.path(read), &link).unwrap();
                        "way".to_owned()
                    }
                    // Folders have one name.
                    _ if gq.path(read).is_dir() => continue,
                    "second name" => {
                        fs::hard_link(gq.path(read), &link).unwrap();
                        "way".to_owned()
                    }
                    _ => {
                        fs::hard_link(gq.path(read), gq.path(way)).unwrap();
                        "way".to_owned()
                    }
                };
                let before = snapshot(gq.dir.path());
                for force in [&[][..], &["--force"]] {
                    if name == "release" && !force.is_empty() {
                        continue;
                    }
                    let args = [&command(name, option, &out).0[..], force].concat();
                    let shown = gq.fails(2, &args);
                    assert!(shown.contains("is read by this command"), "gq {args:?}, {way}: {shown}");
                    assert!(snapshot(gq.dir.path()) == before, "gq {args:?}, {way}: something changed");
                }
            }
        }
        let _ = (fs::remove_file(gq.path("way")), fs::remove_file(gq.path("way.partial")));
        let _ = fs::remove_file(gq.path("way.unchecked"));
    }
}

/// Of a folder that is read, what is loaded counts and what gq makes there does not.
#[test]
fn a_file_in_the_source_folder_is_begun_continued_and_replaced() {
    let gq = scene();
    let run = |args: &[&str]| {
        let output = gq.command().current_dir(gq.path("model")).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let args = ["convert", ".", "-o", "k.gq", "--encoding", "tq4", "--no-grid"];
    // As an interrupted run leaves them, but of no use.
    for end in [".partial", ".journal"] {
        fs::write(gq.path(&format!("model/k.gq{end}")), "").unwrap();
    }
    run(&args);
    run(&[&args[..], &["--force"]].concat());
    run(&["export", ".", "--gguf", "--no-measure", "-o", "k.gguf"]);
    assert_eq!(fs::read(gq.path("model/k.gq")).unwrap(), fs::read(gq.path("m.gq")).unwrap());
    // With these in it, the folder is a checkpoint as before.
    run(&["convert", ".", "-o", "l.gq", "--encoding", "tq4", "--no-grid"]);
    assert_eq!(fs::read(gq.path("model/l.gq")).unwrap(), fs::read(gq.path("m.gq")).unwrap());
}

#[test]
fn names_that_are_read_with_the_source_are_refused() {
    let gq = scene();
    fs::create_dir(gq.path("model/additional_chat_templates")).unwrap();
    fs::write(gq.path("model/additional_chat_templates/a.jinja"), "{{ messages[0].content }}").unwrap();
    let before = snapshot(gq.dir.path());
    let names = [
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "special_tokens_map.json",
        "chat_template.jinja",
        "additional_chat_templates/b.jinja",
        "LICENSE.txt",
    ];
    let mut tried = 0;
    for (name, option, _) in outputs() {
        if !command(name, option, "").1.iter().any(|read| read.starts_with("model")) {
            continue;
        }
        for file in names {
            let out = format!("model/{file}");
            let args = command(name, option, &out).0;
            let shown = gq.fails(2, &args);
            let there = gq.path(&out).exists();
            let said = if there { "is read by this command" } else { "is read with model" };
            assert!(shown.contains(said), "gq {args:?}: {shown}");
            assert!(snapshot(gq.dir.path()) == before, "gq {args:?}: something changed");
        }
        tried += 1;
    }
    assert!(tried >= 6, "{tried}");
}

#[test]
fn a_link_is_not_changed_in_place() {
    let gq = scene();
    symlink(gq.path("m.gq"), gq.path("link.gq")).unwrap();
    let before = snapshot(gq.dir.path());
    let shown = gq.fails(2, &["meta", "set", "link.gq", "--remove", "licence"]);
    assert!(shown.contains("link.gq: is a link to a file"), "{shown}");
    assert!(snapshot(gq.dir.path()) == before);
}

#[test]
fn what_has_the_name_of_a_file_not_looked_at_yet_is_kept() {
    let gq = scene();
    fs::create_dir(gq.path("new.unchecked")).unwrap();
    fs::write(gq.path("new.unchecked/mine"), "mine").unwrap();
    let before = snapshot(gq.dir.path());
    for (name, option, written) in outputs() {
        if !matches!(written, Use::File | Use::FileOrInPlace | Use::FileOrFolder) {
            continue;
        }
        let shown = gq.fails(2, &command(name, option, "new").0);
        assert!(shown.contains("new.unchecked: exists already"), "gq {name} {option}: {shown}");
        assert!(snapshot(gq.dir.path()) == before, "gq {name} {option}: something changed");
    }
}

/// A pipe that nobody writes to would be waited for without end.
#[test]
fn a_model_is_no_pipe_or_device() {
    let gq = scene();
    assert!(std::process::Command::new("mkfifo").arg(gq.path("pipe")).status().unwrap().success());
    for command in [
        &["inspect"][..],
        &["verify"],
        &["plan"],
        &["run", "-p", "x"],
        &["convert", "-o", "new.gq"],
        &["export", "--gguf", "-o", "new.gguf"],
        &["calibrate", "-o", "new"],
        &["eval", "--text", "model/config.json", "--reference", "model"],
    ] {
        for source in ["pipe", "/dev/null"] {
            let shown = gq.fails(3, &[command, &[source]].concat());
            assert!(
                shown.contains("is a pipe or a device") && shown.contains(source),
                "{command:?}: {shown}"
            );
        }
    }
    assert!(!gq.path("new.gq").exists() && !gq.path("new.gguf").exists() && !gq.path("new").exists());
}

#[test]
fn what_cannot_be_written_is_said_before_any_work() {
    let gq = scene();
    fs::create_dir(gq.path("folder")).unwrap();
    fs::write(gq.path("folder/mine"), "mine").unwrap();
    fs::write(gq.path("file"), "mine").unwrap();
    symlink("nowhere", gq.path("broken")).unwrap();
    symlink("/dev/null", gq.path("device")).unwrap();
    symlink(gq.path("file"), gq.path("planted.partial")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(gq.path("pipe")).status().unwrap().success());
    let before = snapshot(gq.dir.path());
    for (name, option, kind) in outputs() {
        let file = kind != Use::Folder;
        let cases: &[(&str, i32, &str)] = match file {
            true => &[
                ("folder", 2, "is a folder"),
                (".", 2, "is a folder"),
                ("pipe", 2, "pipe"),
                ("device", 2, "device"),
                ("file", 2, "exists already"),
                ("broken", 2, "exists already"),
                ("none/out", 4, "no folder none"),
                ("file/out", 4, "cannot be written"),
                ("planted", 4, "link"),
            ],
            false => {
                &[("folder", 2, ""), ("file", 2, "is a file"), ("pipe", 2, "pipe"), ("device", 2, "device")]
            }
        };
        for (out, code, said) in cases {
            let args = command(name, option, out).0;
            // A folder is one of the two things that an option may ask for.
            let shown = gq.fails(*code, &args);
            assert!(shown.contains(said), "gq {args:?}: {shown}");
            assert_eq!(shown.matches("error:").count(), 1, "{shown}");
            assert!(snapshot(gq.dir.path()) == before, "gq {args:?}: something changed");
        }
    }
    // What is no file stays as it is under --force as well.
    for out in ["pipe", "device", "folder"] {
        gq.fails(2, &["convert", "model", "-o", out, "--force"]);
    }
    gq.fails(2, &["export", "m.gq", "--safetensors", "-o", "folder"]);
    gq.fails(2, &["export", "m.gq", "--gguf", "--ollama", "-o", "out.Modelfile"]);
    fs::create_dir(gq.path("new.unchecked.partial")).unwrap();
    fs::write(gq.path("new.unchecked.partial/mine"), "mine").unwrap();
    let shown = gq.fails(4, &["export", "m.gq", "--safetensors", "--no-measure", "-o", "new"]);
    assert!(shown.contains("in the way"), "{shown}");
    assert_eq!(fs::read(gq.path("new.unchecked.partial/mine")).unwrap(), b"mine");
}

#[test]
fn folders_without_permission_are_refused_at_once() {
    use std::os::unix::fs::PermissionsExt;
    let gq = scene();
    fs::create_dir(gq.path("locked")).unwrap();
    fs::set_permissions(gq.path("locked"), fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(gq.path("locked/probe"), "").is_ok() {
        eprintln!("not tested: this user may write anywhere");
        return;
    }
    let shown = gq.fails(4, &["convert", "model", "-o", "locked/out.gq"]);
    assert!(shown.contains("Permission denied"), "{shown}");
}

#[test]
fn force_replaces_and_without_it_the_old_file_stays() {
    let gq = scene();
    fs::write(gq.path("precious"), "precious").unwrap();
    let convert = ["convert", "model", "--encoding", "tq4", "--no-grid", "-o"];
    for out in ["a.gq", "b.gq"] {
        fs::write(gq.path(out), "old").unwrap();
    }
    symlink(gq.path("precious"), gq.path("link.gq")).unwrap();
    let shown = gq.fails(2, &[&convert[..], &["a.gq"]].concat());
    assert!(shown.contains("exists already") && shown.contains("--force"), "{shown}");
    assert_eq!(fs::read(gq.path("a.gq")).unwrap(), b"old");
    gq.ok(&[&convert[..], &["a.gq", "--force"]].concat());
    assert_eq!(fs::read(gq.path("a.gq")).unwrap(), fs::read(gq.path("m.gq")).unwrap());
    // A link is replaced; what it leads to stays.
    gq.ok(&[&convert[..], &["link.gq", "--force"]].concat());
    assert_eq!(fs::read(gq.path("precious")).unwrap(), b"precious");
    gq.fails(2, &["meta", "set", "m.gq", "licence=mit", "-o", "b.gq"]);
    gq.ok(&["meta", "set", "m.gq", "licence=mit", "-o", "b.gq", "--force"]);
    // In place is what editing is for.
    gq.ok(&["meta", "set", "b.gq", "licence=apache-2.0"]);
    assert_eq!(gq.ok(&["meta", "get", "b.gq", "licence"]), "apache-2.0");
    // The names that nobody gave are no exception.
    gq.ok(&["convert", "model", "--encoding", "tq4", "--no-grid"]);
    let shown = gq.fails(2, &["convert", "model", "--encoding", "tq4", "--no-grid"]);
    assert!(shown.contains("exists already"), "{shown}");
}

#[test]
fn the_parts_of_a_split_gguf_are_all_read() {
    let gq = Gq::new();
    let source = testdata("gguf");
    let mut parts: Vec<PathBuf> = fs::read_dir(source).unwrap().map(|entry| entry.unwrap().path()).collect();
    parts.retain(|path| path.to_str().unwrap().contains("-of-"));
    assert!(parts.len() >= 2, "a split GGUF in testdata");
    parts.sort();
    for part in &parts {
        fs::copy(part, gq.path(part.file_name().unwrap().to_str().unwrap())).unwrap();
    }
    let names: Vec<&str> = parts.iter().map(|part| part.file_name().unwrap().to_str().unwrap()).collect();
    let shown = gq.fails(2, &["convert", names[0], "-o", names[1], "--force"]);
    assert!(shown.contains("is read by this command"), "{shown}");
    assert_eq!(fs::read(&parts[1]).unwrap(), fs::read(gq.path(names[1])).unwrap());
}

/// Writes with a limit on the size of files: a full disk without one.
#[test]
fn a_write_that_fails_leaves_nothing_behind() {
    let gq = scene();
    let before = snapshot(gq.dir.path());
    let limited = |args: &str| {
        let script = format!("trap '' XFSZ; ulimit -f 100; exec {} {args}", env!("CARGO_BIN_EXE_gq"));
        let output = std::process::Command::new("sh")
            .args(["-c", &script])
            .current_dir(gq.dir.path())
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(4), "gq {args}: {shown}");
        assert!(shown.contains("File too large"), "gq {args}: {shown}");
        assert!(snapshot(gq.dir.path()) == before, "gq {args}: something was left");
    };
    limited("meta set m.gq licence=mit");
    limited("meta set m.gq licence=mit -o other.gq");
    limited("export m.gq --gguf --no-measure -o m.gguf");
    limited("export m.gq --safetensors --no-measure -o folder");
}

#[test]
fn budgets_that_cannot_be_met_say_what_took_the_room() {
    let gq = scene();
    for (budget, said) in [
        (&["--size", "80"][..], &["--size 80 is 80 bytes", "write 80MB"][..]),
        (&["--size", "300kB"], &["--size 300 kB leaves", "at least"]),
        (&["--fit", "1MiB"], &["leaves 0 B", "keys and values of 8,192 tokens take", "buffers"]),
        (&["--bpw", "1"], &["--bpw 1 leaves"]),
    ] {
        for command in [&["convert", "model", "-o", "out.gq"][..], &["plan", "model"]] {
            let args = [command, budget].concat();
            let shown = gq.fails(2, &args);
            assert!(said.iter().all(|said| shown.contains(said)), "gq {args:?}: {shown}");
        }
    }
    // Weights are not read for that: the NaN among these is not found.
    let nan = testdata("malformed/checkpoint/tensor-nan");
    gq.fails(2, &["convert", &nan, "-o", "out.gq", "--size", "80"]);
    gq.fails(2, &["convert", &nan, "-o", "model", "-e", "tq4"]);
    gq.fails(3, &["convert", &nan, "-o", "out.gq", "-e", "tq4"]);
    // With keys and values of fewer tokens it fits.
    gq.ok(&["plan", "model", "--fit", "130MB", "--ctx", "64"]);
}
