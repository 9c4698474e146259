#!/usr/bin/env python3
"""Texts for evaluation and calibration, under known names and with known hashes.

    python3 scripts/fetch_text.py novels OUT_DIR [--deb FILE]
        from a Debian package, offline-friendly and in the public domain: novels-calibration.txt (3.8 MB) and
        novels-eval.txt (one held-out chapter beginning of each of six novels)
    python3 scripts/fetch_text.py wikitext2 OUT_DIR --test FILE --valid FILE
        WikiText-2 (CC BY-SA 3.0). No package registry carries it, so the files are given; their sha256 says whether
        they are the very text that the figures in docs/ were measured on. Writes wikitext2-test.raw.txt (perplexity
        and divergence are scored on it) and wikitext2-valid.tokens.txt (word-level, <unk>: calibration only).

    python3 scripts/fetch_text.py code OUT_DIR [--wheel FILE]
        a second domain to measure on: sympy-code.txt, the beginnings of four modules of SymPy 1.14.0 (BSD), Python
        source and mathematics; calibrate on none of it

Standard library only, and pip for the package. Nothing fetched is ever committed.
"""
import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
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
CODE_PACKAGE = "sympy==1.14.0"
CODE_BYTES = 40_000  # of each module
CODE = ("sympy/ntheory/factor_.py", "sympy/solvers/ode/ode.py", "sympy/integrals/manualintegrate.py",
        "sympy/combinatorics/perm_groups.py")
CODE_SHA256 = "8c0e1344885ee14ff3543663725cc94263fe0c4dd66286ea0c1ef0e4c1843319"


def code(wheel: Path | None) -> bytes:
    """The modules' beginnings, cut after a line."""
    with tempfile.TemporaryDirectory() as folder:
        if wheel is None:
            subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, CODE_PACKAGE],
                           check=True)
            wheel = next(Path(folder).glob("sympy-*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            parts = [archive.read(name)[:CODE_BYTES].rsplit(b"\n", 1)[0] for name in CODE]
    return b"\n\n".join(parts) + b"\n"


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
    of_code = kinds.add_parser("code")
    of_code.add_argument("out", type=Path)
    of_code.add_argument("--wheel", type=Path, help="the package file, when it is already there")
    options = parser.parse_args()
    if options.kind == "code":
        return write(options.out / "sympy-code.txt", code(options.wheel), CODE_SHA256)
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
