//! Wrong readings of GPT-OSS.

use super::Layer;
use crate::blocks::{Experts, FeedForward};
use crate::family::slips::Change::{Graph as InGraph, Spec};
use crate::family::slips::{
    Change, Pair, absent, attention, frequencies, in_each, moe, notices, reordered, replace, routers,
    swap_halves, there, theta_doubled, weight,
};
use crate::family::{Graph, Layers};
use gq_checkpoint::{Activation, AttentionSpec, Curve, ModelSpec, Scoring};

const VARIANTS: [&str; 2] = ["gpt-oss", "gpt-oss-resaved"];

const MUTATIONS: &[(&str, Change)] = &[
    ("norm gain off by one", InGraph(|g| each(g, |l| weight(&mut l.around_attention.before, |w| w + 1.0)))),
    ("norm epsilon 1e-2", Spec(|s| replace(&mut s.norm_eps, 1e-2))),
    ("no input norm", InGraph(|g| each(g, |l| absent(&mut l.around_attention.before)))),
    ("no norm before the experts", InGraph(|g| each(g, |l| absent(&mut l.around_feed_forward.before)))),
    ("no final norm", InGraph(|g| in_each([&mut g.ends.norm], absent))),
    ("no query bias", InGraph(|g| each(g, |l| l.attention.query.bias = None))),
    ("no key bias", InGraph(|g| each(g, |l| there(&mut l.attention.keys_values).key.bias = None))),
    ("no value bias", InGraph(|g| each(g, |l| value(l).bias = None))),
    ("no output bias", InGraph(|g| each(g, |l| l.attention.output.bias = None))),
    ("no sinks", Spec(|s| attention(s, |a| a.sinks = false))),
    ("no sinks on sliding layers", Spec(|s| attention(s, |a| a.sinks = a.window.is_none()))),
    ("sinks scaled like scores", InGraph(|g| each(g, |l| sinks(l, |s, scale| s * scale)))),
    ("sinks negated", InGraph(|g| each(g, |l| sinks(l, |s, _| -s)))),
    ("window one shorter", Spec(|s| windows(s, |w| w - 1))),
    ("window one longer", Spec(|s| windows(s, |w| w + 1))),
    ("no window", Spec(|s| attention(s, |a| a.window = None))),
    ("the other layers slide", Spec(other_layers_slide)),
    ("RoPE theta doubled", Spec(|s| frequencies(s, theta_doubled))),
    ("YaRN left out", Spec(|s| frequencies(s, plain))),
    ("YaRN between whole pairs", Spec(|s| frequencies(s, between_whole_pairs))),
    ("attention factor left out", Spec(|s| in_each(&mut s.ropes, |rope| rope.attention_factor = 1.0))),
    (
        "attention factor squared",
        Spec(|s| in_each(&mut s.ropes, |rope| rope.attention_factor *= rope.attention_factor)),
    ),
    ("no scale of scores", Spec(|s| attention(s, |a| a.scale = 1.0))),
    ("experts: nothing cut", Spec(|s| gates(s, |gate| gate.limit = None))),
    ("experts: cut at another limit", Spec(|s| gates(s, |gate| gate.limit = Some(5.0)))),
    ("experts: up without the one", Spec(|s| gates(s, |gate| gate.up_offset = 0.0))),
    ("experts: plain SiLU", Spec(|s| gates(s, |gate| gate.curve = Curve::Swish { alpha: 1.0 }))),
    ("experts: gate and up swapped", InGraph(|g| experts(g, swap_halves))),
    ("experts: gate and up in turn", InGraph(|g| experts(g, in_turn))),
    ("experts: no bias of gate and up", InGraph(|g| experts(g, |e| e.gate_up.bias = None))),
    ("experts: no bias of down", InGraph(|g| experts(g, |e| e.down.bias = None))),
    ("no router bias", InGraph(|g| experts(g, |e| e.router.bias = None))),
    (
        "softmax over all experts before the choice",
        Spec(|s| {
            routers(s, |r| {
                (r.scoring, r.renormalize) = (Scoring::Softmax, false);
            })
        }),
    ),
    ("one expert fewer", Spec(|s| moe(s, |m| m.router.top_k -= 1))),
    ("one expert more", Spec(|s| moe(s, |m| m.router.top_k += 1))),
];

fn each(graph: &mut Graph, change: impl Fn(&mut Layer)) -> bool {
    let Layers::Llama(layers) = &mut graph.layers else { panic!("another family") };
    in_each(layers.iter_mut(), change)
}

fn experts(graph: &mut Graph, change: impl Fn(&mut Experts)) -> bool {
    each(graph, |layer| match &mut layer.feed_forward {
        FeedForward::Sparse(experts) => change(experts),
        _ => panic!("a layer without experts"),
    })
}

fn value(layer: &mut Layer) -> &mut crate::linear::Linear {
    there(&mut there(&mut layer.attention.keys_values).value)
}

fn sinks(layer: &mut Layer, change: fn(f32, f32) -> f32) {
    let scale = layer.attention.operator.spec.scale;
    there(&mut layer.attention.operator.sinks).iter_mut().for_each(|sink| *sink = change(*sink, scale));
}

fn windows(spec: &mut ModelSpec, change: fn(usize) -> usize) -> bool {
    attention(spec, |a| a.window = a.window.map(change))
}

fn other_layers_slide(spec: &mut ModelSpec) -> bool {
    let size = spec.layers.iter().find_map(|layer| layer.attention.window);
    attention(spec, |a: &mut AttentionSpec| a.window = if a.window.is_some() { None } else { size })
}

fn gates(spec: &mut ModelSpec, change: fn(&mut Activation)) -> bool {
    moe(spec, |moe| change(&mut moe.activation))
}

fn plain(pair: Pair) -> f32 {
    pair.theta.powf(-pair.index / pair.pairs) as f32
}

/// Both checkpoints: factor 32, 4096 positions, the usual betas.
fn between_whole_pairs(pair: Pair) -> f32 {
    let at = |turns: f64| pair.pairs * (4096.0 / (turns * std::f64::consts::TAU)).ln() / pair.theta.ln();
    let (low, high) = (at(32.0).floor(), at(1.0).ceil());
    let ramp = ((pair.index - low) / (high - low)).clamp(0.0, 1.0);
    let scaled = (1.0 - ramp) + ramp / 32.0;
    (f64::from(plain(pair)) * scaled) as f32
}

/// Gate, up, gate, up, … as the files have them.
fn in_turn(experts: &mut Experts) {
    let half = experts.width;
    reordered(&mut experts.gate_up, |rows| {
        for expert in rows.chunks_exact_mut(2 * half) {
            let plain = expert.to_vec();
            for (place, row) in expert.iter_mut().enumerate() {
                *row = plain[place / 2 + place % 2 * half];
            }
        }
    });
}

#[test]
fn parity_notices_every_mutation() {
    notices(&VARIANTS, MUTATIONS);
}
