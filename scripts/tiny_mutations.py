"""Wrong readings of a model's graph, each applied to the reference implementation itself.

make_tiny.py applies every mutation to a freshly loaded reference and measures how far the logits move. Each must
move them far beyond the parity tolerance, or a parity test on that checkpoint could not notice the mistake.
A mutation is a function that changes the model in place and returns False when the checkpoint has no such term.
"""
import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from tiny_mutations_gpt_oss import GPT_OSS
from tiny_mutations_mistral import MISTRAL
from tiny_mutations_phi3 import PHI3, theta_doubled as phi3_theta_doubled
from transformers.models.gemma4.modeling_gemma4 import apply_rotary_pos_emb

SLIDING, FULL = "sliding_attention", "full_attention"


def text_model(model) -> nn.Module:
    """The stack of decoder layers, wherever the architecture keeps it."""
    return getattr(model.model, "language_model", model.model)


def layers(model):
    return text_model(model).layers


def replace_forward(modules: list, forward) -> bool:
    for module in modules:
        module.forward = forward
    return bool(modules)


def without_norm(name: str):
    return lambda model: replace_forward([getattr(l, name) for l in layers(model) if hasattr(l, name)], lambda x: x)


def without_attention_norm(name: str):
    def mutate(model) -> bool:
        attentions = [l.self_attn for l in layers(model)]
        return replace_forward([getattr(a, name) for a in attentions if hasattr(a, name)], lambda x: x)
    return mutate


def norm_gain_off_by_one(model) -> bool:
    """Gain read as 1 + w where it is w, or as w where it is 1 + w."""
    shift = -1.0 if "Gemma3" in type(model).__name__ else 1.0
    for layer in layers(model):
        layer.input_layernorm.weight.data += shift
    return True


def norm_epsilon(model) -> bool:
    """The usual 1e-6 whatever the configuration says."""
    norms = [m for m in text_model(model).modules() if hasattr(m, "eps") and isinstance(m.eps, float)]
    if model.config.get_text_config().rms_norm_eps <= 1e-5:
        return False
    for norm in norms:
        norm.eps = 1e-6
    return True


def last_layer_scalar(model) -> bool:
    """The last layer's scalar alone left out."""
    last = layers(model)[-1]
    if hasattr(last, "layer_scalar"):
        last.layer_scalar.fill_(1.0)
    return hasattr(last, "layer_scalar")


def rope_theta_doubled(model) -> bool:
    if model.config.model_type == "phi3":
        return phi3_theta_doubled(model)
    rotary = text_model(model).rotary_emb
    names = [n for n, _ in rotary.named_buffers() if n.endswith("inv_freq") and "original" not in n]
    for name in names:
        frequencies = getattr(rotary, name)
        exponent = torch.linspace(0, 1, len(frequencies))
        frequencies *= 2.0 ** -exponent
    return True


def one_rope_for_all_layers(model) -> bool:
    """Sliding layers rotated like full ones (or as far as their head is wide)."""
    rotary = text_model(model).rotary_emb
    if not hasattr(rotary, f"{SLIDING}_inv_freq"):
        return False
    sliding, full = (getattr(rotary, f"{kind}_inv_freq") for kind in (SLIDING, FULL))
    sliding.copy_(full[:len(sliding)])
    return True


def rope_over_rotated_dims(model) -> bool:
    """The denominator of the frequencies taken as the rotated dimensions, not the whole head."""
    config = model.config.get_text_config()
    if config.model_type != "gemma4_text":
        return False
    frequencies = getattr(text_model(model).rotary_emb, f"{FULL}_inv_freq")
    angles = int((frequencies > 0).sum())
    theta = config.rope_parameters[FULL]["rope_theta"]
    frequencies[:angles] = 1.0 / theta ** (torch.arange(0, 2 * angles, 2).float() / (2 * angles))
    return True


def rope_over_all_dims(model) -> bool:
    """partial_rotary_factor ignored."""
    config = model.config.get_text_config()
    if config.model_type != "gemma4_text":
        return False
    frequencies = getattr(text_model(model).rotary_emb, f"{FULL}_inv_freq")
    theta = config.rope_parameters[FULL]["rope_theta"]
    frequencies.copy_(1.0 / theta ** (torch.arange(0, 2 * len(frequencies), 2).float() / (2 * len(frequencies))))
    return True


def no_rope_scaling(model) -> bool:
    """Frequencies of the plain RoPE where the configuration stretches them."""
    rotary = text_model(model).rotary_emb
    parameters = model.config.get_text_config().rope_parameters
    if parameters.get("rope_type") != "llama3":
        return False
    count = len(rotary.inv_freq)
    rotary.inv_freq.copy_(1.0 / parameters["rope_theta"] ** (torch.arange(0, 2 * count, 2).float() / (2 * count)))
    return True


def window(delta: int):
    def mutate(model) -> bool:
        config = model.config.get_text_config()
        if (getattr(config, "sliding_window", None) or config.max_position_embeddings) >= config.max_position_embeddings:
            return False  # none, or one that no text is longer than
        config.sliding_window += delta
        return True
    return mutate


def no_window(model) -> bool:
    return window(10_000)(model)


def attention_scale(model) -> bool:
    """1/sqrt(head_dim) where the family has something else."""
    if "Gemma" not in type(model).__name__:
        return False
    for layer in layers(model):
        layer.self_attn.scaling = layer.self_attn.head_dim ** -0.5
    return True


def without_bias(name: str):
    """A projection of attention without its bias."""
    def mutate(model) -> bool:
        biases = [p.bias for p in (getattr(l.self_attn, name, None) for l in layers(model))
                  if getattr(p, "bias", None) is not None]
        for bias in biases:
            bias.data.zero_()
        return bool(biases)
    return mutate


def no_embedding_scale(model) -> bool:
    return set_embedding_scale(model, torch.tensor(1.0))


def embedding_scale_in_bf16(model) -> bool:
    """What casting a live model to bf16 and back does to the unsaved scale."""
    embedding = text_model(model).embed_tokens
    if not hasattr(embedding, "embed_scale"):
        return False
    rounded = embedding.embed_scale.to(torch.bfloat16).to(embedding.embed_scale.dtype)
    return bool(rounded != embedding.embed_scale) and set_embedding_scale(model, rounded)


def set_embedding_scale(model, value: torch.Tensor) -> bool:
    embedding = text_model(model).embed_tokens
    if not hasattr(embedding, "embed_scale"):
        return False
    embedding.embed_scale = value.to(embedding.embed_scale.dtype)
    return True


def erf_gelu(model) -> bool:
    if "Gemma" not in type(model).__name__:
        return False
    for layer in layers(model):
        layer.mlp.act_fn = ACT2FN["gelu"]
    return True


def no_softcap(model) -> bool:
    config = model.config.get_text_config()
    had = getattr(config, "final_logit_softcapping", None) is not None
    config.final_logit_softcapping = None
    return had


def no_layer_scalar(model) -> bool:
    buffers = [l.layer_scalar for l in layers(model) if hasattr(l, "layer_scalar")]
    for buffer in buffers:
        buffer.fill_(1.0)
    return bool(buffers)


def value_from(read):
    """On layers whose value is the key projection: the value made by `read(attention, raw key, rotate)`."""
    def mutate(model) -> bool:
        shared = [l.self_attn for l in layers(model) if getattr(l.self_attn, "use_alternative_attention", False)]
        for attention in shared:
            attention.register_forward_pre_hook(remember_angles, with_kwargs=True)
            attention.v_norm.forward = lambda key, attention=attention: read(
                attention, key, lambda x: apply_rotary_pos_emb(x, *attention.angles, unsqueeze_dim=2))
        return bool(shared)
    return mutate


def remember_angles(attention, _args, kwargs) -> None:
    attention.angles = kwargs["position_embeddings"]


def plain_norm(attention, x: torch.Tensor) -> torch.Tensor:
    return attention.v_norm._norm(x.float()).type_as(x)


def no_token_identity(model) -> bool:
    table = getattr(text_model(model), "embed_tokens_per_layer", None)
    if table is not None:
        table.weight.data.zero_()
    return table is not None


def no_context_projection(model) -> bool:
    projection = getattr(text_model(model), "per_layer_model_projection", None)
    if projection is not None:
        projection.weight.data.zero_()
    return projection is not None


def no_context_norm(model) -> bool:
    norm = getattr(text_model(model), "per_layer_projection_norm", None)
    return norm is not None and replace_forward([norm], lambda x: x)


def per_layer_scale(model) -> bool:
    """The sum of both per-layer inputs without its 1/sqrt(2)."""
    text = text_model(model)
    had = hasattr(text, "per_layer_input_scale")
    text.per_layer_input_scale = 1.0
    return had


def shared_cache_from_another_layer(model) -> bool:
    """Sharing layers read the first layer of their kind that has a cache, not the last."""
    moved = False
    attentions = [l.self_attn for l in layers(model)]
    for kind in {a.layer_type for a in attentions if getattr(a, "is_kv_shared_layer", False)}:
        owners = [a for a in attentions if a.layer_type == kind and not a.is_kv_shared_layer]
        moved |= len(owners) > 1
        for attention in owners:
            attention.store_full_length_kv = attention is owners[0]
    return moved


def routers(model) -> list:
    return [l.router for l in layers(model) if hasattr(l, "router")]


def router_attribute_is_one(name: str):
    def mutate(model) -> bool:
        for router in routers(model):
            getattr(router, name).data.fill_(1.0)
        return bool(routers(model))
    return mutate


def no_router_root(model) -> bool:
    for router in routers(model):
        router.scalar_root_size = 1.0
    return bool(routers(model))


def no_router_norm(model) -> bool:
    return replace_forward([r.norm for r in routers(model)], lambda x: x)


def unnormalized_router(model) -> bool:
    """The chosen experts' probabilities used as they are, not brought back to a sum of one."""
    for router in routers(model):
        def forward(x, router=router, original=router.forward):
            probabilities, _, index = original(x)
            return probabilities, probabilities.gather(-1, index) * router.per_expert_scale[index], index
        router.forward = forward
    return bool(routers(model))


def one_expert_fewer(model) -> bool:
    config = model.config.get_text_config()
    had = bool(getattr(config, "top_k_experts", None))
    if had:
        config.top_k_experts -= 1
    return had


def experts_see_mlp_norm(model) -> bool:
    changed = [l for l in layers(model) if hasattr(l, "experts")]
    for layer in changed:
        layer.pre_feedforward_layernorm_2 = layer.pre_feedforward_layernorm
    return bool(changed)


def expert_halves_swapped(model) -> bool:
    """Gate and up taken in the other order from the fused expert tensor."""
    changed = [l.experts for l in layers(model) if hasattr(l, "experts")]
    for experts in changed:
        experts.gate_up_proj.data = experts.gate_up_proj.data.roll(experts.intermediate_dim, dims=1)
    return bool(changed)


def is_qwen3(model) -> bool:
    return type(model).__name__.startswith("Qwen3")


def head_norms(model) -> list:
    """Norms of queries and keys of Qwen3, by layer."""
    return [getattr(l.self_attn, name) for l in layers(model) for name in ("q_norm", "k_norm")] if is_qwen3(model) else []


def norms_over_all_heads(model) -> bool:
    """One mean square for a token's whole query (or key), not for each head."""
    for norm in head_norms(model):
        norm.forward = lambda x, norm=norm: norm.weight * x * torch.rsqrt(
            x.pow(2).mean((-2, -1), keepdim=True) + norm.variance_epsilon)
    return bool(head_norms(model))


def norms_after_rope(model) -> bool:
    """Queries and keys turned first, then normed: the weights meet turned dimensions."""
    if not is_qwen3(model):
        return False
    plain = ALL_ATTENTION_FUNCTIONS[model.config._attn_implementation]
    gains = {}
    for layer in layers(model):
        attention = layer.self_attn
        gains[attention.layer_idx] = [norm.weight.data.clone() for norm in (attention.q_norm, attention.k_norm)]
        for norm in (attention.q_norm, attention.k_norm):
            norm.weight.data.fill_(1.0)

    def late(module, query, key, *args, **kwargs):
        of_query, of_key = gains[module.layer_idx]
        return plain(module, query * of_query, key * of_key, *args, **kwargs)
    ALL_ATTENTION_FUNCTIONS.register("late", late)
    ALL_MASK_ATTENTION_FUNCTIONS.register("late", ALL_MASK_ATTENTION_FUNCTIONS[model.config._attn_implementation])
    model.config._attn_implementation = "late"
    return True


def values_normed(model) -> bool:
    """Values normed like keys."""
    if not is_qwen3(model):
        return False
    for layer in layers(model):
        attention = layer.self_attn
        attention.v_proj.register_forward_hook(lambda _module, _inputs, value, norm=attention.k_norm: norm(
            value.unflatten(-1, (-1, norm.weight.shape[0]))).flatten(-2))
    return True


def gelu_for_silu(model) -> bool:
    changed = [m for m in text_model(model).modules() if hasattr(m, "act_fn")] if is_qwen3(model) else []
    for module in changed:
        module.act_fn = ACT2FN["gelu_pytorch_tanh"]
    return bool(changed)


def sparse(model) -> list:
    """Blocks of experts of Qwen3."""
    return [l.mlp for l in layers(model) if is_qwen3(model) and hasattr(l.mlp, "experts")]


def other_renormalization(model) -> bool:
    for block in sparse(model):
        block.gate.norm_topk_prob = not block.gate.norm_topk_prob
    return bool(sparse(model))


def softmax_after_choice(model) -> bool:
    """The order of Mixtral and GPT-OSS; the same where weights are renormalized."""
    changed = [block for block in sparse(model) if not block.gate.norm_topk_prob]
    for block in changed:
        block.gate.norm_topk_prob = True
    return bool(changed)


def sigmoid_for_softmax(model) -> bool:
    for block in sparse(model):
        def forward(x, gate=block.gate):
            logits = nn.functional.linear(x.reshape(-1, gate.hidden_dim), gate.weight)
            scores, index = torch.topk(logits.sigmoid(), gate.top_k, dim=-1)
            return logits, scores / scores.sum(-1, keepdim=True) if gate.norm_topk_prob else scores, index
        block.gate.forward = forward
    return bool(sparse(model))


def qwen3_expert_fewer(model) -> bool:
    for block in sparse(model):
        block.gate.top_k -= 1
    return bool(sparse(model))


def qwen3_halves_swapped(model) -> bool:
    for block in sparse(model):
        both = block.experts.gate_up_proj
        both.data = both.data.roll(both.shape[1] // 2, dims=1)
    return bool(sparse(model))


def experts_by_name(model) -> bool:
    """Experts in the order that files list their names in: 0, 1, 10, 11, 2, ..."""
    for block in sparse(model):
        order = sorted(range(block.experts.num_experts), key=str)
        for weight in (block.experts.gate_up_proj, block.experts.down_proj):
            weight.data = weight.data[order]
    return bool(sparse(model))


def router_reads_residual(model) -> bool:
    """The router before the norm that the experts are behind."""
    changed = [l for l in layers(model) if is_qwen3(model) and hasattr(l.mlp, "experts")]
    for layer in changed:
        def remember(_module, inputs, layer=layer) -> None:
            layer.before_norm = inputs[0]
        layer.post_attention_layernorm.register_forward_pre_hook(remember)
        layer.mlp.gate.register_forward_pre_hook(lambda _module, _inputs, layer=layer: (layer.before_norm,))
    return bool(changed)


MUTATIONS = {
    "norm gain off by one": norm_gain_off_by_one,
    "norm epsilon 1e-6": norm_epsilon,
    "no post-attention norm": without_norm("post_attention_layernorm"),
    "no pre-feedforward norm": without_norm("pre_feedforward_layernorm"),
    "no post-feedforward norm": without_norm("post_feedforward_layernorm"),
    "no query norm": without_attention_norm("q_norm"),
    "no key norm": without_attention_norm("k_norm"),
    "no query bias": without_bias("q_proj"),
    "no key bias": without_bias("k_proj"),
    "no value bias": without_bias("v_proj"),
    "value not normalized": without_attention_norm("v_norm"),
    "shared K=V: value from the normed key": value_from(lambda a, key, rotate: plain_norm(a, a.k_norm(key))),
    "shared K=V: value rotated": value_from(lambda a, key, rotate: plain_norm(a, rotate(key))),
    "shared K=V: value is the key": value_from(lambda a, key, rotate: rotate(a.k_norm(key))),
    "RoPE theta doubled": rope_theta_doubled,
    "one RoPE for all layers": one_rope_for_all_layers,
    "RoPE denominator = rotated dims": rope_over_rotated_dims,
    "RoPE rotates all dims": rope_over_all_dims,
    "RoPE not stretched": no_rope_scaling,
    "attention scaled by 1/sqrt(head_dim)": attention_scale,
    "window one shorter": window(-1),
    "window one longer": window(1),
    "no window": no_window,
    "no embedding scale": no_embedding_scale,
    "embedding scale rounded to bf16": embedding_scale_in_bf16,
    "erf GELU instead of tanh": erf_gelu,
    "no final softcap": no_softcap,
    "no layer_scalar": no_layer_scalar,
    "no layer_scalar on the last layer": last_layer_scalar,
    "shared cache from another layer": shared_cache_from_another_layer,
    "PLE: no token table": no_token_identity,
    "PLE: no context projection": no_context_projection,
    "PLE: context projection not normalized": no_context_norm,
    "PLE: sum not scaled by 1/sqrt(2)": per_layer_scale,
    "PLE: no post norm": without_norm("post_per_layer_input_norm"),
    "MoE: no router scale": router_attribute_is_one("scale"),
    "MoE: no per_expert_scale": router_attribute_is_one("per_expert_scale"),
    "MoE: router without hidden^-1/2": no_router_root,
    "MoE: router input not normalized": no_router_norm,
    "MoE: weights not renormalized": unnormalized_router,
    "MoE: one expert fewer": one_expert_fewer,
    "MoE: experts read the MLP's norm": experts_see_mlp_norm,
    "MoE: gate and up swapped": expert_halves_swapped,
    "MoE: no norm after the MLP": without_norm("post_feedforward_layernorm_1"),
    "MoE: no norm after the experts": without_norm("post_feedforward_layernorm_2"),
    "norms of queries and keys over all heads": norms_over_all_heads,
    "norms of queries and keys after RoPE": norms_after_rope,
    "values normed": values_normed,
    "GELU instead of SiLU": gelu_for_silu,
    "MoE: renormalization the other way": other_renormalization,
    "MoE: softmax after the choice": softmax_after_choice,
    "MoE: sigmoid instead of softmax": sigmoid_for_softmax,
    "MoE: an expert fewer": qwen3_expert_fewer,
    "MoE: up and gate swapped": qwen3_halves_swapped,
    "MoE: experts in the order of their names": experts_by_name,
    "MoE: router reads the residual": router_reads_residual,
    **GPT_OSS,
    **MISTRAL,
    **PHI3,
}
