//! Products with weights: in codes, of inputs rounded to int8, or as they are.

use super::{Batch, Rounded};
use crate::arithmetic::stored;
use crate::cuda::plan::RotationKey;
use crate::cuda::value::{Before, Chosen, Value};
use crate::cuda::weights::{Codes, runs};
use crate::error::DeviceError;
use crate::linear::Linear;
use gq_cuda as kernels;
use gq_cuda::{Parts, RotationTables, Span};

/// Tokens that a product of exact weights takes at a time.
const EXACT_TOKENS: usize = 8;

impl Batch<'_> {
    /// An input in the basis of codes, in int8.
    pub(super) fn rounded(&mut self, x: &Value, key: Option<RotationKey>) -> Result<Rounded, DeviceError> {
        let (rows, cols) = (x.rows, x.columns());
        let narrow = key.filter(|_| !RotationTables::is_wide(cols));
        let fused = narrow.is_some() && matches!(x.before, Some(Before::Norm(_) | Before::Gated { .. }));
        // With what is left to do before, where a kernel does both.
        let x = if fused { x.clone() } else { self.plain(x)? };
        let aligned = (rows * cols).next_multiple_of(256);
        let hold = self.runner.value(1, (aligned + rows * cols / 8).div_ceil(4), 1)?;
        let values = Span { address: hold.address, bytes: (rows * cols) as u64 };
        let steps = Span { address: hold.address + aligned as u64, bytes: (rows * cols / 8) as u64 };
        let sum = if fused { self.sum_of(&x) } else { None };
        let between = match key {
            Some(_) if narrow.is_none() => Some(self.runner.value(rows, cols, 1)?),
            _ => None,
        };
        let launches = match key {
            None => vec![kernels::Quantize { x: x.all_parts(), values, steps, rows, cols }.launch()?],
            Some(key) => {
                let rotation = self.runner.weights.rotation(key)?;
                let ([signs, factors], tables) = (rotation.spans(), &rotation.tables);
                match (x.before, between.as_ref().map(Value::span)) {
                    (Some(Before::Norm(norm)), None) => {
                        let joined = sum.as_ref().map(|sum| {
                            let norm = match sum.x.before {
                                Some(Before::Norm(norm)) => Some(norm),
                                _ => None,
                            };
                            kernels::Joined { norm, residual: x.span(), scale: sum.scale }
                        });
                        let x = sum.as_ref().map_or(&x, |sum| &sum.x).all_parts();
                        let all =
                            kernels::NormRotate { x, joined, norm, signs, factors, values, steps, rows };
                        vec![all.launch(tables)?]
                    }
                    (Some(Before::Gated { gelu, up, .. }), None) => {
                        let (x, width) = (x.all_parts(), x.width);
                        let all =
                            kernels::GatedRotate { x, width, up, gelu, signs, factors, values, steps, rows };
                        vec![all.launch(tables)?]
                    }
                    (_, between) => {
                        let x = x.all_parts();
                        let rotate = kernels::Rotate { x, signs, factors, values, steps, rows };
                        match between {
                            Some(between) => kernels::RotateWide { rotate, between }.launches(tables)?.into(),
                            None => vec![rotate.launch(tables)?],
                        }
                    }
                }
            }
        };
        launches.into_iter().try_for_each(|launch| self.runner.launch(Ok(launch)))?;
        Ok(Rounded { values, steps, _hold: hold })
    }

    /// Whether kernels take its rows.
    pub(super) fn has_kernels(linear: &Linear) -> bool {
        !linear.encoding().is_exact() || linear.shape.cols.is_multiple_of(4)
    }

    /// Products of one input with several weights.
    pub(super) fn products(&mut self, x: &Value, weights: &[&Linear]) -> Result<Vec<Value>, DeviceError> {
        if !weights.iter().all(|linear| Self::has_kernels(linear)) {
            let (x, level) = (self.host(x)?, self.runner.level);
            return weights
                .iter()
                .map(|linear| self.runner.bring(&stored::linear(level, linear, &x)))
                .collect();
        }
        let (mut rounded, mut plain): (Option<(Option<RotationKey>, Rounded)>, Option<Value>) = (None, None);
        let runs = runs(weights);
        let joint = if runs.len() == 2 { self.adjacent(x.rows, weights)? } else { None };
        let mut results = Vec::with_capacity(weights.len());
        for run in runs {
            let some = &weights[run];
            let weight = self.runner.weights.joined(&self.runner.gpu, some)?;
            let (key, exact) = (weight.rotation, matches!(weight.codes, Codes::Exact { .. }));
            if exact && plain.is_none() {
                plain = Some(self.whole(x)?);
            }
            if !exact && rounded.as_ref().is_none_or(|(of, _)| *of != key) {
                rounded = Some((key, self.rounded(x, key)?));
            }
            let y = joint.as_ref().and_then(|joint| joint.get(results.len()).cloned());
            let input = rounded.as_ref().map(|(_, input)| input);
            let y = self.product(some, x.rows, input, plain.as_ref(), None, y)?;
            let y = self.biased(some, y)?;
            let mut first = 0;
            results.extend(some.iter().map(|linear| {
                let columns = first..first + linear.shape.rows;
                first = columns.end;
                Value { view: (some.len() > 1).then_some(columns), ..y.clone() }
            }));
        }
        Ok(results)
    }

    /// Two results next to each other, where neither comes in parts: a gate and an up value.
    pub(super) fn adjacent(
        &mut self,
        rows: usize,
        weights: &[&Linear],
    ) -> Result<Option<[Value; 2]>, DeviceError> {
        let [gate, up] = weights else { return Ok(None) };
        if gate.shape.rows != up.shape.rows {
            return Ok(None);
        }
        let mut parts = 1;
        for linear in [gate, up] {
            let weight = self.runner.weights.get(&self.runner.gpu, linear)?;
            if let Codes::Trellis { .. } = weight.codes
                && rows <= 8
            {
                parts = parts.max(kernels::column_splits(linear.shape.rows, linear.shape.cols, 1));
            }
        }
        if parts > 1 {
            return Ok(None);
        }
        let width = gate.shape.rows;
        let both = self.runner.value(2 * rows, width, 1)?;
        let half = |first: usize| Value {
            address: both.address + 4 * (first * rows * width) as u64,
            rows,
            ..both.clone()
        };
        Ok(Some([half(0), half(1)]))
    }

    /// One product with weights that are one matrix there, without a bias: `[rows, rows of all]`, or with experts a row for
    /// each slot.
    pub(super) fn product(
        &mut self,
        linear: &[&Linear],
        rows: usize,
        rounded: Option<&Rounded>,
        plain: Option<&Value>,
        routes: Option<&Chosen>,
        to: Option<Value>,
    ) -> Result<Value, DeviceError> {
        let shape = linear.first().ok_or(DeviceError::Missing)?.shape;
        let (each, cols, stacked) = (shape.rows_each(), shape.cols, shape.matrices);
        let all = linear.iter().map(|linear| linear.shape.rows).sum();
        let experts = routes.map(|routes| {
            let slots = routes.tokens * routes.top;
            kernels::Experts { ids: routes.ids.span(), slots, per: slots / rows.max(1), stacked }
        });
        // Without routes stacked matrices are one.
        let matrix_rows = if experts.is_some() { each } else { all };
        let outputs = experts.map_or(rows, |experts| experts.slots);
        let tokens = if experts.is_some() { 1 } else { rows };
        let weight = self.runner.weights.joined(&self.runner.gpu, linear)?;
        let launches = match &weight.codes {
            Codes::Planes { code, form, codes, scales } => {
                let input = rounded.ok_or(DeviceError::Missing)?;
                let (code, form, codes, scales) = (*code, *form, *codes, *scales);
                let y = to.map_or_else(|| self.runner.value(outputs, matrix_rows, 1), Ok)?;
                let product = kernels::PlaneProduct {
                    code,
                    form,
                    codes,
                    scales,
                    values: input.values,
                    steps: input.steps,
                    y: y.span(),
                    rows: matrix_rows,
                    cols,
                    tokens,
                    experts,
                };
                (vec![product.launch()], y)
            }
            Codes::Trellis { code, codes, scales } => {
                let input = rounded.ok_or(DeviceError::Missing)?;
                let mut product = kernels::TrellisProduct {
                    code: *code,
                    codes: *codes,
                    scales: *scales,
                    values: input.values,
                    steps: input.steps,
                    y: Span { address: 0, bytes: 0 },
                    rows: matrix_rows,
                    cols,
                    tokens,
                    experts,
                };
                let parts = product.parts();
                let y = to.map_or_else(|| self.runner.value(outputs, matrix_rows, parts), Ok)?;
                product.y = y.span();
                (vec![product.launch()], y)
            }
            Codes::Exact { dtype, values } => {
                let x = plain.ok_or(DeviceError::Missing)?;
                let (dtype, weights) = (*dtype, *values);
                let y = to.map_or_else(|| self.runner.value(outputs, matrix_rows, 1), Ok)?;
                let some = |first: usize, count: usize, tokens: usize| {
                    let part = |value: &Value, width: usize| Span {
                        address: value.address + 4 * (first * width) as u64,
                        bytes: 4 * (count * width) as u64,
                    };
                    let (x, y) = match experts {
                        Some(_) => (x.span(), y.span()),
                        None => (part(x, cols), part(&y, matrix_rows)),
                    };
                    kernels::ExactProduct { dtype, weights, x, y, rows: matrix_rows, cols, tokens, experts }
                };
                let launches = match experts {
                    Some(_) => vec![some(0, rows, 1).launch()],
                    None => (0..rows)
                        .step_by(EXACT_TOKENS)
                        .map(|first| {
                            let count = EXACT_TOKENS.min(rows - first);
                            some(first, count, count).launch()
                        })
                        .collect(),
                };
                (launches, y)
            }
        };
        let (launches, y) = launches;
        launches.into_iter().try_for_each(|launch| self.runner.launch(launch))?;
        Ok(y)
    }

    /// Adds a matrix's bias to every row.
    pub(super) fn biased(&mut self, linear: &[&Linear], y: Value) -> Result<Value, DeviceError> {
        let Some(bias) = self.runner.weights.bias(&self.runner.gpu, linear)? else { return Ok(y) };
        let y = self.whole(&y)?;
        for row in 0..y.rows {
            let place = Span { address: y.address + 4 * (row * y.width) as u64, bytes: 4 * y.width as u64 };
            let add = kernels::AddScaled {
                x: Parts::one(bias),
                residual: Some(place),
                factor: 1.0,
                y: place,
                count: y.width,
            };
            self.runner.launch(add.launch())?;
        }
        Ok(y)
    }
}
