#!/usr/bin/env python3
"""Make the tiny random checkpoints of testdata/tiny/ and the reference logits that the parity tests compare with.

    python3 -m venv .venv && .venv/bin/pip install -r scripts/requirements.txt
    .venv/bin/python scripts/make_tiny.py                  # all variants, about a minute
    .venv/bin/python scripts/make_tiny.py --only llama     # one of them

Each variant is a folder in Hugging Face layout with two more files:

    reference.safetensors   input_ids i64 [n, t] and logits f64 [n, t, vocab]
    reference.json          how they were made, the reference's own arithmetic floor, greedy continuations, and how
                            far each wrong reading of the graph (tiny_mutations.py) moves the logits

The reference is the transformers implementation, *reloaded from the saved bf16 checkpoint* in float64. (Casting a
live model instead would round its unsaved buffers, embed_scale and inv_freq, and shift the logits by whole units.)
Its norms and rotary angles stay in float32 even then, so the "floor" in reference.json, the largest difference
between the reference in float32 and in float64, says how closely another implementation can be expected to agree.

Weights are random but scaled so that every term of the graph moves the logits: norm gains and scalars differ from
one, attention is neither flat nor one-hot, and sequences are longer than the sliding window.
"""
import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

from tiny_mutations import MUTATIONS
from tiny_variants import COMMON, VARIANTS, VOCAB, Variant, build, model_class

ROWS, TOKENS = 2, 56
PROMPT, GREEDY = 8, 64
FLOOR_LIMIT = 1e-4
MARGIN_LIMIT = 100 * FLOOR_LIMIT  # a greedy choice closer than this would not be the same on every machine
ROUTER_LIMIT = 1e-5  # the same for the choice of experts, as probabilities
TOLERANCE = 3  # a parity test allows this many floors
MUTATION_LIMIT = 30 * TOLERANCE  # and a mutation must move the logits by this many


F32, FLOAT = torch.float32, torch.Tensor.float


def everywhere(dtype: torch.dtype) -> None:
    """What the reference's own casts to float32 give from now on: its norms, softmax and angles have such casts."""
    double = dtype == torch.float64
    torch.float32 = torch.float = torch.float64 if double else F32
    torch.Tensor.float = torch.Tensor.double if double else FLOAT


def unpacked(variant: Variant, folder: Path, scratch: Path) -> None:
    """The same checkpoint with the experts as the reference itself decodes MXFP4."""
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors
    weights = {}
    for file in sorted(folder.glob("model*.safetensors")):
        weights.update(load_file(file))
    for name in [n.removesuffix("_blocks") for n in weights if n.endswith("_blocks")]:
        weights[name] = convert_moe_packed_tensors(weights.pop(name + "_blocks"), weights.pop(name + "_scales"))
    save_file({n: w.contiguous() for n, w in weights.items()}, scratch / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (scratch / "config.json").write_text(json.dumps(config))


def load(variant: Variant, folder: Path, dtype: torch.dtype):
    everywhere(F32)
    if variant.mxfp4:
        with tempfile.TemporaryDirectory() as scratch:
            unpacked(variant, folder, Path(scratch))
            return load(replace(variant, mxfp4=False), Path(scratch), dtype)
    settings = {"attn_implementation": "sdpa"}
    if variant.name.startswith("gpt-oss"):
        settings = {"attn_implementation": "eager", "experts_implementation": "eager"}
    if variant.double:
        everywhere(dtype)
    if "moe" in variant.name:
        settings["experts_implementation"] = "eager"  # the grouped kernel has no float64
    return model_class(variant.config).from_pretrained(folder, dtype=dtype, **settings).eval()


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


def mutations(variant: Variant, folder: Path, ids: torch.Tensor, logits: torch.Tensor, floor: float) -> dict:
    """How far each wrong reading of the graph moves the logits (largest absolute difference)."""
    moved = {}
    for name, mutate in MUTATIONS.items():
        model = load(variant, folder, torch.float64)
        with torch.no_grad():
            if mutate(model):
                moved[name] = (logits_of(model, ids) - logits).abs().max().item()
    blind = [name for name, change in moved.items() if change < MUTATION_LIMIT * floor]
    if blind:
        raise SystemExit(f"{variant.name}: too small to be noticed: " + ", ".join(f"{n} {moved[n]:.1e}" for n in blind))
    return moved


def watch_routers(model, chosen: int) -> list[float]:
    """A list that collects, at every forward pass, the smallest lead of a chosen expert over one left out."""
    leads = []
    def lead(module, _inputs, output) -> None:
        probabilities = output[0] if type(module).__name__ == "Gemma4TextRouter" else output[0].softmax(-1)
        leads.append(probabilities.sort(descending=True)[0].diff()[:, chosen - 1].neg().min().item())
    for module in model.modules():
        if type(module).__name__ in ("Gemma4TextRouter", "Qwen3MoeTopKRouter", "GptOssTopKRouter"):
            module.register_forward_hook(lead)
    return leads


def reference(variant: Variant, folder: Path) -> dict:
    """Write reference.safetensors and return the facts for reference.json."""
    ids = input_ids(variant.seed)
    double = load(variant, folder, torch.float64)
    text = variant.config.get_text_config()
    chosen = [getattr(text, key, None) for key in ("top_k_experts", "num_experts_per_tok")]
    leads = watch_routers(double, next(filter(None, chosen), 1))
    logits = logits_of(double, ids)
    floor = (logits_of(load(variant, folder, F32), ids).double() - logits).abs().max().item()
    if floor > FLOOR_LIMIT:
        raise SystemExit(f"{variant.name}: float32 differs from float64 by {floor:.1e}, limit {FLOOR_LIMIT:.0e}")
    save_file({"input_ids": ids, "logits": logits.contiguous()}, folder / "reference.safetensors")
    facts = {
        "made_by": "scripts/make_tiny.py", "seed": variant.seed,
        "transformers": transformers.__version__, "torch": torch.__version__,
        "arithmetic": "float64, reloaded from the saved checkpoint",
        "floor_max_abs": floor,
        "logits_rms": logits.pow(2).mean().sqrt().item(),
        "greedy": continuations(load(variant, folder, torch.float64), ids),
        "mutations": mutations(variant, folder, ids, logits, floor),
    }
    if leads:
        facts["router_min_margin"] = min(leads)
        if min(leads) < ROUTER_LIMIT:
            raise SystemExit(f"{variant.name}: an expert is chosen by only {min(leads):.1e}; change the seed")
    return facts


def make(variant: Variant, root: Path) -> None:
    folder = root / variant.name
    folder.mkdir(parents=True, exist_ok=True)
    everywhere(F32)
    for old in folder.iterdir():
        old.unlink()
    build(variant, folder)
    facts = reference(variant, folder)
    (folder / "reference.json").write_text(json.dumps(facts, indent=1) + "\n")
    for file in folder.iterdir():
        file.chmod(0o644)
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{variant.name:14} {size:8} bytes  floor {facts['floor_max_abs']:.1e}  logits rms {facts['logits_rms']:.2f}  "
          f"greedy margin {min(g['min_margin'] for g in facts['greedy']):.1e}  "
          f"{len(facts['mutations'])} mutations, least {min(facts['mutations'].values()):.1e}")


def table(root: Path) -> str:
    """The Markdown table of docs/TESTING.md, from the reference.json files."""
    lines = ["| checkpoint | floor | tolerance | mutations | least noticed | moves the logits by |",
             "|---|--:|--:|--:|---|--:|"]
    for variant in (make_variant() for make_variant in VARIANTS):
        facts = json.loads((root / variant.name / "reference.json").read_text())
        floor, moved = facts["floor_max_abs"], facts["mutations"]
        least = min(moved, key=moved.get)
        lines.append(f"| `{variant.name}` | {floor:.1e} | {TOLERANCE * floor:.1e} | {len(moved)} | {least} | "
                     f"{moved[least]:.1e} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", help="make this variant alone")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "testdata" / "tiny")
    parser.add_argument("--table", action="store_true", help="print the table of docs/TESTING.md and stop")
    options = parser.parse_args()
    if options.table:
        print(table(options.out))
        return
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    for variant in (make_variant() for make_variant in VARIANTS):
        if options.only in (None, variant.name):
            make(variant, options.out)


if __name__ == "__main__":
    main()
