#!/usr/bin/env python3
"""Decode every golden file of testdata/golden/codec with the second reader; exit 1 on any different bit.

    python3 scripts/check_codec_golden.py

Needs numpy. The reader, scripts/gq_reader/codec.py, is written from formats/encodings.md alone.
"""
import json
import re
import sys
from pathlib import Path

import numpy as np

from gq_reader import codec

ROOT = Path(__file__).resolve().parents[1]


def floats(text: str) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(text), "<f4")


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal bits, with every NaN alike."""
    a, b = a.astype("<f4").reshape(-1), b.reshape(-1)
    both_nan = np.isnan(a) & np.isnan(b)
    return a.shape == b.shape and bool(np.all(both_nan | (a.view("<u4") == b.view("<u4"))))


def check(case: dict) -> bool:
    if "encoding" in case:
        payload = bytes.fromhex(case["payload"])
        got = codec.decode(case["encoding"], case["rows"], case["cols"], payload, case["seed"])
        return same(got, floats(case["decoded"]))
    x = floats(case["input"])
    forward = codec.rotate(case["rotation"], case["seed"], x)
    inverse = codec.unrotate(case["rotation"], case["seed"], x)
    return same(forward, floats(case["forward"])) and same(inverse, floats(case["inverse"]))


def main() -> None:
    folder = ROOT / "testdata" / "golden" / "codec"
    registry = (ROOT / "formats" / "registry.md").read_text()
    missing = set(re.findall(r"^\| `0x[0-9A-F]{4}` \| `(\S+)` \|", registry, re.M))
    failures, files = [], sorted(folder.glob("*.json"))
    for file in files:
        case = json.loads(file.read_text())
        missing.discard(case.get("encoding"))
        if not check(case):
            failures.append(f"{file.relative_to(ROOT)}: decoded values differ")
    failures += [f"{name}: in the registry, without a golden file" for name in sorted(missing)]
    for failure in failures:
        print(failure, file=sys.stderr)
    print(f"{len(files)} golden files, {len(failures)} failures")
    sys.exit(1 if failures or not files else 0)


if __name__ == "__main__":
    main()
