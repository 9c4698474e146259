//! Wrong readings of the architecture, applied to this graph: parity with the reference notices every one.
//!
//! A term is dropped or misread in the specification, in the loaded graph or in an operator; the logits of some tiny
//! checkpoint that has the term must then miss the reference by many times what the parity test tolerates.

use super::Layer;
use crate::blocks::{KeysValues, ParallelExperts};
use crate::family::slips::Change::{Graph as InGraph, Operator, Spec};
use crate::family::slips::{
    Change, Pair, Slip, absent, attention, frequencies, in_each, moe, notices, replace, routers, swap_halves,
    there, theta_doubled, weight,
};
use crate::family::{Graph, Layers};
use crate::ops::Norm;
use gq_checkpoint::{Activation, AttentionSpec, ModelSpec, PerLayerEmbedding};

const VARIANTS: [&str; 5] = ["gemma4-e2b", "gemma4-e4b", "gemma4-moe", "gemma4-dense", "gemma4-vision"];

const MUTATIONS: &[(&str, Change)] = &[
    // Norms.
    ("norm gain off by one", InGraph(|g| each(g, |l| weight(&mut l.around_attention.before, |w| w + 1.0)))),
    ("norm epsilon 1e-6", Spec(|s| replace(&mut s.norm_eps, 1e-6))),
    ("no input norm", InGraph(|g| each(g, |l| absent(&mut l.around_attention.before)))),
    ("no post-attention norm", InGraph(|g| each(g, |l| absent(after(&mut l.around_attention))))),
    ("no pre-feedforward norm", InGraph(|g| each(g, |l| absent(&mut l.around_mlp.before)))),
    ("no post-feedforward norm", InGraph(|g| each(g, |l| absent(after(&mut l.around_mlp))))),
    ("no query norm", InGraph(|g| each(g, |l| absent(there(&mut l.attention.query_norm))))),
    ("no key norm", InGraph(|g| key_value(g, |l| absent(there(&mut l.key_norm))))),
    ("value not normed", InGraph(|g| key_value(g, |l| absent(there(&mut l.value_norm))))),
    ("no final norm", InGraph(|g| in_each([&mut g.ends.norm], absent))),
    // Values from keys.
    ("K=V: value not normed", InGraph(|g| shared_values(g, |l| absent(there(&mut l.value_norm))))),
    ("K=V: value is the normed key", InGraph(|g| shared_values(g, |l| l.value_norm = l.key_norm.clone()))),
    ("K=V: value is the cached key", Operator(Slip::ValueIsKey, |s| any(s, |a| a.k_eq_v))),
    // Rotary embeddings.
    ("RoPE theta doubled", Spec(|s| frequencies(s, theta_doubled))),
    ("sliding layers turn like full ones", Spec(one_rope)),
    ("RoPE denominator is the rotated dimensions", Spec(|s| frequencies(s, over_turning))),
    ("RoPE turns all dimensions", Spec(|s| frequencies(s, all_turning))),
    // Attention.
    (
        "attention scaled by 1/sqrt(head_dim)",
        Spec(|s| attention(s, |a| a.scale = (a.head_dim as f32).powf(-0.5))),
    ),
    ("window one shorter", Spec(|s| attention(s, |a| a.window = a.window.map(|w| w - 1)))),
    ("window one longer", Spec(|s| attention(s, |a| a.window = a.window.map(|w| w + 1)))),
    ("no window", Spec(|s| attention(s, |a| a.window = None))),
    ("shared cache of another layer", Spec(another_cache)),
    // Around the layers.
    ("no embedding scale", Spec(|s| s.embed_scale.take().is_some())),
    ("no final softcap", Spec(|s| s.final_softcap.take().is_some())),
    ("no layer_scalar", Spec(|s| in_each(&mut s.layers, |l| l.layer_scalar = false))),
    ("no layer_scalar on the last layer", Spec(|s| in_each(s.layers.last_mut(), |l| l.layer_scalar = false))),
    ("SiLU for GELU", Spec(silu)),
    // Per-layer embeddings.
    ("no PLE", InGraph(|g| each(g, |l| l.per_layer = None) && g.per_layer.take().is_some())),
    ("PLE: no token table", Spec(|s| ple(s, |p| p.table_scale = 0.0))),
    ("PLE: table not scaled", Spec(|s| ple(s, |p| p.table_scale = 1.0))),
    ("PLE: no context projection", InGraph(|g| context(g, |norm| weight(norm, |_| 0.0)))),
    ("PLE: context not normed", InGraph(|g| context(g, absent))),
    ("PLE: sum not scaled", Spec(|s| ple(s, |p| p.sum_scale = 1.0))),
    ("PLE: no post norm", InGraph(no_per_layer_norm)),
    ("PLE: vectors of the next layer", InGraph(next_columns)),
    // Experts.
    ("MoE: router without hidden^-1/2", Spec(|s| moe(s, |m| m.input_scale = None))),
    ("MoE: one expert fewer", Spec(|s| moe(s, |m| m.router.top_k -= 1))),
    ("MoE: no router scale", InGraph(|g| moes(g, |l| l.before_router.weight = None))),
    ("MoE: router input not normed", InGraph(|g| moes(g, |l| absent(&mut l.before_router)))),
    ("MoE: no per_expert_scale", InGraph(|g| moes(g, |l| l.experts.choice.scales = None))),
    ("MoE: weights not renormalized", Spec(|s| routers(s, |r| r.renormalize = false))),
    ("MoE: sigmoid for softmax", Spec(|s| routers(s, |r| r.scoring = gq_checkpoint::Scoring::Sigmoid))),
    ("MoE: experts' sum scaled", Spec(|s| routers(s, |r| r.scale = 2.5))),
    ("MoE: gate and up swapped", InGraph(|g| moes(g, |l| swap_halves(&mut l.experts)))),
    ("MoE: experts read the MLP's norm", InGraph(experts_read_mlp_norm)),
    ("MoE: no norm after the MLP", InGraph(|g| moes(g, |l| absent(&mut l.after_dense)))),
    ("MoE: no norm after the experts", InGraph(|g| moes(g, |l| absent(&mut l.after)))),
    ("MoE: no experts", InGraph(|g| moes(g, |_| {}) && each(g, |l| l.moe = None))),
];

fn layers(graph: &mut Graph) -> std::slice::IterMut<'_, Layer> {
    let Layers::Gemma4(layers) = &mut graph.layers else { panic!("another family") };
    layers.iter_mut()
}

fn each(graph: &mut Graph, change: impl Fn(&mut Layer)) -> bool {
    in_each(layers(graph), change)
}

fn after(residual: &mut crate::blocks::Residual) -> &mut Norm {
    there(&mut residual.after)
}

/// In dense MLPs, experts and where a layer takes in its vector.
fn silu(spec: &mut ModelSpec) -> bool {
    ple(spec, |ple| ple.activation = Activation::SILU);
    moe(spec, |moe| moe.activation = Activation::SILU);
    in_each(spec.layers.iter_mut().filter_map(|l| l.mlp.as_mut()), |mlp| mlp.activation = Activation::SILU)
}

fn key_value(graph: &mut Graph, change: impl Fn(&mut KeysValues)) -> bool {
    in_each(layers(graph).filter_map(|layer| layer.attention.keys_values.as_mut()), change)
}

/// Layers whose values are the key projection's output.
fn shared_values(graph: &mut Graph, change: impl Fn(&mut KeysValues)) -> bool {
    let parts = layers(graph).filter_map(|layer| layer.attention.keys_values.as_mut());
    in_each(parts.filter(|part| part.value.is_none()), change)
}

fn moes(graph: &mut Graph, change: impl Fn(&mut ParallelExperts)) -> bool {
    in_each(layers(graph).filter_map(|layer| layer.moe.as_mut()), change)
}

fn experts_read_mlp_norm(graph: &mut Graph) -> bool {
    let layers = layers(graph).filter_map(|layer| Some((layer.moe.as_mut()?, &layer.around_mlp.before)));
    layers.map(|(moe, norm)| moe.before = norm.clone()).count() > 0
}

fn context(graph: &mut Graph, change: impl Fn(&mut Norm)) -> bool {
    in_each(graph.per_layer.as_mut().map(|inputs| &mut inputs.norm), change)
}

fn no_per_layer_norm(graph: &mut Graph) -> bool {
    let parts = layers(graph).filter_map(|layer| layer.per_layer.as_mut());
    in_each(parts, |part| absent(&mut part.norm))
}

fn next_columns(graph: &mut Graph) -> bool {
    let mut parts: Vec<_> = layers(graph).filter_map(|layer| layer.per_layer.as_mut()).collect();
    let columns: Vec<_> = parts.iter().map(|part| part.columns.clone()).collect();
    let next = columns.iter().cycle().skip(1);
    parts.iter_mut().zip(next).for_each(|(part, next)| part.columns = next.clone());
    !columns.is_empty()
}

fn any(spec: &ModelSpec, term: impl Fn(&AttentionSpec) -> bool) -> bool {
    spec.layers.iter().any(|layer| term(&layer.attention))
}

fn ple(spec: &mut ModelSpec, change: impl Fn(&mut PerLayerEmbedding)) -> bool {
    in_each(&mut spec.per_layer_embedding, change)
}

fn over_turning(pair: Pair) -> f32 {
    if pair.frequency > 0.0 { pair.theta.powf(-pair.index / pair.turning) as f32 } else { 0.0 }
}

fn all_turning(pair: Pair) -> f32 {
    pair.theta.powf(-pair.index / pair.pairs) as f32
}

fn one_rope(spec: &mut ModelSpec) -> bool {
    let full = spec.ropes.iter().find(|rope| rope.inv_freq.contains(&0.0)).unwrap().inv_freq.clone();
    for rope in spec.ropes.iter_mut().filter(|rope| !rope.inv_freq.contains(&0.0)) {
        rope.inv_freq.iter_mut().zip(&full).for_each(|(f, full)| *f = *full);
    }
    true
}

/// The first layer of a kind instead of the last.
fn another_cache(spec: &mut ModelSpec) -> bool {
    let owners: Vec<_> = spec.layers.iter().map(|layer| layer.attention.clone()).collect();
    let first = |kind: &AttentionSpec| {
        owners.iter().position(|a| a.kv_shared_with.is_none() && a.window == kind.window).unwrap()
    };
    let mut moved = false;
    for attention in spec.layers.iter_mut().map(|layer| &mut layer.attention) {
        if let Some(owner) = attention.kv_shared_with {
            let first = first(attention);
            moved |= first != owner;
            attention.kv_shared_with = Some(first);
        }
    }
    moved
}

#[test]
fn parity_notices_every_mutation() {
    notices(&VARIANTS, MUTATIONS);
}
