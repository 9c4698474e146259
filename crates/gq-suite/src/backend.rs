//! Operators whose values are made of numbers and read again.

use super::reference_f64::{MatrixF64, ReferenceF64};
use gq_model::cpu::Batch;
use gq_model::{Matrix, Ops, cuda};

/// Operators whose values are made of numbers and read again.
pub trait Backend: Ops {
    /// A value of these numbers.
    fn value(&mut self, x: &MatrixF64) -> Self::Value;

    /// A value's numbers.
    fn numbers(&mut self, x: &Self::Value) -> MatrixF64;
}

impl Backend for Batch<'_> {
    fn value(&mut self, x: &MatrixF64) -> Matrix {
        x.narrow()
    }

    fn numbers(&mut self, x: &Matrix) -> MatrixF64 {
        x.into()
    }
}

impl Backend for cuda::Batch<'_> {
    fn value(&mut self, x: &MatrixF64) -> cuda::Value {
        self.bring(&x.narrow())
    }

    fn numbers(&mut self, x: &cuda::Value) -> MatrixF64 {
        (&self.read(x).unwrap()).into()
    }
}

impl Backend for ReferenceF64<'_> {
    fn value(&mut self, x: &MatrixF64) -> MatrixF64 {
        x.clone()
    }

    fn numbers(&mut self, x: &MatrixF64) -> MatrixF64 {
        x.clone()
    }
}
