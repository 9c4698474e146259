#!/usr/bin/env python3
"""Two-sided rounding (YAQA, arXiv 2505.22988): does feedback from rows, by the gradients' second moments, pay?

    python3 scripts/trials/two_sided.py CHECKPOINT --text CALIBRATION_TEXT [--bits 3]

Rounds the body of a model to scalar codes of one scale per row in a rotated basis, with feedback along columns by the
inputs' moments H (LDLQ, what `gq convert --measurements` does), and next to it with feedback from rows done before by the moments G
of the gradients at the outputs too, of which a share is taken from the diagonal alone (gradients are few and noisy).
Row by row is the most that can be done; by blocks of 256 rows is what strips of trellis codes allow, since within one
a path already runs along the rows. Divergence is measured on the last part of the text, which is not calibrated on.
Not a part of gq: the record of a choice. Needs numpy, numba, torch and transformers.
"""
import argparse
import time
from pathlib import Path

import numba
import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

LEVELS = {2: [0.4528, 1.5104], 3: [0.2451, 0.7560, 1.3439, 2.1519],
          4: [0.1284, 0.3881, 0.6568, 0.9424, 1.2562, 1.6181, 2.0690, 2.7326]}
DISTORTION = {2: 0.1175, 3: 0.03454, 4: 0.009497}


@numba.njit(fastmath=True, cache=True)
def round_rows(w, upper, offset, scales, levels, q, p):
    """LDLQ of rows: `p = (w - q) U`; targets have `offset` added."""
    rows, n = w.shape
    target = np.empty(n, np.float32)
    for r in range(rows):
        for j in range(n):
            target[j] = w[r, j] + offset[r, j]
        for j in range(n):
            x = target[j] / scales[r]
            best = abs(x)
            nearest = levels[0]
            for level in levels:
                if abs(best - level) < abs(best - nearest):
                    nearest = level
            value = scales[r] * nearest * (1.0 if x >= 0 else -1.0)
            q[r, j] = value
            p[r, j] = target[j] - offset[r, j] - value
            e = w[r, j] - value
            for k in range(j + 1, n):
                target[k] += e * upper[j, k]


def unit_upper(h: np.ndarray) -> tuple[np.ndarray, float]:
    """U of `H = U D U^T` (unit upper) and the mean squared feedback."""
    flipped = np.linalg.cholesky(h[::-1, ::-1].astype(np.float64))[::-1, ::-1]
    u = flipped / np.diag(flipped)[None, :]
    return u.astype(np.float32), float((np.triu(u, 1) ** 2).sum() / len(h))


def quantize(w, h, g, block, bits, rotation):
    """`block` rows share no feedback among themselves; None: none at all."""
    w = (w @ rotation.T).astype(np.float32)
    upper, inner = unit_upper(rotation @ h @ rotation.T)
    outer = 0.0
    if block:
        # G = U D U^T: row r's target has U[r', r] of the errors of the rows r' before it.
        rows_upper, outer = unit_upper(g)
    levels = np.array(LEVELS[bits], np.float32)
    fed = min(0.75, DISTORTION[bits] * ((1 + inner) * (1 + outer) - 1))
    scales = (np.sqrt((w ** 2).mean(1)) / np.sqrt(1 - fed)).astype(np.float32)
    q, p = np.zeros_like(w), np.zeros_like(w)
    step = block or len(w)
    for start in range(0, len(w), step):
        end = min(start + step, len(w))
        offset = np.zeros_like(w[start:end])
        if block and start:
            # Within a block rows are rounded as one: its own part of U is taken out.
            own = np.linalg.inv(rows_upper[start:end, start:end])
            offset = (rows_upper[:start, start:end] @ own).T @ p[:start]
        round_rows(w[start:end], upper, np.ascontiguousarray(offset), scales[start:end], levels, q[start:end], p[start:end])
    e = w - q
    objective = np.einsum("ij,ij->", g @ e, e @ (rotation @ h @ rotation.T))
    return q @ rotation, float(objective)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--bits", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=30720)
    parser.add_argument("--gradient-tokens", type=int, default=12288)
    parser.add_argument("--windows", type=int, default=16)
    options = parser.parse_args()
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(options.checkpoint, dtype=torch.float32)
    ids = AutoTokenizer.from_pretrained(options.checkpoint)(options.text.read_text(), return_tensors="pt").input_ids[0]
    windows = ids[: len(ids) // 512 * 512].view(-1, 512)
    if len(windows) < options.tokens // 512 + options.windows:
        raise SystemExit(f"{options.text}: {len(windows)} windows, calibration and evaluation need {options.tokens // 512 + options.windows}")
    held, windows = windows[-options.windows:], windows[: options.tokens // 512]
    linears = {name: m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "lm_head" not in name}
    ins, outs = {}, {}

    def hooks(name):
        def forward(module, inputs, output):
            if torch.is_grad_enabled():
                def backward(grad):
                    grad = grad.reshape(-1, grad.shape[-1])
                    outs[name] = outs.get(name, 0) + grad.T @ grad
                output.register_hook(backward)
            else:
                x = inputs[0].reshape(-1, inputs[0].shape[-1])
                ins[name] = ins.get(name, 0) + x.T @ x
        return forward

    handles = [m.register_forward_hook(hooks(name)) for name, m in linears.items()]
    began = time.time()
    with torch.no_grad():
        for window in windows:
            model(window[None])
    print(f"inputs: {time.time() - began:.0f} s", flush=True)
    model.requires_grad_(False)
    model.get_input_embeddings().weight.requires_grad_(True)
    for window in windows[:: max(1, len(windows) * 512 // options.gradient_tokens)]:
        logits = model(window[None]).logits[0]
        labels = torch.distributions.Categorical(logits=logits.detach()).sample()
        torch.nn.functional.cross_entropy(logits, labels, reduction="sum").backward()
        model.zero_grad()
    print(f"gradients: {time.time() - began:.0f} s", flush=True)
    for handle in handles:
        handle.remove()
    original = {name: m.weight.detach().numpy().copy() for name, m in linears.items()}
    with torch.no_grad():
        reference = [model(window[None]).logits[0].log_softmax(-1).half() for window in held]
    random = np.random.default_rng(1)
    rotations = {n: np.linalg.qr(random.standard_normal((n, n)))[0].astype(np.float32) for n in {w.shape[1] for w in original.values()}}

    def damped(moment, share):
        h = moment.numpy().astype(np.float64)
        h /= np.trace(h) / len(h)
        return ((1 - share) * h + share * np.diag(np.diag(h)) + 0.01 * np.eye(len(h))).astype(np.float32)

    for title, block, share in [("columns alone (LDLQ)", None, 0.5), ("and rows, one by one, half diagonal", 1, 0.5),
                                ("and rows, one by one, 0.8 diagonal", 1, 0.8), ("and rows, by 256, half diagonal", 256, 0.5),
                                ("and rows, by 64, half diagonal", 64, 0.5)]:
        began, objective = time.time(), 0.0
        for name, module in linears.items():
            w = original[name]
            q, cost = quantize(w, damped(ins[name], 0.02), damped(outs[name], share), block, options.bits, rotations[w.shape[1]])
            module.weight.data = torch.from_numpy(q.astype(np.float32))
            objective += cost * float(torch.trace(outs[name])) * float(torch.trace(ins[name]))
        seconds = time.time() - began
        with torch.no_grad():
            divergence = [torch.nn.functional.kl_div(model(window[None]).logits[0].log_softmax(-1), r.float(), log_target=True,
                                                     reduction="sum").item() / 512 for window, r in zip(held, reference)]
        print(f"{title:40} divergence {np.mean(divergence):.4f} +- {np.std(divergence) / len(divergence) ** 0.5:.4f}, "
              f"objective {objective:.4e}, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
