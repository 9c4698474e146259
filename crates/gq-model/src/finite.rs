//! Numbers that are none: whether there are some, and the weights that met them.

use crate::ModelError;
use crate::matrix::Matrix;

/// Whether every element is a finite number.
pub(crate) fn all_finite(values: &[f32]) -> bool {
    // One pass without a branch for each value.
    let exponent = f32::INFINITY.to_bits();
    !values.iter().fold(false, |bad, value| bad | (value.to_bits() & exponent == exponent))
}

impl Matrix {
    /// Whether every element is a finite number.
    pub fn is_finite(&self) -> bool {
        all_finite(&self.data)
    }
}

impl ModelError {
    /// The first element of `input` that is not finite, as an error about the weights `tensor` that meet it.
    pub fn of_input(tensor: &str, input: &Matrix) -> Option<ModelError> {
        if input.is_finite() {
            return None;
        }
        let at = input.data.iter().position(|x| !x.is_finite())?;
        let (token, value) = (at / input.width.max(1), input.data[at].to_string());
        Some(ModelError::Activations { tensor: tensor.to_owned(), token, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_many() {
        let mut values = vec![f32::MAX; 100];
        assert!(all_finite(&values) && all_finite(&[]));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            values[77] = bad;
            assert!(!all_finite(&values), "{bad}");
        }
    }
}
