//! Valid checkpoints: facts, rows, maps, texts, digests.

use crate::support::{scratch, testdata};
use gq_checkpoint::{Checkpoint, FileKind, Note, Role};

const TINY: [&str; 17] = [
    "llama",
    "qwen2",
    "qwen3",
    "qwen3-moe",
    "qwen3-moe-mixed",
    "gpt-oss",
    "gpt-oss-resaved",
    "mistral",
    "ministral3",
    "phi3",
    "phi3-long",
    "gemma3",
    "gemma4-e2b",
    "gemma4-e4b",
    "gemma4-moe",
    "gemma4-dense",
    "gemma4-vision",
];

fn tiny(name: &str) -> Checkpoint {
    Checkpoint::open(testdata(&format!("tiny/{name}"))).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn every_byte_of_every_tiny_checkpoint_has_a_role() {
    for name in TINY {
        let checkpoint = tiny(name);
        let used = checkpoint.tensors().iter().filter(|tensor| tensor.role.is_used()).count();
        assert_eq!(used, checkpoint.spec().expected_tensors().len(), "{name}");
        for tensor in checkpoint.tensors() {
            let file = &checkpoint.files()[tensor.file];
            assert_eq!(file.kind, FileKind::Weights);
            assert!(!tensor.pieces.is_empty() || tensor.offset + tensor.bytes <= file.bytes, "{name}");
            for piece in &tensor.pieces {
                let file = &checkpoint.files()[piece.file];
                assert!(piece.offset + piece.bytes <= file.bytes, "{name}: {}", piece.source_name);
            }
            assert_eq!(checkpoint.tensor(&tensor.name), Some(tensor));
        }
        assert!(!checkpoint.has_tokenizer());
        let texts = checkpoint.texts().unwrap();
        assert!(
            texts.config.contains("model_type") && texts.tokenizer.is_none() && texts.licences.is_empty()
        );
    }
}

#[test]
fn unused_and_tower_tensors_are_listed() {
    let names = |checkpoint: &Checkpoint, role: Role| {
        let of_role = checkpoint.tensors().iter().filter(|tensor| tensor.role == role);
        of_role.map(|tensor| tensor.name.clone()).collect::<Vec<_>>()
    };
    let unused = names(&tiny("gemma4-e2b"), Role::Unused);
    let mut expected = Vec::new();
    for layer in [3, 4] {
        for part in ["k_norm", "k_proj", "v_proj"] {
            expected.push(format!("model.layers.{layer}.self_attn.{part}.weight"));
        }
    }
    assert_eq!(unused, expected);
    let vision = tiny("gemma4-vision");
    let towers = names(&vision, Role::Tower);
    assert!(towers.contains(&"model.embed_vision.embedding_projection.weight".to_owned()));
    assert_eq!(towers.len(), 16);
    let embedding = vision.tensor("model.embed_tokens.weight").unwrap();
    assert_eq!(embedding.source_name, "model.language_model.embed_tokens.weight");
}

#[test]
fn rows_read_in_any_way_are_the_mapped_bytes() {
    for name in ["llama", "gemma4-moe", "gemma4-dense"] {
        let checkpoint = tiny(name);
        let map = checkpoint.map().unwrap();
        for tensor in checkpoint.tensors() {
            let bytes = map.bytes(tensor);
            assert_eq!(bytes.len() as u64, tensor.bytes);
            let values: Vec<f32> = bytes
                .chunks_exact(2)
                .map(|pair| f32::from_bits(u32::from(u16::from_le_bytes([pair[0], pair[1]])) << 16))
                .collect();
            let mut all = vec![0.0; tensor.rows() * tensor.cols()];
            checkpoint.read_rows_f32(tensor, 0..tensor.rows(), &mut all).unwrap();
            assert_eq!(all, values);
            let last = tensor.rows() - 1;
            let mut row = vec![0.0; tensor.cols()];
            checkpoint.read_rows_f32(tensor, last..tensor.rows(), &mut row).unwrap();
            assert_eq!(row, values[last * tensor.cols()..]);
            let mut middle = vec![0; 2];
            checkpoint.read_bytes(tensor, 0..2, &mut middle).unwrap();
            assert_eq!(middle, bytes[..2]);
        }
    }
}

#[test]
fn threads_read_at_once() {
    let checkpoint = tiny("llama");
    let tensor = checkpoint.tensor("model.embed_tokens.weight").unwrap();
    let mut expected = vec![0.0; tensor.rows() * tensor.cols()];
    checkpoint.read_rows_f32(tensor, 0..tensor.rows(), &mut expected).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (checkpoint, expected) = (&checkpoint, &expected);
            scope.spawn(move || {
                let mut row = vec![0.0; tensor.cols()];
                for index in (thread..tensor.rows()).step_by(3) {
                    checkpoint.read_rows_f32(tensor, index..index + 1, &mut row).unwrap();
                    assert_eq!(row, expected[index * tensor.cols()..][..tensor.cols()]);
                }
            });
        }
    });
}

#[test]
fn requests_out_of_range_are_refused() {
    let checkpoint = tiny("llama");
    let tensor = checkpoint.tensor("model.norm.weight").unwrap();
    let mut out = [0.0; 96];
    let rows = |rows, out: &mut [f32]| checkpoint.read_rows_f32(tensor, rows, out).unwrap_err().to_string();
    assert_eq!(rows(1..2, &mut out), r#"tensor "model.norm.weight": rows 1..2 of 1"#);
    assert_eq!(rows(0..1, &mut out[..5]), r#"tensor "model.norm.weight": a buffer of 5 for 96 values"#);
    let bytes = checkpoint.read_bytes(tensor, 190..193, &mut [0; 3]).unwrap_err().to_string();
    assert_eq!(bytes, r#"tensor "model.norm.weight": bytes 190..193 of 192"#);
}

#[test]
fn texts_and_digests_of_a_whole_checkpoint() {
    let dir = scratch("demo");
    std::fs::write(dir.path().join("LICENSE.txt"), "terms").unwrap();
    std::fs::write(dir.path().join("README.md"), "---\nlicense: mit\n---\n# A model\n").unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let texts = checkpoint.texts().unwrap();
    assert!(checkpoint.has_tokenizer() && texts.tokenizer.is_some() && texts.generation_config.is_some());
    assert_eq!(
        texts.chat_template.unwrap(),
        std::fs::read_to_string(testdata("demo/chat_template.jinja")).unwrap()
    );
    assert_eq!((texts.licences[0].name.as_str(), texts.licences[0].text.as_str()), ("LICENSE.txt", "terms"));
    assert_eq!(texts.licence_name.as_deref(), Some("mit"));
    let licence = checkpoint.files().iter().find(|file| file.name == "LICENSE.txt").unwrap();
    let mut seen = 0;
    let digest = licence.sha256(|bytes| seen += bytes).unwrap();
    assert_eq!(
        (digest.as_str(), seen),
        ("51d2361f4faea3bc8f9facdbc7d99abb555596a2e51f7b25fd3b41c93587e616", 5)
    );
}

#[test]
fn front_matter_that_is_no_yaml_is_told_and_nothing_else_depends_on_it() {
    let dir = scratch("demo");
    let path = dir.path().join("README.md");
    std::fs::write(&path, "---\ntags:\n- a\nlicense: \"mit\n---\n# A model\n").unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let [Note::Card { path: told, error }] = checkpoint.notes() else { panic!("{:?}", checkpoint.notes()) };
    assert_eq!((told, error.line), (&path, 4));
    let texts = checkpoint.texts().unwrap();
    assert!(texts.licence_name.is_none() && texts.tokenizer.is_some());
}
