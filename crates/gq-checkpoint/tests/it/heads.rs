//! Heads and embeddings that the configuration ties, in files that have both or one. What transformers 5.23 does with the
//! same files (`from_pretrained`): two that differ are both used, a lone head is the embedding too, and untied ones that
//! are missing are made up, which is refused here.

use crate::support::scratch;
use gq_checkpoint::keys::Ignored;
use gq_checkpoint::{Checkpoint, CheckpointError, Note, OpenOptions, Role, TensorError, parse_config};
use std::path::Path;

fn set(dir: &Path, key: &str, value: serde_json::Value) {
    let path = dir.join("config.json");
    let mut config: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    config[key] = value;
    std::fs::write(path, config.to_string()).unwrap();
}

/// Gives a tensor a shorter name; the header keeps its length.
fn rename(dir: &Path, from: &str, to: &str) {
    let path = dir.join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = std::str::from_utf8(&bytes[8..8 + length]).unwrap();
    let renamed = header.replace(&format!("\"{from}\""), &format!("\"{to}\""));
    assert_ne!(header, renamed);
    bytes.splice(8..8 + length, format!("{renamed:<length$}").into_bytes());
    std::fs::write(path, bytes).unwrap();
}

fn values(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let tensor = checkpoint.tensor(name).unwrap();
    let mut values = vec![0.0; tensor.rows() * tensor.cols()];
    checkpoint.read_rows_f32(tensor, 0..tensor.rows(), &mut values).unwrap();
    values
}

#[test]
fn tied_heads_that_differ_are_both_used() {
    let dir = scratch("tiny/llama");
    let plain = Checkpoint::open(dir.path()).unwrap();
    assert!(plain.notes().is_empty());
    set(dir.path(), "tie_word_embeddings", true.into());
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let note = Note::Untied { head: "lm_head.weight".into(), embedding: "model.embed_tokens.weight".into() };
    assert_eq!(checkpoint.notes(), [note]);
    assert_eq!(checkpoint.spec(), plain.spec());
    assert_eq!(checkpoint.tensor("lm_head.weight").unwrap().role, Role::Head);
    // What a conversion carries says it as well.
    assert_eq!(&parse_config(&checkpoint.texts().unwrap().config).unwrap(), plain.spec());
}

#[test]
fn a_lone_head_is_the_embedding_too() {
    let dir = scratch("tiny/llama3");
    let plain = Checkpoint::open(dir.path()).unwrap();
    rename(dir.path(), "model.embed_tokens.weight", "lm_head.weight");
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(checkpoint.notes(), [Note::HeadIsEmbedding { head: "lm_head.weight".into() }]);
    assert_eq!(checkpoint.spec(), plain.spec());
    let name = "model.embed_tokens.weight";
    assert_eq!(values(&checkpoint, name), values(&plain, name));
    assert_eq!(checkpoint.tensor(name).unwrap().role, Role::Embedding);

    set(dir.path(), "tie_word_embeddings", false.into());
    let error = Checkpoint::open(dir.path()).unwrap_err();
    assert!(matches!(error, CheckpointError::Tensors(TensorError::Missing { name: lost }) if lost == name));
}

#[test]
fn keys_that_were_read_over_are_named_and_accepted_ones_left_out() {
    let dir = scratch("tiny/llama");
    let path = dir.path().join("config.json");
    let plain = Checkpoint::open(dir.path()).unwrap().texts().unwrap().config;
    set(dir.path(), "unsloth_version", "1".into());
    set(dir.path(), "model_max_length", 5.into());
    let keys = |keys: &[&str], why| Note::Keys {
        path: path.clone(),
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        why,
    };
    let left = keys(&["unsloth_version", "model_max_length"], Ignored::LeftBehind);
    assert_eq!(Checkpoint::open(dir.path()).unwrap().notes(), std::slice::from_ref(&left));

    set(dir.path(), "alibi", true.into());
    assert!(Checkpoint::open(dir.path()).is_err());
    let accepting = |name: &str| {
        let mut options = OpenOptions::default();
        options.ignored_keys = vec![name.to_owned()];
        Checkpoint::open_with(dir.path(), &options)
    };
    assert!(accepting("alib").is_err());
    let checkpoint = accepting("alibi").unwrap();
    assert_eq!(checkpoint.notes(), [left, keys(&["alibi"], Ignored::Accepted)]);
    // A conversion can be opened again without saying so.
    let carried = checkpoint.texts().unwrap().config;
    assert_eq!(parse_config(&carried).unwrap(), parse_config(&plain).unwrap());
}
