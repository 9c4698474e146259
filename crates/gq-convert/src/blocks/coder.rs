//! Rows to blocks, with their inputs in view where those were measured.

use crate::execute::ConvertError;
use crate::round::{Factors, Input, RoundError, squared_error, squares};
use gq_calibrate::MeasurementsDir;
use gq_checkpoint::{Checkpoint, ReadError, SourceTensor};
use gq_codec::{BlockCode, Metric, Parallelism, Rotation, round_blocks};
use gq_tensor::ggml::{GgmlType, decode_blocks};
use gq_tensor::{DType, Isa, RotationSpec, encode_f32};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Rows that types, and feedback and rounding to nearest, are compared on.
const TRIED: usize = 32;

/// Added to importance weights, in units of their mean: a column that was never seen is not rounded to anything.
const FLOOR: f32 = 0.01;

/// Rounds tensors of a checkpoint to block types.
pub struct BlockCoder<'a> {
    checkpoint: &'a Checkpoint,
    measurements: Option<&'a MeasurementsDir>,
    level: Isa,
    factors: Factors,
    /// Whether feedback comes closer, by tensor, number of the type and number of the input.
    verdicts: Mutex<BTreeMap<(String, u32, usize), bool>>,
}

/// What a type loses of a tensor.
#[derive(Clone, Copy, Debug)]
pub struct TypeError {
    /// The type.
    pub kind: GgmlType,
    /// Squared error of outputs on text held out, relative to that of errors as large as the weights; of the weights
    /// themselves where no inputs were measured.
    pub error: f64,
}

/// Errors of some rows in one type.
struct Tried {
    nearest: f64,
    /// Infinite where no inputs were measured.
    feedback: f64,
}

impl<'a> BlockCoder<'a> {
    /// Without `measurements` all columns count the same.
    pub fn new(
        checkpoint: &'a Checkpoint,
        measurements: Option<&'a MeasurementsDir>,
        level: Isa,
    ) -> BlockCoder<'a> {
        let (factors, verdicts) = (Factors::default(), Mutex::default());
        BlockCoder { checkpoint, measurements, level, factors, verdicts }
    }

    /// What each type that a tensor's width allows loses of some of its rows: block types, and those of 16 bits.
    ///
    /// # Errors
    /// When weights or measurements cannot be read, or weights are no numbers.
    pub fn errors(&self, name: &str) -> Result<Vec<TypeError>, ConvertError> {
        let tensor = self.tensor(name)?;
        let cols = tensor.cols();
        let group = self.groups(name) / 2;
        let rows = self.rows(tensor, group)?;
        let input = self.input(tensor, group)?;
        let codes: Vec<BlockCode> =
            BlockCode::all().filter(|code| cols.is_multiple_of(code.kind().block_len())).collect();
        let unit = match input.as_ref().map(|input| trace(&input.held_out, cols)).filter(|t| *t > 0.0) {
            Some(trace) => trace / cols as f64,
            None => 1.0,
        };
        let energy = unit * squared_error(&rows, &rows).1;
        let relative = |error: f64| if energy > 0.0 { error / energy } else { 0.0 };
        let tried: Vec<(GgmlType, Tried)> = codes
            .into_par_iter()
            .map(|code| (code.kind(), self.tried(Parallelism::Serial, code, input.as_deref(), cols, &rows)))
            .collect();
        let mut errors = Vec::new();
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        for (kind, tried) in tried {
            verdicts.insert((name.to_owned(), kind.code(), group), tried.feedback < tried.nearest);
            errors.push(TypeError { kind, error: relative(tried.feedback.min(tried.nearest)) });
        }
        for (kind, dtype) in [(GgmlType::F16, DType::F16), (GgmlType::BF16, DType::BF16)] {
            let mut bytes = vec![0; 2 * rows.len()];
            encode_f32(dtype, &rows, &mut bytes);
            let mut decoded = vec![0.0; rows.len()];
            decode_blocks(kind, &bytes, &mut decoded);
            errors.push(TypeError {
                kind,
                error: relative(self.loss(Parallelism::Threads, input.as_deref(), cols, &rows, &decoded)),
            });
        }
        Ok(errors)
    }

    /// Rounds rows of a tensor to blocks of `kind` into `out`; `values` are the rows that stand in `runs` of the source,
    /// in an order that keeps those of one input together. False for a type without blocks.
    ///
    /// # Errors
    /// When measurements cannot be read or factored.
    pub fn round(
        &self,
        name: &str,
        kind: GgmlType,
        runs: &[Range<usize>],
        values: &[f32],
        out: &mut [u8],
    ) -> Result<bool, ConvertError> {
        let Some(code) = BlockCode::of(kind) else { return Ok(false) };
        let tensor = self.tensor(name)?;
        let cols = tensor.cols();
        let row_bytes = kind.row_bytes(cols).unwrap_or(0);
        let height = (tensor.rows() / self.groups(name)).max(1);
        let mut done = 0;
        for run in runs {
            let mut row = run.start;
            while row < run.end {
                let group = row / height;
                let now = run.end.min((group + 1) * height) - row;
                let values = &values[done * cols..(done + now) * cols];
                let out = &mut out[done * row_bytes..(done + now) * row_bytes];
                self.round_group(code, tensor, group, values, out)?;
                (row, done) = (row + now, done + now);
            }
        }
        Ok(true)
    }

    fn round_group(
        &self,
        code: BlockCode,
        tensor: &SourceTensor,
        group: usize,
        values: &[f32],
        out: &mut [u8],
    ) -> Result<(), ConvertError> {
        let input = self.input(tensor, group)?;
        let by_feedback = match &input {
            Some(input) => self.verdict(code, tensor, group, input)?,
            None => false,
        };
        match input.as_deref() {
            Some(input) if by_feedback => {
                round_blocks(self.level, code, Metric::Moment(&input.factor), values, out);
            }
            input => {
                let importance = importance(input, tensor.cols());
                round_blocks(self.level, code, Metric::Importance(&importance), values, out);
            }
        }
        Ok(())
    }

    /// Whether feedback comes closer on text held out: found on rows of the group, whatever rows are asked for first.
    fn verdict(
        &self,
        code: BlockCode,
        tensor: &SourceTensor,
        group: usize,
        input: &Input,
    ) -> Result<bool, ConvertError> {
        let key = (tensor.name.clone(), code.kind().code(), group);
        let known = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied();
        if let Some(known) = known {
            return Ok(known);
        }
        let rows = self.rows(tensor, group)?;
        let tried = self.tried(Parallelism::Threads, code, Some(input), tensor.cols(), &rows);
        let by_feedback = tried.feedback < tried.nearest;
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner).insert(key, by_feedback);
        Ok(by_feedback)
    }

    /// Rounds some rows both ways.
    fn tried(
        &self,
        parallelism: Parallelism,
        code: BlockCode,
        input: Option<&Input>,
        cols: usize,
        rows: &[f32],
    ) -> Tried {
        let kind = code.kind();
        let loss = |metric: Metric<'_>| {
            let mut bytes = vec![0; rows.len() / cols * kind.row_bytes(cols).unwrap_or(0)];
            round_blocks(self.level, code, metric, rows, &mut bytes);
            let mut decoded = vec![0.0; rows.len()];
            decode_blocks(kind, &bytes, &mut decoded);
            self.loss(parallelism, input, cols, rows, &decoded)
        };
        let nearest = loss(Metric::Importance(&importance(input, cols)));
        let feedback = input.map_or(f64::INFINITY, |input| loss(Metric::Moment(&input.factor)));
        Tried { nearest, feedback }
    }

    /// Squared error of outputs on text held out, or of the weights where there are no inputs.
    fn loss(
        &self,
        parallelism: Parallelism,
        input: Option<&Input>,
        cols: usize,
        rows: &[f32],
        decoded: &[f32],
    ) -> f64 {
        match input.filter(|input| trace(&input.held_out, cols) > 0.0) {
            Some(input) => {
                let errors: Vec<f32> = rows.iter().zip(decoded).map(|(w, q)| w - q).collect();
                squares(self.level, parallelism, &input.held_out, &errors, cols).iter().sum()
            }
            None => squared_error(rows, decoded).0,
        }
    }

    /// Rows spread evenly over those of one input.
    fn rows(&self, tensor: &SourceTensor, group: usize) -> Result<Vec<f32>, ConvertError> {
        let (cols, height) = (tensor.cols(), (tensor.rows() / self.groups(&tensor.name)).max(1));
        let count = height.min(TRIED);
        let mut rows = vec![0.0; count * cols];
        for (index, values) in rows.chunks_exact_mut(cols.max(1)).enumerate() {
            let row = group * height + index * height / count;
            self.checkpoint.read_rows_f32(tensor, row..row + 1, values)?;
            if let Some(col) = values.iter().position(|value| !value.is_finite()) {
                let (name, value) = (tensor.name.clone(), values[col]);
                return Err(ReadError::NotFinite { name, row, col, value }.into());
            }
        }
        Ok(rows)
    }

    fn tensor(&self, name: &str) -> Result<&'a SourceTensor, ConvertError> {
        let absent = || ConvertError::OtherSource { tensor: name.to_owned() };
        self.checkpoint.tensor(name).ok_or_else(absent)
    }

    /// Inputs of a tensor that were measured.
    fn inputs(&self, name: &str) -> &'a [String] {
        let measured = self.measurements.and_then(|m| m.value().tensors.get(name));
        measured.map_or(&[], |measured| &measured.inputs)
    }

    /// Parts of a tensor's rows that have an input each, at least one.
    fn groups(&self, name: &str) -> usize {
        self.inputs(name).len().max(1)
    }

    fn input(&self, tensor: &SourceTensor, group: usize) -> Result<Option<Arc<Input>>, ConvertError> {
        let inputs = self.inputs(&tensor.name);
        let (Some(measurements), Some(name)) = (self.measurements, inputs.get(group).or(inputs.last()))
        else {
            return Ok(None);
        };
        let coder = |source| ConvertError::Coder { tensor: tensor.name.clone(), source };
        let rotation = Rotation::new(RotationSpec::NONE, tensor.cols()).map_err(|e| coder(e.into()))?;
        let input = self.factors.of(self.level, measurements, name, &rotation, &tensor.name);
        Ok(Some(input.map_err(|error: RoundError| ConvertError::from(error))?))
    }
}

/// Mean squares of the inputs; all the same where there are none.
fn importance(input: Option<&Input>, cols: usize) -> Vec<f32> {
    let Some(input) = input else { return vec![1.0; cols] };
    let mean = input.diagonal.iter().sum::<f32>() / cols.max(1) as f32;
    let floor = if mean > 0.0 { FLOOR * mean } else { 1.0 };
    input.diagonal.iter().map(|square| square + floor).collect()
}

fn trace(moment: &[f32], cols: usize) -> f64 {
    moment.iter().step_by(cols + 1).map(|&square| f64::from(square)).sum()
}
