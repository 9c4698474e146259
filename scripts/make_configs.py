"""Writes testdata/configs: configurations of released model sizes, the tensors that the reference
implementation builds from them, and rotary frequencies as it computes them.

    python scripts/make_configs.py

Packages: scripts/requirements.txt. No weights are made: models live on the meta device.
"""

import json
import re
import struct
from pathlib import Path

import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    Gemma4Config,
    Gemma4ForCausalLM,
    Gemma4TextConfig,
    Gemma4UnifiedForCausalLM,
    Gemma4UnifiedTextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)
from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding
from transformers.models.gemma4.modeling_gemma4 import Gemma4TextRotaryEmbedding
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding

OUT = Path(__file__).resolve().parent.parent / "testdata" / "configs"

GEMMA4 = dict(final_logit_softcapping=30.0, use_cache=True)
GEMMA4_SIZES = {
    "gemma4-e2b": dict(num_hidden_layers=35, hidden_size=1536, intermediate_size=6144, num_attention_heads=8,
                       num_key_value_heads=1, num_kv_shared_layers=20, use_double_wide_mlp=True),
    "gemma4-e4b": dict(num_hidden_layers=42, hidden_size=2560, intermediate_size=10240, num_attention_heads=8,
                       num_key_value_heads=2, num_kv_shared_layers=18),
    "gemma4-26b-a4b": dict(num_hidden_layers=30, hidden_size=2816, intermediate_size=2112, num_attention_heads=16,
                           num_key_value_heads=8, num_global_key_value_heads=2, attention_k_eq_v=True,
                           enable_moe_block=True, num_experts=128, top_k_experts=8, moe_intermediate_size=704,
                           hidden_size_per_layer_input=0, sliding_window=1024, max_position_embeddings=262144,
                           use_bidirectional_attention="vision"),
    "gemma4-31b": dict(num_hidden_layers=60, hidden_size=5376, intermediate_size=21504, num_attention_heads=32,
                       num_key_value_heads=16, num_global_key_value_heads=4, attention_k_eq_v=True,
                       hidden_size_per_layer_input=0, sliding_window=1024, max_position_embeddings=262144,
                       use_bidirectional_attention="vision"),
}
# Files of the first release name the head size and count of all full layers; newer ones list what differs by layer.
FIRST_SPELLING = {"gemma4-e2b", "gemma4-31b"}
# Whole models, whose text part stands under `text_config`.
WRAPPED = {"gemma4-e2b", "gemma4-26b-a4b"}

SMOLLM2 = dict(architectures=["LlamaForCausalLM"], hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
               num_attention_heads=9, num_key_value_heads=3, rms_norm_eps=1e-5, rope_theta=100000.0,
               max_position_embeddings=8192, tie_word_embeddings=True, vocab_size=49152, bos_token_id=1,
               eos_token_id=2, pad_token_id=2)
# With the keys of windows as they are published: none is used.
QWEN25_05B = dict(architectures=["Qwen2ForCausalLM"], hidden_size=896, intermediate_size=4864, num_hidden_layers=24,
                  num_attention_heads=14, num_key_value_heads=2, rms_norm_eps=1e-6, rope_theta=1000000.0,
                  max_position_embeddings=32768, tie_word_embeddings=True, vocab_size=151936, bos_token_id=151643,
                  eos_token_id=151645, use_sliding_window=False, sliding_window=32768, max_window_layers=21)
# As published, with keys of windows and of training.
QWEN3_06B = dict(architectures=["Qwen3ForCausalLM"], hidden_size=1024, intermediate_size=3072, num_hidden_layers=28,
                 num_attention_heads=16, num_key_value_heads=8, head_dim=128, max_position_embeddings=40960,
                 max_window_layers=28, tie_word_embeddings=True)
QWEN3_30B_A3B = dict(architectures=["Qwen3MoeForCausalLM"], hidden_size=2048, intermediate_size=6144,
                     num_hidden_layers=48, num_attention_heads=32, num_key_value_heads=4, head_dim=128,
                     max_position_embeddings=40960, max_window_layers=48, tie_word_embeddings=False, num_experts=128,
                     num_experts_per_tok=8, moe_intermediate_size=768, norm_topk_prob=True, decoder_sparse_step=1,
                     mlp_only_layers=[], output_router_logits=False, router_aux_loss_coef=0.001)
QWEN3 = dict(hidden_act="silu", attention_bias=False, attention_dropout=0.0, initializer_range=0.02, rms_norm_eps=1e-6,
             rope_theta=1000000.0, rope_scaling=None, use_sliding_window=False, sliding_window=None, use_cache=True,
             torch_dtype="bfloat16", vocab_size=151936, bos_token_id=151643, eos_token_id=151645)
# Sizes and keys as published, with those of its publisher's own code; the factors of long contexts are of the right shape, not copied.
PHI4_MINI = dict(
    architectures=["Phi3ForCausalLM"], model_type="phi3", hidden_size=3072, intermediate_size=8192,
    num_hidden_layers=32, num_attention_heads=24, num_key_value_heads=8, max_position_embeddings=131072,
    original_max_position_embeddings=4096, partial_rotary_factor=0.75, rope_theta=10000.0, sliding_window=262144,
    tie_word_embeddings=True, vocab_size=200064, bos_token_id=199999, eos_token_id=199999, pad_token_id=199999,
    rms_norm_eps=1e-5, hidden_act="silu", attention_bias=False, attention_dropout=0.0, embd_pdrop=0.0, resid_pdrop=0.0,
    full_attn_mod=1, interpolate_factor=1, lm_head_bias=False, mlp_bias=False, initializer_range=0.02, use_cache=True,
    torch_dtype="bfloat16", rope_scaling={
        "type": "longrope", "short_factor": [1.0] * 48,
        "long_factor": [round(1.118320672 ** i, 9) for i in range(31)]
                       + [32.03, 32.1, 32.13, 32.23, 32.6, 32.61, 32.64, 32.66, 32.7, 32.71, 32.93, 32.97, 33.28, 33.49,
                          33.5, 44.16, 47.77]})
GEMMA3_270M = dict(architectures=["Gemma3ForCausalLM"], hidden_size=640, intermediate_size=2048,
                   num_hidden_layers=18, num_attention_heads=4, num_key_value_heads=1, head_dim=256,
                   query_pre_attn_scalar=256, sliding_window=512, rope_theta=1000000.0, rope_local_base_freq=10000.0,
                   max_position_embeddings=32768, vocab_size=262144)


def write(path, value):
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def ranges(numbers):
    """0,1,2,5 as "0-2,5"."""
    parts = []
    for n in sorted(numbers):
        if parts and parts[-1][1] == n - 1:
            parts[-1][1] = n
        else:
            parts.append([n, n])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def tensors(model):
    """One line per tensor name and shape, the layers that have it collapsed to ranges."""
    tied = model.config.tie_word_embeddings
    lines = {}
    for name, tensor in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        layer = re.match(r"model\.layers\.(\d+)\.(.*)", name)
        key = (f"model.layers.*.{layer[2]}" if layer else name, "x".join(map(str, tensor.shape)))
        lines.setdefault(key, []).append(int(layer[1]) if layer else None)
    out = []
    for (name, shape), layers in sorted(lines.items()):
        out.append(f"{name} {shape} {'-' if layers == [None] else ranges(layers)}")
    return "\n".join(out) + "\n"


def meta(cls, config):
    with torch.device("meta"):
        return cls(config)


def configs():
    for name, sizes in GEMMA4_SIZES.items():
        config = Gemma4TextConfig(**GEMMA4, **sizes)
        config.architectures = ["Gemma4ForCausalLM"]
        (OUT / f"{name}.tensors").write_text(tensors(meta(Gemma4ForCausalLM, config)))
        text = config.to_dict()
        if name in FIRST_SPELLING:
            del text["per_layer_config"]
            text["global_head_dim"] = 512
            text["num_global_key_value_heads"] = sizes.get("num_global_key_value_heads")
        if name in WRAPPED:
            whole = Gemma4Config(vision_config={}, audio_config={} if "e2b" in name else None).to_dict()
            whole |= {"text_config": text, "architectures": ["Gemma4ForConditionalGeneration"],
                      "eos_token_id": [1, 106]}
            text = whole
        write(OUT / f"{name}.json", text)

    # No released sizes at hand: the reference's defaults.
    config = Gemma4UnifiedTextConfig(attention_k_eq_v=True, num_global_key_value_heads=1)
    (OUT / "gemma4-unified.tensors").write_text(tensors(meta(Gemma4UnifiedForCausalLM, config)))
    write(OUT / "gemma4-unified.json", config.to_dict())

    smollm2 = dict(model_type="llama", hidden_act="silu", attention_bias=False, mlp_bias=False, rope_scaling=None,
                   dtype="bfloat16", **SMOLLM2)
    write(OUT / "smollm2-135m.json", smollm2)
    (OUT / "smollm2-135m.tensors").write_text(tensors(meta(LlamaForCausalLM, LlamaConfig(**smollm2))))

    qwen = dict(model_type="qwen2", hidden_act="silu", attention_dropout=0.0, initializer_range=0.02, use_cache=True,
                torch_dtype="bfloat16", **QWEN25_05B)
    write(OUT / "qwen2.5-0.5b.json", qwen)
    (OUT / "qwen2.5-0.5b.tensors").write_text(tensors(meta(Qwen2ForCausalLM, Qwen2Config(**qwen))))

    for name, sizes, model_type, (cls, config) in [
            ("qwen3-0.6b", QWEN3_06B, "qwen3", (Qwen3ForCausalLM, Qwen3Config)),
            ("qwen3-30b-a3b", QWEN3_30B_A3B, "qwen3_moe", (Qwen3MoeForCausalLM, Qwen3MoeConfig))]:
        qwen3 = dict(model_type=model_type, **QWEN3, **sizes)
        write(OUT / f"{name}.json", qwen3)
        (OUT / f"{name}.tensors").write_text(tensors(meta(cls, config(**qwen3))))

    write(OUT / "phi-4-mini.json", PHI4_MINI)
    phi = Phi3Config(**json.loads(json.dumps(PHI4_MINI)))
    (OUT / "phi-4-mini.tensors").write_text(tensors(meta(Phi3ForCausalLM, phi)))

    gemma3 = dict(model_type="gemma3_text", hidden_activation="gelu_pytorch_tanh", rms_norm_eps=1e-6,
                  attention_bias=False, attn_logit_softcapping=None, final_logit_softcapping=None, rope_scaling=None,
                  tie_word_embeddings=True, bos_token_id=2, eos_token_id=1, pad_token_id=0, dtype="bfloat16",
                  _sliding_window_pattern=6, **GEMMA3_270M)
    write(OUT / "gemma3-270m.json", gemma3)
    (OUT / "gemma3-270m.tensors").write_text(tensors(meta(Gemma3ForCausalLM, Gemma3TextConfig(**gemma3))))


def bits(tensor):
    return [struct.unpack("<I", struct.pack("<f", float(x)))[0] for x in tensor]


def rope_case(name, config):
    """Frequencies per layer type, as bit patterns of f32, and the factor on cosines and sines."""
    kind = config["model_type"]
    if kind == "llama":
        rope = LlamaRotaryEmbedding(LlamaConfig(**config))
        types = {"full_attention": (rope.inv_freq, rope.attention_scaling)}
    elif kind == "phi3":
        settings = Phi3Config(**config)
        rope = Phi3RotaryEmbedding(settings)
        original = settings.rope_parameters["original_max_position_embeddings"]
        short = bits(rope.inv_freq)
        rope(torch.zeros(1), torch.tensor([[original]]))  # one position beyond
        return {"name": name, "config": config, "types": {"full_attention": {
            "inv_freq": short, "long_inv_freq": bits(rope.inv_freq), "attention_factor": rope.attention_scaling}}}
    else:
        cls, rotary = {"gemma3_text": (Gemma3TextConfig, Gemma3RotaryEmbedding),
                       "gemma4_text": (Gemma4TextConfig, Gemma4TextRotaryEmbedding)}[kind]
        rope = rotary(cls(**config))
        types = {t: (getattr(rope, f"{t}_inv_freq"), getattr(rope, f"{t}_attention_scaling"))
                 for t in ("sliding_attention", "full_attention")}
    return {"name": name, "config": config,
            "types": {t: {"inv_freq": bits(freq), "attention_factor": factor} for t, (freq, factor) in types.items()}}


def rope():
    llama = dict(model_type="llama", hidden_size=256, intermediate_size=64, num_hidden_layers=1,
                 num_attention_heads=2, num_key_value_heads=1, vocab_size=32, max_position_embeddings=131072)
    llama3 = dict(rope_type="llama3", factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0,
                  original_max_position_embeddings=8192)
    yarn = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32768)
    cases = [
        ("llama default", llama | {"rope_theta": 500000.0}),
        ("llama linear, old spelling", llama | {"rope_scaling": {"type": "linear", "factor": 2.5}}),
        ("llama 3.2", llama | {"rope_theta": 500000.0, "rope_scaling": llama3}),
        ("llama 3.2, new spelling", llama | {"rope_parameters": llama3 | {"rope_theta": 500000.0}}),
        ("yarn", llama | {"rope_parameters": yarn | {"rope_theta": 1000000.0}}),
        ("yarn, finetuned", llama | {"rope_scaling": {"type": "yarn"} | {k: v for k, v in yarn.items() if k != "rope_type"}
                                     | {"finetuned": True}}),
        ("yarn, original context on top", llama | {"rope_parameters": {"rope_type": "yarn", "factor": 4.0},
                                                   "original_max_position_embeddings": 32768}),
        ("yarn, truncate false", llama | {"rope_parameters": yarn | {"truncate": False}}),
        ("yarn, attention_factor", llama | {"rope_scaling": yarn | {"attention_factor": 1.0}}),
        ("dynamic", llama | {"rope_scaling": {"type": "dynamic", "factor": 2.0}}),
        ("default with a factor", llama | {"rope_parameters": {"rope_type": "default", "factor": 8.0}}),
        ("type and rope_type", llama | {"rope_scaling": {"type": "linear", "rope_type": "linear", "factor": 4.0}}),
        ("both keys", llama | {"rope_theta": 500000.0, "rope_scaling": {"rope_type": "linear", "factor": 4.0},
                               "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500000.0}}),
        ("longrope, within the original context", llama | {
            "max_position_embeddings": 4096, "original_max_position_embeddings": 4096,
            "rope_scaling": {"type": "longrope", "short_factor": [1.0 + i / 64 for i in range(64)],
                             "long_factor": [1.0 + i / 64 for i in range(64)]}}),
        ("phi-4-mini", PHI4_MINI | {"sliding_window": None}),
        ("phi, a factor that is said", PHI4_MINI | {
            "sliding_window": None, "partial_rotary_factor": 1.0, "original_max_position_embeddings": 100,
            "rope_scaling": {"type": "longrope", "short_factor": [1.0 + i / 16 for i in range(64)],
                             "long_factor": [1.5 + i for i in range(64)], "factor": 8.0}}),
        ("yarn, mscale", llama | {"rope_scaling": yarn | {"mscale": 0.8, "mscale_all_dim": 0.4, "beta_fast": 16}}),
        ("gemma3 4b", dict(model_type="gemma3_text", rope_theta=1000000.0, rope_local_base_freq=10000.0,
                           rope_scaling={"factor": 8.0, "rope_type": "linear"}, num_hidden_layers=6)),
        ("gemma4", dict(model_type="gemma4_text", num_hidden_layers=6)),
        ("gemma4, other fraction", dict(model_type="gemma4_text", num_hidden_layers=6, global_head_dim=96,
                                        rope_parameters={
                                            "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0},
                                            "full_attention": {"rope_type": "proportional", "rope_theta": 300000.0,
                                                               "partial_rotary_factor": 0.3, "factor": 2.0}})),
    ]
    # Configurations are changed by the classes that read them.
    made = [rope_case(name, json.loads(json.dumps(config))) | {"config": config} for name, config in cases]
    (OUT / "rope.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in made) + "\n]\n")


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    configs()
    rope()
