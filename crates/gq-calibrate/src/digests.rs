//! Digests of what deterministic arithmetic computes on the tiny checkpoints: measurements and codes hang on these bits, so a
//! change of graphs, blocks or operators that moves one is a change of the format of calibrations.

use crate::{CalibrationPass, DualPass, Observation, Replacements, Trial, TrialPass, fisher_diagonal};
use gq_checkpoint::{Checkpoint, Role};
use gq_model::{KvType, Linear, Matrix, Model};
use gq_suite::{tiny, tiny_path};
use gq_tensor::{DType, Encoding, Isa, Storage};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// By checkpoint: moments of gradients, observed inputs, divergences of trials, inputs of dual passes, logits of
/// several sequences in one batch.
const DIGESTS: &[(&str, [&str; 5])] = &[
    (
        "llama",
        ["4001065b03fc6bf7", "0b0c9d746d56958d", "cd9484ff2f69b2ae", "230785551ab8c15f", "eab7589cc13ea545"],
    ),
    (
        "qwen2",
        ["375a5fb5b7c855fc", "7261b3cf5a0c1a02", "fed5a7a3746a3cbd", "35d382b20df24f7c", "b60ae63e060a36c0"],
    ),
    (
        "qwen3-moe",
        ["f4a2604a7a04dc36", "3892150616da39a4", "13082f220853588b", "a893f5409e720eeb", "290cc41b1040907a"],
    ),
    (
        "qwen3-moe-mixed",
        ["fed5772abc668a7a", "4fbbe2635986070d", "22fa4e4972351a24", "be3a7310e1866b93", "024f15ba4046f2db"],
    ),
    (
        "gemma3",
        ["77a27519898ab746", "21a4314e51c3e206", "d828517ea7a673d7", "57e51967cb187cb7", "f8281aba103aa88d"],
    ),
    (
        "gemma4-e2b",
        ["f672136f0c58f80f", "36dc916cbdc90c2e", "5f459b3628f7d341", "645857d8e059af45", "e916b8398145b040"],
    ),
    (
        "gemma4-moe",
        ["311e9d23ed4b6752", "1ca92b1cbd12ac15", "a7799b617a858e59", "5a2a193cb9f7d081", "5d715206da03cd3c"],
    ),
    (
        "gemma4-dense",
        ["3a64ad3c019891a5", "e777ab18e6ef3730", "bad3ef123a626d2f", "c30d711c422d6d3b", "d4241c9265397796"],
    ),
];

fn hex(sum: Sha256) -> String {
    sum.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

struct Case {
    checkpoint: Checkpoint,
    model: Model,
}

impl Case {
    fn read(name: &str) -> Case {
        let checkpoint = Checkpoint::open(tiny_path(name)).unwrap();
        Case { checkpoint, model: tiny(name, Isa::detect()) }
    }

    fn tokens(&self, count: usize, seed: usize) -> Vec<u32> {
        (0..count).map(|i| ((i * i * 7 + 3 * i + seed) % self.model.vocab_size()) as u32).collect()
    }

    fn moments(&self) -> String {
        let sequences = [self.tokens(37, 5), self.tokens(5, 1)];
        let diagonal = fisher_diagonal(&self.model, &sequences, 3, &mut |_| ()).unwrap();
        let mut sum = Sha256::new();
        for (name, rows) in diagonal.rows {
            sum.update(name);
            rows.iter().for_each(|x| sum.update(x.to_le_bytes()));
        }
        for (name, lookup) in diagonal.lookups {
            sum.update(name);
            sum.update(lookup.to_le_bytes());
        }
        hex(sum)
    }

    /// The order of inputs counts for each weight and expert, not between them.
    fn observations(&self) -> String {
        let sequences = vec![self.tokens(30, 5), self.tokens(7, 2)];
        let mut pass = CalibrationPass::new(&self.model, sequences).unwrap();
        let mut sums: BTreeMap<(String, Option<usize>), Sha256> = BTreeMap::new();
        let mut observe = |seen: Observation<'_>| {
            for weight in seen.weights {
                let sum = sums.entry((weight.name().to_owned(), seen.expert)).or_default();
                seen.weighed().data.iter().for_each(|x| sum.update(x.to_le_bytes()));
            }
        };
        while pass.next_layer(&mut observe).unwrap() {}
        pass.head(&mut observe).unwrap();
        let mut all = Sha256::new();
        for (at, sum) in sums {
            all.update(format!("{at:?}"));
            all.update(sum.finalize());
        }
        hex(all)
    }

    /// Outputs of every matrix times 1.125, one kind at a time, whole and in part.
    fn trials(&self) -> String {
        let matrices = self.checkpoint.tensors().iter().filter(|t| t.shape.len() > 1);
        let names = |test: &dyn Fn(Role) -> bool| -> BTreeSet<String> {
            matrices.clone().filter(|t| test(t.role)).map(|t| t.name.clone()).collect()
        };
        let sets = [
            names(&|role| role == Role::ExpertGateUp),
            names(&|role| role == Role::ExpertDown),
            names(&|role| matches!(role, Role::Gate | Role::Query)),
            names(&|_| true),
        ];
        let both =
            |tensors: &BTreeSet<String>| [1.0, 0.5].map(|share| Trial { tensors: tensors.clone(), share });
        let trials = sets.iter().flat_map(both).collect();
        let of = |layer: Option<usize>| {
            let mut weights = Replacements::default();
            for tensor in matrices.clone().filter(|t| t.layer == layer && t.role.is_used()) {
                let (rows, cols) = (tensor.rows(), tensor.cols());
                let mut values = vec![0.0; rows * cols];
                self.checkpoint.read_rows_f32(tensor, 0..rows, &mut values).unwrap();
                let payload = values.iter().flat_map(|x| (x * 1.125 + 0.01).to_le_bytes()).collect();
                let storage = Storage::unrotated(Encoding::Exact(DType::F32));
                let weight = Linear::in_memory(&tensor.name, storage, tensor.matrix(), payload);
                weights.insert(weight.unwrap());
            }
            weights
        };
        let sequences = vec![self.tokens(40, 0), self.tokens(9, 1)];
        let mut pass = TrialPass::new(&self.model, sequences, trials, of(None)).unwrap();
        for layer in 0.. {
            if !pass.next_layer(&of(Some(layer))).unwrap() {
                break;
            }
        }
        let mut sum = Sha256::new();
        let divergences = pass.divergences(&Replacements::default()).unwrap();
        divergences.iter().flatten().for_each(|nats| sum.update(nats.to_le_bytes()));
        hex(sum)
    }

    fn pairs(&self) -> String {
        let tokens = vec![self.tokens(20, 0), self.tokens(6, 1)];
        let mut pass = DualPass::new(&self.model, &self.model, tokens).unwrap();
        let mut sum = Sha256::new();
        for _ in 0..pass.layers() {
            for product in 0..pass.products().unwrap().len() {
                let mut add = |x: &Matrix| x.data.iter().for_each(|x| sum.update(x.to_le_bytes()));
                pass.observe(product, &mut |inputs| {
                    add(inputs.original);
                    add(inputs.rounded);
                })
                .unwrap();
            }
            pass.advance().unwrap();
        }
        hex(sum)
    }

    fn batch(&self) -> String {
        let sequences = [self.tokens(40, 0), self.tokens(9, 1), self.tokens(1, 2)];
        let mut caches = [40, 10, 1].map(|tokens| self.model.new_cache_of(tokens, KvType::F16));
        let mut sum = Sha256::new();
        let all = sequences.iter().map(Vec::as_slice).zip(&mut caches).collect();
        let logits = self.model.forward_deterministic(all).unwrap();
        logits.data.iter().for_each(|x| sum.update(x.to_le_bytes()));
        let again = self.model.forward_deterministic(vec![(&[7], &mut caches[1])]).unwrap();
        again.data.iter().for_each(|x| sum.update(x.to_le_bytes()));
        hex(sum)
    }
}

#[test]
fn deterministic_arithmetic_computes_what_it_always_has() {
    for (name, expected) in DIGESTS {
        let case = Case::read(name);
        let actual = [case.moments(), case.observations(), case.trials(), case.pairs(), case.batch()];
        assert_eq!(actual, *expected, "{name}");
    }
}
