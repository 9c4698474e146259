//! Builds a launch, argument by argument, each checked.

use crate::{Argument, Launch, LaunchError, Module, Parts, Span};

/// Bytes of `[a, b, ...]` elements of `size` bytes; saturates, and no range of memory is that long.
pub(crate) fn bytes(shape: &[usize], size: u64) -> u64 {
    shape.iter().fold(size, |product, side| product.saturating_mul(*side as u64))
}

pub(crate) struct Call(Launch);

impl Call {
    pub(crate) fn new(module: Module, kernel: &'static str) -> Call {
        Call(Launch { module, kernel, grid: [1; 3], threads: 32, shared: 0, arguments: Vec::new() })
    }

    /// The launch, with as many blocks and threads.
    pub(crate) fn on(mut self, grid: [u32; 3], threads: u32, shared: u32) -> Launch {
        (self.0.grid, self.0.threads, self.0.shared) = (grid, threads, shared);
        self.0
    }

    /// A range of at least `needed` bytes whose address is a multiple of `align`.
    pub(crate) fn span(
        &mut self,
        what: &'static str,
        span: Span,
        needed: u64,
        align: u64,
    ) -> Result<(), LaunchError> {
        let kernel = self.0.kernel;
        if span.bytes < needed {
            return Err(LaunchError::Bytes { kernel, what, needed, actual: span.bytes });
        }
        if !span.address.is_multiple_of(align) {
            return Err(LaunchError::Align { kernel, what, address: span.address, align });
        }
        self.0.arguments.push(Argument::Address(span.address));
        Ok(())
    }

    /// The same, or nothing.
    pub(crate) fn optional(
        &mut self,
        what: &'static str,
        span: Option<Span>,
        needed: u64,
        align: u64,
    ) -> Result<(), LaunchError> {
        match span {
            Some(span) => self.span(what, span, needed, align),
            None => {
                self.0.arguments.push(Argument::Address(0));
                Ok(())
            }
        }
    }

    /// f32 `[rows, width]` in parts: address, count, and elements from one to the next.
    pub(crate) fn parts(
        &mut self,
        what: &'static str,
        parts: Parts,
        rows: usize,
        width: usize,
    ) -> Result<(), LaunchError> {
        self.check(what, parts.count, 1, 64)?;
        self.span(what, parts.span, bytes(&[parts.count, rows, width], 4), 4)?;
        self.0.arguments.push(Argument::U32(parts.count as u32));
        self.0.arguments.push(Argument::U64((rows * width) as u64));
        Ok(())
    }

    /// Whether a number is in range.
    pub(crate) fn check(
        &self,
        what: &'static str,
        actual: usize,
        least: usize,
        most: usize,
    ) -> Result<u32, LaunchError> {
        match (least..=most).contains(&actual) {
            true => Ok(actual as u32),
            false => Err(LaunchError::Range { kernel: self.0.kernel, what, actual, least, most }),
        }
    }

    /// Whether a number divides.
    pub(crate) fn multiple(&self, what: &'static str, actual: usize, of: usize) -> Result<(), LaunchError> {
        match actual.is_multiple_of(of) {
            true => Ok(()),
            false => Err(LaunchError::Multiple { kernel: self.0.kernel, what, actual, of }),
        }
    }

    /// A number in range, as the kernel's next parameter.
    pub(crate) fn number(
        &mut self,
        what: &'static str,
        actual: usize,
        least: usize,
        most: usize,
    ) -> Result<u32, LaunchError> {
        let value = self.check(what, actual, least, most)?;
        self.0.arguments.push(Argument::U32(value));
        Ok(value)
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.0.arguments.push(Argument::U32(value));
    }

    pub(crate) fn f32(&mut self, value: f32) {
        self.0.arguments.push(Argument::F32(value));
    }
}

/// Most rows, columns or blocks of a grid's first side.
pub(crate) const MOST: usize = (1 << 31) - 1;
/// Most blocks of a grid's other sides.
pub(crate) const MOST_OTHER: usize = 65535;
