//! Trials: each group of tensors rounded alone, and everything together, on sequences that the moments hold out.

use super::costs::lookups_without_gradients;
use super::error::CalibrateError;
use super::event::{CalibrateEvent, Part};
use super::held_out::is_held_out;
use super::memory::{MeasuringMemory, MeasuringSize, depths};
use crate::measurements::{
    Corrections, GroupTrial, Measurements, MeasurementsDir, MeasurementsError, TrialConditions,
};
use crate::{Replacements, Trial, TrialPass, check_activations};
use gq_checkpoint::{Checkpoint, Role, SourceTensor};
use gq_model::Model;
use std::collections::{BTreeMap, BTreeSet};

/// Parts of the rounding error that everything together is tried with: half of it is what a bit more leaves.
const SHARES: [f64; 2] = [0.5, 1.0];
/// States of all trials, while they are spilled.
const STATES: &str = "trials.partial";

/// How to try.
#[derive(Clone, Copy, Debug)]
pub struct TrialOptions {
    /// Tokens to measure divergences on: whole sequences among those held out, at least one.
    pub tokens: usize,
    /// Most bytes of memory; the result does not depend on it.
    pub max_memory: Option<u64>,
}

/// What rounds weights in memory to be tried. How is no matter of calibration.
pub trait TrialRounding {
    /// Name of what they are rounded to.
    fn encoding(&self) -> String;

    /// Whether a tensor of this shape can be.
    fn supports(&self, tensor: &SourceTensor) -> bool;

    /// Divergence in nats per token that rounding a tensor is predicted to cost.
    fn predicted(&self, measurements: &Measurements, tensor: &str) -> f64;

    /// Rounds whole tensors, whose inputs were measured, and adds them to `weights`.
    ///
    /// # Errors
    /// When one cannot be read or rounded.
    fn round(
        &self,
        measurements: &MeasurementsDir,
        tensors: &[&SourceTensor],
        weights: &mut Replacements,
    ) -> Result<(), CalibrateError>;

    /// Rounds rows of a table that is only looked up, and adds them to `weights` as they are read.
    ///
    /// # Errors
    /// When they cannot be read or rounded.
    fn round_rows(
        &self,
        table: &SourceTensor,
        rows: &BTreeSet<usize>,
        weights: &mut Replacements,
    ) -> Result<(), CalibrateError>;
}

/// Compares the predictions of `measurements`, which was measured on `sequences`, with divergences measured on those of them
/// that were held out, and saves factors next to them. What was measured before is kept as it is.
///
/// # Errors
/// [`CalibrateError`]; the measurement is then as it was.
pub fn correct(
    checkpoint: &Checkpoint,
    model: &Model,
    sequences: &[Vec<u32>],
    options: &TrialOptions,
    rounding: &dyn TrialRounding,
    measurements: &mut MeasurementsDir,
    progress: &mut dyn FnMut(CalibrateEvent),
) -> Result<(), CalibrateError> {
    let held: Vec<&Vec<u32>> = (0..sequences.len())
        .filter(|&index| is_held_out(index, sequences.len()))
        .map(|index| &sequences[index])
        .collect();
    let ctx = held.iter().map(|sequence| sequence.len()).max().unwrap_or(0);
    let count = (options.tokens / ctx.max(1)).clamp(1, held.len().max(1)).min(held.len());
    // Spread over all.
    let chosen: Vec<Vec<u32>> = (0..count).map(|i| held[i * held.len() / count].clone()).collect();
    if chosen.is_empty() {
        return Err(CalibrateError::TooFew { limit: 2, actual: sequences.len() });
    }
    let tokens = chosen.iter().map(Vec::len).sum();
    let size = MeasuringSize {
        sequences: sequences.len(),
        ctx,
        gradients: measurements.value.gradient_tokens > 0,
        trial_tokens: tokens,
        threads: rayon::current_num_threads(),
        held: checkpoint.held_bytes(rayon::current_num_threads()),
    };
    let memory = MeasuringMemory::trials(model.spec(), size, options.max_memory)?;
    if measurements.value.gradient_tokens == 0 {
        lookups_without_gradients(&mut measurements.value, checkpoint)?;
    }
    let work = Work { checkpoint, measurements: &*measurements, rounding };
    let groups = work.groups();
    if groups.is_empty() {
        return Ok(());
    }
    let states = work.measurements.file(STATES);
    let io = |source| MeasurementsError::Io { path: states.clone(), source };
    let measured = (|| {
        let mut pass = TrialPass::new(model, chosen.clone(), trials(&groups), work.start(&chosen)?)?;
        if memory.spilled > 0 {
            pass = pass.spilled_to(gq_files::begin(&states).map_err(io)?);
        }
        let passes = work.passes(&groups);
        let of = passes.last().copied().unwrap_or(0);
        for (layer, &done) in passes.iter().enumerate() {
            let weights = work.rounded(|tensor| tensor.layer == Some(layer))?;
            pass.next_layer(&weights).map_err(io)?;
            let rounded = Part { done: layer + 1, of: passes.len() };
            progress(CalibrateEvent::Trials { rounded, passes: Part { done, of } });
        }
        let head = work.rounded(|tensor| tensor.layer.is_none() && tensor.role == Role::Head)?;
        let measured = pass.divergences(&head).map_err(io)?;
        progress(CalibrateEvent::Logits);
        Ok::<_, CalibrateError>(measured)
    })();
    if memory.spilled > 0 {
        gq_files::remove_begun(&states).map_err(io)?;
    }
    let measured = measured?;
    let names = groups.iter().map(|group| group.name.as_str()).chain(["everything together"; SHARES.len()]);
    let broken = names.zip(&measured).find(|(_, each)| each.iter().any(|nats| !nats.is_finite()));
    if let Some((name, _)) = broken {
        // The model itself, where it is that; else what rounding made of the group.
        chosen.iter().try_for_each(|tokens| check_activations(model, tokens))?;
        return Err(CalibrateError::NotFinite { tensor: name.to_owned() });
    }
    let asked_tokens = options.tokens;
    let of = TrialConditions { asked_tokens, tokens, encoding: rounding.encoding() };
    let comparable = measurements.value.gradient_tokens > 0;
    measurements.value.corrections = Some(Corrections::new(of, groups, comparable, &SHARES, &measured));
    checkpoint.check_unchanged()?;
    measurements.finish()?;
    Ok(())
}

/// Every group alone, then everything.
fn trials(groups: &[GroupTrial]) -> Vec<Trial> {
    let alone =
        groups.iter().map(|group| Trial { tensors: group.tensors.iter().cloned().collect(), share: 1.0 });
    let all: BTreeSet<String> = groups.iter().flat_map(|group| &group.tensors).cloned().collect();
    let wholes = SHARES.iter().map(|&share| Trial { tensors: all.clone(), share: share as f32 });
    alone.chain(wholes).collect()
}

/// What is tried.
struct Work<'a> {
    checkpoint: &'a Checkpoint,
    measurements: &'a MeasurementsDir,
    rounding: &'a dyn TrialRounding,
}

impl<'a> Work<'a> {
    /// Tensors that were measured and can be rounded.
    fn tried(&self) -> impl Iterator<Item = &'a SourceTensor> + '_ {
        let measured = &self.measurements.value().tensors;
        let tensors = self.checkpoint.tensors().iter();
        tensors.filter(|tensor| measured.contains_key(&tensor.name) && self.rounding.supports(tensor))
    }

    /// Groups in the order of their names, with predictions.
    fn groups(&self) -> Vec<GroupTrial> {
        let measurements = self.measurements.value();
        let layers = self.checkpoint.spec().layers.len().max(1);
        let depths = layers.min(depths(measurements.gradient_tokens > 0));
        let mut groups: BTreeMap<String, GroupTrial> = BTreeMap::new();
        for tensor in self.tried() {
            let predicted = self.rounding.predicted(measurements, &tensor.name);
            let name = match tensor.layer {
                Some(layer) => format!("{} {}/{depths}", tensor.role, layer * depths / layers + 1),
                None => tensor.role.to_string(),
            };
            let group = groups.entry(name.clone()).or_insert_with(|| GroupTrial {
                name,
                tensors: Vec::new(),
                predicted: 0.0,
                measured: 0.0,
                standard_error: 0.0,
                factor: 1.0,
            });
            group.tensors.push(tensor.name.clone());
            group.predicted += predicted;
        }
        groups.into_values().collect()
    }

    /// Passes through a layer until each one is done: a trial is the model itself up to the first layer that it changes.
    fn passes(&self, groups: &[GroupTrial]) -> Vec<usize> {
        let layers = self.checkpoint.spec().layers.len();
        let begins = |name: &String| match self.checkpoint.tensor(name) {
            Some(SourceTensor { layer: Some(layer), .. }) => *layer,
            Some(tensor) if tensor.role == Role::Head => layers,
            _ => 0,
        };
        let firsts = groups.iter().map(|group| group.tensors.iter().map(begins).min().unwrap_or(layers));
        let firsts: Vec<usize> = firsts.collect();
        let wholes = [firsts.iter().min().copied().unwrap_or(layers); SHARES.len()];
        let of_layer =
            |layer: usize| 1 + firsts.iter().chain(&wholes).filter(|&&first| first <= layer).count();
        (0..layers)
            .map(of_layer)
            .scan(0, |sum, passes| {
                *sum += passes;
                Some(*sum)
            })
            .collect()
    }

    /// What precedes the layers: whole tensors, and of tables that are looked up only the rows that are.
    fn start(&self, sequences: &[Vec<u32>]) -> Result<Replacements, CalibrateError> {
        let looked_up = |tensor: &SourceTensor| self.inputs(tensor).is_empty();
        let mut weights =
            self.rounded(|tensor| tensor.layer.is_none() && tensor.role != Role::Head && !looked_up(tensor))?;
        let tokens: BTreeSet<usize> = sequences.iter().flatten().map(|&token| token as usize).collect();
        for table in self.tried().filter(|tensor| tensor.layer.is_none() && looked_up(tensor)) {
            self.rounding.round_rows(table, &tokens, &mut weights)?;
        }
        Ok(weights)
    }

    /// The tensors that `wanted` accepts, those without measured inputs aside.
    fn rounded(&self, wanted: impl Fn(&SourceTensor) -> bool) -> Result<Replacements, CalibrateError> {
        let tensors = self.tried().filter(|tensor| wanted(tensor) && !self.inputs(tensor).is_empty());
        let (tensors, mut weights) = (tensors.collect::<Vec<_>>(), Replacements::default());
        self.rounding.round(self.measurements, &tensors, &mut weights)?;
        Ok(weights)
    }

    /// Names of a tensor's inputs.
    fn inputs(&self, tensor: &SourceTensor) -> &[String] {
        let measured = self.measurements.value().tensors.get(&tensor.name);
        measured.map_or(&[], |measured| &measured.inputs)
    }
}
