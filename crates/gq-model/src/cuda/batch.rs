//! New tokens of one sequence on their way through a graph on a GPU.
//!
//! Operators queue launches and give where their results will be. The first failure is kept; operators after it do
//! nothing, and whoever ends the batch is told. What no kernel computes is computed on the host by the operators of the
//! CPU, between two copies.

use super::inputs::Inputs;
use super::plan::{self, RotationKey, queries};
use super::runner::Runner;
use super::value::{Chosen, Value};
use super::weights::Codes;
use crate::arithmetic::{Choice, Routes, elementwise, stored};
use crate::cache::KvCache;
use crate::error::DeviceError;
use crate::linear::Linear;
use crate::matrix::Matrix;
use crate::ops::{Attention, Norm, Ops, Router};
use gq_checkpoint::{Activation, Curve, ModelSpec, Scoring};
use gq_cuda as kernels;
use gq_cuda::{HeadsTo, Parts, Span};
use std::ops::Range;

/// Tokens that a product of exact weights takes at a time.
const EXACT_TOKENS: usize = 8;

/// Largest head that kernels take.
const MOST_DIM: usize = 512;

/// New tokens of one sequence, after what its cache has.
pub struct Batch<'a> {
    pub(super) runner: &'a mut Runner,
    spec: &'a ModelSpec,
    /// The cache among the runner's.
    place: usize,
    /// Tokens that the cache is for.
    context: usize,
    pub(super) inputs: Inputs,
    error: Option<DeviceError>,
}

/// An input as codes take it.
struct Rounded {
    values: Span,
    steps: Span,
    /// What keeps both.
    _hold: Value,
}

impl<'a> Batch<'a> {
    /// So many new tokens of a sequence.
    ///
    /// # Errors
    /// When there is no room for its keys and values, or the device was lost.
    pub fn begin(
        runner: &'a mut Runner,
        spec: &'a ModelSpec,
        cache: &KvCache,
        tokens: usize,
    ) -> Result<Batch<'a>, DeviceError> {
        let place = runner.cache(cache)?;
        Batch::new(runner, spec, place, cache, tokens)
    }

    pub(super) fn new(
        runner: &'a mut Runner,
        spec: &'a ModelSpec,
        place: usize,
        cache: &KvCache,
        tokens: usize,
    ) -> Result<Batch<'a>, DeviceError> {
        let inputs = Inputs::new(runner, spec, cache.len(), tokens)?;
        Ok(Batch::of_inputs(runner, spec, place, cache, inputs))
    }

    /// The same with what it brings.
    pub(super) fn of_inputs(
        runner: &'a mut Runner,
        spec: &'a ModelSpec,
        place: usize,
        cache: &KvCache,
        inputs: Inputs,
    ) -> Batch<'a> {
        Batch { runner, spec, place, context: cache.max_tokens(), inputs, error: None }
    }

    /// Waits for all of it.
    ///
    /// # Errors
    /// The first failure.
    pub(crate) fn end(&mut self) -> Result<(), DeviceError> {
        self.failed()?;
        Ok(self.runner.gpu.wait()?)
    }

    /// A value's numbers on the host.
    ///
    /// # Errors
    /// The first failure of anything before.
    pub fn read(&mut self, x: &Value) -> Result<Matrix, DeviceError> {
        self.failed()?;
        let x = self.whole(x)?;
        let bytes = self.runner.read(x.address, x.span().bytes)?;
        let data = bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
        Ok(Matrix { width: x.width, data })
    }

    /// A value of numbers from the host.
    pub fn bring(&mut self, x: &Matrix) -> Value {
        self.run(|ops| ops.runner.bring(x))
    }

    /// Whether nothing failed so far.
    ///
    /// # Errors
    /// The first failure.
    pub fn failed(&self) -> Result<(), DeviceError> {
        self.error.clone().map_or(Ok(()), Err)
    }

    /// A result, or nothing after a failure.
    fn run(&mut self, work: impl FnOnce(&mut Self) -> Result<Value, DeviceError>) -> Value {
        self.keep(Value::nothing(), work)
    }

    fn keep<R>(&mut self, nothing: R, work: impl FnOnce(&mut Self) -> Result<R, DeviceError>) -> R {
        if self.error.is_some() {
            return nothing;
        }
        match work(self) {
            Ok(result) => result,
            Err(error) => {
                self.error = Some(error);
                nothing
            }
        }
    }

    /// The same numbers as one dense matrix.
    pub(super) fn whole(&mut self, x: &Value) -> Result<Value, DeviceError> {
        if x.is_whole() {
            return Ok(x.clone());
        }
        let Some(view) = x.view.clone() else {
            let y = self.runner.value(x.rows, x.width, 1)?;
            self.copy(x, &y)?;
            return Ok(y);
        };
        let (columns, even) = (view.len(), |dim: &usize| view.len().is_multiple_of(*dim));
        match (2..=MOST_DIM.min(columns)).rev().filter(|dim| dim % 2 == 0).find(even) {
            Some(dim) => {
                let y = self.runner.value(x.rows, columns, 1)?;
                let heads = kernels::Heads {
                    x: x.all_parts(),
                    width: x.width,
                    first: view.start,
                    norm: None,
                    turns: None,
                    to: HeadsTo::Rows(y.span()),
                    tokens: x.rows,
                    heads: columns / dim,
                    dim,
                };
                self.runner.launch(heads.launch())?;
                Ok(y)
            }
            None => {
                let all = self.whole(&Value { view: None, ..x.clone() })?;
                let some = self.host(&all)?.columns(view);
                self.runner.bring(&some)
            }
        }
    }

    /// The sum of parts to another place.
    fn copy(&mut self, x: &Value, y: &Value) -> Result<(), DeviceError> {
        let count = x.rows * x.width;
        let copy = kernels::AddScaled { x: x.all_parts(), residual: None, factor: 1.0, y: y.span(), count };
        self.runner.launch(copy.launch())
    }

    /// Numbers for an operator that has no kernel.
    fn host(&mut self, x: &Value) -> Result<Matrix, DeviceError> {
        self.inputs.leaves_device = true;
        self.read(x)
    }

    /// An input in the basis of codes, in int8.
    fn rounded(&mut self, x: &Value, key: Option<RotationKey>) -> Result<Rounded, DeviceError> {
        let x = if x.view.is_some() { self.whole(x)? } else { x.clone() };
        let (rows, cols) = (x.rows, x.width);
        let aligned = (rows * cols).next_multiple_of(256);
        let hold = self.runner.value(1, (aligned + rows * cols / 8).div_ceil(4), 1)?;
        let values = Span { address: hold.address, bytes: (rows * cols) as u64 };
        let steps = Span { address: hold.address + aligned as u64, bytes: (rows * cols / 8) as u64 };
        let launch = match key {
            Some(key) => {
                let rotation = self.runner.weights.rotation(key)?;
                let [signs, factors] = rotation.spans();
                let rotate = kernels::Rotate { x: x.all_parts(), signs, factors, values, steps, rows };
                rotate.launch(&rotation.tables)
            }
            None => kernels::Quantize { x: x.all_parts(), values, steps, rows, cols }.launch(),
        };
        self.runner.launch(launch)?;
        Ok(Rounded { values, steps, _hold: hold })
    }

    /// Whether kernels take its rows.
    fn has_kernels(linear: &Linear) -> bool {
        !linear.encoding().is_exact() || linear.shape.cols.is_multiple_of(4)
    }

    /// Products of one input with several weights.
    fn products(&mut self, x: &Value, weights: &[&Linear]) -> Result<Vec<Value>, DeviceError> {
        if !weights.iter().all(|linear| Self::has_kernels(linear)) {
            let (x, level) = (self.host(x)?, self.runner.level);
            return weights
                .iter()
                .map(|linear| self.runner.bring(&stored::linear(level, linear, &x)))
                .collect();
        }
        let (mut rounded, mut plain): (Option<(Option<RotationKey>, Rounded)>, Option<Value>) = (None, None);
        let joint = self.adjacent(x.rows, weights)?;
        let mut results = Vec::with_capacity(weights.len());
        for (index, linear) in weights.iter().enumerate() {
            let weight = self.runner.weights.get(&self.runner.gpu, linear)?;
            let (key, exact) = (weight.rotation, matches!(weight.codes, Codes::Exact { .. }));
            if exact && plain.is_none() {
                plain = Some(self.whole(x)?);
            }
            if !exact && rounded.as_ref().is_none_or(|(of, _)| *of != key) {
                rounded = Some((key, self.rounded(x, key)?));
            }
            let y = joint.as_ref().map(|joint| joint[index].clone());
            let input = (x.rows, rounded.as_ref().map(|(_, input)| input), plain.as_ref());
            let y = self.product(linear, input, None, y)?;
            results.push(self.biased(linear, y)?);
        }
        Ok(results)
    }

    /// Two results next to each other, where neither comes in parts: a gate and an up value.
    fn adjacent(&mut self, rows: usize, weights: &[&Linear]) -> Result<Option<[Value; 2]>, DeviceError> {
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

    /// One product, without a bias: `[rows, weight.rows]`, or with experts a row for each slot.
    fn product(
        &mut self,
        linear: &Linear,
        (rows, rounded, plain): (usize, Option<&Rounded>, Option<&Value>),
        routes: Option<&Chosen>,
        to: Option<Value>,
    ) -> Result<Value, DeviceError> {
        let shape = linear.shape;
        let (each, cols, stacked) = (shape.rows_each(), shape.cols, shape.matrices);
        let experts = routes.map(|routes| {
            let slots = routes.tokens * routes.top;
            kernels::Experts { ids: routes.ids.span(), slots, per: slots / rows.max(1), stacked }
        });
        // Without routes stacked matrices are one.
        let matrix_rows = if experts.is_some() { each } else { shape.rows };
        let outputs = experts.map_or(rows, |experts| experts.slots);
        let tokens = if experts.is_some() { 1 } else { rows };
        let weight = self.runner.weights.get(&self.runner.gpu, linear)?;
        let launches = match &weight.codes {
            Codes::Planes { code, form, codes, scales } => {
                let input = rounded.ok_or(DeviceError::Missing)?;
                let (code, form, codes, scales) = (*code, *form, codes.span(), scales.span());
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
                    codes: codes.span(),
                    scales: scales.span(),
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
                let (dtype, weights) = (*dtype, values.span());
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
    fn biased(&mut self, linear: &Linear, y: Value) -> Result<Value, DeviceError> {
        let weight = self.runner.weights.get(&self.runner.gpu, linear)?;
        let Some(bias) = weight.bias.as_ref().map(gq_cuda::Buffer::span) else { return Ok(y) };
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

    fn attend(
        &mut self,
        q: &Value,
        new: Option<(Value, Value)>,
        layer: usize,
        attention: &Attention,
    ) -> Result<Value, DeviceError> {
        let spec = &attention.spec;
        let cached = self.runner.cached(self.place)?.layer(layer);
        let [keys, values] = cached.ok_or(DeviceError::Missing)?;
        let positions = self.inputs.positions;
        if let Some((k, v)) = new {
            for (x, cache) in [(k, keys), (v, values)] {
                let heads = kernels::Heads {
                    x: x.all_parts(),
                    width: x.width,
                    first: x.view.as_ref().map_or(0, |view| view.start),
                    norm: None,
                    turns: None,
                    to: HeadsTo::Cache { cache, positions },
                    tokens: x.rows,
                    heads: spec.kv_heads,
                    dim: spec.head_dim,
                };
                self.runner.launch(heads.launch())?;
            }
        }
        let q = self.whole(q)?;
        let y = self.runner.value(q.rows, q.width, 1)?;
        let longest = plan::longest(spec, self.context);
        let sinks = match &attention.sinks {
            Some(sinks) => Some(self.runner.weights.constant(&self.runner.gpu, sinks)?),
            None => None,
        };
        let (step, each) = queries(spec, longest);
        for first in (0..q.rows).step_by(step) {
            let tokens = step.min(q.rows - first);
            let partial = self.runner.take(each * tokens as u64)?;
            let part = |value: &Value| Span {
                address: value.address + 4 * (first * q.width) as u64,
                bytes: 4 * (tokens * q.width) as u64,
            };
            let some = kernels::Attention {
                q: part(&q),
                keys,
                values,
                positions: Span { address: positions.address + 4 * first as u64, bytes: 4 * tokens as u64 },
                partial: self.runner.span(&partial),
                sinks,
                y: part(&y),
                tokens,
                heads: spec.heads,
                kv_heads: spec.kv_heads,
                dim: spec.head_dim,
                window: spec.window.filter(|window| *window < self.context),
                longest,
                scale: spec.scale,
                softcap: spec.softcap,
            };
            for launch in some.launches()? {
                self.runner.launch(Ok(launch))?;
            }
        }
        Ok(y)
    }

    fn choose(&mut self, scores: &Value, router: &Router) -> Result<Chosen, DeviceError> {
        let (spec, experts) = (&router.spec, scores.columns());
        let (tokens, top) = (scores.rows, spec.top_k);
        let by_kernel = spec.scoring == Scoring::Softmax
            && spec.renormalize
            && spec.groups.is_none()
            && router.selection_bias.is_none()
            && (router.scales.is_none() || spec.scale == 1.0)
            && experts <= 512
            && top <= experts.min(32);
        if !by_kernel {
            let routes = Routes::new(&self.host(scores)?, router);
            let numbers =
                |of: fn(&Choice) -> f32| Matrix { width: top, data: routes.choices.iter().map(of).collect() };
            // Ids as they are: their bits are what a kernel reads.
            let ids = self.runner.bring(&numbers(|choice| f32::from_bits(choice.expert as u32)))?;
            let factors = self.runner.bring(&numbers(|choice| choice.factor))?;
            return Ok(Chosen { ids, factors, tokens, top });
        }
        let scores = if scores.view.is_some() { self.whole(scores)? } else { scores.clone() };
        let own = router.scales.clone().unwrap_or_else(|| vec![spec.scale; experts]);
        let scales = self.runner.weights.constant(&self.runner.gpu, &own)?;
        let (ids, factors) = (self.runner.value(tokens, top, 1)?, self.runner.value(tokens, top, 1)?);
        let choose = kernels::ChooseExperts {
            scores: scores.all_parts(),
            scales,
            ids: ids.span(),
            factors: factors.span(),
            tokens,
            experts,
            top,
        };
        self.runner.launch(choose.launch())?;
        Ok(Chosen { ids, factors, tokens, top })
    }

    fn grouped(&mut self, x: &Value, routes: &Chosen, linear: &Linear) -> Result<Value, DeviceError> {
        if !Self::has_kernels(linear) {
            let (x, routes) = (self.host(x)?, self.routes(routes)?);
            let y = stored::grouped(self.runner.level, linear, &x, &routes, &mut |_, _| ());
            return self.runner.bring(&y);
        }
        let weight = self.runner.weights.get(&self.runner.gpu, linear)?;
        let (key, exact) = (weight.rotation, matches!(weight.codes, Codes::Exact { .. }));
        let plain = if exact { Some(self.whole(x)?) } else { None };
        let rounded = if exact { None } else { Some(self.rounded(x, key)?) };
        let y = self.product(linear, (x.rows, rounded.as_ref(), plain.as_ref()), Some(routes), None)?;
        if linear.bias().is_none() {
            return Ok(y);
        }
        let (routes, mut out) = (self.routes(routes)?, self.host(&y)?);
        routes.add_biases(linear, &mut out);
        self.runner.bring(&out)
    }

    /// Which experts were chosen, on the host.
    fn routes(&mut self, chosen: &Chosen) -> Result<Routes, DeviceError> {
        let (ids, factors) = (self.host(&chosen.ids)?, self.host(&chosen.factors)?);
        let choices = ids.data.iter().zip(factors.data);
        let choices = choices.map(|(id, factor)| Choice { expert: id.to_bits() as usize, factor });
        Ok(Routes { tokens: chosen.tokens, choices: choices.collect() })
    }

    fn gate(&mut self, activation: Activation, gate: &Value, up: &Value) -> Result<Value, DeviceError> {
        let Activation { curve, limit, up_offset } = activation;
        let gelu = match curve {
            Curve::Swish { alpha: 1.0 } if limit.is_none() && up_offset == 0.0 => false,
            Curve::GeluTanh if limit.is_none() && up_offset == 0.0 => true,
            _ => {
                let (gate, up) = (self.host(gate)?, self.host(up)?);
                return self.runner.bring(&elementwise::gated(activation, gate, &up));
            }
        };
        let (rows, columns) = (gate.rows, gate.columns());
        let of_one = gate.address == up.address && gate.width == up.width && gate.parts == up.parts;
        let launch = |x: Parts, width: usize, up: usize, columns: usize, rows: usize, y: Span| {
            kernels::Gated { x, width, up, columns, gelu, y, rows }.launch()
        };
        // Columns of one matrix, the gate's first.
        if let (true, Some(Range { start: 0, .. }), Some(behind)) = (of_one, &gate.view, &up.view) {
            let y = self.runner.value(rows, columns, 1)?;
            let launch = launch(gate.all_parts(), gate.width, behind.start, columns, rows, y.span());
            self.runner.launch(launch)?;
            return Ok(y);
        }
        let count = rows * columns;
        let adjacent = gate.is_whole() && up.is_whole() && up.address == gate.address + 4 * count as u64;
        let both = if adjacent {
            Value { rows: 1, width: 2 * count, ..gate.clone() }
        } else {
            let both = self.runner.value(1, 2 * count, 1)?;
            for (x, first) in [(gate, 0), (up, count)] {
                let x = if x.view.is_some() { self.whole(x)? } else { x.clone() };
                let half =
                    Value { address: both.address + 4 * first as u64, rows, width: columns, ..both.clone() };
                self.copy(&x, &half)?;
            }
            both
        };
        let y = self.runner.value(rows, columns, 1)?;
        let launch = launch(both.all_parts(), 2 * count, count, count, 1, y.span());
        self.runner.launch(launch)?;
        Ok(y)
    }

    fn sum(&mut self, x: Value, y: &Value) -> Result<Value, DeviceError> {
        // One of them may come in parts.
        let (mut x, mut y) = (x, y.clone());
        if x.view.is_some() || x.parts > 1 && y.parts > 1 {
            x = self.whole(&x)?;
        }
        if y.view.is_some() {
            y = self.whole(&y)?;
        }
        let (residual, parts) = if x.parts == 1 { (x, y) } else { (y, x) };
        let to = match residual.is_alone() {
            true => residual.clone(),
            false => self.runner.value(residual.rows, residual.width, 1)?,
        };
        let add = kernels::AddScaled {
            x: parts.all_parts(),
            residual: Some(residual.span()),
            factor: 1.0,
            y: to.span(),
            count: residual.rows * residual.width,
        };
        self.runner.launch(add.launch())?;
        Ok(to)
    }
}

impl Ops for Batch<'_> {
    type Value = Value;
    type Routes = Chosen;

    fn embed(&mut self, table: &Linear, tokens: &[u32]) -> Value {
        self.run(|ops| ops.inputs.rows(ops.runner, table, tokens))
    }

    fn linear<const N: usize>(&mut self, x: &Value, weights: [&Linear; N]) -> [Value; N] {
        let made = self.keep(Vec::new(), |ops| ops.products(x, &weights));
        let mut made = made.into_iter();
        std::array::from_fn(|_| made.next().unwrap_or_else(Value::nothing))
    }

    fn rms_norm(&mut self, x: &Value, norm: &Norm) -> Value {
        self.run(|ops| {
            let x = if x.view.is_some() { ops.whole(x)? } else { x.clone() };
            let weight = ops.runner.weights.norm(&ops.runner.gpu, norm)?;
            let y = ops.runner.value(x.rows, x.width, 1)?;
            let launch = kernels::RmsNorm {
                x: x.all_parts(),
                residual: None,
                weight,
                y: y.span(),
                rows: x.rows * x.width / norm.width,
                width: norm.width,
                eps: norm.eps,
            };
            ops.runner.launch(launch.launch())?;
            Ok(y)
        })
    }

    fn rope(&mut self, x: Value, rope: usize) -> Value {
        self.run(|ops| {
            let (Some(spec), Some(turns)) = (ops.spec.ropes.get(rope), ops.inputs.turns.get(rope)) else {
                return Ok(x);
            };
            let (columns, dim) = (x.columns(), spec.head_dim);
            let y = ops.runner.value(x.rows, columns, 1)?;
            let heads = kernels::Heads {
                x: x.all_parts(),
                width: x.width,
                first: x.view.as_ref().map_or(0, |view| view.start),
                norm: None,
                turns: Some(*turns),
                to: HeadsTo::Rows(y.span()),
                tokens: x.rows,
                heads: columns / dim,
                dim,
            };
            ops.runner.launch(heads.launch())?;
            Ok(y)
        })
    }

    fn attention(
        &mut self,
        q: Value,
        new: Option<(Value, Value)>,
        cache: usize,
        attention: &Attention,
    ) -> Value {
        self.run(|ops| ops.attend(&q, new, cache, attention))
    }

    fn gated(&mut self, activation: Activation, gate: Value, up: &Value) -> Value {
        self.run(|ops| ops.gate(activation, &gate, up))
    }

    fn route(&mut self, scores: &Value, router: &Router) -> Chosen {
        let nothing = Chosen { ids: Value::nothing(), factors: Value::nothing(), tokens: 0, top: 0 };
        self.keep(nothing, |ops| ops.choose(scores, router))
    }

    fn grouped_linear(&mut self, x: &Value, routes: &Chosen, weight: &Linear) -> Value {
        self.run(|ops| ops.grouped(x, routes, weight))
    }

    fn combine(&mut self, x: Value, routes: &Chosen) -> Value {
        self.run(|ops| {
            let x = if x.view.is_some() { ops.whole(&x)? } else { x };
            let y = ops.runner.value(routes.tokens, x.width, 1)?;
            let mix = kernels::MixExperts {
                x: x.all_parts(),
                factors: routes.factors.span(),
                y: y.span(),
                tokens: routes.tokens,
                per: routes.top,
                width: x.width,
            };
            ops.runner.launch(mix.launch())?;
            Ok(y)
        })
    }

    fn add(&mut self, x: Value, y: &Value) -> Value {
        self.run(|ops| ops.sum(x, y))
    }

    fn scale(&mut self, x: Value, factor: f32) -> Value {
        self.run(|ops| {
            if factor == 1.0 {
                return Ok(x);
            }
            let x = if x.view.is_some() { ops.whole(&x)? } else { x };
            let (y, count) = (ops.runner.value(x.rows, x.width, 1)?, x.rows * x.width);
            let scale = kernels::AddScaled { x: x.all_parts(), residual: None, factor, y: y.span(), count };
            ops.runner.launch(scale.launch())?;
            Ok(y)
        })
    }

    fn softcap(&mut self, x: Value, cap: f32) -> Value {
        self.run(|ops| {
            let x = if x.view.is_some() { ops.whole(&x)? } else { x };
            let (y, count) = (ops.runner.value(x.rows, x.width, 1)?, x.rows * x.width);
            ops.runner.launch(kernels::Softcap { x: x.all_parts(), cap, y: y.span(), count }.launch())?;
            Ok(y)
        })
    }

    fn rows(&mut self, x: Value, rows: Range<usize>) -> Value {
        self.run(|ops| {
            let x = ops.whole(&x)?;
            let address = x.address + 4 * (rows.start * x.width) as u64;
            Ok(Value { address, rows: rows.len(), ..x })
        })
    }

    fn columns(&mut self, x: &Value, columns: Range<usize>) -> Value {
        let first = x.view.as_ref().map_or(0, |view| view.start);
        Value { view: Some(first + columns.start..first + columns.end), ..x.clone() }
    }
}
