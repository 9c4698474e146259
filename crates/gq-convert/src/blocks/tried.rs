//! Rows tried in one way of storing them and another, with their inputs in view where those were measured.

use crate::execute::ConvertError;
use crate::round::{Factors, Input, RoundError, squared_error, squares};
use gq_calibrate::MeasurementsDir;
use gq_checkpoint::{Checkpoint, ReadError, SourceTensor};
use gq_codec::{Metric, Parallelism, Rotation};
use gq_tensor::{DType, Isa, RotationSpec, decode_f32, encode_f32};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Rows that types, and feedback and rounding to nearest, are compared on.
pub(super) const TRIED: usize = 32;

/// Added to importance weights, in units of their mean: a column that was never seen is not rounded to anything.
const FLOOR: f32 = 0.01;

/// A way of storing rows that they are rounded to.
pub(super) trait RowCode: Copy + Send + Sync {
    /// A number of its own among those that a tensor is tried in.
    fn number(self) -> u32;

    /// Whether rows of `cols` columns can be stored so.
    fn fits(self, cols: usize) -> bool;

    /// Rows `[_, cols]` as they are once rounded.
    fn rounded(self, level: Isa, metric: Metric<'_>, rows: &[f32], cols: usize) -> Vec<f32>;
}

/// Mean squares of inputs `[cols]` of every matrix of a tensor, by canonical name: a weak form of measurements.
pub type Importances = BTreeMap<String, Vec<Vec<f32>>>;

/// Tries tensors of a checkpoint.
pub(super) struct Trials<'a> {
    checkpoint: &'a Checkpoint,
    measurements: Option<&'a MeasurementsDir>,
    importances: Option<&'a Importances>,
    level: Isa,
    factors: Factors,
    /// Whether feedback comes closer, by tensor, number of the code and number of the input.
    verdicts: Mutex<BTreeMap<(String, u32, usize), bool>>,
}

/// Errors of some rows in one code.
struct Tried {
    nearest: f64,
    /// Infinite where no inputs were measured.
    feedback: f64,
}

/// What is known of the inputs of some rows.
struct View {
    /// Second moments, where they were measured.
    input: Option<Arc<Input>>,
    /// What each column counts without feedback.
    weights: Vec<f32>,
    /// Whether errors count by these weights where there are no moments of text that was held out.
    weighted: bool,
}

/// What was found of a tensor: codes and types of 16 bits, each with the error that [`super::TypeError`] describes.
pub(super) struct Found<C> {
    pub(super) codes: Vec<(C, f64)>,
    pub(super) halves: [(DType, f64); 2],
}

impl<'a> Trials<'a> {
    pub(super) fn new(
        checkpoint: &'a Checkpoint,
        measurements: Option<&'a MeasurementsDir>,
        level: Isa,
    ) -> Trials<'a> {
        let (factors, verdicts) = (Factors::default(), Mutex::default());
        Trials { checkpoint, measurements, importances: None, level, factors, verdicts }
    }

    /// The same with importances of columns, for tensors that were not measured.
    pub(super) fn with_importances(self, importances: &'a Importances) -> Trials<'a> {
        Trials { importances: Some(importances), ..self }
    }

    fn view(&self, tensor: &SourceTensor, group: usize) -> Result<View, ConvertError> {
        let input = self.input(tensor, group)?;
        let given = self.importances.and_then(|importances| importances.get(&tensor.name)?.get(group));
        let given = given.filter(|squares| input.is_none() && squares.len() == tensor.cols());
        let squares = input.as_ref().map(|input| &input.diagonal).or(given);
        let weighted = given.is_some();
        Ok(View { weights: importance(squares.map(Vec::as_slice), tensor.cols()), input, weighted })
    }

    /// What each code that fits loses of some of a tensor's rows.
    pub(super) fn errors<C: RowCode>(
        &self,
        name: &str,
        codes: impl IntoIterator<Item = C>,
    ) -> Result<Found<C>, ConvertError> {
        let tensor = self.tensor(name)?;
        let cols = tensor.cols();
        let group = self.groups(name) / 2;
        let rows = self.rows(tensor, group)?;
        let view = self.view(tensor, group)?;
        let codes: Vec<C> = codes.into_iter().filter(|code| code.fits(cols)).collect();
        let held_out = view.input.as_ref().map(|input| trace(&input.held_out, cols)).filter(|t| *t > 0.0);
        let unit = match held_out {
            Some(trace) => trace / cols as f64,
            None if view.weighted => view.weights.iter().map(|&w| f64::from(w)).sum::<f64>() / cols as f64,
            None => 1.0,
        };
        let energy = unit * squared_error(&rows, &rows).1;
        let relative = |error: f64| if energy > 0.0 { error / energy } else { 0.0 };
        let tried: Vec<(C, Tried)> = codes
            .into_par_iter()
            .map(|code| (code, self.tried(Parallelism::Serial, code, &view, &rows)))
            .collect();
        let mut errors = Vec::new();
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        for (code, tried) in tried {
            verdicts.insert((name.to_owned(), code.number(), group), tried.feedback < tried.nearest);
            errors.push((code, relative(tried.feedback.min(tried.nearest))));
        }
        let halves = [DType::F16, DType::BF16].map(|dtype| {
            let mut bytes = vec![0; 2 * rows.len()];
            encode_f32(dtype, &rows, &mut bytes);
            let mut decoded = vec![0.0; rows.len()];
            decode_f32(dtype, &bytes, &mut decoded);
            (dtype, relative(self.loss(Parallelism::Threads, &view, &rows, &decoded)))
        });
        Ok(Found { codes: errors, halves })
    }

    /// Calls `then` with what errors cost in rows of one input: with feedback where that comes closer.
    pub(super) fn with_metric<C: RowCode, T>(
        &self,
        code: C,
        tensor: &SourceTensor,
        group: usize,
        then: impl FnOnce(Isa, Metric<'_>) -> T,
    ) -> Result<T, ConvertError> {
        let view = self.view(tensor, group)?;
        let by_feedback = view.input.is_some() && self.verdict(code, tensor, group, &view)?;
        Ok(match view.input.as_deref() {
            Some(input) if by_feedback => then(self.level, Metric::Moment(&input.factor)),
            _ => then(self.level, Metric::Importance(&view.weights)),
        })
    }

    /// Whether feedback comes closer on text held out: found on rows of the group, whatever rows are asked for first.
    fn verdict<C: RowCode>(
        &self,
        code: C,
        tensor: &SourceTensor,
        group: usize,
        view: &View,
    ) -> Result<bool, ConvertError> {
        let key = (tensor.name.clone(), code.number(), group);
        let known = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied();
        if let Some(known) = known {
            return Ok(known);
        }
        let rows = self.rows(tensor, group)?;
        let tried = self.tried(Parallelism::Threads, code, view, &rows);
        let by_feedback = tried.feedback < tried.nearest;
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner).insert(key, by_feedback);
        Ok(by_feedback)
    }

    /// Rounds some rows both ways.
    fn tried<C: RowCode>(&self, parallelism: Parallelism, code: C, view: &View, rows: &[f32]) -> Tried {
        let loss = |metric: Metric<'_>| {
            let decoded = code.rounded(self.level, metric, rows, view.weights.len());
            self.loss(parallelism, view, rows, &decoded)
        };
        let nearest = loss(Metric::Importance(&view.weights));
        let feedback = view.input.as_ref().map_or(f64::INFINITY, |input| loss(Metric::Moment(&input.factor)));
        Tried { nearest, feedback }
    }

    /// Squared error of outputs on text held out, or of the weights where there are no inputs.
    fn loss(&self, parallelism: Parallelism, view: &View, rows: &[f32], decoded: &[f32]) -> f64 {
        let cols = view.weights.len();
        match view.input.as_ref().filter(|input| trace(&input.held_out, cols) > 0.0) {
            Some(input) => {
                let errors: Vec<f32> = rows.iter().zip(decoded).map(|(w, q)| w - q).collect();
                squares(self.level, parallelism, &input.held_out, &errors, cols).iter().sum()
            }
            None if view.weighted => {
                let error = |(w, q): (&f32, &f32)| (f64::from(*w) - f64::from(*q)).powi(2);
                let errors = rows.iter().zip(decoded).map(error);
                errors
                    .zip(view.weights.iter().cycle())
                    .map(|(error, &weight)| error * f64::from(weight))
                    .sum()
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

    pub(super) fn tensor(&self, name: &str) -> Result<&'a SourceTensor, ConvertError> {
        let absent = || ConvertError::OtherSource { tensor: name.to_owned() };
        self.checkpoint.tensor(name).ok_or_else(absent)
    }

    /// Inputs of a tensor that were measured.
    fn inputs(&self, name: &str) -> &'a [String] {
        let measured = self.measurements.and_then(|m| m.value().tensors.get(name));
        measured.map_or(&[], |measured| &measured.inputs)
    }

    /// Parts of a tensor's rows that have an input each, at least one.
    pub(super) fn groups(&self, name: &str) -> usize {
        let given = self.importances.and_then(|importances| importances.get(name)).map_or(1, Vec::len);
        match self.inputs(name).len() {
            0 => given.max(1),
            measured => measured,
        }
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

/// Mean squares of the inputs, and something for those that were never seen; all the same where there are none.
fn importance(squares: Option<&[f32]>, cols: usize) -> Vec<f32> {
    let Some(squares) = squares else { return vec![1.0; cols] };
    let mean = squares.iter().sum::<f32>() / cols.max(1) as f32;
    let floor = if mean > 0.0 { FLOOR * mean } else { 1.0 };
    squares.iter().map(|square| square + floor).collect()
}

fn trace(moment: &[f32], cols: usize) -> f64 {
    moment.iter().step_by(cols + 1).map(|&square| f64::from(square)).sum()
}
