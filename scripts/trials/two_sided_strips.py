#!/usr/bin/env python3
"""Two-sided rounding (YAQA, arXiv 2505.22988) on top of what gq does: does feedback from strip to strip of rows pay?

    python3 scripts/trials/two_sided_strips.py CHECKPOINT --measurements MEASUREMENTS --text TEST_TEXT --calibration CALIBRATION_TEXT \\
        [--encoding tt3] [--gq target/release/gq] [--cache DIR]

gq rounds columns in order with feedback by the inputs' moments, in strips of 256 rows whose rows are weighed by their
gradients. With G = U D U^T the moments of the gradients at the outputs, and E the errors of the strips before, the best target
of a strip is not its rows W but W + (U[before, strip] U[strip, strip]^-1)^T E, whatever the moments of the inputs
are. So gq itself can round two-sidedly, a conversion for each strip: what the first conversion made of the first strips
gives the second strips of the checkpoint that is converted next, and so on; codes, scales and row weights are gq's own in
every row of the table. Of G a share is taken from its diagonal alone (gradients are few and noisy).
Measured by `gq eval` with f32 activations. Not a part of gq: the record of a choice.
Needs numpy, torch, transformers and safetensors. MEASUREMENTS must have been measured on CHECKPOINT, with gradients.
"""
import argparse
import json
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

STRIP = 256


def gradients(checkpoint: Path, text: Path, tokens: int) -> dict[str, np.ndarray]:
    """Second moments of the gradients of -log p at the outputs of every product, labels drawn from the model."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    ids = AutoTokenizer.from_pretrained(checkpoint)(text.read_text(), return_tensors="pt").input_ids[0]
    windows = ids[: len(ids) // 512 * 512].view(-1, 512)
    windows = windows[:: max(1, len(windows) * 512 // tokens)][: tokens // 512]
    sums: dict[str, torch.Tensor] = {}

    def watch(name):
        def forward(_module, _inputs, output):
            def backward(grad):
                grad = grad.reshape(-1, grad.shape[-1])
                sums[name] = sums.get(name, 0) + grad.T @ grad
            output.register_hook(backward)
        return forward

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and "lm_head" not in name:
            module.register_forward_hook(watch(f"{name}.weight"))
    model.requires_grad_(False)
    model.get_input_embeddings().weight.requires_grad_(True)
    for window in windows:
        logits = model(window[None]).logits[0]
        labels = torch.distributions.Categorical(logits=logits.detach()).sample()
        torch.nn.functional.cross_entropy(logits, labels, reduction="sum").backward()
        model.zero_grad()
    return {name: total.double().numpy() for name, total in sums.items()}


def unit_upper(g: np.ndarray, share: float) -> np.ndarray:
    """U of G = U D U^T, `share` of G from its diagonal alone."""
    g = g / (np.trace(g) / len(g))
    g = (1 - share) * g + share * np.diag(np.diag(g)) + 0.01 * np.eye(len(g))
    lower = np.linalg.cholesky(g[::-1, ::-1])[::-1, ::-1]
    return lower / np.diag(lower)[None, :]


class Gq:
    def __init__(self, options, work: Path):
        self.options, self.work = options, work
        self.measurements = work / "measurements"
        self.measurements.mkdir()
        for file in options.measurements.iterdir():
            (self.measurements / file.name).symlink_to(file.resolve())
        self.measured = (self.measurements / "measurements.json").read_text()
        (self.measurements / "measurements.json").unlink()

    def run(self, *arguments) -> subprocess.CompletedProcess:
        return subprocess.run([self.options.gq, *map(str, arguments), "--quiet"], capture_output=True, text=True)

    def checkpoint(self, weights: dict[str, torch.Tensor]) -> Path:
        """The checkpoint with these weights, and the measurements made to pass for its own."""
        changed = self.work / "checkpoint"
        shutil.rmtree(changed, ignore_errors=True)
        changed.mkdir()
        for file in self.options.checkpoint.iterdir():
            if "safetensors" not in file.name:
                shutil.copy(file, changed)
        save_file(weights, changed / "model.safetensors")
        (self.measurements / "measurements.json").write_text(self.measured)
        refused = self.convert(changed)
        found = re.findall(r"([^,()]+) \((\d+) bytes\)", refused.stderr.split(", this is ")[1])
        measurements = json.loads(self.measured)
        measurements["files"] = [[name.strip(), int(size)] for name, size in found]
        (self.measurements / "measurements.json").write_text(json.dumps(measurements))
        return changed

    def convert(self, source: Path) -> subprocess.CompletedProcess:
        (self.work / "out.gq").unlink(missing_ok=True)
        return self.run("convert", source, "--measurements", self.measurements, "--encoding", self.options.encoding, "-o", self.work / "out.gq")

    def rounded(self, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        done = self.convert(self.checkpoint(weights))
        if done.returncode:
            raise SystemExit(done.stderr)
        shutil.rmtree(self.work / "decoded", ignore_errors=True)
        done = self.run("export", self.work / "out.gq", "--safetensors", "--no-measure", "-o", self.work / "decoded")
        if done.returncode:
            raise SystemExit(done.stderr)
        found = {}
        for file in (self.work / "decoded").glob("*.safetensors"):
            found |= load_file(file)
        return found

    def divergence(self) -> dict:
        cache = ["--cache", self.options.cache] if self.options.cache else []
        done = self.run("eval", self.work / "out.gq", "--reference", self.options.checkpoint, "--text", self.options.text,
                        "--windows", self.options.windows, "--activations", "f32", "--json", *cache)
        return json.loads(done.stdout)["kld"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--measurements", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--encoding", default="tt3")
    parser.add_argument("--gradient-tokens", type=int, default=12288)
    parser.add_argument("--diagonal", type=float, nargs="+", default=[0.8, 0.5])
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--gq", type=Path, default=Path("target/release/gq"))
    options = parser.parse_args()
    original = {}
    for file in sorted(options.checkpoint.glob("*.safetensors")):
        original |= {name: tensor.float() for name, tensor in load_file(file).items()}
    began = time.time()
    moments = gradients(options.checkpoint, options.calibration, options.gradient_tokens)
    print(f"{options.checkpoint.name}, {options.encoding}, {options.windows} windows; "
          f"gradients of {options.gradient_tokens} tokens: {time.time() - began:.0f} s", flush=True)
    with tempfile.TemporaryDirectory() as work:
        gq = Gq(options, Path(work))
        plain = gq.rounded(original)
        kld = gq.divergence()
        print(f"rows weighed in strips, feedback along columns     divergence {kld['mean']:.4f} +- {kld['stderr']:.4f}", flush=True)
        for share in options.diagonal:
            began = time.time()
            uppers = {name: unit_upper(g, share) for name, g in moments.items()}
            targets, decoded = dict(original), plain
            for start in range(STRIP, max(len(g) for g in moments.values()), STRIP):
                for name, upper in uppers.items():
                    if start >= len(upper):
                        continue
                    end = min(start + STRIP, len(upper))
                    errors = (original[name][:start] - decoded[name][:start].float()).double().numpy()
                    back = np.linalg.solve(upper[start:end, start:end].T, upper[:start, start:end].T @ errors)
                    rows = targets[name].clone()
                    rows[start:end] += torch.from_numpy(back.astype(np.float32))
                    targets[name] = rows
                decoded = gq.rounded(targets)
            kld = gq.divergence()
            print(f"and from strip to strip, {share} of G diagonal          divergence {kld['mean']:.4f} +- {kld['stderr']:.4f}, "
                  f"{time.time() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
