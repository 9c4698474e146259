"""A GGUF of a tiny checkpoint by a writer that is not ours: gguf-py's, with names from gguf-py's own table.

What differs from the checkpoint's values is llama.cpp's convention: rows of Llama's and Mistral's q and k are interleaved
in each head, GPT-OSS's experts have gates and up projections apart, norms of Gemma 3 have their 1 added, Gemma 4's full layers have factors on their rotary frequencies.
"""
from pathlib import Path

import gguf
import numpy as np

ARCHITECTURES = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2,
                 "qwen3": gguf.MODEL_ARCH.QWEN3, "qwen3moe": gguf.MODEL_ARCH.QWEN3MOE,
                 "mistral3": gguf.MODEL_ARCH.MISTRAL3, "gpt-oss": gguf.MODEL_ARCH.GPT_OSS,
                 "phi3": gguf.MODEL_ARCH.PHI3,
                 "gemma3": gguf.MODEL_ARCH.GEMMA3, "gemma4": gguf.MODEL_ARCH.GEMMA4}
SUFFIXES = (".weight", ".bias", ".scale")


def interleaved(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head as 0, n/2, 1, n/2 + 1, ..."""
    shape = (heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return rows.reshape(shape).swapaxes(1, 2).reshape(rows.shape)


def apart(family: str, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Gates and up projections of experts as stacks of their own, as llama.cpp has them. Qwen3 has them one above the
    other; GPT-OSS has outputs last, gate and up in turn."""
    out = {}
    for name, values in weights.items():
        if "mlp.experts." in name and family == "gpt-oss":
            stem, bias = name.removesuffix("_bias"), name.endswith("_bias")
            parts = {"gate": values[..., ::2], "up": values[..., 1::2]} if "gate_up" in stem else {"down": values}
            for part, of in parts.items():
                kind = "bias" if bias else "weight"
                out[f"{stem[:stem.rindex('.')]}.{part}_proj.{kind}"] = of if bias else of.swapaxes(1, 2)
        elif name.endswith("mlp.experts.gate_up_proj"):
            half = values.shape[1] // 2
            stem = name.removesuffix("gate_up_proj")
            out |= {stem + "gate_proj.weight": values[:, :half], stem + "up_proj.weight": values[:, half:]}
        else:
            out[name + ".weight" if "mlp.experts." in name else name] = values
    return out


def tensors(family: str, config: dict, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """f32 tensors under GGUF's names."""
    names = gguf.get_tensor_name_map(ARCHITECTURES[family], config["num_hidden_layers"])
    out = {}
    for name, values in apart(family, weights).items():
        mapped = names.get_name(name, try_suffixes=SUFFIXES)
        if mapped is None:
            raise SystemExit(f"gguf-py has no name for {name}")
        stem = name.removesuffix(".weight").removesuffix(".bias")
        if family in ("llama", "mistral3") and stem.endswith("q_proj"):
            values = interleaved(values, config["num_attention_heads"])
        if family in ("llama", "mistral3") and stem.endswith("k_proj"):
            values = interleaved(values, config["num_key_value_heads"])
        if family == "gemma3" and name.endswith("norm.weight"):
            values = values + 1.0
        out[mapped if mapped.endswith(SUFFIXES) else mapped + ".weight"] = values.astype(np.float32)
    if family == "phi3":
        for kind in ("long", "short"):
            out[f"rope_factors_{kind}.weight"] = np.array(config["rope_parameters"][f"{kind}_factor"], np.float32)
    if family == "gemma4":
        rope = config["rope_parameters"]["full_attention"]
        half = config["global_head_dim"] // 2
        turning = int(rope.get("partial_rotary_factor", 1.0) * half)
        out["rope_freqs.weight"] = np.array([1.0] * turning + [1e30] * (half - turning), np.float32)
    return out


def metadata(family: str, config: dict) -> dict:
    """Keys below the architecture, all of them said."""
    layers = config["num_hidden_layers"]
    dim = config.get("head_dim", config["hidden_size"] // config["num_attention_heads"])
    keys = {"block_count": layers, "context_length": config["max_position_embeddings"],
            "embedding_length": config["hidden_size"], "feed_forward_length": config["intermediate_size"],
            "attention.head_count": config["num_attention_heads"],
            "attention.head_count_kv": config["num_key_value_heads"],
            "attention.layer_norm_rms_epsilon": config["rms_norm_eps"], "attention.key_length": dim,
            "attention.value_length": dim, "rope.dimension_count": dim, "vocab_size": config["vocab_size"]}
    if family in ("llama", "qwen2", "qwen3", "qwen3moe"):
        sparse = {"expert_count": config["num_experts"], "expert_used_count": config["num_experts_per_tok"],
                  "expert_feed_forward_length": config["moe_intermediate_size"]} if family == "qwen3moe" else {}
        return keys | sparse | {"rope.freq_base": config["rope_parameters"]["rope_theta"]}
    rope = config["rope_parameters"]
    if family == "mistral3":
        return keys | {"rope.freq_base": rope["rope_theta"], "rope.scaling.type": "yarn",
                       "rope.scaling.factor": rope["factor"],
                       "rope.scaling.original_context_length": rope["original_max_position_embeddings"],
                       "rope.scaling.yarn_beta_fast": rope["beta_fast"],
                       "rope.scaling.yarn_beta_slow": rope["beta_slow"],
                       "rope.scaling.yarn_log_multiplier": rope["mscale_all_dim"],
                       "attention.temperature_scale": rope["llama_4_scaling_beta"]}
    if family == "phi3":
        original = config["original_max_position_embeddings"]
        scale = config["max_position_embeddings"] / original
        inferred = (1 + np.log(scale) / np.log(original)) ** 0.5 if scale > 1 else 1.0
        return keys | {"rope.freq_base": rope["rope_theta"], "rope.scaling.original_context_length": original,
                       "rope.scaling.attn_factor": float(rope.get("attention_factor", inferred)),
                       "rope.dimension_count": int(dim * rope.get("partial_rotary_factor", 1.0)),
                       "attention.sliding_window": config["sliding_window"] or 0}
    if family == "gpt-oss":
        return keys | {"rope.freq_base": rope["rope_theta"], "attention.sliding_window": config["sliding_window"],
                       "expert_count": config["num_local_experts"], "expert_used_count": config["num_experts_per_tok"],
                       "expert_feed_forward_length": config["intermediate_size"]}
    keys |= {"rope.freq_base": rope["full_attention"]["rope_theta"],
             "rope.freq_base_swa": rope["sliding_attention"]["rope_theta"],
             "attention.sliding_window": config["sliding_window"],
             "attention.sliding_window_pattern": [kind == "sliding_attention" for kind in config["layer_types"]]}
    if family == "gemma4":
        full = config["global_head_dim"]
        keys |= {"attention.key_length": full, "attention.value_length": full, "rope.dimension_count": full,
                 "attention.key_length_swa": dim, "attention.value_length_swa": dim, "rope.dimension_count_swa": dim,
                 "attention.shared_kv_layers": 0, "embedding_length_per_layer_input": 0,
                 "final_logit_softcapping": config["final_logit_softcapping"]}
    return keys


def write(path: Path, family: str, keys: dict, data: dict[str, np.ndarray]) -> None:
    """Ints are written as u32, floats as f32, lists as arrays; a key that is None is left out."""
    writer = gguf.GGUFWriter(path, family)
    for key, value in keys.items():
        name = f"{family}.{key}"
        if value is None:
            continue
        if isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        elif isinstance(value, str):
            writer.add_string(name, value)
        else:
            writer.add_array(name, value)
    writer.add_string("tokenizer.ggml.model", "none")
    for name, values in data.items():
        writer.add_tensor(name, np.ascontiguousarray(values, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
