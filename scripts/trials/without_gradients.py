#!/usr/bin/env python3
"""The same measurements without their gradients: what allocating by layers' own output errors does.

    python3 scripts/trials/without_gradients.py CHECKPOINT MEASUREMENTS OUT
    python3 scripts/numerics.py CHECKPOINT --text TEXT --measurements OUT --out ROWS.json --rows '--bpw 3.02'

OUT is what `gq calibrate --gradient-tokens 0 --trial-tokens 0` measures on the same text, made from MEASUREMENTS in seconds: every output weighs alike, so
a tensor's sensitivity is the error of its outputs, and the rows of a strip weigh alike. Moments are hard links.
Needs numpy; a checkpoint in one or more safetensors files of bf16, f16 or f32.
"""
import json
import os
import struct
import sys
from pathlib import Path

import numpy as np

LOOKUPS = "embed_tokens"


def matrices(checkpoint: Path):
    for path in sorted(checkpoint.glob("*.safetensors")):
        with open(path, "rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            header = json.loads(file.read(length))
        data = np.memmap(path, np.uint8, "r", 8 + length)
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            raw = data[begin:end]
            match entry["dtype"]:
                case "BF16":
                    values = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
                case "F16":
                    values = raw.view(np.float16).astype(np.float32)
                case "F32":
                    values = raw.view(np.float32)
                case other:
                    raise SystemExit(f"{name} is {other}")
            yield name, values.astype(np.float64)


def main() -> None:
    checkpoint, measurements, out = (Path(argument) for argument in sys.argv[1:4])
    index = json.loads((measurements / "measurements.json").read_text())
    out.mkdir()
    energies = {name: 0.5 * float(values @ values) for name, values in matrices(checkpoint)
                if name in index["tensors"]}
    tensors = {}
    for name, measured in index["tensors"].items():
        # What is looked up has no layer whose outputs could be compared.
        if LOOKUPS in name or len(measured["inputs"]) != 1:
            continue
        # Costs in measurements.json are by column, as the relative error of a row is.
        of = index["inputs"][measured["inputs"][0]]
        tensors[name] = {"inputs": measured["inputs"], "sensitivity": energies[name] * of["cost"],
                         "nearest_sensitivity": energies[name] * of["nearest_cost"]}
    index["tensors"], index["gradient_tokens"] = tensors, 0
    del index["digests"]["gradients.safetensors"]
    for file in index["digests"]:
        os.link(measurements / file, out / file)
    (out / "measurements.json").write_text(json.dumps(index, indent=2))


if __name__ == "__main__":
    main()
