//! A source that is rewritten while it is converted is refused, and leaves nothing behind.

use crate::support::{plan, policy};
use gq_checkpoint::{Checkpoint, ReadError};
use gq_convert::{ConvertError, Event, ExecuteOptions};
use gq_tensor::Isa;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

fn shared(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name)
}

/// A copy of the demo checkpoint whose files were last changed long ago.
fn source() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(shared("demo")).unwrap() {
        let entry = entry.unwrap();
        let path = dir.path().join(entry.file_name());
        fs::copy(entry.path(), &path).unwrap();
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        File::options().write(true).open(&path).unwrap().set_modified(then).unwrap();
    }
    dir
}

/// Writes the same number of other bytes into the file, from the end of its header on.
fn in_place(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let half = bytes.len() / 2;
    bytes[half..].iter_mut().for_each(|byte| *byte ^= 0x55);
    let file = File::options().write(true).open(path).unwrap();
    std::io::Write::write_all(&mut &file, &bytes).unwrap();
}

/// Puts another file of the same length and time under the name.
fn renamed_over(path: &Path) {
    let other = path.with_extension("other");
    let then = fs::metadata(path).unwrap().modified().unwrap();
    fs::copy(path, &other).unwrap();
    in_place(&other);
    File::options().write(true).open(&other).unwrap().set_modified(then).unwrap();
    fs::rename(&other, path).unwrap();
}

fn cut(path: &Path) {
    let bytes = fs::metadata(path).unwrap().len();
    File::options().write(true).open(path).unwrap().set_len(bytes / 2).unwrap();
}

#[test]
fn a_source_that_is_rewritten_meanwhile_is_refused() {
    type Rewrite = fn(&Path);
    let rewrites: [(Rewrite, &str); 3] = [
        (in_place, "time of the last change"),
        (renamed_over, if cfg!(unix) { "file under this name" } else { "time of the last change" }),
        (cut, "length"),
    ];
    for (rewrite, expected) in rewrites {
        for file in ["model.safetensors", "tokenizer.json"] {
            let (dir, out) = (source(), tempfile::tempdir().unwrap());
            let path = dir.path().join(file);
            let checkpoint = Checkpoint::open(dir.path()).unwrap();
            let options = ExecuteOptions {
                level: Isa::detect(),
                restart: false,
                measurements: None,
                origin: None,
                check: None,
                existing: gq_files::Existing::Replaced,
            };
            let output = out.path().join("m.gq");
            let mut events = 0;
            let plan = plan(&checkpoint, &policy("tq4", &[]));
            let outcome = gq_convert::execute(&plan, &checkpoint, &output, options, &mut |event| {
                assert!(!matches!(event, Event::Finished { .. }));
                events += 1;
                // In the middle: some tensors have been read, others have not.
                if events == 5 {
                    rewrite(&path);
                }
            });
            match outcome {
                Err(ConvertError::Values(ReadError::Changed { path: changed, what, .. })) => {
                    assert_eq!((changed, what), (path, expected), "{file}");
                }
                other => panic!("{file}: {other:?}"),
            }
            assert!(events > 5, "{events}");
            let left: Vec<_> = fs::read_dir(out.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert!(left.is_empty(), "{file}: {left:?}");
        }
    }
}

#[test]
fn an_adapter_that_is_rewritten_meanwhile_is_refused() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(shared("lora/demo").join(file), dir.path().join(file)).unwrap();
    }
    let adapter = gq_checkpoint::Adapter::open(dir.path(), 1.0).unwrap();
    let checkpoint = Checkpoint::open(shared("demo")).unwrap().with_adapters(vec![adapter]).unwrap();
    let options = ExecuteOptions {
        level: Isa::detect(),
        restart: false,
        measurements: None,
        origin: None,
        check: None,
        existing: gq_files::Existing::Replaced,
    };
    let output = out.path().join("m.gq");
    let plan = plan(&checkpoint, &policy("tq4", &[]));
    let weights = dir.path().join("adapter_model.safetensors");
    let outcome = gq_convert::execute(&plan, &checkpoint, &output, options, &mut |_| renamed_over(&weights));
    assert!(matches!(outcome, Err(ConvertError::Values(ReadError::Changed { .. }))), "{outcome:?}");
    assert!(!output.exists());
}

#[test]
fn what_is_recorded_is_what_was_read() {
    let (dir, out) = (source(), tempfile::tempdir().unwrap());
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let (_, container) =
        crate::support::convert(&checkpoint, &policy("tq4", &[]), &out.path().join("m.gq")).unwrap();
    let provenance = container.provenance().unwrap().unwrap();
    assert!(provenance.source.texts.is_none());
    for file in provenance.source.files {
        let source = checkpoint.files().iter().find(|source| source.name == file.name).unwrap();
        assert_eq!(file.sha256.to_string(), source.sha256(|_| {}).unwrap(), "{}", file.name);
    }
}
