//! Backends under test: each takes values in, runs a case, and hands results out.

use super::STORED;
use super::cases::{Case, ROPE, specification, specification_of};
use super::references::Question;
use crate::cache::{KvCache, KvType};
use crate::cpu::{Batch, Sums, Turns};
use crate::fixed::{Fixed, Value, Wide, WideOps};
use crate::layerwise::turns;
use crate::matrix::Matrix;
use crate::model::Model;
use crate::ops::Ops;
use gq_tensor::Isa;

/// A backend and how it is set.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// [`Batch`].
    Cpu(Sums, KvType),
    /// [`Fixed`].
    Recorded,
}

impl Kind {
    /// What attention may differ by, since keys and values are rounded.
    pub(super) fn stored(self, case: &Case) -> f64 {
        if case.operator() == "attention" { self.rounding() } else { 0.0 }
    }

    pub(super) fn rounding(self) -> f64 {
        match self {
            Kind::Cpu(_, kv) => STORED.iter().find(|(kind, _)| *kind == kv).unwrap().1,
            Kind::Recorded => 0.0,
        }
    }
}

/// Operators whose values are made of numbers and read again.
pub(super) trait Backend: Ops {
    fn value(&mut self, x: &Wide) -> Self::Value;
    fn numbers(x: &Self::Value) -> Wide;
}

pub(super) fn wide(x: &Matrix) -> Wide {
    Wide { width: x.width, data: x.data.iter().map(|&x| f64::from(x)).collect() }
}

pub(super) fn narrow(x: &Wide) -> Matrix {
    Matrix { width: x.width, data: x.data.iter().map(|&x| x as f32).collect() }
}

impl Backend for Batch<'_> {
    fn value(&mut self, x: &Wide) -> Matrix {
        narrow(x)
    }

    fn numbers(x: &Matrix) -> Wide {
        wide(x)
    }
}

impl Backend for Fixed<'_> {
    fn value(&mut self, x: &Wide) -> Value {
        self.leaf(narrow(x))
    }

    fn numbers(x: &Value) -> Wide {
        wide(&x.matrix)
    }
}

impl Backend for WideOps<'_> {
    fn value(&mut self, x: &Wide) -> Wide {
        x.clone()
    }

    fn numbers(x: &Wide) -> Wide {
        x.clone()
    }
}

pub(super) fn on<B: Backend>(ops: &mut B, case: &Case, inputs: &[Wide]) -> Vec<Wide> {
    let inputs = inputs.iter().map(|x| ops.value(x)).collect();
    case.run(ops, inputs).iter().map(B::numbers).collect()
}

/// On a backend, for one sequence from position 0.
pub(super) fn run(kind: Kind, level: Isa, case: &Case, inputs: &[Wide]) -> Vec<Wide> {
    let tokens = case.tokens(inputs);
    match kind {
        Kind::Cpu(sums, kv) => {
            let mut cache = KvCache::new(&specification(case), tokens, kv);
            let mut ops = Batch::new(level, sums, std::slice::from_ref(&*ROPE), vec![(tokens, &mut cache)]);
            on(&mut ops, case, inputs)
        }
        Kind::Recorded => {
            let turns = [Turns::new(&ROPE, 0, tokens)];
            on(&mut Fixed::new(level, &turns), case, inputs)
        }
    }
}

/// By definition.
pub(super) fn run_wide(case: &Case, inputs: &[Wide]) -> Vec<Wide> {
    let ropes = [ROPE.clone()];
    on(&mut WideOps { ropes: &ropes, ..WideOps::default() }, case, inputs)
}

fn logits_on<B: Backend>(ops: &mut B, model: &Model, tokens: &[u32]) -> Vec<f64> {
    let hidden = model.graph().hidden(ops, tokens);
    let logits = model.graph().logits(ops, &hidden);
    B::numbers(&logits).data
}

pub(super) fn logits(kind: Kind, level: Isa, model: &Model, tokens: &[u32]) -> Vec<f64> {
    match kind {
        Kind::Cpu(sums, kv) => {
            let mut cache = model.new_cache_of(tokens.len(), kv);
            let sequences = vec![(tokens.len(), &mut cache)];
            logits_on(&mut Batch::new(level, sums, &model.spec().ropes, sequences), model, tokens)
        }
        Kind::Recorded => {
            let turns = turns(model, tokens.len());
            logits_on(&mut Fixed::new(level, &turns), model, tokens)
        }
    }
}

pub(super) fn logits_wide(model: &Model, tokens: &[u32]) -> Vec<f64> {
    let mut ops = WideOps { ropes: &model.spec().ropes, ..WideOps::default() };
    logits_on(&mut ops, model, tokens)
}

/// Asks a backend what a reference was asked.
pub(super) fn run_on(kind: Kind, level: Isa, question: &Question<'_>) -> Vec<Wide> {
    match kind {
        Kind::Cpu(sums, kv) => {
            let tokens = question.tokens();
            let mut cache = KvCache::new(&specification_of(question.attention()), tokens, kv);
            question.ask(&mut Batch::new(level, sums, &[], vec![(tokens, &mut cache)]))
        }
        Kind::Recorded => question.ask(&mut Fixed::new(level, &[])),
    }
}
