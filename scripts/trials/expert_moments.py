#!/usr/bin/env python3
"""Experts' gates: is a moment for each expert worth it, or will their layer's do?

    python3 scripts/trials/expert_moments.py CHECKPOINT --text CALIBRATION_TEXT [--layers 2 14 26]

No trained mixture of experts is at hand, so one is made of a dense model: the inputs of its MLPs are divided among experts by
spherical k-means, each token to its nearest centers. For every expert the error that LDLQ leaves in its gate's outputs, on
held-out tokens of its own, is `tr(U^-1 H' U^-T)` times the variance of residuals, with `H = U D U^T` from
  layer    the moment of all that the layer's experts saw (a token counts once for each expert that it goes to),
  own      that of the expert's tokens alone,
  joined   the expert's, and its layer's with the weight of 1, 1/4 or 1/16 token for each column,
each with the best of five dampings for the expert (layer: of the layer) on every other token held out, measured on those between;
the last column has the choice of three dampings (0.03, 0.1, 0.3), as gq has it for wide experts. Prints the ratio to `layer`, mean
over experts by their error with `layer`, so that experts count by how often they are chosen; 0.90 is a tenth less squared error at
the same bits, as 0.076 bits more would give. gq joins what is held out as well, and experts' down projections, whose units mean
something else in every expert, are not looked at.
Not a part of gq: the record of a choice. Needs numpy, torch and transformers.
"""
import argparse
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

DAMPINGS = (0.003, 0.01, 0.03, 0.1, 0.3)
WEIGHTS = (1.0, 0.25, 0.0625)


def errors(h: np.ndarray, tests: list[np.ndarray]) -> np.ndarray:
    """`[dampings, tests]`: expected errors with the factor of `h` under each of the moments `tests`."""
    rows = []
    for damping in DAMPINGS:
        damped = h + damping * np.trace(h) / len(h) * np.eye(len(h))
        lower = np.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1]
        inverse = np.linalg.inv(lower / np.diag(lower)[None, :])
        rows.append([np.einsum("ij,ij->", inverse @ test, inverse) for test in tests])
    return np.array(rows)


def centers(x: torch.Tensor, count: int) -> torch.Tensor:
    """Spherical k-means, 20 rounds."""
    generator = torch.Generator().manual_seed(1)
    found = x[torch.randperm(len(x), generator=generator)[:count]]
    for _ in range(20):
        nearest = (x @ found.T).argmax(1)
        sums = torch.zeros_like(found).index_add_(0, nearest, x)
        found = torch.where(sums.norm(dim=1, keepdim=True) > 0, torch.nn.functional.normalize(sums, dim=1), found)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 14, 26])
    parser.add_argument("--experts", nargs="+", default=["16/1", "64/4", "64/8"], help="how many, and how many a token goes to")
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 8192, 98304])
    parser.add_argument("--held-out", type=int, default=16384)
    options = parser.parse_args()
    model = AutoModelForCausalLM.from_pretrained(options.checkpoint, dtype=torch.bfloat16)
    ids = AutoTokenizer.from_pretrained(options.checkpoint)(options.text.read_text(), return_tensors="pt").input_ids[0]
    windows = ids[: len(ids) // 512 * 512].view(-1, 512)[: (max(options.tokens) + options.held_out) // 512]
    if len(windows) * 512 < max(options.tokens) + options.held_out:
        raise SystemExit(f"{options.text}: {len(windows) * 512} tokens, {max(options.tokens) + options.held_out} are needed")
    seen = {layer: [] for layer in options.layers}
    for layer in options.layers:
        gate = model.model.layers[layer].mlp.gate_proj
        gate.register_forward_hook(lambda _, inputs, __, layer=layer: seen[layer].append(inputs[0][0].float()))
    with torch.no_grad():
        for window in windows:
            model.model(window[None])
    print(f"{options.checkpoint.name}, layers {options.layers}, {options.held_out} tokens held out")
    print("experts/chosen  tokens  for each column of an expert   own  joined: 1    1/4   1/16  3 dampings")
    for kind in options.experts:
        count, chosen = map(int, kind.split("/"))
        for tokens in options.tokens:
            ratios, weights = [], []
            for layer in options.layers:
                x = torch.cat(seen[layer])
                direction = torch.nn.functional.normalize(x, dim=1)
                found = centers(direction[:tokens], count)
                goes = torch.zeros(len(x), count, dtype=torch.bool).scatter_(1, (direction @ found.T).topk(chosen).indices, True)
                x, goes = x.numpy(), goes.numpy()
                train, held = slice(0, tokens), slice(len(x) - options.held_out, len(x))
                def moment(part, expert):
                    mine = x[part][goes[part][:, expert]].astype(np.float64)
                    return mine.T @ mine, len(mine)

                def halves(expert):
                    mine = x[held][goes[held][:, expert]].astype(np.float64)
                    return [mine[first::2].T @ mine[first::2] for first in (0, 1)], len(mine)
                own = [moment(train, expert) for expert in range(count)]
                test = [halves(expert) for expert in range(count)]
                all_sum, all_count = sum(h for h, _ in own), sum(n for _, n in own)
                mean, width = all_sum / all_count, x.shape[1]
                shared = errors(mean, [h for pair, _ in test for h in pair])
                shared = shared[shared[:, ::2].sum(1).argmin(), 1::2]
                for expert, ((h, n), (pair, n_test)) in enumerate(zip(own, test)):
                    if n_test < 2 or n == 0:
                        continue
                    moments = [h / n, *((h + mean * width * w) / (n + width * w) for w in WEIGHTS)]
                    tried = [errors(moment, pair) for moment in moments]
                    tried.append(tried[-1][2:])
                    ratios.append([each[each[:, 0].argmin(), 1] / shared[expert] for each in tried])
                    weights.append(shared[expert])
            found = "  ".join(f"{ratio:5.3f}" for ratio in np.average(np.array(ratios), axis=0, weights=weights))
            print(f"{kind:14}  {tokens:6}  {tokens * chosen / count / width:28.1f}  {found}", flush=True)


if __name__ == "__main__":
    main()
