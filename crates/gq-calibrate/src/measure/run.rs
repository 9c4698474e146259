//! Runs a model over calibration text: gradients first, then moments layer by layer.

use super::collected::{Collected, ExpertMoments};
use super::costs::{lookups, row_costs};
use super::damping::{self, Chosen};
use super::error::CalibrateError;
use super::event::CalibrateEvent;
use super::held_out::{compared, is_held_out};
use super::memory::{MeasuringMemory, MeasuringSize};
use super::sequences::{CalibrationText, digest};
use crate::measurements::{
    Done, InputMeasured, MeasurementsDir, MeasurementsError, TensorMeasured, moments_file, rotate, square,
};
use crate::{CalibrationPass, FisherDiagonal, Observation, check_activations, fisher_diagonal};
use gq_checkpoint::{Checkpoint, FileKind};
use gq_codec::{NotPositive, Rotation};
use gq_model::{Model, ModelError};
use gq_tensor::{Isa, RotationKind, RotationSpec};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// How to measure.
#[derive(Clone, Debug)]
pub struct CalibrateOptions {
    /// Kernels; the result is the same on all.
    pub level: Isa,
    /// Sequences that gradients are measured on, of those given; 0: none, sensitivities weigh all outputs alike.
    pub gradient_sequences: usize,
    /// Seed of the labels drawn for gradients.
    pub seed: u64,
    /// Which moment experts' gates are rounded by.
    pub expert_moments: ExpertMoments,
    /// What was asked for, in words of the caller's: kept, to know a finished measurement by.
    pub asked: String,
    /// Most bytes of memory; the result does not depend on it.
    pub max_memory: Option<u64>,
}

impl CalibrateOptions {
    /// Sequences that gradients are measured on, of so many.
    pub fn gradients_of(&self, sequences: usize) -> usize {
        let kept = (0..sequences).filter(|&index| !is_held_out(index, sequences)).count();
        self.gradient_sequences.min(kept)
    }
}

/// Hidden states of all sequences, while they are spilled.
const STATES: &str = "states.partial";

/// What to measure on.
#[derive(Clone, Copy, Debug)]
pub struct CalibrationInput<'a> {
    /// Texts, for their digest.
    pub texts: &'a [CalibrationText],
    /// The same as tokens.
    pub sequences: &'a [Vec<u32>],
}

/// Measures the tensors that `wanted` names and saves the result in `dir`.
///
/// What an interrupted measurement left there is taken up where the same is asked for: gradients that are done, and layers
/// whose moments are saved, of which only the forward pass is run again. The result has the same bytes.
///
/// Memory: what [`MeasuringMemory`] says; hidden states that do not fit under the limit are in a file in `dir`.
///
/// # Errors
/// [`CalibrateError`]; `dir` then holds no finished measurement.
pub fn measure(
    checkpoint: &Checkpoint,
    model: &Model,
    text: CalibrationInput<'_>,
    wanted: &dyn Fn(&str) -> bool,
    options: &CalibrateOptions,
    dir: &Path,
    progress: &mut dyn FnMut(CalibrateEvent),
) -> Result<MeasurementsDir, CalibrateError> {
    let CalibrationInput { texts, sequences } = text;
    if sequences.len() < 2 {
        return Err(CalibrateError::TooFew { limit: 2, actual: sequences.len() });
    }
    let size = MeasuringSize {
        sequences: sequences.len(),
        ctx: sequences.iter().map(Vec::len).max().unwrap_or(0),
        gradients: options.gradient_sequences > 0,
        trial_tokens: 0,
        threads: rayon::current_num_threads(),
        held: checkpoint.held_bytes(rayon::current_num_threads()),
    };
    let memory = MeasuringMemory::new(model.spec(), size, options.expert_moments, options.max_memory)?;
    let files = source_files(checkpoint);
    let asked = asked_sha256(checkpoint, &files, text, wanted, options);
    let (mut measurements, mut done) = MeasurementsDir::begin(dir, asked)?;
    measurements.value.files = files;
    measurements.value.text_sha256 = digest(texts);
    measurements.value.ctx = sequences.first().map_or(0, Vec::len);
    measurements.value.seed = options.seed;
    measurements.value.asked.clone_from(&options.asked);
    if done.gradients || done.layers > 0 {
        let of = model.spec().layers.len() + 1;
        progress(CalibrateEvent::Resumed { layers: done.layers, of });
    }
    let gradients = gradients(model, sequences, options, &mut measurements, &mut done, progress)?;
    let held = |index: usize| is_held_out(index, sequences.len());
    let length = |keep: bool| -> usize {
        let kept = sequences.iter().enumerate().filter(|(index, _)| held(*index) == keep);
        kept.map(|(_, sequence)| sequence.len()).sum()
    };
    (measurements.value.tokens, measurements.value.held_out_tokens) = (length(false), length(true));

    let mut pass = CalibrationPass::new(model, sequences.to_vec())?;
    let states = dir.join(STATES);
    let io = |source| MeasurementsError::Io { path: states.clone(), source };
    if memory.spilled > 0 {
        pass = pass.spilled_to(gq_files::begin(&states).map_err(io)?);
    }
    let layers = Layers { checkpoint, wanted, options, held: &held, gradients: gradients.as_ref() };
    let measured = layers.measure(&mut pass, &mut measurements, &mut done, progress);
    if memory.spilled > 0 {
        gq_files::remove_begun(&states).map_err(io)?;
    }
    drop(pass); // it held the states
    measured?.map_err(io)?;
    if let Some(gradients) = &gradients {
        lookups(&mut measurements.value, checkpoint, wanted, gradients)?;
    }
    measurements.save_held_out(&compared(sequences))?;
    // What was measured is of the weights that are there.
    checkpoint.check_unchanged()?;
    measurements.finish()?;
    Ok(measurements)
}

/// What moments of the layers depend on.
struct Layers<'a> {
    checkpoint: &'a Checkpoint,
    /// Names of the tensors to measure.
    wanted: &'a dyn Fn(&str) -> bool,
    options: &'a CalibrateOptions,
    /// Whether the sequence with this index is held out.
    held: &'a dyn Fn(usize) -> bool,
    gradients: Option<&'a FisherDiagonal>,
}

impl Layers<'_> {
    /// Runs all layers and saves the moments of each that are not kept. The inner error is of the file of hidden states.
    fn measure(
        &self,
        pass: &mut CalibrationPass<'_>,
        measurements: &mut MeasurementsDir,
        kept: &mut Done,
        progress: &mut dyn FnMut(CalibrateEvent),
    ) -> Result<std::io::Result<()>, CalibrateError> {
        let Layers { checkpoint, wanted, options, held, gradients } = *self;
        let of = pass.layers() + 1;
        if kept.layers >= of {
            return Ok(Ok(()));
        }
        for done in 0..of {
            if done < kept.layers {
                if let Err(error) = pass.next_layer(&mut |_| {}) {
                    return Ok(Err(error));
                }
                progress(CalibrateEvent::Moments { done: done + 1, of });
                continue;
            }
            let collected = RefCell::new(Collected::new(options.expert_moments));
            let mut broken: Option<ModelError> = None;
            let mut observe = |seen: Observation<'_>| {
                if let (None, Some(weight)) = (&broken, seen.weights.first()) {
                    broken = ModelError::of_input(weight.name(), seen.input);
                }
                collected.borrow_mut().add(checkpoint, options.level, wanted, held(seen.sequence), &seen);
            };
            let seen = pass.next_layer(&mut observe);
            let seen = seen.and_then(|layer| if layer { Ok(()) } else { pass.head(&mut observe) });
            if let Err(error) = seen {
                return Ok(Err(error));
            }
            broken.map_or(Ok(()), Err)?;
            let collected = collected.into_inner();
            save(measurements, checkpoint, collected, done, gradients, options.level)?;
            kept.layers = done + 1;
            measurements.save_unfinished(kept)?;
            progress(CalibrateEvent::Moments { done: done + 1, of });
        }
        Ok(Ok(()))
    }
}

/// Weight files of a checkpoint and adapters merged into it, by which a measurement knows its source.
pub fn source_files(checkpoint: &Checkpoint) -> Vec<(String, u64)> {
    let weights = checkpoint.files().iter().filter(|file| file.kind != FileKind::Text);
    let weights = weights.map(|file| (file.name.clone(), file.bytes));
    let adapter = |adapter: &gq_checkpoint::Adapter| {
        let bytes = adapter.files().iter().map(|file| file.bytes).sum();
        (format!("adapter {}", adapter.identity()), bytes)
    };
    let sampled = std::iter::once((format!("sha256 of sampled rows {}", sampled_rows(checkpoint)), 0));
    weights.chain(checkpoint.adapters().iter().map(adapter)).chain(sampled).collect()
}

/// Digest of everything that a measurement is a function of. Kernels, threads and memory are not among it.
fn asked_sha256(
    checkpoint: &Checkpoint,
    files: &[(String, u64)],
    CalibrationInput { texts, sequences }: CalibrationInput<'_>,
    wanted: &dyn Fn(&str) -> bool,
    options: &CalibrateOptions,
) -> String {
    let mut hash = Sha256::new();
    let CalibrateOptions { gradient_sequences, seed, expert_moments, asked, .. } = options;
    let version = env!("CARGO_PKG_VERSION");
    let head =
        format!("{version} {} {gradient_sequences} {seed} {expert_moments:?} {asked:?}", digest(texts));
    let mut add = |part: &str| {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    };
    add(&head);
    files.iter().for_each(|(name, bytes)| add(&format!("{bytes} {name}")));
    // Of files of one length some rows may have changed between two runs.
    checkpoint.files().iter().for_each(|file| add(&format!("{:?}", file.stamp)));
    let names = checkpoint.tensors().iter().map(|tensor| tensor.name.as_str());
    names.filter(|name| wanted(name)).for_each(add);
    for sequence in sequences {
        hash.update((sequence.len() as u64).to_le_bytes());
        sequence.iter().for_each(|token| hash.update(token.to_le_bytes()));
    }
    hex::encode(hash.finalize())
}

/// Digest of a row from the middle of every tensor: checkpoints of one size are told apart at the price of a page each.
/// A row that cannot be read counts as none; whoever needs it says so.
fn sampled_rows(checkpoint: &Checkpoint) -> String {
    let mut hash = Sha256::new();
    for tensor in
        checkpoint.tensors().iter().filter(|tensor| tensor.role.is_used() && tensor.dtype.is_float())
    {
        let mut row = vec![0.0; tensor.cols()];
        let middle = tensor.shape.iter().rev().skip(1).product::<usize>() / 2;
        if checkpoint.read_rows_f32(tensor, middle..middle + 1, &mut row).is_ok() {
            hash.update(tensor.name.as_bytes());
            row.iter().for_each(|x| hash.update(x.to_le_bytes()));
        }
    }
    hex::encode(hash.finalize())
}

fn gradients(
    model: &Model,
    sequences: &[Vec<u32>],
    options: &CalibrateOptions,
    measurements: &mut MeasurementsDir,
    done: &mut Done,
    progress: &mut dyn FnMut(CalibrateEvent),
) -> Result<Option<FisherDiagonal>, CalibrateError> {
    let kept: Vec<&Vec<u32>> = (0..sequences.len())
        .filter(|&index| !is_held_out(index, sequences.len()))
        .map(|index| &sequences[index])
        .collect();
    let of = options.gradients_of(sequences.len());
    if of == 0 {
        done.gradients = true;
        return Ok(None);
    }
    if done.gradients {
        progress(CalibrateEvent::Gradients { done: of, of });
        let (rows, lookups) = (measurements.gradients()?, done.lookups.clone());
        return Ok(Some(FisherDiagonal { rows, lookups, positions: measurements.value.gradient_tokens }));
    }
    // Spread over all that are not held out.
    let some: Vec<Vec<u32>> = (0..of).map(|i| kept[i * kept.len() / of].clone()).collect();
    let diagonal = fisher_diagonal(model, &some, options.seed, &mut |done| {
        progress(CalibrateEvent::Gradients { done, of });
    })?;
    if diagonal.rows.values().flatten().any(|sum| !sum.is_finite()) {
        // Where activations are what is not finite, the tensor that meets them is the one to name.
        some.iter().try_for_each(|tokens| check_activations(model, tokens))?;
    }
    measurements.value.gradient_tokens = diagonal.positions;
    measurements.save_gradients(&diagonal.rows)?;
    (done.gradients, done.lookups) = (true, diagonal.lookups.clone());
    measurements.save_unfinished(done)?;
    Ok(Some(diagonal))
}

fn save(
    measurements: &mut MeasurementsDir,
    checkpoint: &Checkpoint,
    mut collected: Collected,
    layer: usize,
    gradients: Option<&FisherDiagonal>,
    level: Isa,
) -> Result<(), CalibrateError> {
    if collected.inputs.is_empty() {
        return Ok(());
    }
    collected.share_among_experts(checkpoint);
    let many: BTreeSet<String> = collected
        .tensors
        .values()
        .filter(|inputs| inputs.len() > 1)
        .flat_map(|inputs| inputs.values().cloned())
        .collect();
    let mut costs: BTreeMap<String, Chosen> = BTreeMap::new();
    for (index, (input, pair)) in std::mem::take(&mut collected.inputs).into_iter().enumerate() {
        let file = moments_file(layer, index);
        let n = pair.train.n;
        let (train, held) = (pair.train.triangle(), pair.held.triangle());
        let chosen = choose(level, &train, &held, n, many.contains(&input));
        let chosen = chosen.map_err(|source| CalibrateError::Moment { tensor: input.clone(), source })?;
        measurements.value.inputs.insert(
            input.clone(),
            InputMeasured {
                file: file.clone(),
                cols: n,
                tokens: pair.train.seen,
                held_out_tokens: pair.held.seen,
                damping: chosen.damping,
                cost: chosen.cost / n as f64,
                nearest_cost: chosen.trace / n as f64,
            },
        );
        costs.insert(input.clone(), chosen);
        let names = (format!("{input}.moment"), format!("{input}.held_out"));
        measurements.save_moments(&file, vec![(names.0, train), (names.1, held)])?;
    }
    for (name, inputs) in collected.tensors {
        let rows = row_costs(checkpoint, &name, gradients)?;
        let experts = inputs.keys().max().map_or(1, |last| last + 1);
        let per_expert = rows.len() / experts.max(1);
        let total = |of: &dyn Fn(&Chosen) -> f64| -> f64 {
            let parts = inputs.iter().map(|(expert, input)| {
                let rows: f64 = rows.iter().skip(expert * per_expert).take(per_expert).sum();
                costs.get(input).map_or(0.0, |chosen| rows * of(chosen))
            });
            parts.sum()
        };
        let (sensitivity, nearest_sensitivity) =
            (total(&|chosen| chosen.cost), total(&|chosen| chosen.trace));
        if !sensitivity.is_finite() || !nearest_sensitivity.is_finite() {
            return Err(CalibrateError::NotFinite { tensor: name });
        }
        let inputs = inputs.into_values().collect();
        measurements.value.tensors.insert(name, TensorMeasured { inputs, sensitivity, nearest_sensitivity });
    }
    Ok(())
}

/// In the basis that weights are usually rounded in.
fn choose(
    level: Isa,
    train: &[f32],
    held: &[f32],
    n: usize,
    one_of_many: bool,
) -> Result<Chosen, NotPositive> {
    let both = |triangle: &[f32]| square(triangle.iter().copied(), n);
    let (mut train, mut held) = (both(train), both(held));
    if let Ok(rotation) = Rotation::new(RotationSpec { kind: RotationKind::Hadamard, seed: 0 }, n) {
        rotate(level, &mut train, &rotation);
        rotate(level, &mut held, &rotation);
    }
    match one_of_many {
        true => damping::choose_for_one_of_many(level, &train, &held, n),
        false => damping::choose(level, &train, &held, n),
    }
}
