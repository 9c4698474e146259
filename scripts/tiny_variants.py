"""The variants of testdata/tiny: configurations, random weights, and the two spellings of a Gemma 4 configuration.

Used by make_tiny.py and by make_shapes.py; not a program of its own.
"""
import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

VOCAB = 288
COMMON = dict(vocab_size=VOCAB, max_position_embeddings=256, bos_token_id=2, eos_token_id=1, pad_token_id=0)
SLIDING, FULL = "sliding_attention", "full_attention"


@dataclass
class Variant:
    """One tiny checkpoint: its folder under testdata/tiny, its configuration and how it is stored."""

    name: str
    config: transformers.PreTrainedConfig
    seed: int
    shard_bytes: int | None = None  # None: one model.safetensors
    hub_spelling: bool = False  # Gemma 4: config keys and unused tensors as in the first checkpoints on the Hub
    fused: bool = False  # Qwen3: experts as they are in memory, and their number under the Hub's key
    mxfp4: bool = False  # GPT-OSS: experts on the grid of MXFP4, stored as codes and powers of two
    double: bool = False  # the reference computes in float64 throughout: norms, softmax and angles as well

    @property
    def family(self) -> str:
        return self.config.get_text_config().model_type


def llama() -> Variant:
    config = transformers.LlamaConfig(
        **COMMON, hidden_size=96, intermediate_size=160, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, head_dim=16, rms_norm_eps=1e-5, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    return Variant("llama", config, seed=1)


def llama3() -> Variant:
    """Rotary frequencies stretched as in Llama 3.1 and later; all three of its bands occur. Tied head."""
    config = transformers.LlamaConfig(
        **COMMON, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, rms_norm_eps=1e-5, tie_word_embeddings=True,
        rope_parameters={"rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0, "original_max_position_embeddings": 64})
    return Variant("llama3", config, seed=8)


def qwen2() -> Variant:
    """Biases on queries, keys and values alone; the keys of windows as published, which use none. Tied head."""
    config = transformers.Qwen2Config(
        **COMMON, hidden_size=96, intermediate_size=160, num_hidden_layers=3, num_attention_heads=6,
        num_key_value_heads=2, rms_norm_eps=1e-6, tie_word_embeddings=True, use_sliding_window=False,
        sliding_window=128, max_window_layers=2, rope_parameters={"rope_type": "default", "rope_theta": 1000.0})
    return Variant("qwen2", config, seed=9, shard_bytes=200_000)


def qwen3() -> Variant:
    """Heads wider than their share of the hidden size. Tied head, and the keys of windows as published."""
    config = transformers.Qwen3Config(
        **COMMON, hidden_size=96, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, rms_norm_eps=1e-6, tie_word_embeddings=True, use_sliding_window=False,
        sliding_window=None, max_window_layers=2, rope_parameters={"rope_type": "default", "rope_theta": 1000.0})
    return Variant("qwen3", config, seed=10, shard_bytes=200_000)


def qwen3_moe_config(**settings) -> transformers.Qwen3MoeConfig:
    """Twelve experts: ordered by their names, as files are, they are in another order."""
    return transformers.Qwen3MoeConfig(
        **COMMON, hidden_size=64, num_attention_heads=4, moe_intermediate_size=32, num_experts=12,
        num_experts_per_tok=3, rms_norm_eps=1e-6, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0}, **settings)


def qwen3_moe() -> Variant:
    """Experts in every layer, each with matrices of its own in the files, in several shards (30B-A3B)."""
    config = qwen3_moe_config(
        intermediate_size=96, num_hidden_layers=2, num_key_value_heads=1, head_dim=32, norm_topk_prob=True)
    return Variant("qwen3-moe", config, seed=11, shard_bytes=130_000)


def qwen3_moe_mixed() -> Variant:
    """One layer of four with experts, by both keys that say so; weights as the softmax gives them; no head_dim."""
    config = qwen3_moe_config(
        intermediate_size=96, num_hidden_layers=4, num_key_value_heads=2, norm_topk_prob=False,
        decoder_sparse_step=2, mlp_only_layers=[1])
    return Variant("qwen3-moe-mixed", config, seed=12, fused=True)


def mistral() -> Variant:
    """A window on every layer, as 7B v0.1 has it; heads of a width of their own, as NeMo's."""
    config = transformers.MistralConfig(
        **COMMON, hidden_size=96, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, rms_norm_eps=1e-5, tie_word_embeddings=False, sliding_window=8,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0})
    return Variant("mistral", config, seed=15, double=True)


def ministral3() -> Variant:
    """Queries that grow with their position; tied head, as 3B has it."""
    config = transformers.Ministral3Config(
        **COMMON, hidden_size=96, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, rms_norm_eps=1e-5, tie_word_embeddings=True, sliding_window=None,
        rope_parameters={"rope_type": "yarn", "rope_theta": 1000.0, "factor": 16.0, "beta_fast": 32.0, "beta_slow": 1.0,
                         "mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 16,
                         "llama_4_scaling_beta": 0.1})
    return Variant("ministral3", config, seed=16, shard_bytes=200_000, double=True)


def phi3() -> Variant:
    """Three quarters of each head turn, contexts of the short list; tied head, several shards (Phi-4-mini)."""
    config = transformers.Phi3Config(
        **COMMON, hidden_size=96, intermediate_size=160, num_hidden_layers=2, num_attention_heads=3,
        num_key_value_heads=1, rms_norm_eps=1e-5, tie_word_embeddings=True, sliding_window=262_144,
        original_max_position_embeddings=128, partial_rotary_factor=0.75,
        rope_parameters={"rope_type": "longrope", "rope_theta": 1000.0, "partial_rotary_factor": 0.75,
                         "short_factor": [1.0 + 0.05 * i for i in range(12)],
                         "long_factor": [1.0 + 0.5 * i for i in range(12)]})
    return Variant("phi3", config, seed=17, shard_bytes=150_000, double=True)


def phi3_long() -> Variant:
    """Whole heads turn, contexts of the long list, a factor that is said, a window; the older spelling (Phi-3-mini)."""
    config = transformers.Phi3Config(
        **COMMON, hidden_size=96, intermediate_size=160, num_hidden_layers=2, num_attention_heads=6, rms_norm_eps=1e-5,
        tie_word_embeddings=False, sliding_window=24, original_max_position_embeddings=4,
        rope_parameters={"rope_type": "longrope", "rope_theta": 1000.0, "attention_factor": 1.2,
                         "original_max_position_embeddings": 4,
                         "short_factor": [1.0 + 0.25 * i for i in range(8)],
                         "long_factor": [1.5 + 1.5 * i for i in range(8)]})
    return Variant("phi3-long", config, seed=18, double=True)


def spell_as_first_phi(folder: Path) -> None:
    """Rotary keys as Phi-3-mini-128k has them; the keys of its publisher's own code."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    for key in ("partial_rotary_factor", "original_max_position_embeddings"):
        rope.pop(key, None)
    rope["type"] = rope.pop("rope_type")
    config["rope_scaling"] = rope
    config |= {"attention_bias": False, "full_attn_mod": 1, "interpolate_factor": 1, "lm_head_bias": False,
               "mlp_bias": False}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def gpt_oss_config(**settings) -> transformers.GptOssConfig:
    """Queries wider than the residual stream; a ramp of YaRN whose ends are no whole pairs."""
    return transformers.GptOssConfig(
        **COMMON, hidden_size=96, num_attention_heads=4, num_key_value_heads=2, head_dim=32, num_local_experts=4,
        num_experts_per_tok=2, sliding_window=8, rms_norm_eps=1e-5, tie_word_embeddings=False,
        rope_parameters={"rope_type": "yarn", "rope_theta": 150_000.0, "factor": 32.0, "beta_fast": 32.0,
                         "beta_slow": 1.0, "truncate": False, "original_max_position_embeddings": 4096}, **settings)


def gpt_oss() -> Variant:
    """As published: experts as MXFP4, the older spelling of the rotary keys, several shards."""
    config = gpt_oss_config(intermediate_size=96, num_hidden_layers=3)
    return Variant("gpt-oss", config, seed=13, shard_bytes=150_000, mxfp4=True, double=True)


def gpt_oss_resaved() -> Variant:
    """As fine-tunes save it: transposed matrices in bf16; a full layer first, other constants of the gate."""
    config = gpt_oss_config(
        intermediate_size=64, num_hidden_layers=2, layer_types=[FULL, SLIDING], swiglu_alpha=1.3, swiglu_limit=3.0)
    return Variant("gpt-oss-resaved", config, seed=14, double=True)


def gemma3() -> Variant:
    config = transformers.Gemma3TextConfig(
        **COMMON, hidden_size=96, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, query_pre_attn_scalar=24, sliding_window=16, rms_norm_eps=1e-6,
        layer_types=[SLIDING, SLIDING, FULL],
        rope_parameters={SLIDING: {"rope_type": "default", "rope_theta": 100.0},
                         FULL: {"rope_type": "default", "rope_theta": 5000.0}})
    return Variant("gemma3", config, seed=2, shard_bytes=160_000)


def gemma4_text(**settings) -> transformers.Gemma4TextConfig:
    """What the tiny Gemma 4 variants have in common.

    The norms' epsilon is 1e-2, not 1e-6: an RMSNorm forgets the scale of its input but for epsilon, and terms that
    are only followed by a norm (the 1/sqrt(2) of the per-layer inputs, the last layer_scalar) would not matter.
    """
    return transformers.Gemma4TextConfig(
        **COMMON, num_attention_heads=4, head_dim=16, global_head_dim=32, sliding_window=16, rms_norm_eps=1e-2,
        final_logit_softcapping=30.0, **settings)


def gemma4_e2b() -> Variant:
    """Per-layer embeddings, one key-value head, two layers that share caches and have double-wide MLPs."""
    config = gemma4_text(
        hidden_size=96, intermediate_size=64, num_hidden_layers=5, num_key_value_heads=1,
        layer_types=[SLIDING, SLIDING, FULL, SLIDING, FULL], num_kv_shared_layers=2, use_double_wide_mlp=True,
        hidden_size_per_layer_input=32, vocab_size_per_layer_input=VOCAB)
    return Variant("gemma4-e2b", config, seed=3, hub_spelling=True)


def gemma4_e4b() -> Variant:
    """Per-layer embeddings, two key-value heads, half of the layers share caches, ordinary MLPs."""
    config = gemma4_text(
        hidden_size=64, intermediate_size=96, num_hidden_layers=6, num_key_value_heads=2,
        layer_types=[SLIDING, SLIDING, FULL, SLIDING, SLIDING, FULL], num_kv_shared_layers=3,
        hidden_size_per_layer_input=32, vocab_size_per_layer_input=VOCAB)
    return Variant("gemma4-e4b", config, seed=4, shard_bytes=200_000)


def gemma4_moe() -> Variant:
    """A dense MLP and eight experts in parallel, values from the key projection on full layers (26B-A4B)."""
    config = gemma4_text(
        hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_key_value_heads=2,
        num_global_key_value_heads=1, layer_types=[SLIDING, SLIDING, FULL], attention_k_eq_v=True,
        hidden_size_per_layer_input=0, enable_moe_block=True, num_experts=8, top_k_experts=3,
        moe_intermediate_size=32)
    return Variant("gemma4-moe", config, seed=5)


def gemma4_dense() -> Variant:
    """Values from the key projection and fewer key-value heads on full layers (31B)."""
    config = gemma4_text(
        hidden_size=96, intermediate_size=128, num_hidden_layers=4, num_key_value_heads=4,
        num_global_key_value_heads=2, layer_types=[SLIDING, FULL, SLIDING, FULL], attention_k_eq_v=True,
        hidden_size_per_layer_input=0)
    return Variant("gemma4-dense", config, seed=6, shard_bytes=200_000, hub_spelling=True)


def gemma4_vision() -> Variant:
    """A whole Gemma4ForConditionalGeneration: the text part under another prefix, next to a vision tower."""
    text = gemma4_text(
        hidden_size=64, intermediate_size=64, num_hidden_layers=3, num_key_value_heads=2,
        layer_types=[SLIDING, FULL, FULL], num_kv_shared_layers=1, use_double_wide_mlp=True,
        hidden_size_per_layer_input=32, vocab_size_per_layer_input=VOCAB)
    tower = transformers.Gemma4VisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        head_dim=16, position_embedding_size=16, patch_size=4, max_position_embeddings=64)
    config = transformers.Gemma4Config(text_config=text, vision_config=tower, audio_config=None)
    return Variant("gemma4-vision", config, seed=7, hub_spelling=True)


VARIANTS = [llama, llama3, qwen2, qwen3, qwen3_moe, qwen3_moe_mixed, gpt_oss, gpt_oss_resaved, mistral,
            ministral3, phi3, phi3_long, gemma3, gemma4_e2b, gemma4_e4b, gemma4_moe,
            gemma4_dense, gemma4_vision]


def model_class(config: transformers.PreTrainedConfig) -> type:
    names = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM",
             "qwen3_moe": "Qwen3MoeForCausalLM", "gpt_oss": "GptOssForCausalLM", "mistral": "MistralForCausalLM", "ministral3": "Ministral3ForCausalLM",
             "phi3": "Phi3ForCausalLM",
             "gemma3_text": "Gemma3ForCausalLM", "gemma4_text": "Gemma4ForCausalLM",
             "gemma4": "Gemma4ForConditionalGeneration"}
    return getattr(transformers, names[config.model_type])


def random_weight(name: str, shape: tuple[int, ...], seed: int, family: str, tied: bool = True) -> np.ndarray:
    """A weight for the parameter or buffer `name`, sized so that activations stay near one and every term matters."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    noise = rng.standard_normal(shape).astype(np.float32)
    part = name.removesuffix(".weight").rsplit(".", 1)[-1]
    if part == "layer_scalar":
        return 0.7 + 0.1 * noise
    if part in ("scale", "per_expert_scale"):  # of the router
        return 1.0 + 0.3 * noise
    if name.endswith("router.proj.weight"):
        return 1.5 * noise
    if name.endswith("mlp.gate.weight"):  # a router of normed inputs
        return 1.5 * noise / np.sqrt(shape[-1])
    if family == "gpt_oss":
        found = gpt_oss_weight(name, noise)
        if found is not None:
            return found
    if "norm" in part:
        scale = 1.0
        if part == "norm":
            scale = 4.0  # logits of a few units, so that a softcap of 30 bends them
        elif family == "gemma4_text" and part in ("q_norm", "k_norm"):
            scale = 1.2 * shape[-1] ** -0.25  # there is no 1/sqrt(head_dim) in Gemma 4's attention
        elif family.startswith("qwen3") and part in ("q_norm", "k_norm"):
            scale = 1.4  # the projections' own scale is forgotten
        gain = scale * (1.0 + 0.3 * noise)
        return gain - 1.0 if family == "gemma3_text" else gain  # Gemma 3 stores the gain without the one
    if part == "bias" and family == "qwen2":
        return 0.5 * noise
    if part == "embed_tokens":
        untied_llama = family in ("llama", "mistral", "phi3") and not tied
        return noise if untied_llama else noise / np.sqrt(shape[-1])
    if part == "embed_tokens_per_layer":
        return noise / np.sqrt(32)  # comes out near one after its own scale
    if part == "per_layer_input_gate":
        return noise  # its input is the un-normalized residual, and the gate is a GELU
    if part == "qkv_proj":
        return 1.2 * noise / np.sqrt(shape[-1])
    gain = {"q_proj": 1.3, "k_proj": 1.3, "per_layer_projection": 0.3}.get(part, 1.0)
    return gain * noise / np.sqrt(shape[-1])


def gpt_oss_weight(name: str, noise: np.ndarray) -> np.ndarray | None:
    """Sinks of a score's size, gates and up values beyond their limits, biases that count."""
    part = name.rsplit(".", 1)[-1]
    if part == "sinks":
        return 2.5 * noise
    if part in ("gate_up_proj_bias", "down_proj_bias") or name.endswith("router.bias"):
        return (0.2 if part == "down_proj_bias" else 0.5) * noise
    if part == "gate_up_proj":
        return 4.0 * noise / np.sqrt(noise.shape[1])
    if part == "down_proj":
        return 0.1 * noise / np.sqrt(noise.shape[1])
    if part == "bias":
        return 0.5 * noise
    if name.endswith("router.weight"):
        return 1.5 * noise / np.sqrt(noise.shape[-1])
    return None


FP4 = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0], dtype=np.float32)


def to_mxfp4(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`[..., inputs]` as codes `[..., inputs / 32, 16]` and powers of two `[..., inputs / 32]`, both bytes."""
    groups = weight.reshape(*weight.shape[:-1], -1, 32)
    largest = np.abs(groups).max(-1)
    power = np.floor(np.log2(np.maximum(largest, 2.0 ** -100))) - 2
    scaled = groups / 2.0 ** power[..., None]
    code = np.abs(np.abs(scaled)[..., None] - FP4).argmin(-1) | np.where(scaled < 0, 8, 0)
    return (code[..., ::2] | code[..., 1::2] << 4).astype(np.uint8), (power + 127).astype(np.uint8)


def pack_experts(folder: Path) -> None:
    """The experts of a saved GPT-OSS as its publisher stores them, and the keys of the first files."""
    files = {file: load_file(file) for file in sorted(folder.glob("*.safetensors"))}
    last = files[max(files)]
    for weights in files.values():
        for name in [n for n in weights if n.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
            parts = to_mxfp4(weights.pop(name).transpose(1, 2).float().numpy())
            blocks, scales = (torch.from_numpy(part.copy(order="C")) for part in parts)
            weights[name + "_blocks"] = blocks
            # Those of one layer lie in another file.
            (last if ".layers.1." in name else weights)[name + "_scales"] = scales
    for file, weights in files.items():
        save_file(weights, file, metadata={"format": "pt"})
    index = folder / "model.safetensors.index.json"
    places = {name: file.name for file in sorted(folder.glob("*.safetensors")) for name in load_file(file)}
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}, indent=2, sort_keys=True) + "\n")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = rope
    config["experts_per_token"] = config["num_experts_per_tok"]
    config["initial_context_length"] = 4096
    del config["swiglu_alpha"]
    config["quantization_config"] = {
        "quant_method": "mxfp4", "modules_to_not_convert": [
            "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def build(variant: Variant, folder: Path) -> None:
    """Save the checkpoint: config.json and bf16 weights, sharded when the variant says so."""
    torch.manual_seed(variant.seed)
    model = model_class(variant.config)(variant.config)
    saved = {name for name, _ in model.named_parameters()} | {n for n in model.state_dict() if "layer_scalar" in n}
    with torch.no_grad():
        for name, tensor in model.state_dict(keep_vars=True).items():
            if name in saved:
                weight = random_weight(name, tuple(tensor.shape), variant.seed, variant.family,
                                       variant.config.tie_word_embeddings)
                tensor.copy_(torch.from_numpy(np.asarray(weight, dtype=np.float32)))
    how = {"save_original_format": False} if variant.fused else {}
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size=variant.shard_bytes or 10**9, **how)
    if variant.fused:
        path = folder / "config.json"
        config = json.loads(path.read_text())
        config["num_experts"] = config.pop("num_local_experts")
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    if variant.mxfp4:
        pack_experts(folder)
    if variant.name == "phi3-long":
        spell_as_first_phi(folder)
    if variant.hub_spelling:
        spell_as_on_the_hub(variant, folder)


def spell_as_on_the_hub(variant: Variant, folder: Path) -> None:
    """Two head widths as `global_head_dim` instead of `per_layer_config`, and k/v weights that no layer uses."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    text = config.get("text_config", config)
    layers = text.pop("per_layer_config")
    of_full = next(iter(layers.values()))
    text["global_head_dim"] = of_full["head_dim"]
    text["num_global_key_value_heads"] = of_full.get("num_key_value_heads")
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")

    first_shared = text["num_hidden_layers"] - text["num_kv_shared_layers"]
    if first_shared == text["num_hidden_layers"]:
        return
    weights = load_file(folder / "model.safetensors")
    prefix = next(n for n in weights if n.endswith("embed_tokens.weight")).removesuffix("embed_tokens.weight")
    for layer in range(first_shared, text["num_hidden_layers"]):
        like = next(i for i in range(first_shared) if text["layer_types"][i] == text["layer_types"][layer])
        for part in ("k_proj", "v_proj", "k_norm"):
            name = f"{prefix}layers.{layer}.self_attn.{part}.weight"
            shape = weights[f"{prefix}layers.{like}.self_attn.{part}.weight"].shape
            unused = random_weight(name, tuple(shape), variant.seed, variant.family)
            weights[name] = torch.from_numpy(unused).to(torch.bfloat16)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
