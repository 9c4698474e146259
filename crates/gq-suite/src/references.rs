//! Routers, a clamped gate and sinks against what transformers' modules make in float64 (`scripts/make_operators.py`).

use super::backend::Backend;
use super::weights::of_values;
use super::{error, levels};
use crate::reference_f64::MatrixF64;
use gq_checkpoint::{Activation, AttentionSpec, Curve, RouterSpec};
use gq_model::{Attention, Router};
use gq_tensor::Isa;
use serde::Deserialize;
use std::sync::LazyLock;

/// What `testdata/operators.json` holds.
#[derive(Debug, Deserialize)]
pub struct File {
    /// Rules of routers.
    pub routers: Vec<RouterCase>,
    gpt_oss_activation: Gate,
    gpt_oss_attention: Sinks,
}

/// A router's rule and what it made of some tokens.
#[derive(Clone, Debug, Deserialize)]
pub struct RouterCase {
    /// Whose rule it is.
    pub name: String,
    rule: RouterSpec,
    bias: Option<Vec<f32>>,
    /// By token.
    pub rows: Vec<Row>,
}

/// A token.
#[derive(Clone, Debug, Deserialize)]
pub struct Row {
    /// What the router is given.
    pub scores: Vec<f64>,
    /// What it chooses, in order.
    pub experts: Vec<usize>,
    /// With what factors.
    pub factors: Vec<f64>,
}

impl RouterCase {
    /// The rule.
    pub fn router(&self) -> Router {
        Router { spec: self.rule, selection_bias: self.bias.clone(), scales: None }
    }
}

#[derive(Debug, Deserialize)]
struct Gate {
    alpha: f32,
    limit: f32,
    gate: Vec<f64>,
    up: Vec<f64>,
    out: Vec<f64>,
}

#[derive(Debug, Deserialize)]
struct Sinks {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    window: usize,
    sinks: Vec<f32>,
    q: Vec<f64>,
    k: Vec<f64>,
    v: Vec<f64>,
    out: Vec<f64>,
}

/// The file, read once.
pub static FILE: LazyLock<File> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../../testdata/operators.json")).unwrap());

/// What a backend is asked.
#[derive(Debug)]
pub enum Question<'a> {
    /// Which experts a rule chooses.
    Router(&'a RouterCase),
    /// What GPT-OSS's clamped gate gives.
    Gate,
    /// What its attention with sinks gives.
    Sinks,
}

impl Sinks {
    fn layer(&self) -> Attention {
        let window = Some(self.window);
        let spec = AttentionSpec { window, ..AttentionSpec::new(self.heads, self.kv_heads, self.head_dim) };
        Attention { spec, sinks: Some(self.sinks.clone()) }
    }
}

impl Question<'_> {
    /// Attention whose cache is needed.
    pub fn attention(&self) -> AttentionSpec {
        match self {
            Question::Sinks => FILE.gpt_oss_attention.layer().spec,
            _ => AttentionSpec::new(1, 1, 2),
        }
    }

    /// Tokens that are asked about.
    pub fn tokens(&self) -> usize {
        match self {
            Question::Router(case) => case.rows.len(),
            Question::Gate => 1,
            Question::Sinks => {
                let file = &FILE.gpt_oss_attention;
                file.q.len() / (file.heads * file.head_dim)
            }
        }
    }

    /// Its answers, as many as the question has.
    pub fn ask<B: Backend>(&self, ops: &mut B) -> Vec<MatrixF64> {
        let answers = match self {
            Question::Router(case) => {
                let (experts, tokens) = (case.rows[0].scores.len(), case.rows.len());
                let scores = case.rows.iter().flat_map(|row| row.scores.clone()).collect();
                let scores = ops.value(&MatrixF64 { width: experts, data: scores });
                let routes = ops.route(&scores, &case.router());
                let ones = ops.value(&MatrixF64 { width: 1, data: vec![1.0; tokens] });
                let ids: Vec<f32> = (0..experts).map(|id| id as f32).collect();
                let ids = of_values(experts, 1, 1, &ids);
                // Each expert's factor alone: rows of an identity.
                let top_k = case.rule.top_k;
                let each =
                    (0..tokens * top_k * top_k).map(|i| f64::from(u8::from(i / top_k % top_k == i % top_k)));
                let each = ops.value(&MatrixF64 { width: top_k, data: each.collect() });
                vec![ops.grouped_linear(&ones, &routes, &ids), ops.combine(each, &routes)]
            }
            Question::Gate => {
                let file = &FILE.gpt_oss_activation;
                let curve = Curve::Swish { alpha: file.alpha };
                let activation = Activation { curve, limit: Some(file.limit), up_offset: 1.0 };
                let mut value = |x: &Vec<f64>| ops.value(&MatrixF64 { width: x.len(), data: x.clone() });
                let (gate, up) = (value(&file.gate), value(&file.up));
                vec![ops.gated(activation, gate, &up)]
            }
            Question::Sinks => {
                let file = &FILE.gpt_oss_attention;
                let mut value = |x: &Vec<f64>, heads: usize| {
                    ops.value(&MatrixF64 { width: heads * file.head_dim, data: x.clone() })
                };
                let (q, k, v) = (
                    value(&file.q, file.heads),
                    value(&file.k, file.kv_heads),
                    value(&file.v, file.kv_heads),
                );
                vec![ops.attention(q, Some((k, v)), 0, &file.layer())]
            }
        };
        answers.iter().map(|x| ops.numbers(x)).collect()
    }
}

/// Compares a backend's answers, on every instruction set; attention may differ by `rounding` more.
pub(crate) fn all(name: &str, rounding: f64, answer: impl Fn(Isa, &Question<'_>) -> Vec<MatrixF64>) {
    for level in levels() {
        for case in &FILE.routers {
            let answers = answer(level, &Question::Router(case));
            compare(case, &answers, 2e-6);
        }
        let [gate] = answer(level, &Question::Gate).try_into().unwrap();
        let error_of_gate = error(&gate.data, &FILE.gpt_oss_activation.out);
        assert!(error_of_gate < 1e-6, "{name}: {error_of_gate:e}");
        let [attention] = answer(level, &Question::Sinks).try_into().unwrap();
        let error_of_sinks = error(&attention.data, &FILE.gpt_oss_attention.out);
        assert!(error_of_sinks < 3e-6 + rounding, "{name}: {error_of_sinks:e}");
    }
}

fn compare(case: &RouterCase, answers: &[MatrixF64], tolerance: f64) {
    let error = error_of(case, answers);
    assert!(error < tolerance, "{}: {error:e}", case.name);
}

/// Infinite where other experts are chosen.
fn error_of(case: &RouterCase, answers: &[MatrixF64]) -> f64 {
    let [experts, factors] = answers else { panic!("two answers") };
    let expected: Vec<f64> = case.rows.iter().flat_map(|row| &row.experts).map(|&e| e as f64).collect();
    if experts.data != expected {
        return f64::INFINITY;
    }
    let expected: Vec<f64> = case.rows.iter().flat_map(|row| row.factors.clone()).collect();
    error(&factors.data, &expected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cpu, ReferenceF64, Subject};
    use gq_checkpoint::Scoring;
    use gq_model::KvType;
    use gq_model::cpu::Sums;

    /// Every part of every rule, read wrongly, is noticed.
    #[test]
    fn a_wrong_rule_misses_the_reference() {
        type Change = fn(&mut RouterCase) -> bool;
        let changes: [(&str, Change); 7] = [
            ("softmax for sigmoid", |case| {
                let other =
                    if case.rule.scoring == Scoring::Sigmoid { Scoring::Softmax } else { Scoring::Sigmoid };
                case.rule.scoring = other;
                true
            }),
            ("no bias", |case| case.bias.take().is_some()),
            ("no groups", |case| case.rule.groups.take().is_some()),
            ("one group more", |case| case.rule.groups.as_mut().map(|groups| groups.kept += 1).is_some()),
            ("another measure of groups", |case| {
                case.rule.groups.as_mut().map(|groups| groups.best = 3 - groups.best).is_some()
            }),
            ("not renormalized, or renormalized", |case| {
                case.rule.renormalize ^= true;
                case.rule.scoring != Scoring::SoftmaxOfChosen
            }),
            ("another factor", |case| {
                case.rule.scale *= 1.001;
                true
            }),
        ];
        for (what, change) in changes {
            let mut changed = 0;
            for case in &FILE.routers {
                let mut wrong = case.clone();
                if !change(&mut wrong) {
                    continue;
                }
                let subject = Cpu(Sums::Deterministic, KvType::F32);
                let answers = subject.answer(Isa::detect(), &Question::Router(&wrong));
                let error = error_of(case, &answers);
                assert!(error > 1e-4, "{}, {what}: {error:e}", case.name);
                changed += 1;
            }
            assert!(changed > 0, "{what}");
        }
    }

    /// The definition that backends are held against is transformers' own.
    #[test]
    fn the_definition_is_that_of_transformers() {
        let ask = |question: &Question<'_>| question.ask(&mut ReferenceF64::default());
        for case in &FILE.routers {
            // A factor such as 2.827 is f32 in our specification.
            compare(case, &ask(&Question::Router(case)), 1e-7);
        }
        assert!(error(&ask(&Question::Gate)[0].data, &FILE.gpt_oss_activation.out) < 1e-7);
        // `head_dim^-0.5` and the sinks are f32 in our specification.
        assert!(error(&ask(&Question::Sinks)[0].data, &FILE.gpt_oss_attention.out) < 1e-7);
    }
}
