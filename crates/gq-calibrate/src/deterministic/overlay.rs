//! What differs from a model's own weights while it runs: weights that stand in for others, in part or whole, and
//! factors.

use super::factors::Factors;
use gq_model::arithmetic::stored;
use gq_model::{Linear, Matrix};
use gq_tensor::Isa;
use std::collections::{BTreeMap, BTreeSet};

/// Weights by the name of the tensor that they stand in for.
#[derive(Clone, Debug, Default)]
pub struct Replacements {
    weights: BTreeMap<String, Linear>,
    /// Rows of tables that are only looked up.
    rows: BTreeMap<String, BTreeMap<usize, Vec<f32>>>,
}

impl Replacements {
    /// Whether something stands in for `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.weights.contains_key(name) || self.rows.contains_key(name)
    }

    /// Adds rows of a table that is only looked up, as they are read: not rotated. Other rows stay as they are.
    pub fn insert_rows(&mut self, name: &str, rows: BTreeMap<usize, Vec<f32>>) {
        self.rows.insert(name.to_owned(), rows);
    }

    /// Adds a matrix that stands in for the one of its name. The bias is the model's.
    pub fn insert(&mut self, weight: Linear) {
        self.weights.insert(weight.name().to_owned(), weight);
    }

    /// Nothing stands in for anything any more.
    pub fn clear(&mut self) {
        self.weights.clear();
        self.rows.clear();
    }
}

/// What differs from the model's own weights. By default, nothing does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Overlay<'a> {
    /// What stands in; of two for one tensor, the first.
    pub(crate) replacements: [Option<&'a Replacements>; 2],
    /// The tensors that they are asked for; `None`: all.
    pub(crate) only: Option<&'a BTreeSet<String>>,
    /// How much of the difference to the model's own results is applied, to each product and lookup, and to the sum of a
    /// token's experts. Gradients are of a share of 1.
    pub(crate) share: f32,
    /// What outputs of products and weights of norms are multiplied by.
    pub(crate) factors: Option<&'a Factors>,
}

impl Default for Overlay<'_> {
    fn default() -> Self {
        Overlay { replacements: [None; 2], only: None, share: 1.0, factors: None }
    }
}

impl<'a> Overlay<'a> {
    /// Every weight that has a replacement is replaced.
    pub(crate) fn replaced(replacements: &'a Replacements) -> Overlay<'a> {
        Overlay { replacements: [Some(replacements), None], ..Overlay::default() }
    }

    /// Nothing is replaced, but multiplied.
    pub(crate) fn factors(factors: &'a Factors) -> Overlay<'a> {
        Overlay { factors: Some(factors), ..Overlay::default() }
    }

    /// What the outputs of `weight` are multiplied by.
    pub(super) fn factors_of(&self, weight: &Linear) -> Option<&'a [f32]> {
        Some(self.factors?.get(weight.name())?)
    }

    /// What stands in for `weight`, with its bias.
    pub(super) fn of(&self, weight: &Linear) -> Option<Linear> {
        let mut all = self.replacements.iter().flatten();
        let found = all.find_map(|replacements| replacements.weights.get(weight.name()));
        found.filter(|_| self.asks_for(weight)).map(|found| found.in_place_of(weight))
    }

    /// `x W^T + bias` of what stands in for `weight`, or of itself.
    pub(super) fn linear(&self, level: Isa, weight: &Linear, x: &Matrix) -> Matrix {
        let own = || stored::linear(level, weight, x);
        match self.of(weight) {
            Some(other) => self.mixed(stored::linear(level, &other, x), own),
            None => own(),
        }
    }

    /// Rows looked up in what stands in for `table`, or in itself.
    pub(super) fn embed(&self, level: Isa, table: &Linear, tokens: &[u32]) -> Matrix {
        let own = || stored::embed(level, table, tokens);
        if let Some(other) = self.of(table) {
            return self.mixed(stored::embed(level, &other, tokens), own);
        }
        let mut all = self.replacements.iter().flatten();
        let rows = all.find_map(|replacements| replacements.rows.get(table.name()));
        let Some(rows) = rows.filter(|_| self.asks_for(table)) else { return own() };
        let mut y = own();
        for (out, &token) in y.data.chunks_exact_mut(y.width.max(1)).zip(tokens) {
            if let Some(row) = rows.get(&(token as usize)).filter(|row| row.len() == out.len()) {
                out.copy_from_slice(row);
            }
        }
        self.mixed(y, own)
    }

    /// `own + share (y - own)`.
    pub(super) fn mixed(&self, mut y: Matrix, own: impl FnOnce() -> Matrix) -> Matrix {
        if self.share != 1.0 {
            let own = own();
            y.data.iter_mut().zip(&own.data).for_each(|(y, &x)| *y = x + self.share * (*y - x));
        }
        y
    }

    fn asks_for(&self, weight: &Linear) -> bool {
        self.only.is_none_or(|only| only.contains(weight.name()))
    }
}
