#!/usr/bin/env python3
"""Does transformers read of a compressed-tensors checkpoint what `gq` does? Weights and logits.

    .venv/bin/pip install transformers==5.23.0 compressed-tensors==0.20.1
    gq convert CHECKPOINT --format compressed-tensors -o FOLDER
    nice .venv/bin/python scripts/check_compressed_tensors.py FOLDER... --text wikitext2-test.raw.txt \\
        --gq target/release/gq [--windows 4] [--out FILE.json]

For each folder:

- every matrix of codes as compressed-tensors decompresses it, against this script's own reading of the words: equal, bit
  for bit, in f32;
- that every matrix of a layer is one of codes or in `ignore`, and `config_groups` give each the bits, group and symmetry
  that its tensors have;
- the logits of transformers on windows of 512 tokens of the text, in f32, against `gq eval`'s on the same folder: KL
  divergence of every position, from transformers to gq;
- 16 tokens that transformers generates after the first line of the text.

Exit 1 when a matrix differs or the mean divergence is above 1e-5.
"""
import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

from reference_logits import windows

CTX = 512


def tensors(folder: Path) -> dict[str, np.ndarray]:
    """Everything but BF16, which numpy does not know, in its own type; BF16 as f32."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        raw = path.read_bytes()
        header = json.loads(raw[8:8 + int.from_bytes(raw[:8], "little")])
        begin = 8 + int.from_bytes(raw[:8], "little")
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            first, last = (begin + at for at in entry["data_offsets"])
            size = {"I64": 8, "I32": 4, "BF16": 2}[entry["dtype"]]
            assert (first - begin) % size == 0, f"{name} begins at no multiple of its size"
            data = raw[first:last]
            match entry["dtype"]:
                case "BF16":
                    values = (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
                case kind:
                    values = np.frombuffer(data, {"I64": "<i8", "I32": "<i4"}[kind])
            found[name] = values.reshape(entry["shape"])
    return found


def unpacked(words: np.ndarray, bits: int) -> np.ndarray:
    """Codes of words along the last axis, the lowest bits first."""
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    codes = (words.view(np.uint32)[..., None] >> shifts) & ((1 << bits) - 1)
    return codes.reshape(*words.shape[:-1], -1).astype(np.int32)


def decoded(found: dict[str, np.ndarray], name: str) -> tuple[np.ndarray, dict]:
    rows, cols = found[f"{name}.weight_shape"]
    packed, scale = found[f"{name}.weight_packed"], found[f"{name}.weight_scale"]
    bits = 32 * packed.shape[1] // int(cols)
    group = int(cols) // scale.shape[1]
    zero = np.full(scale.shape, 1 << (bits - 1), np.int32)
    points = found.get(f"{name}.weight_zero_point")
    if points is not None:
        zero = unpacked(np.ascontiguousarray(points.T), bits).T[:rows]
    codes = unpacked(packed, bits)[:, :cols]
    values = (codes - zero.repeat(group, 1)).astype(np.float32) * scale.repeat(group, 1)
    return values, {"num_bits": bits, "group_size": group, "symmetric": points is None}


def check_weights(folder: Path, model) -> dict[str, int]:
    """Every matrix of codes against the module's weight, and the scheme that the library found for it."""
    found, counts = tensors(folder), {}
    modules = dict(model.named_modules())
    for name in sorted(name.removesuffix(".weight_packed") for name in found if name.endswith(".weight_packed")):
        values, form = decoded(found, name)
        scheme = modules[name].quantization_scheme.weights
        said = {key: getattr(scheme, key) for key in form}
        if said != form:
            raise SystemExit(f"{name}: the configuration says {said}, the tensors {form}")
        weight = modules[name].weight.detach().float().numpy()
        if not np.array_equal(weight, values):
            raise SystemExit(f"{name}: decompressed weights differ by up to {np.abs(weight - values).max()}")
        key = "int{num_bits} g{group_size}".format(**form) + ("" if form["symmetric"] else " with zero points")
        counts[key] = counts.get(key, 0) + 1
    return counts


def check_covered(folder: Path, found: set[str]) -> None:
    """Modules that vLLM would look for a form of and find none, or two."""
    import re

    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    matches = lambda name, target: re.match(target[3:], name) if target.startswith("re:") else target == name
    for name in found:
        stem, kind = name.rsplit(".", 1)
        if ".layers." not in name or kind not in ("weight", "weight_packed") or "norm" in stem:
            continue
        groups = [group for group in config["config_groups"].values()
                  if any(target == "Linear" or matches(stem, target) for target in group["targets"])]
        ignored = any(matches(stem, target) for target in config["ignore"])
        if (kind == "weight") != ignored or (not ignored and len(groups) != 1):
            raise SystemExit(f"{stem}: {len(groups)} groups, {'' if ignored else 'not '}ignored, stored as {kind}")


@torch.no_grad()
def check(folder: Path, options, scratch: Path) -> dict:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    text = options.text.read_bytes().decode()
    ids = windows(folder, text, options.windows, CTX)
    logits = torch.stack([model(input_ids=row[None], use_cache=False).logits[0] for row in ids])
    counts = check_weights(folder, model)  # decompressed by the first forward
    check_covered(folder, set(tensors(folder)))
    outputs = scratch / "outputs.safetensors"
    save_file({"input_ids": ids, "logits": logits}, outputs)
    command = [options.gq, "eval", folder, "--reference", outputs, "--activations", "f32", "--json", "--quiet",
               "--threads", str(options.threads)]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    outputs.unlink()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    prompt = next(line.strip() for line in text.splitlines() if len(line.strip()) > 40)[:80]
    given = tokenizer(prompt, return_tensors="pt")
    made = model.generate(**given, max_new_tokens=16, do_sample=False)[0, given["input_ids"].shape[1]:]
    return {"model": folder.name, "matrices": counts, "tokens": report["tokens"],
            "kld": {key: report["kld"][key] for key in ("mean", "stderr", "p99", "max")}, "top1": report["top1"],
            "generated": tokenizer.decode(made), "template": tokenizer.chat_template is not None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--gq", type=Path, default=Path("target/release/gq"))
    parser.add_argument("--windows", type=int, default=4, help="of 512 tokens")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers.utils.logging.disable_progress_bar()
    results, failed = [], False
    with tempfile.TemporaryDirectory() as scratch:
        for folder in options.folders:
            result = check(folder, options, Path(scratch))
            results.append(result)
            kld = result["kld"]
            bad = not kld["mean"] <= 1e-5
            failed |= bad
            print(f"{folder.name}: {result['matrices']}, {result['tokens']} tokens, KLD {kld['mean']:.2e} (p99 "
                  f"{kld['p99']:.2e}, max {kld['max']:.2e}), top-1 {result['top1']:.4f}, {result['generated']!r}"
                  + (": ABOVE THE LIMIT" if bad else ""), flush=True)
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n")
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
