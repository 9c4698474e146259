//! Backends under test with their settings: each runs a case or answers a question.

use super::STORED;
use super::backend::Backend;
use super::cases::{Case, ROPE, specification, specification_of};
use super::reference_f64::{MatrixF64, ReferenceF64};
use super::references::Question;
use gq_checkpoint::ModelSpec;
use gq_model::cpu::{ActivationMode, Batch, Sums};
use gq_model::{KvCache, KvType, Model, cuda};
use gq_tensor::Isa;
use std::fmt::Debug;

/// A backend and how it is set. Each question goes to a new instance, for one sequence from position 0.
pub trait Subject: Copy + Debug {
    /// Results of a case whose rotary embedding is [`ROPE`].
    fn run(self, level: Isa, case: &Case, inputs: &[MatrixF64]) -> Vec<MatrixF64>;

    /// Logits of every token, `[tokens, vocab]`.
    fn logits(self, level: Isa, model: &Model, tokens: &[u32]) -> Vec<f64>;

    /// Answers to what a reference was asked.
    fn answer(self, level: Isa, question: &Question<'_>) -> Vec<MatrixF64>;

    /// Whether codes meet activations that are rounded to int8.
    fn is_int8(self) -> bool {
        false
    }

    /// What attention may differ by, since keys and values are rounded when they are stored.
    fn rounding(self) -> f64 {
        0.0
    }
}

/// Runs a case on an instance.
pub fn on<B: Backend>(ops: &mut B, case: &Case, inputs: &[MatrixF64]) -> Vec<MatrixF64> {
    let inputs = inputs.iter().map(|x| ops.value(x)).collect();
    case.run(ops, inputs).iter().map(|x| ops.numbers(x)).collect()
}

/// By definition.
pub fn run_wide(case: &Case, inputs: &[MatrixF64]) -> Vec<MatrixF64> {
    let ropes = [ROPE.clone()];
    on(&mut ReferenceF64 { ropes: &ropes, ..ReferenceF64::default() }, case, inputs)
}

/// Logits of every token on an instance.
pub fn logits_on<B: Backend>(ops: &mut B, model: &Model, tokens: &[u32]) -> Vec<f64> {
    let hidden = model.graph().hidden(ops, tokens);
    let logits = model.graph().logits(ops, &hidden);
    ops.numbers(&logits).data
}

pub(crate) fn logits_wide(model: &Model, tokens: &[u32]) -> Vec<f64> {
    let mut ops = ReferenceF64 { ropes: &model.spec().ropes, ..ReferenceF64::default() };
    logits_on(&mut ops, model, tokens)
}

/// The CPU backend.
#[derive(Clone, Copy, Debug)]
pub struct Cpu(pub Sums, pub KvType);

impl Subject for Cpu {
    fn run(self, level: Isa, case: &Case, inputs: &[MatrixF64]) -> Vec<MatrixF64> {
        let tokens = case.tokens(inputs);
        let mut cache = KvCache::new(&specification(case), tokens, self.1);
        let mut ops = Batch::new(level, self.0, std::slice::from_ref(&*ROPE), vec![(tokens, &mut cache)]);
        on(&mut ops, case, inputs)
    }

    fn logits(self, level: Isa, model: &Model, tokens: &[u32]) -> Vec<f64> {
        let mut cache = model.new_cache_of(tokens.len(), self.1);
        let sequences = vec![(tokens.len(), &mut cache)];
        logits_on(&mut Batch::new(level, self.0, &model.spec().ropes, sequences), model, tokens)
    }

    fn answer(self, level: Isa, question: &Question<'_>) -> Vec<MatrixF64> {
        let tokens = question.tokens();
        let mut cache = KvCache::new(&specification_of(question.attention()), tokens, self.1);
        question.ask(&mut Batch::new(level, self.0, &[], vec![(tokens, &mut cache)]))
    }

    fn is_int8(self) -> bool {
        self.0 == Sums::Fastest(ActivationMode::Int8)
    }

    fn rounding(self) -> f64 {
        STORED.iter().find(|(kind, _)| *kind == self.1).unwrap().1
    }
}

/// The backend for GPUs, on the first one that the driver knows.
#[derive(Clone, Copy, Debug)]
pub struct Cuda(pub KvType);

/// Bytes of scratch memory of a case.
const SCRATCH: usize = 64 << 20;

impl Cuda {
    fn ask<R>(
        self,
        level: Isa,
        spec: &ModelSpec,
        tokens: usize,
        work: impl FnOnce(&mut cuda::Batch<'_>) -> R,
    ) -> R {
        let mut runner = cuda::Runner::bare(0, SCRATCH, level).unwrap();
        let cache = KvCache::on_device(spec, tokens, self.0, tokens);
        work(&mut cuda::Batch::begin(&mut runner, spec, &cache, tokens).unwrap())
    }
}

impl Subject for Cuda {
    fn run(self, level: Isa, case: &Case, inputs: &[MatrixF64]) -> Vec<MatrixF64> {
        let spec = ModelSpec { ropes: vec![ROPE.clone()], ..specification(case) };
        self.ask(level, &spec, case.tokens(inputs), |ops| on(ops, case, inputs))
    }

    fn logits(self, level: Isa, model: &Model, tokens: &[u32]) -> Vec<f64> {
        self.ask(level, model.spec(), tokens.len(), |ops| logits_on(ops, model, tokens))
    }

    fn answer(self, level: Isa, question: &Question<'_>) -> Vec<MatrixF64> {
        let spec = specification_of(question.attention());
        self.ask(level, &spec, question.tokens(), |ops| question.ask(ops))
    }

    fn is_int8(self) -> bool {
        true
    }

    fn rounding(self) -> f64 {
        STORED.iter().find(|(kind, _)| *kind == self.0).unwrap().1
    }
}
