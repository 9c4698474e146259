//! Weights that stand in for others.

use crate::LoadError;
use crate::ids::WeightId;
use crate::linear::{Bytes, Linear};
use crate::matrix::Matrix;
use crate::stored;
use gq_codec::{Decoder, Rotation};
use gq_tensor::{CodedRows, Isa, MatrixShape, RotationKind, Storage};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Rounded weights by the name of the tensor that they stand in for.
#[derive(Clone, Debug, Default)]
pub struct Replacements {
    codes: BTreeMap<String, Linear>,
    /// Rows of tables that are only looked up.
    rows: BTreeMap<String, BTreeMap<usize, Vec<f32>>>,
}

impl Replacements {
    /// Whether something stands in for `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.codes.contains_key(name) || self.rows.contains_key(name)
    }

    /// Adds rows of a table that is only looked up, as they are read: not rotated. Other rows stay as they are.
    pub fn insert_rows(&mut self, name: &str, rows: BTreeMap<usize, Vec<f32>>) {
        self.rows.insert(name.to_owned(), rows);
    }

    /// Adds a matrix's codes: a payload as a container stores it.
    ///
    /// # Errors
    /// When the encoding or the rotation does not exist at this width, or the payload has another length.
    pub fn insert(
        &mut self,
        name: &str,
        storage: Storage,
        shape: MatrixShape,
        payload: Vec<u8>,
    ) -> Result<(), LoadError> {
        let (rotation, cols) = (storage.rotation, shape.cols);
        if CodedRows::of_payload(storage.encoding, shape, &payload).is_err() {
            let (actual, expected) = (vec![payload.len()], vec![shape.rows, cols]);
            return Err(LoadError::Shape { name: name.to_owned(), actual, expected });
        }
        let decoder = Decoder::new(storage, cols);
        let decoder = decoder.map_err(|source| LoadError::Codec { name: name.to_owned(), source })?;
        let transform = match rotation.kind {
            RotationKind::None => None,
            _ => {
                let transform = Rotation::new(rotation, cols);
                Some(transform.map_err(|source| LoadError::Rotation { name: name.to_owned(), source })?)
            }
        };
        let linear = Linear {
            id: WeightId::unique(),
            name: name.to_owned(),
            bytes: Bytes::Owned(payload.into()),
            shape,
            rotation,
            decoder,
            transform: transform.map(Arc::new),
            bias: None,
            precise: false,
            normed: None,
        };
        self.codes.insert(name.to_owned(), linear);
        Ok(())
    }
}

/// Which of the weights at hand stand in, and how much of the difference is applied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replacing<'a> {
    pub(crate) weights: [&'a Replacements; 2],
    pub(crate) only: &'a BTreeSet<String>,
    pub(crate) share: f32,
}

impl Replacing<'_> {
    /// What stands in for `weight`, with its bias.
    pub(super) fn of(&self, weight: &Linear) -> Option<Linear> {
        let found = self.weights.iter().find_map(|weights| weights.codes.get(weight.name()));
        let found = found.filter(|_| self.only.contains(weight.name()))?;
        Some(Linear { bias: weight.bias.clone(), ..found.clone() })
    }

    /// `weight`'s product, when something stands in for it.
    pub(super) fn linear(&self, level: Isa, weight: &Linear, x: &Matrix) -> Option<Matrix> {
        let other = self.of(weight)?;
        let y = stored::linear(level, &other, x);
        Some(self.mixed(y, || stored::linear(level, weight, x)))
    }

    /// Rows looked up in `table`, when something stands in for it.
    pub(super) fn embed(&self, level: Isa, table: &Linear, tokens: &[u32]) -> Option<Matrix> {
        let plain = || stored::embed(level, table, tokens);
        if let Some(other) = self.of(table) {
            return Some(self.mixed(stored::embed(level, &other, tokens), plain));
        }
        let rows = self.weights.iter().find_map(|weights| weights.rows.get(table.name()));
        let rows = rows.filter(|_| self.only.contains(table.name()))?;
        let mut y = plain();
        for (out, &token) in y.data.chunks_exact_mut(y.width.max(1)).zip(tokens) {
            if let Some(row) = rows.get(&(token as usize)).filter(|row| row.len() == out.len()) {
                out.copy_from_slice(row);
            }
        }
        Some(self.mixed(y, plain))
    }

    /// `plain + share (y - plain)`.
    pub(super) fn mixed(&self, mut y: Matrix, plain: impl FnOnce() -> Matrix) -> Matrix {
        if self.share != 1.0 {
            let plain = plain();
            y.data.iter_mut().zip(&plain.data).for_each(|(y, &x)| *y = x + self.share * (*y - x));
        }
        y
    }
}
