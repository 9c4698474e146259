//! Wrong readings of Mistral and Ministral 3.

use super::Layer;
use crate::family::slips::Change::{Graph as InGraph, Spec};
use crate::family::slips::{
    Change, Pair, absent, attention, frequencies, in_each, notices, replace, theta_doubled, weight,
};
use crate::family::{Graph, Layers};
use gq_checkpoint::{Activation, ModelSpec, QueryGrowth};

const VARIANTS: [&str; 2] = ["mistral", "ministral3"];

const MUTATIONS: &[(&str, Change)] = &[
    ("norm gain off by one", InGraph(|g| each(g, |l| weight(&mut l.around_attention.before, |w| w + 1.0)))),
    ("norm epsilon 1e-2", Spec(|s| replace(&mut s.norm_eps, 1e-2))),
    ("no input norm", InGraph(|g| each(g, |l| absent(&mut l.around_attention.before)))),
    ("no norm before the MLP", InGraph(|g| each(g, |l| absent(&mut l.around_feed_forward.before)))),
    ("no final norm", InGraph(|g| in_each([&mut g.ends.norm], absent))),
    ("window one shorter", Spec(|s| windows(s, |w| Some(w - 1)))),
    ("window one longer", Spec(|s| windows(s, |w| Some(w + 1)))),
    ("no window", Spec(|s| windows(s, |_| None))),
    ("queries do not grow", Spec(|s| growth(s, |g| QueryGrowth { beta: 0.0, ..g }))),
    ("queries grow twice as fast", Spec(|s| growth(s, |g| QueryGrowth { beta: 2.0 * g.beta, ..g }))),
    (
        "queries grow from another length on",
        Spec(|s| growth(s, |g| QueryGrowth { original_max_positions: g.original_max_positions / 2.0, ..g })),
    ),
    ("frequencies not stretched", Spec(|s| has_growth(s) && frequencies(s, plain))),
    (
        "factor of YaRN on angles",
        Spec(|s| has_growth(s) && in_each(&mut s.ropes, |r| r.attention_factor = 1.277_258_9)),
    ),
    ("RoPE theta doubled", Spec(|s| frequencies(s, theta_doubled))),
    ("no scale of scores", Spec(|s| attention(s, |a| a.scale = 1.0))),
    ("scale by the hidden size's share", Spec(|s| attention(s, |a| a.scale = (96.0f32 / 4.0).powf(-0.5)))),
    ("GELU for SiLU", Spec(gelu)),
];

fn each(graph: &mut Graph, change: impl Fn(&mut Layer)) -> bool {
    let Layers::Llama(layers) = &mut graph.layers else { panic!("another family") };
    in_each(layers.iter_mut(), change)
}

fn windows(spec: &mut ModelSpec, change: fn(usize) -> Option<usize>) -> bool {
    let had = spec.layers.iter().any(|layer| layer.attention.window.is_some());
    attention(spec, |a| a.window = a.window.and_then(change)) && had
}

fn has_growth(spec: &ModelSpec) -> bool {
    spec.layers.iter().any(|layer| layer.attention.query_growth.is_some())
}

fn growth(spec: &mut ModelSpec, change: fn(QueryGrowth) -> QueryGrowth) -> bool {
    let had = has_growth(spec);
    attention(spec, |a| a.query_growth = a.query_growth.map(change)) && had
}

fn plain(pair: Pair) -> f32 {
    pair.theta.powf(-pair.index / pair.pairs) as f32
}

fn gelu(spec: &mut ModelSpec) -> bool {
    let mlps = spec.layers.iter_mut().filter_map(|layer| layer.mlp.as_mut());
    in_each(mlps, |mlp| mlp.activation = Activation::GELU_TANH)
}

#[test]
fn parity_notices_every_mutation() {
    notices(&VARIANTS, MUTATIONS);
}
