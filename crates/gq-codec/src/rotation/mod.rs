//! Rotations: orthogonal transforms that make rows look Gaussian.

mod haar;
mod hadamard;
mod hartley;

use crate::error::RotationError;
use gq_tensor::{Encoding, Isa, RotationKind, RotationSpec};
pub(crate) use haar::Dense;
use hadamard::Hadamard;

/// Largest width of a dense rotation or sketch: 4096² floats are 64 MiB and take about a minute to make.
pub(crate) const DENSE_LIMIT: usize = 4096;

/// Largest prime factor of the odd part of a Hadamard rotation's width: a factor p costs p multiplications
/// per element. Every multiple of 32 up to 65,536 is within it.
pub(crate) const PRIME_LIMIT: usize = 2048;

/// The rotation `R` of one width: `y = R x`. Depends on kind, seed and width only.
#[derive(Clone, Debug)]
pub struct Rotation {
    spec: RotationSpec,
    cols: usize,
    transform: Transform,
}

#[derive(Clone, Debug)]
enum Transform {
    Identity,
    Hadamard(Hadamard),
    Haar(Dense),
}

impl Rotation {
    /// Prepares the rotation of rows of `cols` elements.
    ///
    /// # Errors
    /// When the kind has no rotation of this width.
    pub fn new(spec: RotationSpec, cols: usize) -> Result<Rotation, RotationError> {
        Rotation::check(spec, cols)?;
        let transform = match spec.kind {
            RotationKind::None => Transform::Identity,
            RotationKind::Hadamard => Transform::Hadamard(Hadamard::new(spec.seed, cols)?),
            RotationKind::Haar => Transform::Haar(Dense::haar(spec.seed, cols)),
        };
        Ok(Rotation { spec, cols, transform })
    }

    /// Whether there is a rotation of this width, at no cost.
    ///
    /// # Errors
    /// When the kind has no rotation of this width.
    pub fn check(spec: RotationSpec, cols: usize) -> Result<(), RotationError> {
        match spec.kind {
            RotationKind::None => Ok(()),
            RotationKind::Hadamard => {
                let multiple = Encoding::WIDTH_MULTIPLE;
                if cols == 0 || !cols.is_multiple_of(multiple) {
                    return Err(RotationError::Width { cols, multiple });
                }
                hadamard::check(cols)
            }
            RotationKind::Haar if cols == 0 || cols > DENSE_LIMIT => {
                Err(RotationError::Dense { kind: spec.kind, cols, limit: DENSE_LIMIT })
            }
            RotationKind::Haar => Ok(()),
        }
    }

    /// Kind and seed.
    pub fn spec(&self) -> RotationSpec {
        self.spec
    }

    /// Elements per row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// `x = R x` for each row of `x`, which holds one or more rows. The same bits at every level.
    ///
    /// # Panics
    /// When `x` is not a whole number of rows.
    pub fn forward(&self, level: Isa, x: &mut [f32], scratch: &mut Vec<f32>) {
        assert!(self.cols == 0 || x.len().is_multiple_of(self.cols), "not whole rows");
        for row in x.chunks_exact_mut(self.cols.max(1)) {
            match &self.transform {
                Transform::Identity => {}
                Transform::Hadamard(hadamard) => hadamard.forward(level, row, scratch),
                Transform::Haar(dense) => dense.forward_in_place(level, row, scratch),
            }
        }
    }

    /// `x = Rᵀ x` for each row of `x`. The same bits at every level.
    ///
    /// # Panics
    /// When `x` is not a whole number of rows.
    pub fn inverse(&self, level: Isa, x: &mut [f32], scratch: &mut Vec<f32>) {
        assert!(self.cols == 0 || x.len().is_multiple_of(self.cols), "not whole rows");
        for row in x.chunks_exact_mut(self.cols.max(1)) {
            match &self.transform {
                Transform::Identity => {}
                Transform::Hadamard(hadamard) => hadamard.inverse(level, row, scratch),
                Transform::Haar(dense) => dense.inverse_in_place(level, row, scratch),
            }
        }
    }
}
