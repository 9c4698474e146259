//! Every operator in every form.

use super::backend::Backend;
use super::weights::{coded, exact, numbers};
use crate::reference_f64::MatrixF64;
use gq_checkpoint::{
    Activation, AttentionSpec, Curve, ExpertGroups, LayerSpec, ModelSpec, NormPlacement, RopeKind, RopeSpec,
    RouterSpec, Scoring,
};
use gq_model::{Attention, Experts, FeedForward, Linear, Mlp, Norm, Router, WeightId};
use std::sync::LazyLock;

const HIDDEN: usize = 64;
const EXPERTS: usize = 8;
const DIM: usize = 32;

/// The rotary embedding of all cases.
pub static ROPE: LazyLock<RopeSpec> = LazyLock::new(|| RopeSpec {
    head_dim: DIM,
    theta: 1e4,
    inv_freq: (0..DIM / 2).map(|i| 1e4f32.powf(-(i as f32) / (DIM / 2) as f32)).collect(),
    long: None,
    attention_factor: 1.25,
    kind: RopeKind::Default,
});

/// How experts are chosen in a case.
#[derive(Clone, Copy, Debug)]
pub enum Choice {
    /// Softmax, the chosen ones' shares adding up to 1.
    Renormalized,
    /// Softmax as it is.
    Plain,
    /// Softmax of the chosen ones alone.
    OfChosen,
    /// Sigmoid with a bias and a factor.
    Sigmoid,
    /// The same of some groups.
    Grouped,
    /// With a factor for each expert.
    Scaled,
}

const CHOICES: [Choice; 6] =
    [Choice::Renormalized, Choice::Plain, Choice::OfChosen, Choice::Sigmoid, Choice::Grouped, Choice::Scaled];

impl Choice {
    /// Its rule.
    pub fn router(self) -> Router {
        let plain = Router { spec: RouterSpec::softmax(3), selection_bias: None, scales: None };
        let sigmoid =
            RouterSpec { scoring: Scoring::Sigmoid, selection_bias: true, scale: 2.5, ..plain.spec };
        let selection_bias = Some(numbers(EXPERTS, 71));
        match self {
            Choice::Renormalized => plain,
            Choice::Plain => Router { spec: RouterSpec { renormalize: false, ..plain.spec }, ..plain },
            Choice::OfChosen => {
                let scoring = Scoring::SoftmaxOfChosen;
                Router { spec: RouterSpec { scoring, renormalize: false, ..plain.spec }, ..plain }
            }
            Choice::Sigmoid => Router { spec: sigmoid, selection_bias, scales: None },
            Choice::Grouped => {
                let groups = Some(ExpertGroups { count: 4, kept: 2, best: 2 });
                Router { spec: RouterSpec { groups, ..sigmoid }, selection_bias, scales: None }
            }
            Choice::Scaled => Router { scales: Some(numbers(EXPERTS, 72)), ..plain },
        }
    }
}

/// Attention with one of its extras.
#[derive(Clone, Copy, Debug)]
pub enum Extra {
    /// As it is.
    None,
    /// Seven positions.
    Window,
    /// A cap on scores.
    Softcap,
    /// A score of each head that stands for no position.
    Sinks,
    /// Everything together, and a scale.
    All,
}

/// All of them.
pub const EXTRAS: [Extra; 5] = [Extra::None, Extra::Window, Extra::Softcap, Extra::Sinks, Extra::All];

/// An operator, or a block of some, on one kind of inputs.
#[allow(missing_docs)] // their names are the operators'
#[derive(Clone, Copy, Debug)]
pub enum Case {
    Embed,
    Linear,
    LinearOfCodes,
    RmsNorm,
    NormOfHeads,
    Rope,
    Attention(Extra),
    Gated(Activation),
    Route(Choice),
    Grouped,
    GroupedOfCodes,
    Combine,
    Sparse(Choice),
    Both,
    Add,
    Scale,
    Softcap,
    Rows,
    Columns,
}

const CLAMPED: Activation =
    Activation { curve: Curve::Swish { alpha: 1.702 }, limit: Some(0.5), up_offset: 1.0 };
const LIMITED: Activation =
    Activation { curve: Curve::Swish { alpha: 1.0 }, limit: Some(0.7), up_offset: 0.0 };
const SWISH: Activation = Activation { curve: Curve::Swish { alpha: 1.702 }, limit: None, up_offset: 0.0 };

/// Every operator in every form.
pub static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| {
    use Case::*;
    let plain = [
        Embed,
        Linear,
        LinearOfCodes,
        RmsNorm,
        NormOfHeads,
        Rope,
        Grouped,
        GroupedOfCodes,
        Combine,
        Both,
        Add,
        Scale,
        Softcap,
        Rows,
        Columns,
    ];
    let extras = EXTRAS.map(Attention);
    let gates =
        [Activation::SILU, Activation::GELU_TANH, Activation::SIGMOID, SWISH, CLAMPED, LIMITED].map(Gated);
    plain
        .into_iter()
        .chain(extras)
        .chain(gates)
        .chain(CHOICES.map(Route))
        .chain(CHOICES.map(Sparse))
        .collect()
});

fn random(rows: usize, width: usize, seed: u64) -> MatrixF64 {
    MatrixF64 { width, data: numbers(rows * width, seed).into_iter().map(f64::from).collect() }
}

fn norm(width: usize, weight: Option<Vec<f32>>) -> Norm {
    Norm { id: WeightId::unique(), name: None, weight, width, eps: 1e-3 }
}

fn with_bias(weight: Linear, seed: u64) -> Linear {
    let rows = weight.shape().rows;
    weight.with_bias(Some(numbers(rows, seed)))
}

fn experts(choice: Choice, shared: bool) -> Experts {
    let mlp = || [exact(1, 24, HIDDEN, 55), exact(1, 24, HIDDEN, 56), exact(1, HIDDEN, 24, 57)];
    Experts::of(
        choice.router(),
        [
            with_bias(exact(1, EXPERTS, HIDDEN, 50), 51),
            with_bias(exact(EXPERTS, 2 * 16, HIDDEN, 52), 53),
            with_bias(exact(EXPERTS, HIDDEN, 16, 54), 58),
        ],
        CLAMPED,
        shared.then(|| Mlp::of(Activation::SILU, mlp())),
    )
}

impl Extra {
    /// Six query heads over two.
    pub fn layer(self) -> Attention {
        let mut spec = AttentionSpec::new(6, 2, DIM);
        let (window, softcap) = (Some(7), Some(1.5));
        match self {
            Extra::None | Extra::Sinks => {}
            Extra::Window => spec.window = window,
            Extra::Softcap => spec.softcap = softcap,
            Extra::All => (spec.window, spec.softcap, spec.scale) = (window, softcap, 0.3),
        }
        let has_sinks = matches!(self, Extra::Sinks | Extra::All);
        Attention { spec, sinks: has_sinks.then(|| numbers(6, 30)) }
    }
}

/// A model of one layer with this attention, for a cache.
pub fn specification(case: &Case) -> ModelSpec {
    let attention = match case {
        Case::Attention(extra) => extra.layer().spec,
        _ => Extra::None.layer().spec,
    };
    specification_of(attention)
}

/// The same of any attention.
pub fn specification_of(attention: AttentionSpec) -> ModelSpec {
    let config = include_str!("../../../testdata/tiny/llama/config.json");
    let layer = LayerSpec { attention, mlp: None, moe: None, norms: NormPlacement::Pre, layer_scalar: false };
    ModelSpec { layers: vec![layer], ..gq_checkpoint::parse_config(config).unwrap() }
}

impl Case {
    /// Its line in the table of what is allowed.
    pub fn operator(&self) -> &'static str {
        match self {
            Case::Embed => "embed",
            Case::Linear => "linear",
            Case::LinearOfCodes => "linear of codes",
            Case::RmsNorm | Case::NormOfHeads => "rms_norm",
            Case::Rope => "rope",
            Case::Attention(_) => "attention",
            Case::Gated(_) => "gated",
            Case::Route(_) => "route",
            Case::Grouped => "grouped_linear",
            Case::GroupedOfCodes => "grouped_linear of codes",
            Case::Combine => "combine",
            Case::Sparse(_) | Case::Both => "feed forward",
            Case::Add => "add",
            Case::Scale => "scale",
            Case::Softcap => "softcap",
            Case::Rows => "rows",
            Case::Columns => "columns",
        }
    }

    /// The operators that it is there for.
    pub fn operators(&self) -> Option<&'static str> {
        self.operator().split(" of ").next().filter(|name| *name != "feed forward")
    }

    /// Tokens of these inputs.
    pub fn tokens(&self, inputs: &[MatrixF64]) -> usize {
        inputs[0].rows().count()
    }

    /// What it is run on.
    pub fn inputs(&self, tokens: usize) -> Vec<MatrixF64> {
        match self {
            Case::Rope => vec![random(tokens, 3 * DIM, 1)],
            Case::Attention(_) => {
                vec![random(tokens, 6 * DIM, 2), random(tokens, 2 * DIM, 3), random(tokens, 2 * DIM, 4)]
            }
            Case::Gated(_) | Case::Add => vec![random(tokens, HIDDEN, 5), random(tokens, HIDDEN, 6)],
            Case::Route(_) => vec![random(tokens, EXPERTS, 7), random(tokens * 3, HIDDEN, 8)],
            Case::Combine => vec![random(tokens, EXPERTS, 7), random(tokens * 3, HIDDEN, 9)],
            Case::Grouped | Case::GroupedOfCodes => {
                vec![random(tokens, EXPERTS, 10), random(tokens, HIDDEN, 11)]
            }
            _ => vec![random(tokens, HIDDEN, 12)],
        }
    }

    /// Runs it.
    pub fn run<B: Backend>(&self, ops: &mut B, inputs: Vec<B::Value>) -> Vec<B::Value> {
        let count = ops.numbers(&inputs[0]).rows().count();
        let mut inputs = inputs.into_iter();
        let mut next = || inputs.next().unwrap();
        match self {
            Case::Embed => {
                let tokens: Vec<u32> = (0..count as u32).map(|i| (i * 7 + 3) % 50).collect();
                vec![
                    ops.embed(&exact(1, 50, HIDDEN, 20), &tokens),
                    ops.embed(&coded(1, 50, HIDDEN, 20), &tokens),
                ]
            }
            Case::Linear => {
                let (a, b) = (with_bias(exact(1, 40, HIDDEN, 21), 22), exact(1, 9, HIDDEN, 23));
                ops.linear(&next(), [&a, &b]).into()
            }
            Case::LinearOfCodes => {
                let (a, b) = (with_bias(coded(1, 96, HIDDEN, 24), 25), coded(1, 32, HIDDEN, 26));
                ops.linear(&next(), [&a, &b]).into()
            }
            Case::RmsNorm => vec![ops.rms_norm(&next(), &norm(HIDDEN, Some(numbers(HIDDEN, 27))))],
            Case::NormOfHeads => vec![ops.rms_norm(&next(), &norm(16, None))],
            Case::Rope => vec![ops.rope(next(), 0)],
            Case::Attention(extra) => {
                let (q, k, v) = (next(), next(), next());
                vec![ops.attention(q, Some((k, v)), 0, &extra.layer())]
            }
            Case::Gated(activation) => {
                let (gate, up) = (next(), next());
                vec![ops.gated(*activation, gate, &up)]
            }
            Case::Route(choice) => {
                let routes = ops.route(&next(), &choice.router());
                let rows = next();
                // Which experts, and what of each: their numbers as products, and sums of rows.
                let ones = MatrixF64 { width: 1, data: vec![1.0; count] };
                let ones = ops.value(&ones);
                let ids: Vec<f32> = (1..=EXPERTS).map(|id| id as f32).collect();
                let ids = super::weights::of_values(EXPERTS, 1, 1, &ids);
                vec![ops.grouped_linear(&ones, &routes, &ids), ops.combine(rows, &routes)]
            }
            Case::Grouped | Case::GroupedOfCodes => {
                let routes = ops.route(&next(), &Choice::Sigmoid.router());
                let make = |rows, cols, seed| match self {
                    Case::Grouped => with_bias(exact(EXPERTS, rows, cols, seed), seed + 1),
                    _ => coded(EXPERTS, rows, cols, seed),
                };
                let once = ops.grouped_linear(&next(), &routes, &make(32, HIDDEN, 40));
                let twice = ops.grouped_linear(&once, &routes, &make(64, 32, 42));
                vec![once, twice]
            }
            Case::Combine => {
                let routes = ops.route(&next(), &Choice::Scaled.router());
                vec![ops.combine(next(), &routes)]
            }
            Case::Sparse(choice) => {
                let block = FeedForward::Sparse(Box::new(experts(*choice, false)));
                vec![block.forward(ops, &next())]
            }
            Case::Both => {
                let mlp = [exact(1, 40, HIDDEN, 45), exact(1, 40, HIDDEN, 46), exact(1, HIDDEN, 40, 47)];
                let mlp = Mlp::of(Activation::GELU_TANH, mlp);
                let experts = Box::new(experts(Choice::Grouped, true));
                vec![FeedForward::Both(mlp, experts).forward(ops, &next())]
            }
            Case::Add => {
                let x = next();
                vec![ops.add(x, &next())]
            }
            Case::Scale => vec![ops.scale(next(), 0.37)],
            Case::Softcap => vec![ops.softcap(next(), 0.8)],
            Case::Rows => {
                let first = count / 2;
                vec![ops.rows(next(), first..count)]
            }
            Case::Columns => vec![ops.columns(&next(), 5..19)],
        }
    }
}
