#!/usr/bin/env python3
"""Texts for evaluation and calibration, under known names and with known hashes.

    python3 scripts/fetch_text.py novels OUT_DIR [--deb FILE]
        from a Debian package, offline-friendly and in the public domain: novels-calibration.txt (3.8 MB) and
        novels-eval.txt (one held-out chapter beginning of each of six novels)
    python3 scripts/fetch_text.py wikitext2 OUT_DIR --test FILE --valid FILE
        WikiText-2 (CC BY-SA 3.0). No package registry carries it, so the files are given; their sha256 says whether
        they are the very text that the figures in docs/ were measured on. Writes wikitext2-test.raw.txt (perplexity
        and divergence are scored on it) and wikitext2-valid.tokens.txt (word-level, <unk>: calibration only).

Standard library only. Nothing fetched is ever committed.
"""
import argparse
import hashlib
from pathlib import Path

import demo_text

WIKITEXT2 = {
    "test": ("wikitext2-test.raw.txt", "71fa921e51ba607b4364d8787d05f4513b41b33732dd3504ff1af8952c6e7e77"),
    "valid": ("wikitext2-valid.tokens.txt", "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8"),
}
NOVELS = {
    "novels-calibration.txt": "da01795c2844dfe0eb0e18016d6fa893080887954123071c395111d3680e8e31",
    "novels-eval.txt": "f4fd7366f4c733690b9a8709663ecb26647d40a43ebea37f88d8f0380260f08e",
}


def write(path: Path, data: bytes, sha256: str) -> None:
    actual = hashlib.sha256(data).hexdigest()
    if actual != sha256:
        raise SystemExit(f"{path.name}: sha256 is {actual}, expected {sha256}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    print(f"{path}  {len(data)} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    novels = kinds.add_parser("novels")
    novels.add_argument("out", type=Path)
    novels.add_argument("--deb", type=Path, help="the package file, when it is already there")
    wikitext2 = kinds.add_parser("wikitext2")
    wikitext2.add_argument("out", type=Path)
    wikitext2.add_argument("--test", type=Path)
    wikitext2.add_argument("--valid", type=Path)
    options = parser.parse_args()
    if options.kind == "novels":
        text = demo_text.load(options.deb)
        for (name, sha256), parts in zip(NOVELS.items(), (text.train, text.held_out)):
            write(options.out / name, "\n".join(parts).encode(), sha256)
        return
    for split, (name, sha256) in WIKITEXT2.items():
        if given := getattr(options, split):
            write(options.out / name, given.read_bytes(), sha256)


if __name__ == "__main__":
    main()
