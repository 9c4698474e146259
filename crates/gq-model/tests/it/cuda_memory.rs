//! What a model takes of a GPU, on the stand-in of the driver: as much as was planned, not less and not more.

use crate::cuda::options;
use crate::fixtures::{Recipe, contained, tiny};
use gq_model::{KvType, LogitRows, Model, cuda};
use gq_tensor::{Encoding, RotationKind};

/// One tiny checkpoint of every graph, in codes.
const FAMILIES: [(&str, &str); 14] = [
    ("llama", "tq4"),
    ("llama3", "tt3"),
    ("qwen2", "tq4"),
    ("qwen3", "tt4"),
    ("qwen3-moe", "tq4"),
    ("qwen3-moe-mixed", "tt4"),
    ("gpt-oss", "tq4"),
    ("mistral", "tt2"),
    ("ministral3", "tq4"),
    ("gemma3", "tt4"),
    ("gemma4-e2b", "tt4"),
    ("gemma4-e4b", "tq4"),
    ("gemma4-moe", "tt3"),
    ("gemma4-dense", "tq4"),
];

/// Weights are planned from names, shapes and storages alone, and take that to the byte, whatever is run.
#[test]
fn what_is_brought_is_what_was_planned() {
    let name = "cuda_memory::what_is_brought_is_what_was_planned";
    let Some(()) = gq_stand_in::inside(name, "races=0") else { return };
    for (name, encoding) in FAMILIES {
        let dir = tempfile::tempdir().unwrap();
        let encoding = Encoding::from_name(encoding).unwrap();
        let recipe = Recipe { encoding, rotation: RotationKind::Hadamard };
        let container = contained(&tiny(name), recipe, &dir.path().join("model.gq"));
        let mut model = Model::from_container(container.clone(), options(KvType::Q8)).unwrap();
        let plan = model.move_to_gpu(0, 32).unwrap();
        let shapes: Vec<_> = container.tensors().iter().map(|t| (&*t.name, &*t.shape, t.storage())).collect();
        assert_eq!(cuda::planned(model.spec(), shapes, 32, KvType::Q8), plan, "{name}");
        let tokens: Vec<u32> = (0..32).map(|i| (i * i * 7 + 3 * i + 5) % model.vocab_size() as u32).collect();
        let (mut cache, mut logits) = (model.new_cache(32), Vec::new());
        model.forward(&tokens[..29], &mut cache, LogitRows::All, &mut logits).unwrap();
        for token in &tokens[29..] {
            model.forward(&[*token], &mut cache, LogitRows::Last, &mut logits).unwrap();
        }
        assert_eq!(model.gpu_weights(), Some((plan.weights, Some(plan.weights))), "{name}");
    }
}
