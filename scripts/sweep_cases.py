"""What sweep_gguf.py tries, with the outcome that is expected of each, written down before it runs.

An Export is a configuration that differs from the base in one key (`right`), and a wrong reading of that key
(`wrong`), which must move the logits. `refused` is a part of the sentence that the refusal must contain; without it
the file must be exported. An Import is a GGUF by another writer, with `keys` set (None: left out).
"""
from dataclasses import dataclass, field

from sweep_models import BASES, DROP, FULL, SLIDING

LLAMA_YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "original_max_position_embeddings": 64}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
TEN = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}


HEADLESS = {"tie_word_embeddings": True, "no lm_head": True}  # the weights without the head
SHARED = {"num_kv_shared_layers": 2, "hidden_size_per_layer_input": 32}


@dataclass
class Export:
    family: str
    key: str
    right: dict
    wrong: dict
    refused: str | None = None


@dataclass
class Import:
    family: str
    key: str
    keys: dict
    wrong: dict = field(default_factory=dict)
    config: dict = field(default_factory=dict)
    factors: list | None = None  # of rope_freqs.weight
    refused: str | None = None


def rope(**parameters) -> dict:
    return {"rope_parameters": {"rope_theta": 10000.0, **parameters}}


def yarn(**parameters) -> dict:
    return {"rope_parameters": {key: value for key, value in {**LLAMA_YARN, **parameters}.items() if value is not DROP}}


def old(scaling: dict | None, **keys) -> dict:
    return {"rope_parameters": DROP, "rope_theta": 10000.0, "rope_scaling": scaling, **keys}


def phi(top: dict | None = None, **parameters) -> dict:
    """Rotary parameters of Phi's base with some changed, and keys on top of them."""
    changed = {key: value for key, value in {**PHI, **parameters}.items() if value is not DROP}
    return {"rope_parameters": changed, **(top or {})}


def phi_original(length: int, **parameters) -> dict:
    return phi({"original_max_position_embeddings": length}, original_max_position_embeddings=length, **parameters)


def gemma_rope(full: dict | None = None, sliding: dict | None = None, theta: float = 5000.0) -> dict:
    return {"rope_parameters": {SLIDING: {"rope_type": "default", "rope_theta": 100.0, **(sliding or {})},
                                FULL: {"rope_type": "default", "rope_theta": theta, **(full or {})}}}


def gemma4_rope(full: dict | None = None, sliding: dict | None = None) -> dict:
    both = gemma_rope(full, sliding)
    both["rope_parameters"][FULL] = {"rope_type": "proportional", "rope_theta": 5000.0,
                                     "partial_rotary_factor": 0.25, **(full or {})}
    return both


MINISTRAL = BASES["mistral3"]["rope_parameters"]
PHI = BASES["phi3"]["rope_parameters"]
PHI_WHOLE = {"partial_rotary_factor": 1.0, "short_factor": [1.0] * 16, "long_factor": [1.0 + i / 2 for i in range(16)]}
PHI_DEFAULT = {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.75}}
# An end of the ramp just below a whole pair, the other below 0: llama.cpp's, which are whole, are the same.
WHOLE = {"rope_type": "yarn", "rope_theta": 488.0, "factor": 8.0, "truncate": False, "original_max_position_embeddings": 64}
PLAIN = {"rope_parameters": {"rope_type": "default", "rope_theta": 488.0}}


def ministral(**parameters) -> dict:
    return {"rope_parameters": {key: value for key, value in {**MINISTRAL, **parameters}.items() if value is not DROP}}


def whole(**parameters) -> dict:
    return {"rope_parameters": {**WHOLE, **parameters}}


EXPORTS = [
    # Rotary embeddings of Llama.
    Export("llama", "rope_theta 500", rope(rope_type="default", rope_theta=500.0), TEN),
    Export("llama", "rope_theta 1e6", rope(rope_type="default", rope_theta=1e6), rope(rope_type="default", rope_theta=500.0)),
    Export("llama", "rope_theta, old spelling", old(None, rope_theta=500.0), TEN),
    Export("llama", "rope_theta absent: 10000", {"rope_parameters": DROP}, rope(rope_type="default", rope_theta=500.0)),
    Export("llama", "linear, factor 4", rope(rope_type="linear", factor=4.0), TEN),
    Export("llama", "linear, old spelling", old({"type": "linear", "factor": 4.0}), TEN),
    Export("llama", "llama3, factor 8", {"rope_parameters": LLAMA3}, TEN),
    Export("llama", "llama3, factor 32", {"rope_parameters": LLAMA3 | {"factor": 32.0}}, TEN),
    Export("llama", "llama3, low 2 and high 8", {"rope_parameters": LLAMA3 | {"low_freq_factor": 2.0, "high_freq_factor": 8.0}},
           {"rope_parameters": LLAMA3}),
    Export("llama", "llama3, old spelling", old({k: v for k, v in LLAMA3.items() if k != "rope_theta"}), TEN),
    Export("llama", "yarn, factor 8", yarn(), TEN),
    Export("llama", "yarn, old spelling", old({"type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64}), TEN),
    Export("llama", "yarn, attention_factor 1", yarn(attention_factor=1.0), yarn()),
    Export("llama", "yarn, attention_factor 1.6", yarn(attention_factor=1.6), yarn()),
    Export("llama", "yarn, mscale = mscale_all_dim", yarn(mscale=1.0, mscale_all_dim=1.0), yarn()),
    Export("llama", "yarn, mscale 0.707 of 1", yarn(mscale=0.707, mscale_all_dim=2.0), yarn()),
    Export("llama", "yarn, original context absent", yarn(original_max_position_embeddings=DROP), yarn()),
    Export("llama", "yarn, original context 24", yarn(original_max_position_embeddings=24), yarn(original_max_position_embeddings=DROP)),
    Export("llama", "yarn, original context on top", yarn(original_max_position_embeddings=DROP) | {"original_max_position_embeddings": 64},
           yarn(original_max_position_embeddings=DROP)),
    Export("llama", "yarn, beta_fast 4", yarn(beta_fast=4.0, original_max_position_embeddings=256), yarn(original_max_position_embeddings=256)),
    Export("llama", "yarn, beta_slow 8", yarn(beta_slow=8.0), yarn()),
    Export("llama", "yarn, truncate false", yarn(truncate=False), yarn()),
    Export("llama", "yarn, factor 1 with attention_factor", yarn(factor=1.0, attention_factor=1.5), yarn(factor=1.0)),
    Export("llama", "dynamic", rope(rope_type="dynamic", factor=4.0), rope(rope_type="linear", factor=4.0)),
    Export("llama", "longrope, one list of factors", rope(rope_type="longrope", short_factor=[1.0, 1.5, 2, 3, 4, 6, 8, 9],
           long_factor=[1.0, 1.5, 2, 3, 4, 6, 8, 9], original_max_position_embeddings=64, factor=4.0), TEN),
    Export("llama", "longrope, two lists of factors", rope(rope_type="longrope", short_factor=[1.0] * 8,
           long_factor=[1.0, 1.5, 2, 3, 4, 6, 8, 9], original_max_position_embeddings=64, factor=4.0), TEN,
           refused="long_factor"),
    Export("llama", "longrope, attention_factor 1.4", rope(rope_type="longrope", short_factor=[2.0] * 8, long_factor=[2.0] * 8,
           original_max_position_embeddings=64, attention_factor=1.4), rope(rope_type="linear", factor=2.0)),
    Export("llama", "proportional, half of the pairs", rope(rope_type="proportional", partial_rotary_factor=0.5), TEN),
    Export("llama", "partial_rotary_factor with default", rope(rope_type="default", partial_rotary_factor=0.5), rope(rope_type="default", rope_theta=500.0),
           refused="partial_rotary_factor"),
    # Other keys of Llama.
    Export("llama", "hidden_act gelu_pytorch_tanh", {"hidden_act": "gelu_pytorch_tanh"}, {"hidden_act": "silu"}, refused="hidden_act"),
    Export("llama", "hidden_act swish", {"hidden_act": "swish"}, {"hidden_act": "gelu_pytorch_tanh"}),
    Export("llama", "attention_bias", {"attention_bias": True}, {"attention_bias": False}),
    Export("llama", "mlp_bias", {"mlp_bias": True}, {"mlp_bias": False}),
    Export("llama", "both biases", {"mlp_bias": True, "attention_bias": True}, {"mlp_bias": False, "attention_bias": True}),
    Export("llama", "rms_norm_eps 0.5", {"rms_norm_eps": 0.5}, {"rms_norm_eps": 1e-5}),
    Export("llama", "rms_norm_eps absent: 1e-6", {"rms_norm_eps": DROP}, {"rms_norm_eps": 0.5}),
    Export("llama", "head_dim wider than hidden / heads", {"head_dim": 32}, {"head_dim": 16, "num_attention_heads": 8, "num_key_value_heads": 4}),
    Export("llama", "head_dim narrower", {"head_dim": 8}, {"head_dim": 16, "num_attention_heads": 2, "num_key_value_heads": 1}),
    Export("llama", "head_dim absent", {"head_dim": DROP}, {"head_dim": 8, "num_attention_heads": 8, "num_key_value_heads": 4}),
    Export("llama", "one key-value head", {"num_key_value_heads": 1}, {"head_dim": 8, "num_attention_heads": 8, "num_key_value_heads": 2}),
    Export("llama", "as many key-value heads", {"num_key_value_heads": 4}, {"head_dim": 8, "num_attention_heads": 8, "num_key_value_heads": 8}),
    Export("llama", "num_key_value_heads absent", {"num_key_value_heads": DROP}, {"head_dim": 8, "num_attention_heads": 8, "num_key_value_heads": 8}),
    Export("llama", "three heads", {"num_attention_heads": 3, "num_key_value_heads": 3, "hidden_size": 48}, {"hidden_size": 48, "num_attention_heads": 6, "num_key_value_heads": 6, "head_dim": 8}),
    Export("llama", "tied", {"tie_word_embeddings": True}, {"tie_word_embeddings": True, "rms_norm_eps": 0.5}),
    Export("llama", "tie_word_embeddings absent: untied", {"tie_word_embeddings": DROP}, HEADLESS),
    Export("llama", "tied, but two tensors: untied", {"tie_word_embeddings": True, "two tensors": True}, HEADLESS),
    # Qwen2: biases of queries, keys and values, no width of heads of their own.
    Export("qwen2", "base", {}, TEN),
    Export("qwen2", "rope_theta, old spelling", old(None, rope_theta=1e6), TEN),
    Export("qwen2", "yarn, factor 4", yarn(factor=4.0), TEN),
    Export("qwen2", "yarn, old spelling", old({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}), TEN),
    Export("qwen2", "linear, factor 4", rope(rope_type="linear", factor=4.0), TEN),
    Export("qwen2", "rms_norm_eps 0.5", {"rms_norm_eps": 0.5}, {"rms_norm_eps": 1e-6}),
    Export("qwen2", "one key-value head", {"num_key_value_heads": 1}, {"num_key_value_heads": 1, "rms_norm_eps": 0.5}),
    Export("qwen2", "as many key-value heads", {"num_key_value_heads": 4}, {"num_key_value_heads": 4, "rms_norm_eps": 0.5}),
    Export("qwen2", "eight heads", {"num_attention_heads": 8, "num_key_value_heads": 2}, {"num_attention_heads": 8, "num_key_value_heads": 2, "rms_norm_eps": 0.5}),
    Export("qwen2", "tied", {"tie_word_embeddings": True}, {"tie_word_embeddings": True, "rms_norm_eps": 0.5}),
    Export("qwen2", "hidden_act gelu_pytorch_tanh", {"hidden_act": "gelu_pytorch_tanh"}, {"hidden_act": "silu"}, refused="hidden_act"),
    # Qwen3, dense and with experts.
    Export("qwen3", "base", {}, TEN),
    Export("qwen3", "rope_theta, old spelling", old(None, rope_theta=1e6), TEN),
    Export("qwen3", "yarn, factor 4", yarn(factor=4.0), TEN),
    Export("qwen3", "yarn, beta_fast 4", yarn(beta_fast=4.0, original_max_position_embeddings=256), yarn(original_max_position_embeddings=256),
           refused="rope"),
    Export("qwen3", "linear, factor 4", rope(rope_type="linear", factor=4.0), TEN),
    Export("qwen3", "rms_norm_eps 0.5", {"rms_norm_eps": 0.5}, {"rms_norm_eps": 1e-6}),
    Export("qwen3", "head_dim as hidden / heads", {"head_dim": 16}, {"head_dim": 16, "rms_norm_eps": 0.5}),
    Export("qwen3", "one key-value head", {"num_key_value_heads": 1}, {"num_key_value_heads": 1, "rms_norm_eps": 0.5}),
    Export("qwen3", "three heads", {"num_attention_heads": 3, "num_key_value_heads": 3}, {"num_attention_heads": 3, "num_key_value_heads": 3, "rms_norm_eps": 0.5}),
    Export("qwen3", "tied", {"tie_word_embeddings": True}, {"tie_word_embeddings": True, "rms_norm_eps": 0.5}),
    Export("qwen3", "attention_bias", {"attention_bias": True}, {"attention_bias": False}, refused="attention_bias"),
    Export("qwen3", "hidden_act gelu_pytorch_tanh", {"hidden_act": "gelu_pytorch_tanh"}, {"hidden_act": "silu"}, refused="hidden_act"),
    Export("qwen3moe", "base", {}, TEN),
    Export("qwen3moe", "num_local_experts", {"num_experts": DROP, "num_local_experts": 8}, TEN),
    # With all experts none is chosen by little: the f16 of llama.cpp's cache would choose another one.
    Export("qwen3moe", "head_dim absent: hidden / heads", {"head_dim": DROP, "num_experts_per_tok": 8}, {"head_dim": DROP, "num_experts_per_tok": 8, "rms_norm_eps": 0.5}),
    Export("qwen3moe", "one expert for each token", {"num_experts_per_tok": 1}, {"num_experts_per_tok": 3}),
    Export("qwen3moe", "all experts for each token", {"num_experts_per_tok": 8}, {"num_experts_per_tok": 3}),
    Export("qwen3moe", "moe_intermediate_size 64", {"moe_intermediate_size": 64, "num_experts_per_tok": 8}, {"moe_intermediate_size": 64, "num_experts_per_tok": 2}),
    Export("qwen3moe", "tied", {"tie_word_embeddings": True}, {"tie_word_embeddings": True, "rms_norm_eps": 0.5}),
    Export("qwen3moe", "norm_topk_prob false", {"norm_topk_prob": False}, {"norm_topk_prob": True}, refused="norm_topk_prob"),
    Export("qwen3moe", "mlp_only_layers", {"mlp_only_layers": [0]}, {"mlp_only_layers": [0], "num_experts_per_tok": 1}, refused="mlp_only_layers"),
    Export("qwen3moe", "decoder_sparse_step 2", {"decoder_sparse_step": 2}, {"decoder_sparse_step": 2, "num_experts_per_tok": 1}, refused="decoder_sparse_step"),
    # Gemma 3.
    Export("gemma3", "base", {}, gemma_rope(theta=100.0)),
    Export("gemma3", "sliding_window 8", {"sliding_window": 8}, {"sliding_window": 16}),
    Export("gemma3", "layer_types, every third full", {"layer_types": [SLIDING, SLIDING, FULL] * 2}, {}),
    Export("gemma3", "layer_types, first full", {"layer_types": [FULL] + [SLIDING] * 5}, {}),
    Export("gemma3", "sliding_window_pattern 3", {"layer_types": DROP, "sliding_window_pattern": 3}, {}),
    Export("gemma3", "_sliding_window_pattern 3: not read", {"layer_types": DROP, "_sliding_window_pattern": 3}, {"layer_types": [SLIDING, SLIDING, FULL] * 2}),
    Export("gemma3", "all layers full", {"layer_types": [FULL] * 6}, {}),
    Export("gemma3", "all layers sliding", {"layer_types": [SLIDING] * 6}, {}),
    Export("gemma3", "final_logit_softcapping 5", {"final_logit_softcapping": 5.0}, {"final_logit_softcapping": None}),
    Export("gemma3", "attn_logit_softcapping 2: not applied", {"attn_logit_softcapping": 2.0}, {"sliding_window": 8}, refused="attn_logit_softcapping"),
    Export("gemma3", "query_pre_attn_scalar other than head_dim", {"query_pre_attn_scalar": 32}, {}, refused="query_pre_attn_scalar"),
    Export("gemma3", "rope_theta of full layers", gemma_rope(theta=50.0), {}),
    Export("gemma3", "rope_theta of sliding layers", gemma_rope(sliding={"rope_theta": 10000.0}), {}),
    Export("gemma3", "both thetas, old spelling", {"rope_parameters": DROP, "rope_theta": 50.0, "rope_local_base_freq": 10000.0}, {}),
    Export("gemma3", "linear on full layers", gemma_rope({"rope_type": "linear", "factor": 8.0}), {}),
    Export("gemma3", "linear, old spelling", {"rope_parameters": DROP, "rope_theta": 5000.0, "rope_local_base_freq": 100.0,
                                              "rope_scaling": {"rope_type": "linear", "factor": 8.0}}, {}),
    Export("gemma3", "linear on sliding layers", gemma_rope(sliding={"rope_type": "linear", "factor": 4.0}), {}, refused="sliding"),
    Export("gemma3", "yarn on full layers", gemma_rope({"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32}), {}, refused=None),
    Export("gemma3", "yarn with attention_factor 1", gemma_rope({"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32, "attention_factor": 1.0}),
           gemma_rope({"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32}), refused="attention_factor"),
    Export("gemma3", "llama3 on full layers", gemma_rope({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}), {}, refused="rope_freqs"),
    Export("gemma3", "hidden_activation silu", {"hidden_activation": "silu"}, {}, refused="hidden_activation"),
    Export("gemma3", "rms_norm_eps 0.1", {"rms_norm_eps": 0.1}, {}),
    Export("gemma3", "head_dim 32", {"head_dim": 32, "query_pre_attn_scalar": 32}, {"head_dim": 32, "query_pre_attn_scalar": 8}),
    Export("gemma3", "one key-value head", {"num_key_value_heads": 1}, {"num_key_value_heads": 1, "sliding_window": 4}),
    Export("gemma3", "attention_bias", {"attention_bias": True}, {}, refused="attention_bias"),
    Export("gemma3", "untied", {"tie_word_embeddings": False}, HEADLESS),
    # Mistral: a file of llama's.
    Export("mistral", "base", {}, TEN),
    Export("mistral", "sliding_window absent: 4096, more than any position", {"sliding_window": DROP}, TEN),
    Export("mistral", "sliding_window absent: 4096 of 8192", {"sliding_window": DROP, "max_position_embeddings": 8192}, TEN, refused="sliding_window"),
    Export("mistral", "sliding_window 8", {"sliding_window": 8}, {}, refused="sliding_window"),
    Export("mistral", "head_dim absent", {"head_dim": DROP}, {"head_dim": DROP} | TEN),
    Export("mistral", "attention_bias false", {"attention_bias": False}, TEN),
    Export("mistral", "attention_bias true", {"attention_bias": True}, TEN, refused="attention_bias"),
    Export("mistral", "rope_theta, old spelling", old(None, rope_theta=500.0), TEN),
    Export("mistral", "rope_theta absent: 10000", {"rope_parameters": DROP}, {}),
    Export("mistral", "yarn, factor 8", yarn(), TEN),
    Export("mistral", "yarn, beta_fast 4", yarn(beta_fast=4.0, original_max_position_embeddings=256), yarn(original_max_position_embeddings=256)),
    Export("mistral", "rms_norm_eps 0.5", {"rms_norm_eps": 0.5}, {}),
    Export("mistral", "rms_norm_eps absent: 1e-6", {"rms_norm_eps": DROP}, {"rms_norm_eps": 0.1}),
    Export("mistral", "tied", {"tie_word_embeddings": True}, {"tie_word_embeddings": True} | TEN),
    # Ministral 3.
    Export("mistral3", "base", {}, ministral(llama_4_scaling_beta=0.0)),
    Export("mistral3", "factor 2", ministral(factor=2.0), {}),
    Export("mistral3", "beta_fast 4", ministral(beta_fast=4.0, original_max_position_embeddings=256), ministral(original_max_position_embeddings=256)),
    Export("mistral3", "beta_slow 0.25", ministral(beta_slow=0.25), {}),
    Export("mistral3", "mscale_all_dim 0.5", ministral(mscale_all_dim=0.5), {}),
    Export("mistral3", "mscale and mscale_all_dim absent", ministral(mscale=DROP, mscale_all_dim=DROP), {}),
    Export("mistral3", "attention_factor 1.6", ministral(attention_factor=1.6), {}),
    Export("mistral3", "llama_4_scaling_beta 0", ministral(llama_4_scaling_beta=0.0), {}),
    Export("mistral3", "original context 8", ministral(original_max_position_embeddings=8), {}),
    Export("mistral3", "truncate false", ministral(truncate=False), {}, refused="rope_parameters"),
    Export("mistral3", "rope_theta 10000", ministral(rope_theta=10000.0), {}),
    Export("mistral3", "default", rope(rope_type="default", rope_theta=500.0, original_max_position_embeddings=16, llama_4_scaling_beta=0.5), {}, refused="yarn"),
    Export("mistral3", "rotary keys, old spelling", {"rope_parameters": DROP, "rope_scaling": MINISTRAL}, ministral(llama_4_scaling_beta=0.0)),
    Export("mistral3", "head_dim absent: 128", {"head_dim": DROP}, {"head_dim": DROP} | ministral(llama_4_scaling_beta=0.0)),
    Export("mistral3", "attention_bias false", {"attention_bias": False}, ministral(llama_4_scaling_beta=0.0)),
    Export("mistral3", "attention_bias true", {"attention_bias": True}, ministral(llama_4_scaling_beta=0.0), refused="attention_bias"),
    Export("mistral3", "sliding_window 8", {"sliding_window": 8}, {}, refused="sliding_window"),
    Export("mistral3", "rms_norm_eps absent: 1e-5", {"rms_norm_eps": DROP}, {"rms_norm_eps": 0.1}),
    Export("mistral3", "tied", {"tie_word_embeddings": True}, {"tie_word_embeddings": True} | ministral(llama_4_scaling_beta=0.0)),
    # Phi.
    Export("phi3", "base", {}, PHI_DEFAULT),
    Export("phi3", "original context 512: the short list", phi_original(512), phi_original(512, short_factor=PHI["long_factor"])),
    Export("phi3", "original context on top 512, among the parameters 16", phi({"original_max_position_embeddings": 512}), phi_original(16)),
    Export("phi3", "original context absent: 4096", phi({"original_max_position_embeddings": DROP}), phi_original(16)),
    Export("phi3", "attention_factor 1.5", phi(attention_factor=1.5), phi(attention_factor=1.0)),
    Export("phi3", "factor 2", phi(factor=2.0), phi(factor=256.0)),
    Export("phi3", "both lists alike", phi(short_factor=PHI["long_factor"]), PHI_DEFAULT),
    Export("phi3", "whole heads", phi({"partial_rotary_factor": 1.0}, **PHI_WHOLE), phi({"partial_rotary_factor": 1.0}, **PHI_WHOLE, rope_theta=50.0)),
    Export("phi3", "partial_rotary_factor on top alone", phi(partial_rotary_factor=DROP), PHI_DEFAULT),
    Export("phi3", "rotary keys, old spelling", {"rope_parameters": DROP, "rope_theta": 500.0, "rope_scaling": {("type" if key == "rope_type" else key): value for key, value in PHI.items() if key != "rope_theta"}}, PHI_DEFAULT),
    Export("phi3", "default", PHI_DEFAULT, {}),
    Export("phi3", "default, whole heads, rotary keys absent", {"rope_parameters": DROP, "partial_rotary_factor": DROP}, PHI_DEFAULT),
    Export("phi3", "num_key_value_heads absent", {"num_key_value_heads": DROP}, {"num_key_value_heads": DROP} | PHI_DEFAULT),
    Export("phi3", "rms_norm_eps 0.5", {"rms_norm_eps": 0.5}, {}),
    Export("phi3", "rms_norm_eps absent: 1e-5", {"rms_norm_eps": DROP}, {"rms_norm_eps": 0.1}),
    Export("phi3", "hidden_act gelu_pytorch_tanh", {"hidden_act": "gelu_pytorch_tanh"}, {}, refused="hidden_act"),
    Export("phi3", "tied", {"tie_word_embeddings": True}, {"tie_word_embeddings": True} | PHI_DEFAULT),
    Export("phi3", "sliding_window 8", {"sliding_window": 8}, {}, refused="sliding_window"),
    Export("phi3", "sliding_window longer than any text", {"sliding_window": 300}, PHI_DEFAULT),
    Export("phi3", "attention_bias true", {"attention_bias": True}, PHI_DEFAULT, refused="attention_bias"),
    # GPT-OSS.
    Export("gpt-oss", "base", {}, {"sliding_window": 8}),
    Export("gpt-oss", "rope_theta 10000", TEN, {}),
    Export("gpt-oss", "rotary keys absent: the published models' yarn", {"rope_parameters": DROP, "rope_theta": 488.0, "original_max_position_embeddings": 64}, PLAIN),
    Export("gpt-oss", "rope_scaling null", {"rope_parameters": DROP, "rope_theta": 488.0, "original_max_position_embeddings": 64, "rope_scaling": None}, PLAIN),
    Export("gpt-oss", "yarn, factor 8, truncate false", whole(), PLAIN),
    Export("gpt-oss", "yarn, old spelling", {"rope_parameters": DROP, "rope_theta": 488.0, "rope_scaling": {k: v for k, v in WHOLE.items() if k != "rope_theta"}}, PLAIN),
    Export("gpt-oss", "yarn, attention_factor 1", whole(attention_factor=1.0), whole()),
    Export("gpt-oss", "yarn, truncate true", whole(truncate=True), PLAIN, refused="rope_parameters"),
    Export("gpt-oss", "yarn, beta_slow 0.25", whole(beta_slow=0.25), whole(), refused="rope_parameters"),
    Export("gpt-oss", "linear, factor 4", rope(rope_type="linear", factor=4.0), TEN),
    Export("gpt-oss", "layer_types absent: every second full", {"layer_types": DROP}, {"sliding_window": 8}),
    Export("gpt-oss", "layer_types, first full", {"layer_types": [FULL, SLIDING, FULL, SLIDING]}, {}),
    Export("gpt-oss", "all layers full", {"layer_types": [FULL] * 4}, {}, refused="layer_types"),
    Export("gpt-oss", "sliding_window 8", {"sliding_window": 8}, {}),
    Export("gpt-oss", "num_experts_per_tok 3", {"num_experts_per_tok": 3}, {}),
    Export("gpt-oss", "swiglu_limit and swiglu_alpha absent", {"swiglu_limit": DROP, "swiglu_alpha": DROP}, {"swiglu_limit": 3.0}),
    Export("gpt-oss", "swiglu_limit 3", {"swiglu_limit": 3.0}, {}, refused="swiglu_limit"),
    Export("gpt-oss", "swiglu_alpha 0.5", {"swiglu_alpha": 0.5}, {}, refused="swiglu_limit"),
    Export("gpt-oss", "attention_bias absent: true", {"attention_bias": DROP}, {"sliding_window": 8}),
    Export("gpt-oss", "attention_bias false", {"attention_bias": False}, {"sliding_window": 8}, refused="attention_bias"),
    Export("gpt-oss", "rms_norm_eps 0.1", {"rms_norm_eps": 0.1}, {}),
    Export("gpt-oss", "head_dim 16", {"head_dim": 16}, {"head_dim": 16, "sliding_window": 8}),
    Export("gpt-oss", "hidden_act: not read", {"hidden_act": "gelu_pytorch_tanh"}, {"sliding_window": 8}),
    Export("gpt-oss", "tied", {"tie_word_embeddings": True}, {"tie_word_embeddings": True, "sliding_window": 8}, refused="tie_word_embeddings"),
    # Gemma 4.
    Export("gemma4", "base", {}, gemma4_rope({"partial_rotary_factor": 1.0})),
    Export("gemma4", "sliding_window 8", {"sliding_window": 8}, {}),
    Export("gemma4", "layer_types", {"layer_types": [SLIDING, SLIDING, SLIDING, FULL]}, {"layer_types": [SLIDING, SLIDING, SLIDING, FULL], "sliding_window": 8}),
    Export("gemma4", "partial_rotary_factor 0.5", gemma4_rope({"partial_rotary_factor": 0.5}), {}),
    Export("gemma4", "proportional with factor 4", gemma4_rope({"partial_rotary_factor": 0.5, "factor": 4.0}), gemma4_rope({"partial_rotary_factor": 0.5})),
    Export("gemma4", "default on full layers", gemma4_rope({"rope_type": "default", "partial_rotary_factor": 1.0}), {}),
    Export("gemma4", "linear on full layers", gemma4_rope({"rope_type": "linear", "partial_rotary_factor": 1.0, "factor": 4.0}), {}),
    Export("gemma4", "linear on sliding layers", gemma4_rope(sliding={"rope_type": "linear", "factor": 4.0}), {}, refused="sliding"),
    Export("gemma4", "rope_theta of full layers", gemma4_rope({"rope_theta": 50.0}), {}),
    Export("gemma4", "rope_theta of sliding layers", gemma4_rope(sliding={"rope_theta": 10000.0}), {}),
    Export("gemma4", "final_logit_softcapping null", {"final_logit_softcapping": None}, {"final_logit_softcapping": 5.0}),
    Export("gemma4", "final_logit_softcapping 5", {"final_logit_softcapping": 5.0}, {}),
    Export("gemma4", "rms_norm_eps 0.3", {"rms_norm_eps": 0.3}, {}),
    Export("gemma4", "attention_k_eq_v", {"attention_k_eq_v": True, "num_global_key_value_heads": 1}, {"attention_k_eq_v": True, "num_global_key_value_heads": 1, "sliding_window": 4}),
    Export("gemma4", "num_kv_shared_layers 2", SHARED, {"hidden_size_per_layer_input": 32, "num_kv_shared_layers": 1}),
    Export("gemma4", "use_double_wide_mlp", SHARED | {"use_double_wide_mlp": True}, SHARED | {"use_double_wide_mlp": True, "sliding_window": 4}),
    Export("gemma4", "per-layer embeddings", {"hidden_size_per_layer_input": 32}, {"hidden_size_per_layer_input": 0}),
    Export("gemma4", "experts", {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 32},
           {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 1, "moe_intermediate_size": 32}),
    Export("gemma4", "hidden_activation silu", {"hidden_activation": "silu"}, {}, refused="hidden_activation"),
    Export("gemma4", "attention_bias", {"attention_bias": True}, {}, refused="attention_bias"),
    Export("gemma4", "untied", {"tie_word_embeddings": False}, HEADLESS),
]

SCALED = {"rope.scaling.factor": 4.0}
YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 8.0, "rope.scaling.original_context_length": 32}
UNREAD = {"attention.scale": 0.5, "attention.output_scale": 0.5, "attention.clamp_kqv": 0.1, "attention.value_scale": 2.0,
          "attention.layer_norm_epsilon": 0.1, "attention.temperature_scale": 0.5, "attn_logit_softcapping": 1.0,
          "embedding_scale": 2.0, "logit_scale": 2.0, "residual_scale": 2.0, "hidden_activation": "relu",
          "expert_weights_scale": 2.0, "pooling_type": 1, "rope.scaling.alpha": 4.0, "rope.scaling.finetuned": True,
          "rope.scaling.yarn_ext_factor": 0.5, "rope.scaling.yarn_attn_factor": 1.5, "rope.scaling.yarn_beta_fast": 4.0,
          "rope.scaling.yarn_beta_slow": 2.0, "rope.scaling.yarn_log_multiplier": 0.5,
          "tensor_data_layout": "Meta AI original pth", "use_parallel_residual": True}
BETA, LOG, CONTEXT = "rope.scaling.yarn_beta_", "rope.scaling.yarn_log_multiplier", "rope.scaling.original_context_length"
PLAINLY = {"rope.scaling.type": None, "rope.scaling.factor": None, CONTEXT: None, BETA + "fast": None, BETA + "slow": None, LOG: None,
           "attention.temperature_scale": None}
IMPORTS = [
    Import("llama", "all keys said", {}, {"rope.freq_base": 10000.0}),
    Import("llama", "rope.freq_base absent: 10000", {"rope.freq_base": None}, {"rope.freq_base": 500.0}),
    Import("llama", "rope.scaling.factor without a type: linear", SCALED, {"rope.scaling.factor": None}),
    Import("llama", "rope.scale_linear, the old name", {"rope.scale_linear": 4.0}, {"rope.scale_linear": None}),
    Import("llama", "rope.scaling.factor 0: none", {"rope.scaling.factor": 0.0}, {"rope.scaling.factor": 4.0}),
    Import("llama", "rope.scaling.type none", SCALED | {"rope.scaling.type": "none"}, SCALED | {"rope.scaling.type": "linear"}),
    Import("llama", "rope.scaling.type linear", SCALED | {"rope.scaling.type": "linear"}, {"rope.scaling.factor": 2.0}),
    Import("llama", "rope.scaling.type yarn", YARN, {"rope.scaling.type": "linear"}),
    Import("llama", "yarn, original context absent", YARN | {"rope.scaling.original_context_length": None}, YARN),
    Import("llama", "yarn, original context 0", YARN | {"rope.scaling.original_context_length": 0}, YARN),
    Import("llama", "yarn, attn_factor 1", YARN | {"rope.scaling.attn_factor": 1.0}, {"rope.scaling.attn_factor": 1.5}),
    Import("llama", "yarn, attn_factor 0.5", YARN | {"rope.scaling.attn_factor": 0.5}, {"rope.scaling.attn_factor": 1.0}),
    Import("llama", "yarn, yarn_beta_slow: not read", YARN | {"rope.scaling.yarn_beta_slow": 8.0, "rope.scaling.yarn_beta_fast": 8.0}, {"rope.scaling.factor": 4.0}),
    Import("llama", "yarn, yarn_attn_factor: not read", YARN | {"rope.scaling.yarn_attn_factor": 1.5}, {"rope.scaling.factor": 4.0}),
    Import("llama", "yarn, factor absent", YARN | {"rope.scaling.factor": None}, YARN),
    Import("llama", "attn_factor without scaling", {"rope.scaling.attn_factor": 1.5}, {"rope.scaling.attn_factor": 1.0}),
    Import("llama", "attn_factor with linear", SCALED | {"rope.scaling.attn_factor": 1.5}, SCALED | {"rope.scaling.attn_factor": 1.0}),
    Import("llama", "rope_freqs of Llama 3.1", {"rope.freq_base": 10000.0}, factors=[1.0, 1.0, 1.0, 3.1, 8.0, 8.0, 8.0, 8.0], wrong={"rope.freq_base": 500.0}),
    Import("llama", "rope_freqs with linear", {"rope.freq_base": 10000.0, **SCALED}, factors=[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], wrong={"rope.scaling.factor": None}),
    Import("llama", "rope_freqs that stop pairs", {}, factors=[1.0, 1.0, 1.0, 1.0, 1e30, 1e30, 1e30, 1e30], wrong={"rope.freq_base": 10000.0}),
    Import("llama", "attention.head_count_kv absent: as many heads", {"attention.head_count_kv": None}, {"attention.head_count": 8, "attention.key_length": 8, "attention.value_length": 8, "rope.dimension_count": 8}, config={"num_key_value_heads": 4}),
    Import("llama", "attention.head_count_kv as an array", {"attention.head_count_kv": [2, 2], "attention.head_count": [4, 4], "feed_forward_length": [96, 96]}, {"rope.freq_base": 10000.0}),
    Import("llama", "attention.key_length absent", {"attention.key_length": None, "attention.value_length": None, "rope.dimension_count": None}, {"attention.head_count": 8, "attention.head_count_kv": 4}),
    Import("llama", "attention.layer_norm_rms_epsilon", {"attention.layer_norm_rms_epsilon": 0.5}, {"attention.layer_norm_rms_epsilon": 1e-5}),
    Import("llama", "keys that llama.cpp does not read here", UNREAD | {"attention.sliding_window": 8, "attention.sliding_window_pattern": 2,
           "final_logit_softcapping": 1.0, "rope.freq_base_swa": 50.0, "rope.dimension_count_swa": 8, "attention.key_length_swa": 8,
           "attention.value_length_swa": 8}, {"rope.freq_base": 10000.0}),
    Import("llama", "attention.causal false", {"attention.causal": False}, {"attention.causal": True}, refused="attention.causal"),
    Import("llama", "a key that nobody knows", {"attention.new_thing": 2.0}, {"rope.freq_base": 10000.0}, refused="attention.new_thing"),
    Import("qwen2", "all keys said", {}, {"rope.freq_base": 10000.0}),
    Import("qwen2", "attention.key_length absent", {"attention.key_length": None, "attention.value_length": None, "rope.dimension_count": None}, {"rope.freq_base": 10000.0}),
    Import("qwen2", "rope.freq_base absent: 10000", {"rope.freq_base": None}, {"rope.freq_base": 500.0}),
    Import("qwen2", "yarn", YARN, {"rope.scaling.type": "linear"}),
    Import("qwen2", "attention.layer_norm_rms_epsilon", {"attention.layer_norm_rms_epsilon": 0.5}, {"attention.layer_norm_rms_epsilon": 1e-5}),
    Import("qwen3", "all keys said", {}, {"rope.freq_base": 10000.0}),
    Import("qwen3", "attention.key_length absent", {"attention.key_length": None, "attention.value_length": None, "rope.dimension_count": None}, {"rope.freq_base": 10000.0}, config={"head_dim": 16}),
    Import("qwen3", "rope.freq_base absent: 10000", {"rope.freq_base": None}, {"rope.freq_base": 500.0}),
    Import("qwen3", "yarn", YARN, {"rope.scaling.type": "linear"}),
    Import("qwen3", "keys that llama.cpp does not read here", UNREAD, {"rope.freq_base": 10000.0}),
    Import("qwen3moe", "all keys said", {}, {"rope.freq_base": 10000.0}),
    Import("qwen3moe", "expert_used_count 1", {"expert_used_count": 1}, {"expert_used_count": 2}),
    Import("qwen3moe", "expert_feed_forward_length absent: the MLP's share", {"expert_feed_forward_length": None}, {"rope.freq_base": 10000.0}),
    Import("qwen3moe", "keys that llama.cpp does not read here", UNREAD | {"expert_weights_norm": False, "expert_gating_func": 2, "expert_shared_feed_forward_length": 0}, {"rope.freq_base": 10000.0}),
    Import("phi3", "all keys said", {}, {"rope.freq_base": 10000.0}),
    Import("phi3", "rope.scaling.attn_factor absent: 1", {"rope.scaling.attn_factor": None}, {"rope.scaling.attn_factor": 1.5}),
    Import("phi3", "rope.scaling.attn_factor 1.5", {"rope.scaling.attn_factor": 1.5}, {"rope.scaling.attn_factor": None}),
    Import("phi3", "rope.scaling.factor 4 on top of the lists", {"rope.scaling.factor": 4.0}, {"rope.scaling.factor": None}),
    Import("phi3", "original context 512: the short list", {CONTEXT: 512}, {CONTEXT: 16}),
    Import("phi3", "attention.key_length absent", {"attention.key_length": None, "attention.value_length": None}, {"rope.freq_base": 10000.0}),
    Import("phi3", "rope.dimension_count absent: key_length", {"rope.dimension_count": None}, {"rope.freq_base": 10000.0}, config=phi({"partial_rotary_factor": 1.0}, **PHI_WHOLE)),
    Import("phi3", "rope.freq_base absent: 10000", {"rope.freq_base": None}, {"rope.freq_base": 500.0}),
    Import("phi3", "attention.layer_norm_rms_epsilon", {"attention.layer_norm_rms_epsilon": 0.5}, {"attention.layer_norm_rms_epsilon": 1e-5}),
    Import("phi3", "attention.sliding_window longer than any text", {"attention.sliding_window": 300}, {"rope.freq_base": 10000.0}),
    Import("phi3", "keys that llama.cpp does not read here", UNREAD | {"attention.sliding_window_pattern": 2,
           "final_logit_softcapping": 1.0, "rope.freq_base_swa": 50.0, "rope.dimension_count_swa": 8, "attention.key_length_swa": 8,
           "attention.value_length_swa": 8}, {"rope.freq_base": 10000.0}),
    Import("mistral3", "all keys said", {}, {"rope.freq_base": 10000.0}),
    Import("mistral3", "yarn_beta_slow 0.25", {BETA + "slow": 0.25}, {BETA + "slow": 1.0}),
    Import("mistral3", "yarn_beta_fast 4", {BETA + "fast": 4.0, CONTEXT: 256}, {BETA + "fast": 32.0}),
    Import("mistral3", "betas absent: 32 and 1", {BETA + "fast": None, BETA + "slow": None}, {BETA + "slow": 0.25}),
    Import("mistral3", "yarn_log_multiplier absent: 0", {LOG: None}, {LOG: 1.0}),
    Import("mistral3", "yarn_log_multiplier 0", {LOG: 0.0}, {LOG: 1.0}),
    Import("mistral3", "yarn_log_multiplier 0.5", {LOG: 0.5}, {LOG: 1.0}),
    Import("mistral3", "yarn_log_multiplier 0.5 with attn_factor 0.7", {LOG: 0.5, "rope.scaling.attn_factor": 0.7}, {"rope.scaling.attn_factor": 1.0}),
    Import("mistral3", "yarn_log_multiplier -1", {LOG: -1.0}, {LOG: 1.0}, refused="yarn_log_multiplier"),
    Import("mistral3", "attn_factor 1.5", {"rope.scaling.attn_factor": 1.5}, {"rope.scaling.attn_factor": None}),
    Import("mistral3", "attention.temperature_scale absent: 0", {"attention.temperature_scale": None}, {"attention.temperature_scale": 0.5}),
    Import("mistral3", "original context absent: context_length", {CONTEXT: None}, {CONTEXT: 16}),
    Import("mistral3", "without yarn", PLAINLY, {"rope.freq_base": 10000.0}),
    Import("mistral3", "without yarn, factor 4: linear", PLAINLY | SCALED, {"rope.scaling.factor": None}),
    Import("mistral3", "temperature_scale without yarn", PLAINLY | {"attention.temperature_scale": 0.5, CONTEXT: 16}, {"attention.temperature_scale": None}, refused="attention.temperature_scale"),
    Import("mistral3", "rope_freqs", {}, factors=[2.0] * 16, wrong={"rope.freq_base": 10000.0}, refused="rope_freqs"),
    Import("mistral3", "attention.key_length absent", {"attention.key_length": None, "attention.value_length": None, "rope.dimension_count": None}, {"rope.freq_base": 10000.0}, config={"head_dim": 16}),
    Import("mistral3", "keys that llama.cpp does not read here", {key: value for key, value in UNREAD.items() if key not in (BETA + "fast", BETA + "slow", LOG, "attention.temperature_scale")}
           | {"attention.sliding_window": 8, "attention.sliding_window_pattern": 2}, {"rope.freq_base": 10000.0}),
    Import("gpt-oss", "all keys said", {}, {"rope.freq_base": 10000.0}),
    Import("gpt-oss", "rope.freq_base absent: 10000", {"rope.freq_base": None}, {"rope.freq_base": 500.0}),
    Import("gpt-oss", "rope.freq_base_swa", {"rope.freq_base_swa": 50.0}, {"rope.freq_base_swa": None}, refused="rope.freq_base_swa"),
    Import("gpt-oss", "sliding_window 8", {"attention.sliding_window": 8}, {"attention.sliding_window": 16}),
    Import("gpt-oss", "sliding_window_pattern, first full", {"attention.sliding_window_pattern": [False, True, False, True]}, {"attention.sliding_window_pattern": None}),
    Import("gpt-oss", "expert_used_count 3", {"expert_used_count": 3}, {"expert_used_count": 2}),
    Import("gpt-oss", "yarn", {"rope.freq_base": 488.0} | YARN | {CONTEXT: 64}, {"rope.scaling.type": "linear"}),
    Import("gpt-oss", "yarn, betas: not read", {"rope.freq_base": 488.0} | YARN | {CONTEXT: 64, BETA + "slow": 0.25}, {"rope.scaling.type": "linear"}),
    Import("gpt-oss", "rope.scaling.factor without a type: linear", SCALED, {"rope.scaling.factor": None}),
    Import("gpt-oss", "attn_factor 1.5", {"rope.scaling.attn_factor": 1.5}, {"rope.scaling.attn_factor": None}),
    Import("gpt-oss", "keys that llama.cpp does not read here", UNREAD | {"expert_weights_norm": False, "expert_gating_func": 2, "expert_shared_feed_forward_length": 0,
           "final_logit_softcapping": 1.0, "attention.shared_kv_layers": 1}, {"rope.freq_base": 10000.0}),
    Import("gemma3", "all keys said", {}, {"rope.freq_base": 100.0}),
    Import("gemma3", "rope.freq_base absent: 10000", {"rope.freq_base": None}, {"rope.freq_base": 50.0}),
    Import("gemma3", "rope.freq_base_swa absent: 10000", {"rope.freq_base_swa": None}, {"rope.freq_base_swa": 100.0}),
    Import("gemma3", "sliding_window_pattern absent: every sixth full", {"attention.sliding_window_pattern": None}, {"attention.sliding_window_pattern": 3}),
    Import("gemma3", "sliding_window_pattern 3", {"attention.sliding_window_pattern": 3}, {"attention.sliding_window_pattern": 6}),
    Import("gemma3", "sliding_window_pattern 0: all sliding", {"attention.sliding_window_pattern": 0}, {"attention.sliding_window_pattern": 3}),
    Import("gemma3", "sliding_window absent: all full", {"attention.sliding_window": None}, {"attention.sliding_window": 16}),
    Import("gemma3", "sliding_window 0: all full", {"attention.sliding_window": 0}, {"attention.sliding_window": 16}),
    Import("gemma3", "final_logit_softcapping", {"final_logit_softcapping": 5.0}, {"final_logit_softcapping": None}),
    Import("gemma3", "rope.scaling.factor: full layers only", {"rope.scaling.factor": 8.0}, {"rope.scaling.factor": None}),
    Import("gemma3", "yarn", YARN, {"rope.scaling.type": None}),
    Import("gemma3", "attn_factor", {"rope.scaling.attn_factor": 1.5}, {"rope.scaling.attn_factor": None}, refused="rope.scaling.attn_factor"),
    Import("gemma3", "keys that llama.cpp does not read here", UNREAD | {"attention.shared_kv_layers": 1}, {"rope.freq_base": 50.0}),
    Import("gemma3", "rope.dimension_count 8", {"rope.dimension_count": 8}, {"rope.dimension_count": 16}, refused="rope.dimension_count"),
    Import("gemma4", "all keys said", {}, {"rope.freq_base": 100.0}),
    Import("gemma4", "rope.freq_base absent: 10000", {"rope.freq_base": None}, {"rope.freq_base": 50.0}),
    Import("gemma4", "rope.freq_base_swa absent: 10000", {"rope.freq_base_swa": None}, {"rope.freq_base_swa": 100.0}),
    Import("gemma4", "final_logit_softcapping absent: 30", {"final_logit_softcapping": None}, {"final_logit_softcapping": 5.0}),
    Import("gemma4", "final_logit_softcapping 0", {"final_logit_softcapping": 0.0}, {"final_logit_softcapping": 5.0}),
    Import("gemma4", "sliding_window 0", {"attention.sliding_window": 0}, {"attention.sliding_window": 16}, refused="attention.sliding_window"),
    Import("gemma4", "rope.dimension_count absent", {"rope.dimension_count": None}, {"rope.freq_base": 50.0}),
    Import("gemma4", "rope.scaling.factor: full layers only", {"rope.scaling.factor": 8.0}, {"rope.scaling.factor": None}),
    Import("gemma4", "shared_kv_layers absent: none", {"attention.shared_kv_layers": None}, {"rope.freq_base": 50.0}),
    Import("gemma4", "keys that llama.cpp does not read here", UNREAD, {"rope.freq_base": 50.0}),
    Import("gemma4", "rope_freqs with a factor", {}, factors=[2.0] * 8 + [1e30] * 8, wrong={"rope.freq_base": 50.0}),
]
