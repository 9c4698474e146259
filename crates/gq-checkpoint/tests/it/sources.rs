//! Sources that are not as they were saved: shards without their index, wrappers' prefixes, pointers, parts of downloads.

use crate::support::{scratch, testdata};
use gq_checkpoint::{Checkpoint, CheckpointError, Note, ReadError, StandIn, TensorError};
use std::fs;
use std::path::Path;

const INDEX: &str = "model.safetensors.index.json";
const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 396344\n";

/// Every tensor's values.
fn values(checkpoint: &Checkpoint) -> Vec<(String, Vec<f32>)> {
    let read = |tensor: &gq_checkpoint::SourceTensor| {
        let mut values = vec![0.0; tensor.rows() * tensor.cols()];
        checkpoint.read_rows_f32(tensor, 0..tensor.rows(), &mut values).unwrap();
        (tensor.name.clone(), values)
    };
    let mut all: Vec<_> = checkpoint.tensors().iter().map(read).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn same(dir: &Path, original: &str) -> Checkpoint {
    let checkpoint = Checkpoint::open(dir).unwrap();
    let original = Checkpoint::open(testdata(original)).unwrap();
    assert_eq!(values(&checkpoint), values(&original));
    checkpoint
}

#[test]
fn shards_without_an_index_are_read_when_they_are_whole() {
    let dir = scratch("tiny/gemma3");
    let index = fs::read_to_string(dir.path().join(INDEX)).unwrap();
    fs::remove_file(dir.path().join(INDEX)).unwrap();
    let checkpoint = same(dir.path(), "tiny/gemma3");
    assert!(matches!(checkpoint.notes(), [Note::NoIndex { shards: 4, .. }]), "{:?}", checkpoint.notes());

    // An index of other files.
    let stale = index.replace("-of-00004", "-of-00002");
    fs::write(dir.path().join(INDEX), stale).unwrap();
    let checkpoint = same(dir.path(), "tiny/gemma3");
    assert!(matches!(checkpoint.notes(), [Note::StaleIndex { .. }]), "{:?}", checkpoint.notes());

    // An index that puts a tensor into another shard, and one that knows too few.
    for (from, to) in [
        ("\"model.norm.weight\": \"model-00004-of-00004", "\"model.norm.weight\": \"model-00001-of-00004"),
        ("\"model.norm.weight\"", "\"model.norm.other\""),
    ] {
        let changed = index.replace(from, to);
        assert_ne!(changed, index);
        fs::write(dir.path().join(INDEX), changed).unwrap();
        let checkpoint = same(dir.path(), "tiny/gemma3");
        assert!(matches!(checkpoint.notes(), [Note::StaleIndex { .. }]), "{:?}", checkpoint.notes());
    }

    // A number that is missing, with the index and without.
    fs::remove_file(dir.path().join("model-00002-of-00004.safetensors")).unwrap();
    fs::write(dir.path().join(INDEX), &index).unwrap();
    let error = Checkpoint::open(dir.path()).unwrap_err();
    assert!(
        error.to_string().contains("model-00002-of-00004.safetensors\", which does not exist"),
        "{error}"
    );
    fs::remove_file(dir.path().join(INDEX)).unwrap();
    let error = Checkpoint::open(dir.path()).unwrap_err();
    let CheckpointError::ShardMissing { file, of: 4, .. } = error else { panic!("{error}") };
    assert_eq!(file, "model-00002-of-00004.safetensors");
}

#[test]
fn a_tensor_in_two_shards_is_refused() {
    let dir = scratch("tiny/gemma3");
    fs::remove_file(dir.path().join(INDEX)).unwrap();
    let shard = |number: u32| dir.path().join(format!("model-{number:05}-of-00004.safetensors"));
    fs::copy(shard(2), shard(3)).unwrap();
    let error = Checkpoint::open(dir.path()).unwrap_err();
    assert!(matches!(error, CheckpointError::Tensors(TensorError::Duplicate { .. })), "{error}");
}

#[test]
fn an_index_of_absent_files_beside_one_whole_file_is_passed_over() {
    let dir = scratch("tiny/llama");
    let index = r#"{"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}"#;
    fs::write(dir.path().join(INDEX), index).unwrap();
    let checkpoint = same(dir.path(), "tiny/llama");
    assert!(matches!(checkpoint.notes(), [Note::StaleIndex { .. }]), "{:?}", checkpoint.notes());
    fs::write(dir.path().join("consolidated.safetensors"), b"another layout").unwrap();
    same(dir.path(), "tiny/llama");

    // Two sets of weights: which one is meant is not known.
    let dir = scratch("tiny/gemma3");
    fs::copy(testdata("tiny/llama/model.safetensors"), dir.path().join("model.safetensors")).unwrap();
    let error = Checkpoint::open(dir.path()).unwrap_err();
    assert!(matches!(error, CheckpointError::StrayWeights { .. }), "{error}");
}

#[test]
fn a_text_above_its_limit_is_said_to_be_long_and_not_empty() {
    for name in ["chat_template.jinja", "generation_config.json", "config.json"] {
        let dir = scratch("tiny/llama");
        fs::File::create(dir.path().join(name)).unwrap().set_len(100 << 20).unwrap();
        // Texts other than the configuration are read when they are asked for.
        let read = Checkpoint::open(dir.path()).and_then(|checkpoint| checkpoint.texts().map(|_| ()));
        let error = read.unwrap_err();
        assert!(
            matches!(error, CheckpointError::TextTooLong { actual, .. } if actual == 100 << 20),
            "{error}"
        );
    }
}

/// Writes `dir`'s weights again with other names.
fn rename(dir: &Path, rename: impl Fn(&str) -> String) {
    let path = dir.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let renamed: serde_json::Map<String, serde_json::Value> = header
        .into_iter()
        .map(|(name, value)| if name == "__metadata__" { (name, value) } else { (rename(&name), value) })
        .collect();
    let header = serde_json::to_vec(&renamed).unwrap();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend(&bytes[8 + length..]);
    fs::write(path, file).unwrap();
}

#[test]
fn prefixes_of_wrappers_are_taken_off_where_every_name_has_them() {
    for prefix in ["base_model.model.", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."] {
        let dir = scratch("tiny/llama");
        rename(dir.path(), |name| format!("{prefix}{name}"));
        let checkpoint = same(dir.path(), "tiny/llama");
        let expected = [Note::Prefix { prefix: prefix.to_owned() }];
        assert_eq!(checkpoint.notes(), expected);
    }
    let dir = scratch("tiny/llama");
    rename(dir.path(), |name| match name {
        "lm_head.weight" => name.to_owned(),
        _ => format!("module.{name}"),
    });
    let error = Checkpoint::open(dir.path()).unwrap_err();
    assert!(matches!(error, CheckpointError::Tensors(TensorError::Unexpected { .. })), "{error}");
    // A model that was saved with its adapter next to the weights.
    let dir = scratch("tiny/llama");
    rename(dir.path(), |name| {
        let name =
            name.replace("layers.0.self_attn.q_proj.weight", "layers.0.self_attn.q_proj.base_layer.weight");
        format!("base_model.model.{name}")
    });
    let error = Checkpoint::open(dir.path()).unwrap_err();
    assert!(matches!(error, CheckpointError::Tensors(TensorError::Unmerged { .. })), "{error}");
}

#[test]
fn whatever_lies_in_a_files_place_is_called_by_its_name() {
    let page = "<!DOCTYPE html><html><head><title>Sign in</title></head></html>";
    for file in [
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "generation_config.json",
    ] {
        for (content, expected) in [
            (POINTER, StandIn::LfsPointer { bytes: Some(396_344) }),
            (page, StandIn::WebPage),
            ("", StandIn::Empty),
            ("/annex/objects/SHA256E-s396344--4d7a\n", StandIn::AnnexPointer),
        ] {
            let dir = scratch("demo");
            fs::write(dir.path().join(file), content).unwrap();
            let texts = Checkpoint::open(dir.path()).and_then(|checkpoint| checkpoint.texts());
            match texts {
                Err(CheckpointError::StandIn { path, what }) => {
                    assert_eq!((path, what), (dir.path().join(file), expected), "{file}");
                }
                other => panic!("{file}: {other:?}"),
            }
        }
    }
    for (file, ok) in [("LICENSE", true), ("README.md", true)] {
        let dir = scratch("demo");
        fs::write(dir.path().join(file), "").unwrap();
        assert_eq!(Checkpoint::open(dir.path()).unwrap().texts().is_ok(), ok);
        fs::write(dir.path().join(file), POINTER).unwrap();
        let error = Checkpoint::open(dir.path()).unwrap().texts().unwrap_err();
        assert!(matches!(error, CheckpointError::StandIn { .. }), "{error}");
    }
    let dir = scratch("tiny/gemma3");
    fs::write(dir.path().join(INDEX), POINTER).unwrap();
    assert!(matches!(Checkpoint::open(dir.path()).unwrap_err(), CheckpointError::StandIn { .. }));
    let gguf = dir.path().join("m.gguf");
    fs::write(&gguf, POINTER).unwrap();
    let error = Checkpoint::open(&gguf).unwrap_err().to_string();
    assert!(error.contains("a Git LFS pointer to 396344 bytes"), "{error}");
}

#[test]
fn what_is_not_there_is_said_with_what_is_there_instead() {
    let open = |files: &[(&str, &str)]| {
        let dir = tempfile::tempdir().unwrap();
        fs::copy(testdata("tiny/llama/config.json"), dir.path().join("config.json")).unwrap();
        for (file, content) in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        Checkpoint::open(dir.path()).unwrap_err()
    };
    let unfinished = |error: CheckpointError| match error {
        CheckpointError::Unfinished { path } => path.file_name().unwrap().to_string_lossy().into_owned(),
        other => panic!("{other}"),
    };
    assert!(matches!(open(&[]), CheckpointError::NoWeights { .. }));
    assert!(matches!(open(&[("pytorch_model.bin", "PK")]), CheckpointError::Pickle { .. }));
    for part in [
        "model.safetensors.part",
        "model.safetensors.incomplete",
        "model-00001-of-00002.safetensors.crdownload",
    ] {
        assert_eq!(unfinished(open(&[(part, "x")])), part);
    }
    let hub = ".cache/huggingface/download/abc.4d7a.incomplete";
    assert_eq!(unfinished(open(&[(hub, "x")])), "abc.4d7a.incomplete");
    // A browser's empty place, and a file of full length that aria2 has not filled.
    assert_eq!(
        unfinished(open(&[("model.safetensors", ""), ("model.safetensors.part", "x")])),
        "model.safetensors.part"
    );
    let zeros = "\0".repeat(200);
    assert_eq!(
        unfinished(open(&[("model.safetensors", &zeros), ("model.safetensors.aria2", "x")])),
        "model.safetensors.aria2"
    );
    let dir = scratch("lora/plain");
    assert!(matches!(Checkpoint::open(dir.path()).unwrap_err(), CheckpointError::IsAdapter { .. }));
}

#[test]
fn a_file_that_changed_after_opening_is_named() {
    for file in ["model.safetensors", "tokenizer.json"] {
        let dir = scratch("demo");
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        checkpoint.check_unchanged().unwrap();
        let path = dir.path().join(file);
        let content = fs::read(&path).unwrap();
        let other = dir.path().join("other");
        fs::write(&other, vec![b' '; content.len()]).unwrap();
        fs::rename(&other, &path).unwrap();
        let error = checkpoint.check_unchanged().unwrap_err();
        assert!(matches!(&error, ReadError::Changed { path: changed, .. } if *changed == path), "{error}");
        if file == "model.safetensors" {
            // What is read goes on coming from the file that was opened.
            let mut start = [0; 64];
            checkpoint.read_file(0, 0, &mut start).unwrap();
            assert_eq!(start, content[..64]);
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(checkpoint.check_unchanged(), Err(ReadError::Changed { what: "name", .. })));
    }
}
