//! Values of graphs in a device's memory.

use super::arena::Block;
use gq_cuda::{HeadNorm, Parts, Span};
use std::ops::Range;
use std::sync::Arc;

/// A matrix `[rows, width]` of f32: the sum of its parts, which lie one after the other, or some columns of that.
#[derive(Clone, Debug)]
pub struct Value {
    /// Where its first row begins.
    pub(super) address: u64,
    /// What keeps it; `None` where it lies in memory that is nobody's to give back.
    pub(super) hold: Option<Arc<Block>>,
    pub(super) rows: usize,
    /// Elements from one row to the next.
    pub(super) width: usize,
    pub(super) parts: usize,
    /// Columns that are meant; `None`: all.
    pub(super) view: Option<Range<usize>>,
    /// What these go through before they are the value: whoever takes it does that in a launch of its own, or has it done.
    pub(super) before: Option<Before>,
}

/// What is left to do before a value is there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Before {
    /// Heads of `dim` elements are normed, then turned by cosines and sines.
    Heads { dim: usize, norm: Option<HeadNorm>, turns: Option<[Span; 2]> },
    /// Rows are normed.
    Norm(HeadNorm),
    /// `columns` gates, the first of a row, meet as many columns from `up` on.
    Gated { gelu: bool, up: usize, columns: usize },
}

impl Value {
    /// What an operator gives after a failure: nothing is read of it.
    pub(super) fn nothing() -> Value {
        Value { address: 0, hold: None, rows: 0, width: 0, parts: 1, view: None, before: None }
    }

    /// Columns.
    pub(super) fn columns(&self) -> usize {
        match self.before {
            Some(Before::Gated { columns, .. }) => columns,
            _ => self.view.as_ref().map_or(self.width, Range::len),
        }
    }

    /// All of it, columns that are not meant included.
    pub(super) fn span(&self) -> Span {
        Span { address: self.address, bytes: 4 * (self.parts * self.rows * self.width) as u64 }
    }

    /// The same as what kernels take in parts.
    pub(super) fn all_parts(&self) -> Parts {
        Parts { span: self.span(), count: self.parts }
    }

    /// Whether it is one dense matrix.
    pub(super) fn is_whole(&self) -> bool {
        self.parts == 1 && self.is_plain()
    }

    /// Whether it is all of its memory, as it is there, be it in parts.
    pub(super) fn is_plain(&self) -> bool {
        self.view.is_none() && self.before.is_none()
    }

    /// The column that it begins at.
    pub(super) fn first(&self) -> usize {
        self.view.as_ref().map_or(0, |view| view.start)
    }

    /// Whether nobody else reads its memory, so that a result may take its place.
    pub(super) fn is_alone(&self) -> bool {
        self.hold.as_ref().is_some_and(|hold| Arc::strong_count(hold) == 1)
    }
}

/// The experts of every token, `[tokens, top]`.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// u32.
    pub(super) ids: Value,
    /// f32.
    pub(super) factors: Value,
    pub(super) tokens: usize,
    pub(super) top: usize,
}
