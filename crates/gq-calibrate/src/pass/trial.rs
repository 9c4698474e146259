//! How far a model moves when some of its weights are rounded and everything else stays as it is.
//!
//! Several such trials pass through the model together, layer by layer, so that a layer's codes are needed once and
//! only while it runs. All arithmetic is deterministic: the same divergences on every CPU and thread count.

use super::head::{HEAD_ROWS, logits};
use super::state::State;
use super::states::States;
use super::walk::{Run, Walk};
use crate::deterministic::{Overlay, Replacements};
use gq_model::{Model, ModelError};
use gq_tensor::divergence::divergence_and_slopes;
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;

/// Weights that are rounded together while others are not.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// Names of the tensors.
    pub tensors: BTreeSet<String>,
    /// Part of the rounding error that is applied: at one half, a quarter of its square.
    /// The outputs of a layer's experts are mixed, every other product is linear in its weights.
    pub share: f32,
}

/// Trials on sequences from position 0, each next to the original.
///
/// Memory is the residual stream of every sequence in every trial that has left the original, unless it is spilled,
/// the rounded weights given, and one layer's work for one sequence.
#[derive(Debug)]
pub struct TrialPass<'m> {
    model: &'m Model,
    sequences: Vec<Vec<u32>>,
    trials: Vec<Trial>,
    /// Rounded weights of what precedes the layers; a tied head's too.
    start: Replacements,
    /// By trial and sequence; the original comes first.
    states: States,
    /// Whether a trial has met a rounded weight.
    left: Vec<bool>,
    next: usize,
}

impl<'m> TrialPass<'m> {
    /// `start` holds what the trials round of tables and of what else precedes the layers.
    ///
    /// # Errors
    /// For an empty sequence or a token beyond the vocabulary.
    pub fn new(
        model: &'m Model,
        sequences: Vec<Vec<u32>>,
        trials: Vec<Trial>,
        start: Replacements,
    ) -> Result<TrialPass<'m>, ModelError> {
        sequences.iter().try_for_each(|tokens| model.check_tokens(tokens))?;
        let states = States::new((trials.len() + 1) * sequences.len());
        let left = vec![false; trials.len()];
        Ok(TrialPass { model, sequences, trials, start, states, left, next: 0 })
    }

    /// Keeps what belongs to the sequences in `file` between layers; divergences are the same.
    #[must_use]
    pub fn spilled_to(mut self, file: File) -> TrialPass<'m> {
        let longest = self.sequences.iter().map(Vec::len).max().unwrap_or(0);
        self.states.spill_to(file, self.model.spec(), longest);
        self
    }

    /// Runs the next layer in every trial, with those of `weights` that are the trial's. `false`: none was left.
    ///
    /// # Errors
    /// When the file that it is spilled to cannot be read or written.
    pub fn next_layer(&mut self, weights: &Replacements) -> io::Result<bool> {
        let layer = self.next;
        if layer == self.model.graph().layers() {
            return Ok(false);
        }
        for sequence in 0..self.sequences.len() {
            let walk = Walk::new(self.model, &self.sequences[sequence]);
            let place = |trial: usize| trial * self.sequences.len() + sequence;
            let needs_start = walk.needs_start(layer);
            let mut original = self.states.take(place(0))?;
            let mut vectors = None;
            if needs_start {
                let start = walk.start(Run::default());
                vectors = start.vectors;
                if layer == 0 {
                    original = State { x: start.x, ..State::default() };
                }
            }
            for trial in 0..self.trials.len() {
                let mut own = vectors.clone();
                let state = if needs_start && self.touches(trial, &self.start) {
                    let start = walk.start(Run::over(self.overlay(trial, weights)));
                    own = start.vectors;
                    match layer {
                        0 => State { x: start.x, ..State::default() },
                        _ => self.states.take(place(trial + 1))?,
                    }
                } else if self.left[trial] {
                    self.states.take(place(trial + 1))?
                } else if self.touches(trial, weights) {
                    original.clone()
                } else {
                    continue;
                };
                let state = walk.layer(layer, state, own, Run::over(self.overlay(trial, weights)));
                self.states.put(place(trial + 1), state)?;
            }
            let state = walk.layer(layer, original, vectors, Run::default());
            self.states.put(place(0), state)?;
        }
        self.states.layer_is_done();
        for trial in 0..self.trials.len() {
            self.left[trial] |= self.touches(trial, &self.start) || self.touches(trial, weights);
        }
        self.next += 1;
        Ok(true)
    }

    /// After the last layer: by trial and sequence the mean divergence `KL(original || trial)` over the positions, in
    /// nats. `head` holds what the trials round of an untied head.
    ///
    /// # Errors
    /// When the file that it is spilled to cannot be read.
    pub fn divergences(mut self, head: &Replacements) -> io::Result<Vec<Vec<f64>>> {
        let mut out = vec![Vec::new(); self.trials.len()];
        for sequence in 0..self.sequences.len() {
            let place = |trial: usize| trial * self.sequences.len() + sequence;
            let original = self.states.take(place(0))?.x;
            let mut hidden = Vec::new();
            for trial in 0..self.trials.len() {
                let moved = self.left[trial] || self.touches(trial, head) || self.touches(trial, &self.start);
                hidden.push(match (moved, self.left[trial]) {
                    (true, true) => Some(self.states.take(place(trial + 1))?.x),
                    (true, false) => Some(original.clone()),
                    (false, _) => None,
                });
            }
            let positions = self.sequences[sequence].len();
            let mut sums = vec![0.0; self.trials.len()];
            for block in 0..positions.div_ceil(HEAD_ROWS) {
                let reference = logits(self.model, &original, block, Overlay::default());
                for (trial, (hidden, sum)) in hidden.iter().zip(&mut sums).enumerate() {
                    let Some(hidden) = hidden else { continue };
                    let overlay = self.overlay(trial, head);
                    let mut logits = logits(self.model, hidden, block, overlay);
                    let width = logits.width;
                    let rows = logits.data.par_chunks_exact_mut(width);
                    let each: Vec<f64> = rows
                        .zip(reference.data.par_chunks_exact(width))
                        .map(|(q, p)| divergence_and_slopes(&mut p.to_vec(), q))
                        .collect();
                    *sum += each.iter().sum::<f64>();
                }
            }
            out.iter_mut().zip(sums).for_each(|(out, sum)| out.push(sum / positions as f64));
        }
        Ok(out)
    }

    fn touches(&self, trial: usize, weights: &Replacements) -> bool {
        self.trials[trial].tensors.iter().any(|tensor| weights.contains(tensor))
    }

    /// What a trial replaces, of `weights` and of what precedes the layers.
    fn overlay<'a>(&'a self, trial: usize, weights: &'a Replacements) -> Overlay<'a> {
        let Trial { tensors, share } = &self.trials[trial];
        let replacements = [Some(weights), Some(&self.start)];
        Overlay { replacements, only: Some(tensors), share: *share, factors: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Factors, Teacher};
    use gq_checkpoint::{Checkpoint, Role};
    use gq_model::Linear;
    use gq_suite::{tiny as model, tiny_path};
    use gq_tensor::{DType, Encoding, Isa, MatrixShape, Storage};

    const TINY: [&str; 10] = [
        "llama",
        "phi3",
        "qwen2",
        "qwen3-moe",
        "gpt-oss",
        "gemma3",
        "gemma4-e2b",
        "gemma4-e4b",
        "gemma4-moe",
        "gemma4-dense",
    ];

    fn checkpoint(name: &str) -> Checkpoint {
        Checkpoint::open(tiny_path(name)).unwrap()
    }

    /// A matrix as f32 codes.
    fn coded(name: &str, shape: MatrixShape, payload: Vec<u8>) -> Linear {
        let storage = Storage::unrotated(Encoding::Exact(DType::F32));
        Linear::in_memory(name, storage, shape, payload).unwrap()
    }

    /// Outputs times 1.125, as f32 codes.
    fn scaled(checkpoint: &Checkpoint, weights: &mut Replacements, name: &str) {
        let tensor = checkpoint.tensor(name).unwrap();
        let (rows, cols) = (tensor.rows(), tensor.cols());
        let mut values = vec![0.0; rows * cols];
        checkpoint.read_rows_f32(tensor, 0..rows, &mut values).unwrap();
        let payload = values.iter().flat_map(|x| (x * 1.125).to_le_bytes()).collect();
        weights.insert(coded(name, tensor.matrix(), payload));
    }

    fn pass(name: &str, level: Isa, threads: usize, spilled: bool) -> Vec<Vec<f64>> {
        let checkpoint = checkpoint(name);
        let model = model(name, level);
        let names = |test: &dyn Fn(Role, Option<usize>) -> bool| -> BTreeSet<String> {
            let tensors = checkpoint.tensors().iter().filter(|t| t.shape.len() > 1 && test(t.role, t.layer));
            tensors.map(|tensor| tensor.name.clone()).collect()
        };
        let sets = [
            names(&|role, layer| role == Role::Down && layer == Some(1)),
            names(&|role, _| role == Role::Output),
            names(&|role, _| role == Role::Embedding),
            names(&|role, _| matches!(role, Role::ExpertDown | Role::PerLayerTable)),
            BTreeSet::new(),
        ];
        let trial = |tensors: &BTreeSet<String>, share| Trial { tensors: tensors.clone(), share };
        let mut trials: Vec<Trial> = sets.iter().map(|set| trial(set, 1.0)).collect();
        trials.push(trial(&sets[1], 0.5));
        let of = |layer: Option<usize>| {
            let mut weights = Replacements::default();
            for name in sets.iter().flatten() {
                if checkpoint.tensor(name).unwrap().layer == layer {
                    scaled(&checkpoint, &mut weights, name);
                }
            }
            weights
        };
        let tokens: Vec<Vec<u32>> = (0..2)
            .map(|s| (0..70).map(|i| ((i * i * 7 + 3 * i + s) % model.vocab_size()) as u32).collect())
            .collect();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut pass = TrialPass::new(&model, tokens, trials, of(None)).unwrap();
            if spilled {
                pass = pass.spilled_to(tempfile::tempfile().unwrap());
            }
            for layer in 0.. {
                if !pass.next_layer(&of(Some(layer))).unwrap() {
                    break;
                }
            }
            pass.divergences(&Replacements::default()).unwrap()
        })
    }

    #[test]
    fn trials_diverge_as_a_model_with_these_weights_does() {
        for name in TINY {
            let [down, output, embedding, others, nothing, half] =
                pass(name, Isa::detect(), 2, false).try_into().unwrap();
            assert_eq!(nothing, [0.0, 0.0], "{name}");
            let by_factors = |test: &dyn Fn(Role, Option<usize>) -> bool| scaled_by_factors(name, test);
            for (what, measured, expected) in [
                ("down", &down, by_factors(&|role, layer| role == Role::Down && layer == Some(1))),
                ("output", &output, by_factors(&|role, _| role == Role::Output)),
            ] {
                for (measured, expected) in measured.iter().zip(expected) {
                    let near = (measured - expected).abs() < 1e-3 * expected + 1e-8;
                    assert!(near, "{name}, {what}: {measured} {expected}");
                }
            }
            // A sum of experts' results, and a projection of a table's rows, are normed in some families: a factor on them
            // all may not matter there.
            let has = |role: Role| checkpoint(name).tensors().iter().any(|tensor| tensor.role == role);
            match has(Role::ExpertDown) || has(Role::PerLayerTable) {
                true => assert!(others.iter().all(|d| d.is_finite()), "{name}: {others:?}"),
                false => assert_eq!(others, [0.0, 0.0], "{name}"),
            }
            assert!(embedding.iter().all(|d| *d > 1e-7), "{name}: {embedding:?}");
            assert!(
                half.iter().zip(&output).all(|(half, all)| *half <= all + 1e-8),
                "{name}: {half:?} {output:?}"
            );
        }
    }

    /// The same divergences by factors on rows, which a scale of all outputs is: by sequence.
    fn scaled_by_factors(name: &str, test: &dyn Fn(Role, Option<usize>) -> bool) -> [f64; 2] {
        let (checkpoint, model) = (checkpoint(name), model(name, Isa::detect()));
        let tensors = checkpoint.tensors().iter().filter(|t| t.shape.len() > 1 && test(t.role, t.layer));
        let factors: Factors =
            tensors.map(|tensor| (tensor.name.clone(), vec![1.125; tensor.rows()])).collect();
        [0, 1].map(|s| {
            let tokens = (0..70).map(|i| ((i * i * 7 + 3 * i + s) % model.vocab_size()) as u32).collect();
            Teacher::new(&model, tokens).unwrap().divergence(&model, &factors).unwrap()
        })
    }

    #[test]
    fn a_trial_that_computes_no_numbers_is_infinitely_far() {
        let checkpoint = checkpoint("llama");
        let model = model("llama", Isa::detect());
        let (broken, fine) =
            ("model.layers.1.mlp.down_proj.weight", "model.layers.1.self_attn.o_proj.weight");
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut weights = Replacements::default();
            scaled(&checkpoint, &mut weights, fine);
            let tensor = checkpoint.tensor(broken).unwrap();
            let (rows, cols) = (tensor.rows(), tensor.cols());
            let payload =
                (0..rows * cols).flat_map(|i| if i == 5 { bad } else { 0.1 }.to_le_bytes()).collect();
            weights.insert(coded(broken, tensor.matrix(), payload));
            let trial = |name: &str| Trial { tensors: BTreeSet::from([name.to_owned()]), share: 1.0 };
            let trials = vec![trial(broken), trial(fine)];
            let mut pass =
                TrialPass::new(&model, vec![vec![3, 1, 4]], trials, Replacements::default()).unwrap();
            while pass.next_layer(&weights).unwrap() {}
            let [no_number, number] = pass.divergences(&Replacements::default()).unwrap().try_into().unwrap();
            assert_eq!(no_number, [f64::INFINITY], "{bad}");
            assert!(number[0].is_finite(), "{number:?}");
        }
    }

    #[test]
    fn the_same_bits_on_every_level_and_thread_count_and_from_a_file() {
        for name in ["llama", "qwen2", "qwen3-moe", "gemma4-e2b", "gemma4-moe"] {
            let first = pass(name, Isa::detect(), 1, false);
            assert_eq!(first, pass(name, Isa::detect(), 3, true), "{name}");
            for level in Isa::available() {
                assert_eq!(first, pass(name, level, 2, false), "{name} {}", level.name());
            }
        }
    }
}
