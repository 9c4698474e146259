//! Wrong readings of Phi.

use super::Layer;
use crate::family::slips::Change::{Graph as InGraph, Spec};
use crate::family::slips::{Change, absent, attention, in_each, notices, reordered, replace, weight};
use crate::family::{Graph, Layers};
use gq_checkpoint::{Activation, ModelSpec, RopeSpec};

const VARIANTS: [&str; 2] = ["phi3", "phi3-long"];

const MUTATIONS: &[(&str, Change)] = &[
    ("norm gain off by one", InGraph(|g| each(g, |l| weight(&mut l.around_attention.before, |w| w + 1.0)))),
    ("norm epsilon 1e-2", Spec(|s| replace(&mut s.norm_eps, 1e-2))),
    ("no input norm", InGraph(|g| each(g, |l| absent(&mut l.around_attention.before)))),
    ("no norm before the MLP", InGraph(|g| each(g, |l| absent(&mut l.around_feed_forward.before)))),
    ("no final norm", InGraph(|g| in_each([&mut g.ends.norm], absent))),
    ("window one shorter", Spec(|s| windows(s, |w| Some(w - 1)))),
    ("window one longer", Spec(|s| windows(s, |w| Some(w + 1)))),
    ("no window", Spec(|s| windows(s, |_| None))),
    ("the list of the other contexts", Spec(|s| ropes(s, other_list))),
    ("no factors", Spec(|s| ropes(s, |rope| lists(rope, |rope, pair, _| plain(rope, pair, rope.turning()))))),
    ("RoPE theta doubled", Spec(|s| ropes(s, |rope| lists(rope, theta_doubled)))),
    ("denominator of whole heads", Spec(|s| partial(s) && ropes(s, |rope| lists(rope, of_whole_heads)))),
    ("all pairs turn", Spec(|s| partial(s) && ropes(s, all_pairs))),
    ("no attention factor", Spec(|s| in_each(&mut s.ropes, |r| r.attention_factor = 1.0))),
    ("attention factor twice", Spec(|s| in_each(&mut s.ropes, |r| r.attention_factor *= r.attention_factor))),
    ("neighbors turn", InGraph(|g| each(g, neighbors))),
    ("values before keys", InGraph(|g| each(g, values_first))),
    ("no scale of scores", Spec(|s| attention(s, |a| a.scale = 1.0))),
    ("GELU for SiLU", Spec(gelu)),
];

fn each(graph: &mut Graph, change: impl Fn(&mut Layer)) -> bool {
    let Layers::Llama(layers) = &mut graph.layers else { panic!("another family") };
    in_each(layers.iter_mut(), change)
}

/// Windows that some text is longer than.
fn windows(spec: &mut ModelSpec, change: fn(usize) -> Option<usize>) -> bool {
    let longest = spec.max_positions;
    let had = spec.layers.iter().any(|layer| layer.attention.window.is_some_and(|window| window < longest));
    attention(spec, |a| a.window = a.window.and_then(change)) && had
}

fn ropes(spec: &mut ModelSpec, change: fn(&mut RopeSpec)) -> bool {
    in_each(&mut spec.ropes, change)
}

fn partial(spec: &ModelSpec) -> bool {
    spec.ropes.iter().any(|rope| rope.turning() < rope.head_dim)
}

fn other_list(rope: &mut RopeSpec) {
    let long = rope.long.as_mut().unwrap();
    std::mem::swap(&mut rope.inv_freq, &mut long.inv_freq);
}

/// Every frequency of both lists, from its pair and what it was.
fn lists(rope: &mut RopeSpec, change: fn(&RopeSpec, usize, f32) -> f32) {
    let old = rope.clone();
    let changed = |list: &mut Vec<f32>| {
        list.iter_mut().enumerate().for_each(|(pair, frequency)| *frequency = change(&old, pair, *frequency));
    };
    changed(&mut rope.inv_freq);
    rope.long.iter_mut().for_each(|long| changed(&mut long.inv_freq));
}

fn plain(rope: &RopeSpec, pair: usize, dim: usize) -> f32 {
    rope.theta.powf(-2.0 * pair as f64 / dim as f64) as f32
}

fn theta_doubled(rope: &RopeSpec, pair: usize, frequency: f32) -> f32 {
    frequency * 2f32.powf(-(pair as f32) / rope.inv_freq.len() as f32)
}

fn of_whole_heads(rope: &RopeSpec, pair: usize, frequency: f32) -> f32 {
    frequency * plain(rope, pair, rope.head_dim) / plain(rope, pair, rope.turning())
}

fn all_pairs(rope: &mut RopeSpec) {
    let rest: Vec<f32> =
        (rope.inv_freq.len()..rope.head_dim / 2).map(|pair| plain(rope, pair, rope.head_dim)).collect();
    rope.inv_freq.extend(&rest);
    rope.long.iter_mut().for_each(|long| long.inv_freq.extend(&rest));
}

/// Dimensions 0, 2, 4, ... of each head in the places of the first of the pairs.
fn neighbors(layer: &mut Layer) {
    let dim = layer.attention.operator.spec.head_dim;
    let order: Vec<usize> = (0..dim).step_by(2).chain((1..dim).step_by(2)).collect();
    let change = |rows: &mut [&[u8]]| {
        for head in rows.chunks_exact_mut(dim) {
            let old = head.to_vec();
            head.iter_mut().zip(&order).for_each(|(row, from)| *row = old[*from]);
        }
    };
    reordered(&mut layer.attention.query, change);
    reordered(&mut layer.attention.keys_values.as_mut().unwrap().key, change);
}

fn values_first(layer: &mut Layer) {
    let part = layer.attention.keys_values.as_mut().unwrap();
    std::mem::swap(&mut part.key, part.value.as_mut().unwrap());
}

fn gelu(spec: &mut ModelSpec) -> bool {
    let mlps = spec.layers.iter_mut().filter_map(|layer| layer.mlp.as_mut());
    in_each(mlps, |mlp| mlp.activation = Activation::GELU_TANH)
}

#[test]
fn parity_notices_every_mutation() {
    notices(&VARIANTS, MUTATIONS);
}
