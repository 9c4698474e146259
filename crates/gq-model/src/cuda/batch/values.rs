//! Values that are there in part: norms, turns, gates and sums that wait for the launch that takes them.

use super::Batch;
use crate::cuda::value::{Before, Value};
use crate::error::DeviceError;
use gq_cuda as kernels;
use gq_cuda::{HeadNorm, HeadsTo, Span};

/// Largest head that kernels take.
const MOST_DIM: usize = 512;

/// A sum that is made where its first term lies, by whoever looks at that next.
pub(super) struct Sum {
    /// The first term, whole: the residual stream.
    pub(super) to: Value,
    /// The other, plain or rows that are to be normed.
    pub(super) x: Value,
    /// What the sum is multiplied by.
    pub(super) scale: f32,
}

impl Batch<'_> {
    /// Makes the sum that waits, if anybody still has it.
    pub(super) fn settle(&mut self) -> Result<(), DeviceError> {
        match self.sum.take() {
            Some(sum) if !sum.to.is_alone() => self.make(sum),
            _ => Ok(()),
        }
    }

    fn make(&mut self, Sum { to, x, scale: factor }: Sum) -> Result<(), DeviceError> {
        let x = self.plain(&x)?;
        let (span, count) = (to.span(), to.rows * to.width);
        let add = kernels::AddScaled { x: x.all_parts(), residual: Some(span), factor, y: span, count };
        self.runner.launch(add.launch())
    }

    /// The sum that waits, when it is made where `x` lies.
    pub(super) fn sum_of(&mut self, x: &Value) -> Option<Sum> {
        self.sum.take_if(|sum| sum.to.address == x.address)
    }

    /// The same numbers as one dense matrix.
    pub(in crate::cuda) fn whole(&mut self, x: &Value) -> Result<Value, DeviceError> {
        let x = self.plain(x)?;
        if x.is_whole() {
            return Ok(x);
        }
        let y = self.runner.value(x.rows, x.width, 1)?;
        self.copy(&x, &y)?;
        Ok(y)
    }

    /// The same numbers, all of their memory and as they are there, be it in parts.
    pub(super) fn plain(&mut self, x: &Value) -> Result<Value, DeviceError> {
        match x.before {
            None if x.view.is_none() => Ok(x.clone()),
            None => self.some_columns(x),
            Some(Before::Heads { dim, norm, turns }) => {
                let y = self.runner.value(x.rows, x.columns(), 1)?;
                self.heads(x, dim, norm, turns, HeadsTo::Rows(y.span()))?;
                Ok(y)
            }
            Some(Before::Norm(norm)) => {
                let (y, sum) = (self.runner.value(x.rows, x.width, 1)?, self.sum_of(x));
                let (from, residual) = match sum {
                    Some(Sum { x: from, scale: 1.0, .. }) if from.is_plain() => (from, Some(x.span())),
                    Some(sum) => {
                        self.make(sum)?;
                        (x.clone(), None)
                    }
                    // One that is made elsewhere may wait on.
                    None => (x.clone(), None),
                };
                let (weight, eps, rows, width) = (norm.weight, norm.eps, x.rows, x.width);
                let x = from.all_parts();
                let launch = kernels::RmsNorm { x, residual, weight, y: y.span(), rows, width, eps };
                self.runner.launch(launch.launch())?;
                Ok(y)
            }
            Some(Before::Gated { gelu, up, columns }) => {
                let y = self.runner.value(x.rows, columns, 1)?;
                let (rows, width, span) = (x.rows, x.width, y.span());
                let gated = kernels::Gated { x: x.all_parts(), width, up, columns, gelu, y: span, rows };
                self.runner.launch(gated.launch())?;
                Ok(y)
            }
        }
    }

    /// The same, of what may be part of a sum that waits.
    fn settled(&mut self, x: &Value) -> Result<Value, DeviceError> {
        self.settle()?;
        self.plain(x)
    }

    fn some_columns(&mut self, x: &Value) -> Result<Value, DeviceError> {
        let y = self.runner.value(x.rows, x.columns(), 1)?;
        if self.copy_columns(x, y.span())? {
            return Ok(y);
        }
        let columns = x.first()..x.first() + x.columns();
        let all = self.whole(&Value { view: None, ..x.clone() })?;
        let some = self.host(&all)?.columns(columns);
        self.runner.bring(&some)
    }

    /// Columns to another place, `[rows, columns]`; whether a kernel takes so many.
    pub(super) fn copy_columns(&mut self, x: &Value, to: Span) -> Result<bool, DeviceError> {
        let columns = x.columns();
        let fits = |dim: &usize| dim.is_multiple_of(2) && columns.is_multiple_of(*dim);
        let Some(dim) = (2..=MOST_DIM.min(columns)).rev().find(fits) else { return Ok(false) };
        self.heads(x, dim, None, None, HeadsTo::Rows(to))?;
        Ok(true)
    }

    /// The columns of a value as heads.
    pub(super) fn heads(
        &mut self,
        x: &Value,
        dim: usize,
        norm: Option<HeadNorm>,
        turns: Option<[Span; 2]>,
        to: HeadsTo,
    ) -> Result<(), DeviceError> {
        let (width, first, tokens) = (x.width, x.first(), x.rows);
        let (x, heads) = (x.all_parts(), x.columns() / dim);
        let launch = kernels::Heads { x, width, first, norm, turns, to, tokens, heads, dim };
        self.runner.launch(launch.launch())
    }

    /// The sum of parts to another place.
    pub(super) fn copy(&mut self, x: &Value, y: &Value) -> Result<(), DeviceError> {
        let count = x.rows * x.width;
        let copy = kernels::AddScaled { x: x.all_parts(), residual: None, factor: 1.0, y: y.span(), count };
        self.runner.launch(copy.launch())
    }

    /// Every `width` neighbors of a row normed.
    pub(super) fn normed(&mut self, x: &Value, width: usize, norm: HeadNorm) -> Result<Value, DeviceError> {
        if width == x.columns() {
            // A sum that waits is made on the way.
            let x = if x.is_plain() { x.clone() } else { self.settled(x)? };
            return Ok(Value { before: Some(Before::Norm(norm)), ..x });
        }
        self.settle()?;
        let is_head = width <= MOST_DIM && width.is_multiple_of(2);
        let x = if x.before.is_some() { self.plain(x)? } else { x.clone() };
        if is_head {
            let before = Before::Heads { dim: width, norm: Some(norm), turns: None };
            return Ok(Value { before: Some(before), ..x });
        }
        let x = self.plain(&x)?;
        let y = self.runner.value(x.rows, x.width, 1)?;
        let (rows, HeadNorm { weight, eps }) = (x.rows * x.width / width, norm);
        let x = x.all_parts();
        let launch = kernels::RmsNorm { x, residual: None, weight, y: y.span(), rows, width, eps };
        self.runner.launch(launch.launch())?;
        Ok(y)
    }

    /// `x + y`, where `x` lies if nobody else has that.
    pub(super) fn add_up(&mut self, x: Value, y: &Value) -> Result<Value, DeviceError> {
        let mut x = if x.is_plain() { x } else { self.plain(&x)? };
        if x.is_whole() && x.is_alone() {
            let waits = y.is_plain() || matches!(y.before, Some(Before::Norm(_)));
            let y = if waits { y.clone() } else { self.plain(y)? };
            self.sum = Some(Sum { to: x.clone(), x: y, scale: 1.0 });
            return Ok(x);
        }
        // One of them may come in parts.
        let y = self.plain(y)?;
        if x.parts > 1 && y.parts > 1 {
            x = self.whole(&x)?;
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

    /// `x * factor`.
    pub(super) fn scaled(&mut self, x: Value, factor: f32) -> Result<Value, DeviceError> {
        if factor == 1.0 {
            return Ok(x);
        }
        if let Some(sum) = &mut self.sum
            && sum.to.address == x.address
            && x.is_plain()
            && sum.scale == 1.0
        {
            sum.scale = factor;
            return Ok(x);
        }
        self.settle()?;
        let x = self.plain(&x)?;
        let (y, count) = (self.runner.value(x.rows, x.width, 1)?, x.rows * x.width);
        let scale = kernels::AddScaled { x: x.all_parts(), residual: None, factor, y: y.span(), count };
        self.runner.launch(scale.launch())?;
        Ok(y)
    }
}
