#!/usr/bin/env python3
"""Weights beyond half precision in a GGUF, judged by gguf-py: `python scripts/check_f16_range.py [GQ]`.

Makes two checkpoints from testdata/tiny/llama, one with a weight of 1e5, one with a projection of weights around 1e-9,
exports both without options, and compares every value that gguf-py reads with the checkpoint's own. Needs numpy,
ml_dtypes and gguf.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import gguf
import ml_dtypes
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCE = ROOT / "testdata/tiny/llama"
NAMES = {"blk.{}.ffn_down.weight": "model.layers.{}.mlp.down_proj.weight", "blk.{}.ffn_gate.weight": "model.layers.{}.mlp.gate_proj.weight"}


def load(path):
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    views = {}
    for name, entry in header.items():
        begin, end = (8 + size + at for at in entry["data_offsets"])
        assert entry["dtype"] == "BF16", name
        views[name] = np.frombuffer(data[begin:end], ml_dtypes.bfloat16).reshape(entry["shape"]).copy()
    return data[: 8 + size], header, views


def check(gq, name, tensor, change, folder):
    head, header, views = load(SOURCE / "model.safetensors")
    views[tensor] = change(views[tensor].astype(np.float32)).astype(ml_dtypes.bfloat16)
    model = folder / name
    model.mkdir()
    shutil.copy(SOURCE / "config.json", model)
    ordered = sorted(header, key=lambda n: header[n]["data_offsets"][0])
    (model / "model.safetensors").write_bytes(head + b"".join(views[n].tobytes() for n in ordered))
    out = folder / f"{name}.gguf"
    report = json.loads(subprocess.run([gq, "export", model, "--gguf", "-o", out, "--no-measure", "--json"], check=True, capture_output=True).stdout)
    worst = 0.0
    for found in gguf.GGUFReader(out).tensors:
        values = gguf.quants.dequantize(found.data, found.tensor_type).astype(np.float64)
        assert np.isfinite(values).all(), (name, found.name)
        parts = found.name.split(".")
        form = NAMES.get(".".join(["blk", "{}", *parts[2:]])) if parts[0] == "blk" else None
        if form:
            source = views[form.format(parts[1])].astype(np.float64)
            worst = max(worst, float(np.linalg.norm(values - source) / np.linalg.norm(source)))
            if form.format(parts[1]) == tensor:
                print(f"{name}: {found.name} is {found.tensor_type.name}, largest {np.abs(values).max():g}")
                assert (values == source).all()
    assert [entry["tensor"] for entry in report["widened"]] == [tensor], report["widened"]
    assert worst < 1e-3, worst
    print(f"{name}: largest relative error of a projection {worst:.1e}")


def main():
    gq = sys.argv[1] if len(sys.argv) > 1 else str(ROOT / "target/release/gq")

    def big(w):
        w[3, 5] = 1e5
        return w

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        check(gq, "big", "model.layers.0.mlp.down_proj.weight", big, folder)
        check(gq, "small", "model.layers.1.mlp.gate_proj.weight", lambda w: w * 1e-8, folder)


if __name__ == "__main__":
    main()
