//! Wrong readings of Qwen3, dense and with experts.

use super::Layer;
use crate::blocks::{Experts, FeedForward, KeysValues};
use crate::family::slips::Change::{Graph as InGraph, Operator, Spec};
use crate::family::slips::{
    Change, Slip, absent, attention, frequencies, in_each, moe, notices, reordered, replace, routers,
    swap_halves, there, theta_doubled, weight,
};
use crate::family::{Graph, Layers};
use crate::ops::Norm;
use gq_checkpoint::{Activation, ModelSpec, Scoring};

const VARIANTS: [&str; 3] = ["qwen3", "qwen3-moe", "qwen3-moe-mixed"];

const MUTATIONS: &[(&str, Change)] = &[
    ("norm gain off by one", InGraph(|g| each(g, |l| weight(&mut l.around_attention.before, |w| w + 1.0)))),
    ("norm epsilon 1e-2", Spec(|s| replace(&mut s.norm_eps, 1e-2))),
    ("no input norm", InGraph(|g| each(g, |l| absent(&mut l.around_attention.before)))),
    ("no norm before the MLP", InGraph(|g| each(g, |l| absent(&mut l.around_feed_forward.before)))),
    ("no final norm", InGraph(|g| in_each([&mut g.ends.norm], absent))),
    ("no query norm", InGraph(|g| each(g, |l| absent(there(&mut l.attention.query_norm))))),
    ("no key norm", InGraph(|g| key_value(g, |l| absent(there(&mut l.key_norm))))),
    ("values normed", InGraph(|g| key_value(g, |l| l.value_norm = l.key_norm.clone()))),
    ("query norm over all heads", InGraph(|g| each(g, |l| over_all(there(&mut l.attention.query_norm), 4)))),
    ("query and key norms change places", InGraph(|g| each(g, norms_change_places))),
    ("queries and keys normed after they turn", Operator(Slip::NormsAfterRope, |_| true)),
    ("RoPE theta doubled", Spec(|s| frequencies(s, theta_doubled))),
    ("no scale of scores", Spec(|s| attention(s, |a| a.scale = 1.0))),
    ("scale by the hidden size's share", Spec(scale_by_share)),
    ("GELU for SiLU", Spec(gelu)),
    ("MoE: renormalization the other way", Spec(|s| routers(s, |r| r.renormalize = !r.renormalize))),
    ("MoE: softmax after the choice", Spec(softmax_after_choice)),
    ("MoE: sigmoid for softmax", Spec(|s| routers(s, |r| r.scoring = Scoring::Sigmoid))),
    ("MoE: one expert fewer", Spec(|s| moe(s, |m| m.router.top_k -= 1))),
    ("MoE: one expert more", Spec(|s| moe(s, |m| m.router.top_k += 1))),
    ("MoE: experts' sum scaled", Spec(|s| routers(s, |r| r.scale = 2.5))),
    ("MoE: gate and up swapped", InGraph(|g| experts(g, swap_halves))),
    ("MoE: gates and ups of all experts apart", InGraph(|g| experts(g, all_gates_first))),
    ("MoE: down projections in the order of names", InGraph(|g| experts(g, downs_by_name))),
];

fn layers(graph: &mut Graph) -> std::slice::IterMut<'_, Layer> {
    let Layers::Llama(layers) = &mut graph.layers else { panic!("another family") };
    layers.iter_mut()
}

fn each(graph: &mut Graph, change: impl Fn(&mut Layer)) -> bool {
    in_each(layers(graph), change)
}

fn key_value(graph: &mut Graph, change: impl Fn(&mut KeysValues)) -> bool {
    in_each(layers(graph).filter_map(|layer| layer.attention.keys_values.as_mut()), change)
}

fn experts(graph: &mut Graph, change: impl Fn(&mut Experts)) -> bool {
    fn sparse(layer: &mut Layer) -> Option<&mut Experts> {
        match &mut layer.feed_forward {
            FeedForward::Sparse(experts) => Some(experts),
            _ => None,
        }
    }
    in_each(layers(graph).filter_map(sparse), change)
}

/// One mean square for a token's whole query, weights as they are for each head.
fn over_all(norm: &mut Norm, heads: usize) {
    norm.width *= heads;
    norm.weight = norm.weight.as_ref().map(|weight| weight.repeat(heads));
}

fn norms_change_places(layer: &mut Layer) {
    let attention = &mut layer.attention;
    let key = &mut there(&mut attention.keys_values).key_norm;
    std::mem::swap(&mut attention.query_norm, key);
}

/// `1 / sqrt(hidden_size / heads)`, where a head has another width.
fn scale_by_share(spec: &mut ModelSpec) -> bool {
    let hidden = spec.hidden_size as f32;
    let own = |layer: &gq_checkpoint::LayerSpec| layer.attention.q_width() == spec.hidden_size;
    let differs = !spec.layers.iter().all(own);
    attention(spec, |a| a.scale = (hidden / a.heads as f32).powf(-0.5)) && differs
}

/// In dense MLPs and experts.
fn gelu(spec: &mut ModelSpec) -> bool {
    let sparse = moe(spec, |moe| moe.activation = Activation::GELU_TANH);
    let mlps = spec.layers.iter_mut().filter_map(|layer| layer.mlp.as_mut());
    in_each(mlps, |mlp| mlp.activation = Activation::GELU_TANH) || sparse
}

/// The same where weights are renormalized.
fn softmax_after_choice(spec: &mut ModelSpec) -> bool {
    let differs = spec.layers.iter().any(|layer| layer.moe.is_some_and(|moe| !moe.router.renormalize));
    routers(spec, |router| router.scoring = Scoring::SoftmaxOfChosen) && differs
}

/// Gates of all experts, then ups of all, as a GGUF has them.
fn all_gates_first(experts: &mut Experts) {
    let half = experts.width;
    reordered(&mut experts.gate_up, |rows| {
        let both = rows.chunks_exact(half).step_by(2).chain(rows.chunks_exact(half).skip(1).step_by(2));
        let apart = both.collect::<Vec<_>>().concat();
        rows.copy_from_slice(&apart);
    });
}

/// 0, 1, 10, 11, 2, ...: as files list them.
fn downs_by_name(experts: &mut Experts) {
    let rows_per_matrix = experts.down.shape.rows_each();
    reordered(&mut experts.down, |rows| {
        let mut order: Vec<usize> = (0..rows.len() / rows_per_matrix).collect();
        order.sort_by_key(ToString::to_string);
        let named =
            order.iter().flat_map(|expert| &rows[expert * rows_per_matrix..(expert + 1) * rows_per_matrix]);
        let named: Vec<&[u8]> = named.copied().collect();
        rows.copy_from_slice(&named);
    });
}

#[test]
fn parity_notices_every_mutation() {
    notices(&VARIANTS, MUTATIONS);
}
