#!/usr/bin/env python3
"""Make the tiny random checkpoints of testdata/tiny/ and the reference logits that the parity tests compare with.

    python3 -m venv .venv && .venv/bin/pip install -r scripts/requirements.txt
    .venv/bin/python scripts/make_tiny.py                  # all variants, about a minute
    .venv/bin/python scripts/make_tiny.py --only llama     # one of them

Each variant is a folder in Hugging Face layout with two more files:

    reference.safetensors   input_ids i64 [n, t] and logits f64 [n, t, vocab]
    reference.json          how they were made, the reference's own arithmetic floor, greedy continuations

The reference is the transformers implementation, *reloaded from the saved bf16 checkpoint* in float64. (Casting a
live model instead would round its unsaved buffers, embed_scale and inv_freq, and shift the logits by whole units.)
Its norms and rotary angles stay in float32 even then, so the "floor" in reference.json, the largest difference
between the reference in float32 and in float64, says how closely another implementation can be expected to agree.

Weights are random but scaled so that every term of the graph moves the logits: norm gains and scalars differ from
one, attention is neither flat nor one-hot, and sequences are longer than the sliding window.
"""
import argparse
import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

ROWS, TOKENS, VOCAB = 2, 56, 288
PROMPT, GREEDY = 8, 64
FLOOR_LIMIT = 1e-4
MARGIN_LIMIT = 100 * FLOOR_LIMIT  # a greedy choice closer than this would not be the same on every machine


@dataclass
class Variant:
    """One tiny checkpoint: its folder under testdata/tiny, its configuration and how it is stored."""

    name: str
    config: transformers.PreTrainedConfig
    seed: int
    shard_bytes: int | None = None  # None: one model.safetensors


COMMON = dict(vocab_size=VOCAB, max_position_embeddings=256, bos_token_id=2, eos_token_id=1, pad_token_id=0)


def llama() -> Variant:
    config = transformers.LlamaConfig(
        **COMMON, hidden_size=96, intermediate_size=160, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, head_dim=16, rms_norm_eps=1e-5, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    return Variant("llama", config, seed=1)


def gemma3() -> Variant:
    config = transformers.Gemma3TextConfig(
        **COMMON, hidden_size=96, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, query_pre_attn_scalar=24, sliding_window=16, rms_norm_eps=1e-6,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        rope_parameters={"sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
                         "full_attention": {"rope_type": "default", "rope_theta": 5000.0}})
    return Variant("gemma3", config, seed=2, shard_bytes=160_000)


VARIANTS = [llama, gemma3]


def random_weight(name: str, shape: tuple[int, ...], seed: int, family: str) -> np.ndarray:
    """A weight for the parameter `name`, sized so that activations stay near one and every term matters."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    noise = rng.standard_normal(shape).astype(np.float32)
    part = name.removesuffix(".weight").rsplit(".", 1)[-1]
    if part.endswith("norm") or "layernorm" in part:
        gain = 0.3 * noise  # around one: Gemma 3 stores the gain without the one
        scale = 4.0 if name == "model.norm.weight" else 1.0  # logits of a few units
        return scale * (1.0 + gain) - 1.0 if family == "gemma3_text" else scale * (1.0 + gain)
    if part == "embed_tokens":
        return noise if family == "llama" else noise / np.sqrt(shape[-1])
    gain = 1.3 if part in ("q_proj", "k_proj") else 1.0
    return gain * noise / np.sqrt(shape[-1])


def build(variant: Variant, folder: Path) -> None:
    """Save the checkpoint: config.json and bf16 weights, sharded when the variant says so."""
    torch.manual_seed(variant.seed)
    model = AutoModelForCausalLM.from_config(variant.config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            weight = random_weight(name, tuple(parameter.shape), variant.seed, variant.config.model_type)
            parameter.copy_(torch.from_numpy(weight))
    model.to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size=variant.shard_bytes or 10**9)


def load(folder: Path, dtype: torch.dtype):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa")
    return model.eval()


@torch.no_grad()
def logits_of(model, ids: torch.Tensor) -> torch.Tensor:
    return model(input_ids=ids, use_cache=False).logits


@torch.no_grad()
def greedy(model, prompt: list[int]) -> tuple[list[int], float]:
    """GREEDY most likely tokens after `prompt`, each from a full forward pass, and the smallest lead of a winner."""
    tokens, margin = list(prompt), float("inf")
    for _ in range(GREEDY):
        (first, second), (winner, _) = torch.topk(logits_of(model, torch.tensor([tokens]))[0, -1], 2)
        margin = min(margin, (first - second).item())
        if margin < MARGIN_LIMIT:
            break
        tokens.append(winner.item())
    return tokens[len(prompt):], margin


def continuations(model, ids: torch.Tensor) -> list[dict]:
    """One greedy continuation per row, from the first stretch of the row whose every choice is a clear one."""
    found = []
    for row in ids.tolist():
        for start in range(0, TOKENS - PROMPT):
            prompt = row[start:start + PROMPT]
            tokens, margin = greedy(model, prompt)
            if margin >= MARGIN_LIMIT:
                found.append({"prompt": prompt, "tokens": tokens, "min_margin": margin})
                break
    if len(found) < ROWS:
        raise SystemExit("no prompt continues with clear choices only; change the seed")
    return found


def input_ids(seed: int) -> torch.Tensor:
    ids = np.random.default_rng([seed, 99]).integers(0, VOCAB, (ROWS, TOKENS))
    ids[0, 0] = COMMON["bos_token_id"]
    return torch.from_numpy(ids)


def reference(variant: Variant, folder: Path) -> dict:
    """Write reference.safetensors and return the facts for reference.json."""
    ids = input_ids(variant.seed)
    double = load(folder, torch.float64)
    logits = logits_of(double, ids)
    floor = (logits_of(load(folder, torch.float32), ids).double() - logits).abs().max().item()
    if floor > FLOOR_LIMIT:
        raise SystemExit(f"{variant.name}: float32 differs from float64 by {floor:.1e}, limit {FLOOR_LIMIT:.0e}")
    save_file({"input_ids": ids, "logits": logits.contiguous()}, folder / "reference.safetensors")
    return {
        "made_by": "scripts/make_tiny.py", "seed": variant.seed,
        "transformers": transformers.__version__, "torch": torch.__version__,
        "arithmetic": "float64, reloaded from the saved checkpoint",
        "floor_max_abs": floor,
        "logits_rms": logits.pow(2).mean().sqrt().item(),
        "greedy": continuations(double, ids),
    }


def make(variant: Variant, root: Path) -> None:
    folder = root / variant.name
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    build(variant, folder)
    facts = reference(variant, folder)
    (folder / "reference.json").write_text(json.dumps(facts, indent=1) + "\n")
    for file in folder.iterdir():
        file.chmod(0o644)
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{variant.name:14} {size:8} bytes  floor {facts['floor_max_abs']:.1e}  logits rms {facts['logits_rms']:.2f}  "
          f"greedy margin {min(g['min_margin'] for g in facts['greedy']):.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", help="make this variant alone")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "testdata" / "tiny")
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    for variant in (make_variant() for make_variant in VARIANTS):
        if options.only in (None, variant.name):
            make(variant, options.out)


if __name__ == "__main__":
    main()
