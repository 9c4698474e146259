#!/usr/bin/env python3
"""Checkpoints with the real dimensions of Gemma 4, Qwen3, GPT-OSS and Phi, for planning, memory and speed work. Never committed.

    .venv/bin/python scripts/make_shapes.py layers OUT_DIR --model 31b            # a few full-width layers
    .venv/bin/python scripts/make_shapes.py layers OUT_DIR --model e2b --layers 10 --vocab 16384
    .venv/bin/python scripts/make_shapes.py sparse OUT_DIR                        # all complete models

`layers` writes random bf16 weights with heavy-tailed rows (Student t, 5 degrees of freedom, row scales over a factor
of ten), one layer of each kind by default, sharded with an index as on the Hub. The default vocabulary is the real
one; a smaller one (--vocab) keeps the embedding from dominating a test of the layers.
`sparse` writes complete models, vision and audio towers included, whose files have the right headers and lengths but
no data on disk (a few kilobytes each): `gq plan` reads headers only.
Tensor names and shapes come from transformers (scripts/requirements.txt); layers that share caches also get the
key/value weights that the Hub's files carry for them and no layer uses. Experts of Qwen3 have matrices of their own, those
of GPT-OSS are codes and powers of two, as on the Hub.
"""
import argparse
import json
import struct
from pathlib import Path

import numpy as np
import torch
import transformers

from make_configs import PHI4_MINI, QWEN3, QWEN3_30B_A3B

SLIDING, FULL = "sliding_attention", "full_attention"
E_VISION = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=16, num_attention_heads=12,
                num_key_value_heads=12, head_dim=64)
LARGE_VISION = dict(hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16,
                    num_key_value_heads=16, head_dim=72)

# name: text configuration, sliding layers between two full ones, vision configuration, has an audio tower
MODELS = {
    "e2b": (dict(hidden_size=1536, intermediate_size=6144, num_hidden_layers=35, num_attention_heads=8,
                 num_key_value_heads=1, num_kv_shared_layers=20, use_double_wide_mlp=True,
                 hidden_size_per_layer_input=256, sliding_window=512), 4, E_VISION, True),
    "e4b": (dict(hidden_size=2560, intermediate_size=10240, num_hidden_layers=42, num_attention_heads=8,
                 num_key_value_heads=2, num_kv_shared_layers=18, hidden_size_per_layer_input=256,
                 sliding_window=512), 5, E_VISION, True),
    "26b-a4b": (dict(hidden_size=2816, intermediate_size=2112, num_hidden_layers=30, num_attention_heads=16,
                     num_key_value_heads=8, num_global_key_value_heads=2, attention_k_eq_v=True,
                     hidden_size_per_layer_input=0, enable_moe_block=True, num_experts=128, top_k_experts=8,
                     moe_intermediate_size=704, sliding_window=1024), 5, LARGE_VISION, False),
    "31b": (dict(hidden_size=5376, intermediate_size=21504, num_hidden_layers=60, num_attention_heads=32,
                 num_key_value_heads=16, num_global_key_value_heads=4, attention_k_eq_v=True,
                 hidden_size_per_layer_input=0, sliding_window=1024), 5, LARGE_VISION, False),
}
QWENS = {"qwen3-30b-a3b": QWEN3 | QWEN3_30B_A3B}
PHIS = {"phi-4-mini": PHI4_MINI}
GPT_OSS = dict(
    architectures=["GptOssForCausalLM"], attention_bias=True, attention_dropout=0.0, eos_token_id=200_002, experts_per_token=4,
    head_dim=64, hidden_act="silu", hidden_size=2880, initial_context_length=4096, initializer_range=0.02,
    intermediate_size=2880, max_position_embeddings=131_072, model_type="gpt_oss", num_attention_heads=64,
    num_experts_per_tok=4, num_key_value_heads=8, output_router_logits=False, pad_token_id=199_999, rms_norm_eps=1e-5,
    rope_scaling={"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0, "original_max_position_embeddings": 4096,
                  "rope_type": "yarn", "truncate": False}, rope_theta=150_000, router_aux_loss_coef=0.9, sliding_window=128,
    swiglu_limit=7.0, tie_word_embeddings=False, use_cache=True, vocab_size=201_088,
    quantization_config={"modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router",
                                                    "model.embed_tokens", "lm_head"], "quant_method": "mxfp4"})
OSSES = {"gpt-oss-20b": dict(num_hidden_layers=24, num_local_experts=32),
         "gpt-oss-120b": dict(num_hidden_layers=36, num_local_experts=128)}
OTHERS = QWENS | PHIS | OSSES
SHARD_BYTES = 5_000_000_000
POOL = 1 << 22  # heavy-tailed values that every row is a stretch of


def text_config(model: str, layers: int | None, vocab: int) -> transformers.Gemma4TextConfig:
    """The complete model's, or one cut to `layers` with each kind of layer in it (see few_layers)."""
    settings, sliding, _, _ = MODELS[model]
    total = settings["num_hidden_layers"]
    kinds = [FULL if (i + 1) % (sliding + 1) == 0 else SLIDING for i in range(total)]
    settings = dict(settings)
    if layers is not None:
        kinds, settings["num_kv_shared_layers"] = few_layers(layers, settings.get("num_kv_shared_layers", 0) > 0)
        settings["num_hidden_layers"] = layers
    return transformers.Gemma4TextConfig(
        vocab_size=vocab, vocab_size_per_layer_input=vocab, head_dim=256, global_head_dim=512,
        final_logit_softcapping=30.0, max_position_embeddings=131_072, layer_types=kinds, **settings)


def few_layers(layers: int, shares: bool) -> tuple[list[str], int]:
    """Layer kinds for a cut model: sliding layers, a full one last; with sharing, half of them share caches."""
    if not shares:
        return [SLIDING] * (layers - 1) + [FULL], 0
    if layers < 4:
        raise SystemExit("a model whose layers share caches needs --layers of at least 4")
    shared = layers // 2
    owners = layers - shared
    return [SLIDING] * (owners - 1) + [FULL] + [SLIDING] * (shared - 1) + [FULL], shared


def config_and_shapes(model: str, layers: int | None, vocab: int) -> tuple[dict, dict[str, tuple[int, ...]]]:
    """config.json in the Hub's spelling, and the shape of every tensor; nothing is allocated."""
    text = text_config(model, layers, vocab)
    if layers is None:
        _, _, vision, audio = MODELS[model]
        config = transformers.Gemma4Config(
            text_config=text, vision_config=transformers.Gemma4VisionConfig(**vision),
            audio_config=transformers.Gemma4AudioConfig() if audio else None)
        with torch.device("meta"):
            built = transformers.Gemma4ForConditionalGeneration(config)
    else:
        config = text
        with torch.device("meta"):
            built = transformers.Gemma4ForCausalLM(config)
    shapes = {n: tuple(t.shape) for n, t in built.state_dict().items() if n != "lm_head.weight"}
    prefix = "model." if layers is not None else "model.language_model."
    shapes |= unused_key_values(text, prefix, shapes)

    spelled = config.to_dict() | {"architectures": [type(built).__name__], "dtype": "bfloat16"}
    spelled_text = spelled.get("text_config", spelled)
    of_full = next(iter(spelled_text.pop("per_layer_config").values()))
    spelled_text["global_head_dim"] = of_full["head_dim"]
    spelled_text["num_global_key_value_heads"] = of_full.get("num_key_value_heads")
    return spelled, dict(sorted(shapes.items()))


def unused_key_values(text, prefix: str, shapes: dict) -> dict[str, tuple[int, ...]]:
    found = {}
    owners = text.num_hidden_layers - text.num_kv_shared_layers
    for layer in range(owners, text.num_hidden_layers):
        like = text.layer_types.index(text.layer_types[layer])
        for part in ("k_proj", "v_proj", "k_norm"):
            name = "{}layers.{}.self_attn." + part + ".weight"
            found[name.format(prefix, layer)] = shapes[name.format(prefix, like)]
    return found


def qwen(name: str, layers: int | None, vocab: int) -> tuple[dict, dict[str, tuple[int, ...]]]:
    """config.json as published, and the shape of every tensor; nothing is allocated."""
    spelled = QWENS[name] | {"vocab_size": vocab, "model_type": "qwen3_moe"}
    if vocab < QWENS[name]["vocab_size"]:
        spelled |= {"bos_token_id": None, "eos_token_id": None}
    if layers is not None:
        spelled["num_hidden_layers"] = layers
    with torch.device("meta"):
        built = transformers.Qwen3MoeForCausalLM(transformers.Qwen3MoeConfig(**spelled))
    shapes = {}
    for name, tensor in built.state_dict().items():
        front, fused, part = name.rpartition("experts.")
        if not fused:
            shapes[name] = tuple(tensor.shape)
            continue
        experts, rows, cols = tensor.shape
        parts = {"gate_up_proj": ["gate_proj", "up_proj"]}.get(part, [part])
        for expert, own in ((e, p) for e in range(experts) for p in parts):
            shapes[f"{front}experts.{expert}.{own}.weight"] = (rows // len(parts), cols)
    return spelled, dict(sorted(shapes.items()))


def phi(name: str, layers: int | None, vocab: int) -> tuple[dict, dict[str, tuple[int, ...]]]:
    """config.json as published, and the shape of every tensor; nothing is allocated."""
    spelled = PHIS[name] | {"vocab_size": vocab}
    spelled["num_hidden_layers"] = layers or spelled["num_hidden_layers"]
    if vocab < PHIS[name]["vocab_size"]:
        spelled |= {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    with torch.device("meta"):
        built = transformers.Phi3ForCausalLM(transformers.Phi3Config(**json.loads(json.dumps(spelled))))
    shapes = {tensor: tuple(value.shape) for tensor, value in built.state_dict().items()}
    shapes.pop("lm_head.weight", None)
    return spelled, dict(sorted(shapes.items()))


def gpt_oss(name: str, layers: int | None, vocab: int) -> tuple[dict, dict[str, tuple[int, ...]]]:
    """config.json as published, and the shape of every tensor; nothing is allocated."""
    spelled = GPT_OSS | OSSES[name] | {"vocab_size": vocab}
    spelled["num_hidden_layers"] = layers or spelled["num_hidden_layers"]
    if vocab < GPT_OSS["vocab_size"]:
        spelled |= {"eos_token_id": None, "pad_token_id": None}
    spelled["layer_types"] = [FULL if layer % 2 else SLIDING for layer in range(spelled["num_hidden_layers"])]
    plain = {key: value for key, value in spelled.items() if key != "quantization_config"}
    with torch.device("meta"):
        built = transformers.GptOssForCausalLM(transformers.GptOssConfig(**plain))
    shapes = {}
    for tensor, value in built.state_dict().items():
        shape = tuple(value.shape)
        if tensor.endswith(("experts.gate_up_proj", "experts.down_proj")):
            experts, inputs, outputs = shape
            shapes[tensor + "_blocks"] = (experts, outputs, inputs // 32, 16)
            shapes[tensor + "_scales"] = (experts, outputs, inputs // 32)
        else:
            shapes[tensor] = shape
    return spelled, dict(sorted(shapes.items()))


def is_bytes(name: str) -> bool:
    return name.endswith(("_blocks", "_scales"))


def nbytes(name: str, shape: tuple[int, ...]) -> int:
    return (1 if is_bytes(name) else 2) * int(np.prod(shape, dtype=np.int64))


def shards(shapes: dict[str, tuple[int, ...]]) -> list[list[str]]:
    """Tensors in order, a new file whenever the next one would not fit."""
    files, size = [[]], 0
    for name, shape in shapes.items():
        if files[-1] and size + nbytes(name, shape) > SHARD_BYTES:
            files.append([])
            size = 0
        files[-1].append(name)
        size += nbytes(name, shape)
    return files


def header(names: list[str], shapes: dict[str, tuple[int, ...]]) -> tuple[bytes, int]:
    """The head of a safetensors file and the length of what follows it."""
    entries, at = {"__metadata__": {"format": "pt"}}, 0
    for name in names:
        end = at + nbytes(name, shapes[name])
        entries[name] = {"dtype": "U8" if is_bytes(name) else "BF16", "shape": shapes[name], "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, at


class HeavyTails:
    """Random bf16 rows: a stretch of one pool of Student-t values, from a random place, times a row scale."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.pool = self.rng.standard_t(5, POOL).astype(np.float32)

    def rows(self, count: int, width: int) -> np.ndarray:
        starts = self.rng.integers(0, POOL - width, count)
        scales = 10.0 ** self.rng.uniform(-0.5, 0.5, (count, 1)).astype(np.float32) * width ** -0.5
        values = np.lib.stride_tricks.sliding_window_view(self.pool, width)[starts] * scales.astype(np.float32)
        return ((values.view(np.uint32) + 0x8000) >> 16).astype(np.uint16)

    def vector(self, count: int) -> np.ndarray:
        values = (1.0 + 0.1 * self.rng.standard_normal(count)).astype(np.float32)
        return ((values.view(np.uint32) + 0x8000) >> 16).astype(np.uint16)

    def write(self, file, name: str, shape: tuple[int, ...]) -> None:
        if is_bytes(name):
            low, high = (0, 256) if name.endswith("_blocks") else (116, 122)
            for _ in range(shape[0]):
                file.write(self.rng.integers(low, high, shape[1:], dtype=np.uint8).tobytes())
            return
        if len(shape) < 2:
            file.write(self.vector(int(np.prod(shape))).tobytes())
            return
        rows, width = int(np.prod(shape[:-1])), shape[-1]
        step = max(1, (1 << 24) // width)
        for start in range(0, rows, step):
            file.write(self.rows(min(step, rows - start), width).tobytes())


def write(folder: Path, config: dict, shapes: dict[str, tuple[int, ...]], content: HeavyTails | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    files = shards(shapes)
    weight_map, total = {}, 0
    for i, names in enumerate(files, 1):
        name = f"model-{i:05}-of-{len(files):05}.safetensors" if len(files) > 1 else "model.safetensors"
        head, length = header(names, shapes)
        with open(folder / name, "wb") as file:
            file.write(head)
            if content is None:
                file.truncate(len(head) + length)
            else:
                for tensor in names:
                    content.write(file, tensor, shapes[tensor])
        weight_map |= {tensor: name for tensor in names}
        total += length
    if len(files) > 1:
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=1) + "\n")
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    weights = sum(int(np.prod(shape, dtype=np.int64)) * (2 if name.endswith("_blocks") else 1)
                  for name, shape in shapes.items() if not name.endswith("_scales"))
    print(f"{folder.name}: {len(shapes)} tensors, {weights / 1e9:.3f} G weights, {total / 1e9:.2f} GB, {len(files)} files")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("layers", "sparse"):
        command = commands.add_parser(name)
        command.add_argument("out", type=Path)
        command.add_argument("--model", choices=[*MODELS, *QWENS, *PHIS, *OSSES], help="one model (default: all)")
        command.add_argument("--vocab", type=int, help="default: the model's own")
        if name == "layers":
            command.add_argument("--layers", type=int, help="default: 2, or 4 where layers share caches")
    options = parser.parse_args()
    for model in [options.model] if options.model else [*MODELS, *QWENS, *PHIS, *OSSES]:
        layers, content = None, None
        if options.command == "layers":
            settings = MODELS.get(model, [{}])[0]
            layers = options.layers or (4 if settings.get("num_kv_shared_layers") else 1 if model in OTHERS else 2)
            content = HeavyTails(seed=1)
        suffix = "sparse" if layers is None else f"{layers}-layers"
        if model in QWENS:
            config, shapes = qwen(model, layers, options.vocab or QWENS[model]["vocab_size"])
        elif model in PHIS:
            config, shapes = phi(model, layers, options.vocab or PHIS[model]["vocab_size"])
        elif model in OSSES:
            config, shapes = gpt_oss(model, layers, options.vocab or GPT_OSS["vocab_size"])
        else:
            config, shapes = config_and_shapes(model, layers, options.vocab or 262_144)
        write(options.out / f"{model if model in OTHERS else f'gemma-4-{model}'}-{suffix}", config, shapes, content)


if __name__ == "__main__":
    main()
