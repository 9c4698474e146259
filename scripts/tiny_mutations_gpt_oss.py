"""Wrong readings of GPT-OSS, applied to the reference: see tiny_mutations.py. Each changes the model in place and returns
False when it is another one."""
import math

import torch
from torch import nn


def of_gpt_oss(change):
    """A mutation of GPT-OSS alone."""
    def mutate(model) -> bool:
        if model.config.model_type != "gpt_oss":
            return False
        return change(model) is not False
    return mutate


def attentions(model) -> list:
    return [layer.self_attn for layer in model.model.layers]


def experts(model) -> list:
    return [layer.mlp.experts for layer in model.model.layers]


def routers(model) -> list:
    return [layer.mlp.router for layer in model.model.layers]


def no_output_bias(model):
    for attention in attentions(model):
        attention.o_proj.bias.data.zero_()


def no_sinks(model):
    for attention in attentions(model):
        attention.sinks.data.fill_(-math.inf)


def sinks_scaled(model):
    """As scores are, by 1 / sqrt(head_dim)."""
    for attention in attentions(model):
        attention.sinks.data *= attention.scaling


def sinks_negated(model):
    for attention in attentions(model):
        attention.sinks.data *= -1


def no_sinks_on_sliding_layers(model):
    for attention in attentions(model):
        if attention.sliding_window:
            attention.sinks.data.fill_(-math.inf)


def other_layers_slide(model):
    kinds = model.config.layer_types
    other = {"sliding_attention": "full_attention", "full_attention": "sliding_attention"}
    model.config.layer_types = [other[kind] for kind in kinds]
    for attention, kind in zip(attentions(model), model.config.layer_types):
        attention.layer_type = kind
        attention.sliding_window = model.config.sliding_window if kind == "sliding_attention" else None


def frequencies(model, **changes):
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    rotary, config = model.model.rotary_emb, model.config
    config.rope_parameters = {**config.rope_parameters, **changes}
    if config.rope_parameters["rope_type"] == "default":
        new, _ = rotary.compute_default_rope_parameters(config)
    else:
        new, _ = ROPE_INIT_FUNCTIONS["yarn"](config)
    rotary.inv_freq.copy_(new)


def attention_factor(power: int):
    def change(model):
        model.model.rotary_emb.attention_scaling **= power
    return change


def gate(function):
    """Another joint of gate and up values."""
    def change(model):
        for block in experts(model):
            block._apply_gate = lambda both, block=block: function(block, both[..., ::2], both[..., 1::2])
    return change


def joined(block, gate, up, alpha=None, offset=1.0):
    return (up + offset) * gate * torch.sigmoid(gate * (block.alpha if alpha is None else alpha))


def cut(block, gate, up):
    return gate.clamp(max=block.limit), up.clamp(-block.limit, block.limit)


def gate_cut_below(model):
    """Too little to be seen from 7 on: a gate of -7 is 5e-5 from nothing."""
    if experts(model)[0].limit > 5:
        return False
    gate(lambda b, g, u: joined(b, g.clamp(-b.limit, b.limit), cut(b, g, u)[1]))(model)


def halves(model):
    """Gate and up values one half each, not in turn."""
    for block in experts(model):
        block._apply_gate = lambda both, block=block: joined(block, *cut(block, *both.chunk(2, -1)))


def zeroed(name: str):
    def change(model):
        for block in experts(model):
            getattr(block, name).data.zero_()
    return change


def bias_outside_the_weights(model):
    """Down projections' biases added once each, whatever the expert's weight."""
    for layer in model.model.layers:
        block, bias = layer.mlp.experts, layer.mlp.experts.down_proj_bias.data.clone()
        block.down_proj_bias.data.zero_()
        def forward(x, index, weights, block=block, bias=bias, plain=type(block).forward):
            return plain(block, x, index, weights) + bias[index].sum(1)
        block.forward = forward


def down_not_transposed(model):
    for block in experts(model):
        if block.down_proj.shape[1] != block.down_proj.shape[2]:
            return False
        block.down_proj.data = block.down_proj.data.transpose(1, 2).contiguous()


def no_router_bias(model):
    for router in routers(model):
        router.bias.data.zero_()


def softmax_before_choice(model):
    for router in routers(model):
        def forward(x, router=router):
            logits = nn.functional.linear(x, router.weight, router.bias)
            weights, index = torch.topk(logits.softmax(-1), router.top_k, dim=-1)
            return logits, weights, index
        router.forward = forward


def one_expert_fewer(model):
    for router in routers(model):
        router.top_k -= 1


GPT_OSS = {name: of_gpt_oss(change) for name, change in {
    "no output bias": no_output_bias,
    "no sinks": no_sinks,
    "sinks scaled like scores": sinks_scaled,
    "sinks negated": sinks_negated,
    "no sinks on sliding layers": no_sinks_on_sliding_layers,
    "the other layers slide": other_layers_slide,
    "YaRN left out": lambda model: frequencies(model, rope_type="default"),
    "YaRN between whole pairs": lambda model: frequencies(model, truncate=True),
    "YaRN of another factor": lambda model: frequencies(model, factor=16.0),
    "attention factor left out": attention_factor(0),
    "attention factor squared": attention_factor(2),
    "experts: nothing cut": gate(joined),
    "experts: gate not cut": gate(lambda b, g, u: joined(b, g, cut(b, g, u)[1])),
    "experts: up not cut": gate(lambda b, g, u: joined(b, cut(b, g, u)[0], u)),
    "experts: gate cut on both sides": gate_cut_below,
    "experts: up cut above alone": gate(lambda b, g, u: joined(b, cut(b, g, u)[0], u.clamp(max=b.limit))),
    "experts: up without the one": gate(lambda b, g, u: joined(b, *cut(b, g, u), offset=0.0)),
    "experts: plain SiLU": gate(lambda b, g, u: joined(b, *cut(b, g, u), alpha=1.0)),
    "experts: up and gate change places": gate(lambda b, g, u: joined(b, *cut(b, u, g))),
    "experts: gate and up in halves": halves,
    "experts: no bias of gate and up": zeroed("gate_up_proj_bias"),
    "experts: no bias of down": zeroed("down_proj_bias"),
    "experts: bias of down outside the weights": bias_outside_the_weights,
    "experts: down projections not transposed": down_not_transposed,
    "no router bias": no_router_bias,
    "softmax over all experts before the choice": softmax_before_choice,
    "one expert fewer": one_expert_fewer,
}.items()}
