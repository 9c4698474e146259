//! What a model takes of a GPU, on the stand-in of the driver: as much as was planned, not less and not more.

use crate::cuda::{error, options};
use crate::fixtures::{Recipe, contained, exact, tiny, tiny_model};
use gq_model::cpu::{self, Sums};
use gq_model::{ActivationMode, KvCache, KvType, Linear, LogitRows, Matrix, Model, Ops, RunOptions, cuda};
use gq_tensor::{Encoding, Isa, MatrixShape, RotationKind, RotationSpec, Storage};

/// One tiny checkpoint of every graph, in codes.
const FAMILIES: [(&str, &str); 16] = [
    ("llama", "tq4"),
    ("llama3", "tt3"),
    ("qwen2", "tq4"),
    ("qwen3", "tt4"),
    ("qwen3-moe", "tq4"),
    ("qwen3-moe-mixed", "tt4"),
    ("gpt-oss", "tq4"),
    ("mistral", "tt2"),
    ("ministral3", "tq4"),
    ("phi3", "tq4"),
    ("phi3-long", "tt4"),
    ("gemma3", "tt4"),
    ("gemma4-e2b", "tt4"),
    ("gemma4-e4b", "tq4"),
    ("gemma4-moe", "tt3"),
    ("gemma4-dense", "tq4"),
];

/// Launches of a step of one token without its logits, all layers and what comes before them: of 2 layers of Llama, Mistral and
/// Qwen3 (11 a layer), 3 of Qwen2 (a bias more) and of Gemma 3, 4 of Gemma 4's dense model (11). Narrow matrices in a trellis
/// code lie in no common one (14), queries and keys of which only a part turns come back from the host (13). Experts, per-layer embeddings and what is computed on the host take more.
const LAUNCHES: [(&str, &str, u64); 16] = [
    ("llama", "tq4", 23),
    ("llama", "tt4", 29),
    ("llama3", "tq4", 23),
    ("qwen2", "tq4", 37),
    ("qwen3", "tq4", 23),
    ("qwen3-moe", "tq4", 35),
    ("gpt-oss", "tq4", 58),
    ("mistral", "tq4", 23),
    ("ministral3", "tq4", 23),
    ("phi3", "tq4", 27),
    ("phi3-long", "tq4", 23),
    ("gemma3", "tq4", 34),
    ("gemma4-e2b", "tq4", 114),
    ("gemma4-e4b", "tq4", 121),
    ("gemma4-moe", "tq4", 74),
    ("gemma4-dense", "tq4", 45),
];

/// Weights are planned from names, shapes and storages alone, and take that up to what aligns them, whatever is run.
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
        // Several matrices that lie in one leave no gaps, which were planned.
        let (filled, planned) = model.gpu_weights().unwrap();
        assert_eq!(planned, Some(plan.weights), "{name}");
        let gaps = plan.weights - filled;
        assert!(gaps <= 512 * container.tensors().len() as u64 && 33 * gaps < plan.weights, "{name}: {gaps}");
    }
}

/// The same captured or not, and not one more than there were.
#[test]
fn launches_of_a_token_are_few() {
    let name = "cuda_memory::launches_of_a_token_are_few";
    let Some(()) = gq_stand_in::inside(name, "races=0") else { return };
    for (name, encoding, launches) in LAUNCHES {
        let dir = tempfile::tempdir().unwrap();
        let encoding = Encoding::from_name(encoding).unwrap();
        let recipe = Recipe { encoding, rotation: RotationKind::Hadamard };
        let container = contained(&tiny(name), recipe, &dir.path().join("model.gq"));
        let mut model = Model::from_container(container, options(KvType::F16)).unwrap();
        model.move_to_gpu(0, 32).unwrap();
        let (mut cache, mut logits) = (model.new_cache(32), Vec::new());
        let mut counts = Vec::new();
        for token in [1, 2, 3, 4] {
            let before = model.gpu_launches().unwrap();
            model.forward(&[token], &mut cache, LogitRows::Range(0..0), &mut logits).unwrap();
            counts.push(model.gpu_launches().unwrap() - before);
        }
        assert_eq!(counts, [launches; 4], "{name} in {}", encoding.name());
    }
}

/// Scratch memory is planned with room for what families do not have in common, and no more than three times what is used.
#[test]
fn scratch_memory_is_used() {
    let name = "cuda_memory::scratch_memory_is_used";
    let Some(()) = gq_stand_in::inside(name, "races=0") else { return };
    for (name, is_coded) in [("ministral3", false), ("qwen3-moe", true), ("gemma4-e4b", true)] {
        let dir = tempfile::tempdir().unwrap();
        let encoding = Encoding::from_name("tt4").unwrap();
        let recipe = Recipe { encoding, rotation: RotationKind::Hadamard };
        let mut model = match is_coded {
            true => {
                let container = contained(&tiny(name), recipe, &dir.path().join("model.gq"));
                Model::from_container(container, options(KvType::F16)).unwrap()
            }
            false => tiny_model(name, RunOptions { kv: KvType::F16, ..exact(Isa::detect()) }),
        };
        model.move_to_gpu(0, 256).unwrap();
        let vocab = model.vocab_size() as u32;
        let tokens: Vec<u32> = (0..256).map(|i| (i * i * 7 + 3 * i + 5) % vocab).collect();
        let (mut cache, mut logits) = (model.new_cache(256), Vec::new());
        model.forward(&tokens, &mut cache, LogitRows::Range(0..8), &mut logits).unwrap();
        let (peak, planned) = model.gpu_scratch().unwrap();
        assert!(4 * peak < 3 * planned && 3 * peak > planned, "{name}: {peak} of {planned}");
    }
}

/// Rows of 28672 columns, as Llama 3 70B's: codes stay codes there, and meet what they meet on the CPU.
#[test]
fn wide_rows_stay_codes() {
    let Some(()) = gq_stand_in::inside("cuda_memory::wide_rows_stay_codes", "races=0") else { return };
    let (cols, name, checkpoint) = (28672, "model.layers.0.mlp.down_proj.weight", tiny("llama"));
    let spec = checkpoint.spec();
    let rotation = RotationSpec { kind: RotationKind::Hadamard, seed: 5 };
    let storage = Storage::new(Encoding::from_name("tq4").unwrap(), rotation);
    let plan = cuda::planned(spec, [(name, &[2, cols as u64][..], storage)], 4, KvType::F32);
    // Half a byte a weight, scales, a bit of sign for each column, and the factors of 7.
    assert!((cols as u64 + cols as u64 / 8..cols as u64 + 5000).contains(&plan.weights), "{plan:?}");
    let shape = MatrixShape::new(2, cols);
    let payload = vec![0x3c; shape.payload_bytes(storage.encoding).unwrap() as usize];
    let linear = Linear::in_memory(name, storage, shape, payload).unwrap();
    let data = (0..3 * cols as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 16) as f32 / 65536.0 - 0.5);
    let x = Matrix { width: cols, data: data.collect() };
    let mut runner = cuda::Runner::bare(0, 4 << 20, Isa::detect()).unwrap();
    let cache = KvCache::on_device(spec, 3, KvType::F32, 3);
    let mut on_gpu = cuda::Batch::begin(&mut runner, spec, &cache, 3).unwrap();
    let at = on_gpu.bring(&x);
    let [y] = on_gpu.linear(&at, [&linear]);
    let made = on_gpu.read(&y).unwrap();
    let mut cache = KvCache::new(spec, 3, KvType::F32);
    let sums = Sums::Fastest(ActivationMode::Int8);
    let mut on_cpu = cpu::Batch::new(Isa::detect(), sums, &spec.ropes, vec![(3, &mut cache)]);
    let [expected] = on_cpu.linear(&x, [&linear]);
    assert!(error(&made.data, &expected.data) < 1e-5);
}
