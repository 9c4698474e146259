//! Trials: each group of tensors rounded alone, and everything together, on sequences that the moments hold out.

use super::costs::lookups_without_gradients;
use super::error::CalibrateError;
use super::event::CalibrateEvent;
use super::held_out::is_held_out;
use super::memory::{MeasuringMemory, MeasuringSize, depths};
use crate::measurements::{Corrections, GroupTrial, Measurements, MeasurementsError};
use crate::plan;
use crate::round::{
    CalibratedCoder, CalibratedError, Coded, CoderError, Coders, Factors, RowCoder, StripBuffers,
};
use gq_calibrate::{Replacements, Trial, TrialPass, check_activations};
use gq_checkpoint::{Checkpoint, Role, SourceTensor};
use gq_codec::Rotation;
use gq_model::{Linear, Model};
use gq_tensor::{EncodedMatrix, Encoding, Isa, MatrixShape, RotationKind, RotationSpec, States};
use std::collections::{BTreeMap, BTreeSet};

/// What is tried: where a damage is some hundredths of a nat, well above noise and not yet out of proportion.
const ENCODING: Encoding = Encoding::Trellis { bits: 3, states: States::S10 };
const ROTATION: RotationSpec = RotationSpec { kind: RotationKind::Hadamard, seed: 0 };
/// Parts of the rounding error that everything together is tried with: half of it is what a bit more leaves.
const SHARES: [f64; 2] = [0.5, 1.0];
/// Bytes of source rows read at once, and rows at least.
const BLOCK: usize = 4 << 20;
const BLOCK_ROWS: usize = 128;
/// States of all trials, while they are spilled.
const STATES: &str = "trials.partial";

/// How to try.
#[derive(Clone, Copy, Debug)]
pub struct TrialOptions {
    /// Kernels; the result is the same on all.
    pub level: Isa,
    /// Tokens to measure divergences on: whole sequences among those held out, at least one.
    pub tokens: usize,
    /// Most bytes of memory; the result does not depend on it.
    pub max_memory: Option<u64>,
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
    measurements: &mut Measurements,
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
        gradients: measurements.gradient_tokens > 0,
        trial_tokens: tokens,
        threads: rayon::current_num_threads(),
        held: checkpoint.held_bytes(rayon::current_num_threads()),
    };
    let memory = MeasuringMemory::trials(model.spec(), size, options.max_memory)?;
    if measurements.gradient_tokens == 0 {
        lookups_without_gradients(measurements, checkpoint)?;
    }
    let groups = groups(checkpoint, measurements);
    if groups.is_empty() {
        return Ok(());
    }
    let states = measurements.dir.join(STATES);
    let io = |source| MeasurementsError::Io { path: states.clone(), source };
    let work = Work { checkpoint, measurements, level: options.level };
    let measured = (|| {
        let mut pass = TrialPass::new(model, chosen.clone(), trials(&groups), work.start(&chosen)?)?;
        if memory.spilled > 0 {
            pass = pass.spilled_to(gq_files::begin(&states).map_err(io)?);
        }
        let of = model.spec().layers.len() + 1;
        for layer in 0..model.spec().layers.len() {
            let weights = work.coded(&mut |tensor| tensor.layer == Some(layer))?;
            pass.next_layer(&weights).map_err(io)?;
            progress(CalibrateEvent::Trials { done: layer + 1, of });
        }
        let head = work.coded(&mut |tensor| tensor.layer.is_none() && tensor.role == Role::Head)?;
        let measured = pass.divergences(&head).map_err(io)?;
        progress(CalibrateEvent::Trials { done: of, of });
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
    let about = (options.tokens, tokens, ENCODING.name());
    let comparable = measurements.gradient_tokens > 0;
    measurements.corrections = Some(Corrections::new(about, groups, comparable, &SHARES, &measured));
    measurements.finish()?;
    Ok(())
}

/// Groups in the order of their names, with predictions.
fn groups(checkpoint: &Checkpoint, measurements: &Measurements) -> Vec<GroupTrial> {
    let layers = checkpoint.spec().layers.len().max(1);
    let depths = layers.min(depths(measurements.gradient_tokens > 0));
    let mut groups: BTreeMap<String, GroupTrial> = BTreeMap::new();
    for tensor in tried(checkpoint, measurements) {
        let predicted = plan::predicted(measurements, &tensor.name, ENCODING).unwrap_or(0.0);
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

/// Tensors that were measured and can be coded.
fn tried<'a>(
    checkpoint: &'a Checkpoint,
    measurements: &'a Measurements,
) -> impl Iterator<Item = &'a SourceTensor> {
    checkpoint.tensors().iter().filter(|tensor| {
        measurements.tensors.contains_key(&tensor.name)
            && ENCODING.supports_cols(tensor.cols())
            && Rotation::check(ROTATION, tensor.cols()).is_ok()
    })
}

/// Every group alone, then everything.
fn trials(groups: &[GroupTrial]) -> Vec<Trial> {
    let alone =
        groups.iter().map(|group| Trial { tensors: group.tensors.iter().cloned().collect(), share: 1.0 });
    let all: BTreeSet<String> = groups.iter().flat_map(|group| &group.tensors).cloned().collect();
    let wholes = SHARES.iter().map(|&share| Trial { tensors: all.clone(), share: share as f32 });
    alone.chain(wholes).collect()
}

/// Rounds tensors in memory.
struct Work<'a> {
    checkpoint: &'a Checkpoint,
    measurements: &'a Measurements,
    level: Isa,
}

impl Work<'_> {
    /// What precedes the layers: whole tensors, and of tables that are looked up only the rows that are.
    fn start(&self, sequences: &[Vec<u32>]) -> Result<Replacements, CalibrateError> {
        let looked_up = |tensor: &SourceTensor| self.measurements.tensors[&tensor.name].inputs.is_empty();
        let mut weights = self
            .coded(&mut |tensor| tensor.layer.is_none() && tensor.role != Role::Head && !looked_up(tensor))?;
        let tokens: BTreeSet<usize> = sequences.iter().flatten().map(|&token| token as usize).collect();
        for tensor in tried(self.checkpoint, self.measurements).filter(|t| t.layer.is_none() && looked_up(t))
        {
            let coder = Coders::default().get(ENCODING, ROTATION, tensor.cols());
            let coder = coder.map_err(|source| failed(tensor, source))?;
            weights.insert_rows(&tensor.name, self.rows(tensor, &coder, &tokens)?);
        }
        Ok(weights)
    }

    /// The tensors that `wanted` accepts.
    fn coded(&self, wanted: &mut dyn FnMut(&SourceTensor) -> bool) -> Result<Replacements, CalibrateError> {
        // Factors are not kept while layers run.
        let (factors, mut weights, mut coders) =
            (Factors::default(), Replacements::default(), Coders::default());
        for tensor in tried(self.checkpoint, self.measurements).filter(|tensor| wanted(tensor)) {
            let shape = (tensor.rows(), tensor.cols());
            let height = tensor.shape.iter().rev().nth(1).copied().unwrap_or(1);
            let how = (ENCODING, ROTATION);
            let coder = CalibratedCoder::new(self.measurements, tensor, how, shape, &mut coders);
            let coder = coder.map_err(|error| match error {
                CalibratedError::Coder(source) => failed(tensor, source),
                CalibratedError::Measurements(source) => CalibrateError::File(source),
            })?;
            let Some(coder) = coder else { continue };
            let (mut payload, mut scales, mut coded) = (Vec::new(), Vec::new(), Coded::default());
            for matrix in (0..shape.0).step_by(height.max(1)) {
                let end = matrix + height;
                let step = block(tensor);
                for first in (matrix..end).step_by(step) {
                    let source = self.source(tensor, first..(first + step).min(end))?;
                    let from = (self.checkpoint, tensor);
                    let done = coder.code(self.level, &factors, from, &source, first, &mut coded);
                    done?;
                    payload.extend_from_slice(&coded.codes);
                    scales.extend_from_slice(&coded.scales);
                }
            }
            payload.append(&mut scales);
            let shape = MatrixShape { rows: shape.0, cols: shape.1 };
            let linear = Linear::in_memory(&tensor.name, shape, height, ENCODING, ROTATION, payload);
            weights.insert(linear.map_err(|error| CalibrateError::Trial {
                tensor: tensor.name.clone(),
                actual: error.to_string(),
            })?);
        }
        Ok(weights)
    }

    /// Rows rounded to nearest with the strips that they are in, and decoded.
    fn rows(
        &self,
        tensor: &SourceTensor,
        coder: &RowCoder,
        rows: &BTreeSet<usize>,
    ) -> Result<BTreeMap<usize, Vec<f32>>, CalibrateError> {
        let (mut out, cols) = (BTreeMap::new(), tensor.cols());
        let step = unit(tensor);
        let starts: BTreeSet<usize> = rows.iter().map(|row| row / step * step).collect();
        let (mut coded, mut buffers, mut values) = (Coded::default(), StripBuffers::default(), Vec::new());
        for first in starts {
            let end = (first + step).min(tensor.rows());
            let source = self.source(tensor, first..end)?;
            let into = (&mut coded, &mut buffers);
            coder.code(self.level, (self.checkpoint, tensor), &source, first, into)?;
            let payload = [&coded.codes[..], &coded.scales].concat();
            let shape = MatrixShape { rows: end - first, cols };
            let Ok(matrix) = EncodedMatrix::new(shape, ENCODING, ROTATION, &payload) else { continue };
            values.resize(shape.rows * cols, 0.0);
            coder.decoder.decode_rows(self.level, &matrix, 0..shape.rows, &mut values);
            coder.rotation.inverse(self.level, &mut values, &mut Vec::new());
            let read = (first..end).zip(values.chunks_exact(cols)).filter(|(row, _)| rows.contains(row));
            out.extend(read.map(|(row, values)| (row, values.to_vec())));
        }
        Ok(out)
    }

    fn source(&self, tensor: &SourceTensor, rows: std::ops::Range<usize>) -> Result<Vec<u8>, CalibrateError> {
        let row = tensor.row_bytes();
        let mut bytes = vec![0; rows.len() * row];
        let range = (rows.start * row) as u64..(rows.end * row) as u64;
        self.checkpoint.read_bytes(tensor, range, &mut bytes)?;
        tensor.order_rows(&mut bytes);
        Ok(bytes)
    }
}

/// Rows that cannot be cut apart: whole strips of whole units of the source.
fn unit(tensor: &SourceTensor) -> usize {
    let (strip, unit) = (ENCODING.strip_rows(), tensor.row_unit().max(1));
    (1..=unit).map(|n| n * strip).find(|rows| rows.is_multiple_of(unit)).unwrap_or(strip * unit)
}

/// Rows rounded at once.
fn block(tensor: &SourceTensor) -> usize {
    let fit = (BLOCK / tensor.row_bytes().max(1)).max(BLOCK_ROWS);
    fit.next_multiple_of(unit(tensor))
}

fn failed(tensor: &SourceTensor, source: CoderError) -> CalibrateError {
    CalibrateError::Trial { tensor: tensor.name.clone(), actual: source.to_string() }
}
