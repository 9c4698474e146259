//! New tokens of one sequence on their way through a graph on a GPU.
//!
//! Operators queue launches and give where their results will be. The first failure is kept; operators after it do
//! nothing, and whoever ends the batch is told. What no kernel computes is computed on the host by the operators of the
//! CPU, between two copies.

mod attention;
mod experts;
mod gate;
mod products;
mod values;

use super::inputs::Inputs;
use super::runner::Runner;
use super::value::{Before, Chosen, Value};
use crate::arithmetic::RopeTable;
use crate::cache::KvCache;
use crate::error::DeviceError;
use crate::linear::Linear;
use crate::matrix::Matrix;
use crate::ops::{Attention, Norm, Ops, Router};
use gq_checkpoint::{Activation, ModelSpec, RopeSpec};
use gq_cuda as kernels;
use gq_cuda::{HeadNorm, Span};
use std::ops::Range;
use values::Sum;

/// New tokens of one sequence, after what its cache has.
pub struct Batch<'a> {
    pub(super) runner: &'a mut Runner,
    spec: &'a ModelSpec,
    /// The cache among the runner's.
    place: usize,
    /// Tokens that the cache is for.
    context: usize,
    pub(super) inputs: Inputs,
    /// A sum that is not there yet.
    sum: Option<Sum>,
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
        let inputs = Inputs::new(runner, spec, cache, tokens)?;
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
        Batch { runner, spec, place, context: cache.max_tokens(), inputs, sum: None, error: None }
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
        self.settle()?;
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

    /// A result, or nothing after a failure. Every value is there before.
    fn run(&mut self, work: impl FnOnce(&mut Self) -> Result<Value, DeviceError>) -> Value {
        self.keep(Value::nothing(), |ops| {
            ops.settle()?;
            work(ops)
        })
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

    /// Heads of which only the first dimensions turn: kernels turn whole ones.
    fn turned(&mut self, x: &Value, spec: &RopeSpec) -> Result<Value, DeviceError> {
        let rows = self.host(x)?;
        let tokens = rows.data.len() / rows.width.max(1);
        let table = RopeTable::new(spec, self.context, self.inputs.start, tokens);
        self.runner.bring(&table.apply(rows))
    }

    /// Numbers for an operator that has no kernel.
    fn host(&mut self, x: &Value) -> Result<Matrix, DeviceError> {
        self.inputs.leaves_device = true;
        self.read(x)
    }
}

impl Ops for Batch<'_> {
    type Value = Value;
    type Routes = Chosen;

    fn embed(&mut self, table: &Linear, tokens: &[u32]) -> Value {
        self.run(|ops| ops.inputs.rows(ops.runner, table, tokens))
    }

    fn linear<const N: usize>(&mut self, x: &Value, weights: [&Linear; N]) -> [Value; N] {
        let made = self.keep(Vec::new(), |ops| {
            if !matches!(x.before, Some(Before::Norm(_))) {
                ops.settle()?;
            }
            ops.products(x, &weights)
        });
        let mut made = made.into_iter();
        std::array::from_fn(|_| made.next().unwrap_or_else(Value::nothing))
    }

    fn rms_norm(&mut self, x: &Value, norm: &Norm) -> Value {
        self.keep(Value::nothing(), |ops| {
            let weight = ops.runner.weights.norm(&ops.runner.gpu, norm)?;
            ops.normed(x, norm.width, HeadNorm { weight, eps: norm.eps })
        })
    }

    fn rope(&mut self, x: Value, rope: usize) -> Value {
        self.run(|ops| {
            let (Some(spec), Some(turns)) = (ops.spec.ropes.get(rope), ops.inputs.turns.get(rope)) else {
                return Ok(x);
            };
            if spec.turning() < spec.head_dim {
                return ops.turned(&x, spec);
            }
            let (turns, dim) = (Some(*turns), spec.head_dim);
            let (x, norm) = match x.before {
                None => (x, None),
                Some(Before::Heads { dim: of, norm, turns: None }) if of == dim => (x, norm),
                Some(_) => (ops.whole(&x)?, None),
            };
            Ok(Value { before: Some(Before::Heads { dim, norm, turns }), ..x })
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
        self.keep(nothing, |ops| {
            ops.settle()?;
            ops.choose(scores, router)
        })
    }

    fn grouped_linear(&mut self, x: &Value, routes: &Chosen, weight: &Linear) -> Value {
        self.run(|ops| ops.grouped(x, routes, weight))
    }

    fn combine(&mut self, x: Value, routes: &Chosen) -> Value {
        self.run(|ops| {
            let x = ops.plain(&x)?;
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
        self.run(|ops| ops.add_up(x, y))
    }

    fn scale(&mut self, x: Value, factor: f32) -> Value {
        self.keep(Value::nothing(), |ops| ops.scaled(x, factor))
    }

    fn softcap(&mut self, x: Value, cap: f32) -> Value {
        self.run(|ops| {
            let x = ops.plain(&x)?;
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
        if x.before.is_none() {
            let first = x.first();
            return Value { view: Some(first + columns.start..first + columns.end), ..x.clone() };
        }
        self.run(|ops| Ok(Value { view: Some(columns), ..ops.whole(x)? }))
    }
}
