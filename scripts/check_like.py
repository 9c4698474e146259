#!/usr/bin/env python3
"""Does `gq convert --format gguf --like MIX` give every tensor the type that llama-quantize gives it?

    npm pack @node-llama-cpp/linux-x64 && tar xzf node-llama-cpp-linux-x64-*.tgz
    .venv/bin/python scripts/check_like.py package/bins/linux-x64 CHECKPOINT... --gq target/release/gq

For each checkpoint and mix: the checkpoint as an F16 GGUF, quantized by llama.cpp without an importance matrix
(`scripts/quantize_gguf.py`), against the file that `gq` makes without calibration. Exit 1 when a type or the bytes of the
tensors differ.
"""
import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from gguf import GGUFReader

from quantize_gguf import TYPES

MIXES = {**TYPES, "Q5_0": 8, "Q5_1": 9, "Q3_K_S": 11, "Q3_K_L": 13, "Q5_K_S": 16, "IQ4_NL": 25}  # Q2_K_S is refused without a matrix


def types(path: Path) -> dict[str, str]:
    return {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(path).tensors}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--gq", type=Path, default=Path("target/release/gq"))
    parser.add_argument("--mixes", default=",".join(sorted(MIXES)))
    options = parser.parse_args()
    TYPES.update(MIXES)
    failed = False
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        for checkpoint in options.checkpoints:
            whole, ours, theirs = (scratch / name for name in ("whole.gguf", "ours.gguf", "theirs.gguf"))
            accepted = ["--drop-nfc", "--quiet", "--no-check"]
            subprocess.run([options.gq, "export", checkpoint, "--gguf", "--no-measure", *accepted, "-o", whole], check=True)
            for mix in options.mixes.split(","):
                code = f"import quantize_gguf as q; q.TYPES.update({MIXES}); q.main()"
                subprocess.run([sys.executable, "-c", code, options.library, whole, theirs, mix, "2"], check=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=Path(__file__).parent)
                subprocess.run([options.gq, "convert", checkpoint, "--format", "gguf", "--like", mix, "--calibration", "none",
                                *accepted, "-o", ours], check=True, stdout=subprocess.DEVNULL)
                a, b = types(ours), types(theirs)
                wrong = sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))
                failed |= bool(wrong)
                print(f"{checkpoint.name} {mix}: {len(b)} tensors, " + (
                    f"{len(wrong)} DIFFER, such as {wrong[0]}: {a.get(wrong[0])} here, {b.get(wrong[0])} there" if wrong
                    else f"all the same; {ours.stat().st_size} bytes here, {theirs.stat().st_size} there"), flush=True)
                ours.unlink()
                theirs.unlink()
            whole.unlink()
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
