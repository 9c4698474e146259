//! Inputs' second moments, factored, in the basis of the codes.

use super::error::RoundError;
use gq_calibrate::{MeasurementsDir, rotate};
use gq_codec::{Factor, Operand, Parallelism, ProductShape, Rotation, fixed_product};
use gq_tensor::{Isa, RotationSpec};
use std::sync::{Arc, Mutex, PoisonError};

/// Inputs whose factors are kept at once: products of one input follow each other closely in a file.
pub(crate) const FACTORS: usize = 3;

/// Factors of inputs in use.
#[derive(Default)]
pub(crate) struct Factors {
    kept: Mutex<Vec<Arc<Input>>>,
}

/// One input's moments in the basis of the codes.
pub(crate) struct Input {
    name: String,
    rotation: RotationSpec,
    pub(crate) factor: Factor,
    /// Diagonal of the moment that was factored, as it was measured.
    pub(crate) diagonal: Vec<f32>,
    pub(crate) held_out: Vec<f32>,
}

impl Factors {
    /// The input called `name`, which `tensor` is multiplied by.
    ///
    /// # Errors
    /// When moments cannot be read, or have no factors.
    pub(crate) fn of(
        &self,
        level: Isa,
        measurements: &MeasurementsDir,
        name: &str,
        rotation: &Rotation,
        tensor: &str,
    ) -> Result<Arc<Input>, RoundError> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let spec = rotation.spec();
        if let Some(input) = kept.iter().find(|input| input.name == *name && input.rotation == spec) {
            return Ok(input.clone());
        }
        // Room first: making a factor takes more than keeping it.
        if kept.len() >= FACTORS {
            kept.remove(0);
        }
        // One after the other: of two moments in f32, the elimination in f64 and U, never more than three are there.
        let mut moment = measurements.moment(name)?;
        rotate(level, &mut moment, rotation);
        let n = rotation.cols();
        let diagonal = moment.iter().step_by(n + 1).copied().collect();
        let damping = measurements.value().inputs.get(name).map_or(0.1, |measured| measured.damping);
        let factor = Factor::from_moment(level, moment, n, damping)
            .map_err(|source| RoundError::Moment { tensor: tensor.to_owned(), source })?;
        let mut held_out = measurements.held_out_moment(name)?;
        rotate(level, &mut held_out, rotation);
        let input = Arc::new(Input { name: name.to_owned(), rotation: spec, factor, diagonal, held_out });
        kept.push(input.clone());
        Ok(input)
    }
}

/// `x H x^T` of every row of `x`.
pub(crate) fn squares(level: Isa, parallelism: Parallelism, h: &[f32], x: &[f32], cols: usize) -> Vec<f64> {
    let mut products = vec![0.0f32; x.len()];
    let rows = x.len() / cols.max(1);
    fixed_product(
        level,
        parallelism,
        ProductShape { rows, cols, depth: cols },
        Operand::rows(x, cols),
        Operand::rows(h, cols),
        &mut products,
        cols,
    );
    let rows = x.chunks_exact(cols).zip(products.chunks_exact(cols));
    rows.map(|(x, hx)| x.iter().zip(hx).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()).collect()
}
