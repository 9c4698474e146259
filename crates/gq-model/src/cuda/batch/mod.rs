//! New tokens of one sequence on their way through a graph on a GPU.
//!
//! Operators queue launches and give where their results will be. The first failure is kept; operators after it do
//! nothing, and whoever ends the batch is told. What no kernel computes is computed on the host by the operators of the
//! CPU, between two copies.

mod experts;
mod products;

use super::inputs::Inputs;
use super::plan::{self, queries};
use super::runner::Runner;
use super::value::{Chosen, Value};
use crate::arithmetic::elementwise;
use crate::cache::KvCache;
use crate::error::DeviceError;
use crate::linear::Linear;
use crate::matrix::Matrix;
use crate::ops::{Attention, Norm, Ops, Router};
use gq_checkpoint::{Activation, AttentionSpec, Curve, ModelSpec};
use gq_cuda as kernels;
use gq_cuda::{HeadsTo, Parts, Span};
use std::ops::Range;

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

    /// Queries, which grow with their position in some models: no kernel has a factor for each token.
    fn grown(&mut self, q: &Value, spec: &AttentionSpec) -> Result<Value, DeviceError> {
        if spec.query_growth.is_none() {
            return self.whole(q);
        }
        let mut rows = self.host(q)?;
        for (position, row) in (self.inputs.start..).zip(rows.data.chunks_exact_mut(rows.width.max(1))) {
            let factor = spec.scale_at(position) / spec.scale;
            row.iter_mut().for_each(|x| *x *= factor);
        }
        self.runner.bring(&rows)
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
        let q = self.grown(q, spec)?;
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
