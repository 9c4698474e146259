#!/usr/bin/env python3
"""Compare what `gq` reads from GGUF files with gguf-py, bit for bit, and the rebuilt tokenizer with llama.cpp's ids.

    .venv/bin/python scripts/check_gguf.py FILE.gguf... [--example target/debug/examples/gguf_model]

Every tensor is dequantized by gguf-py, put in a checkpoint's row order (Llama's q and k) and freed of the 1 that
Gemma 3's norms have added, all in f32; the digests must be those of `cargo run -p gq-checkpoint --example gguf_model`.
"""
import argparse
import hashlib
import subprocess
import tempfile

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize


def unpermute(w: np.ndarray, heads: int) -> np.ndarray:
    rows = w.shape[0]
    return w.reshape(heads, rows // heads // 2, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def expected(path: str) -> list[str]:
    """Digests of f32 values, in file order."""
    reader = GGUFReader(path)
    value = lambda key: reader.fields[key].contents()
    arch = value("general.architecture")
    digests = []
    for tensor in reader.tensors:
        if tensor.name == "rope_freqs.weight":
            continue
        w = dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(tensor.shape[::-1].tolist())
        if arch == "llama" and tensor.name.endswith("attn_q.weight"):
            w = unpermute(w, value("llama.attention.head_count"))
        if arch == "llama" and tensor.name.endswith("attn_k.weight"):
            w = unpermute(w, value("llama.attention.head_count_kv"))
        if arch == "gemma3" and tensor.name.endswith("norm.weight"):
            w = w - np.float32(1)
        digests.append((tensor.data_offset, tensor.name, hashlib.sha256(np.ascontiguousarray(w).tobytes()).hexdigest()))
    return [(name, digest) for _, name, digest in sorted(digests)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--example", default="target/debug/examples/gguf_model")
    args = parser.parse_args()
    for path in args.files:
        with tempfile.TemporaryDirectory() as out:
            run = subprocess.run([args.example, path, out], check=True, capture_output=True, text=True)
        ours = [line.rsplit(" ", 1) for line in run.stdout.splitlines()]
        theirs = expected(path)
        assert len(ours) == len(theirs), (len(ours), len(theirs))
        different = [(a[0], b[0]) for a, b in zip(ours, theirs) if a[1] != b[1]]
        assert not different, different[:5]
        print(f"{path}: {len(ours)} tensors, bit for bit")


if __name__ == "__main__":
    main()
