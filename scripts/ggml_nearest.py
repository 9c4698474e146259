#!/usr/bin/env python3
"""What ggml's own rounding with importance weights loses, for the test of `gq-codec/tests/it/blocks.rs`.

    .venv/bin/python scripts/ggml_nearest.py        # xllamacpp==2026.10.11549, gguf, numpy

Prints a line of Rust for each type: weighted squared error by weighted squared norm. Rows and weights are the test's.
"""
import ctypes
import importlib.util
from pathlib import Path

import gguf
import numpy as np

ROWS, COLS = 16, 512


def numbers(seed: int):
    state = seed
    while True:
        state = (state * 1664525 + 1013904223) % 2**32
        yield state >> 16


def main() -> None:
    package = Path(importlib.util.find_spec("xllamacpp").origin).parent
    library = ctypes.CDLL(str(next(package.glob("xllamacpp*.so"))))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64,
                                            ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
    source = numbers(1)
    rows = np.array([sum(next(source) for _ in range(4)) - 131070 for _ in range(ROWS * COLS)], np.float32) / 65536
    importance = np.array([next(source) >> 4 for _ in range(COLS)], np.float32) / 4096 + np.float32(0.0625)
    for name in ["Q2_K", "Q3_K", "IQ4_XS", "IQ4_NL", "Q4_0", "Q4_K", "Q4_1", "Q5_0", "Q5_K", "Q5_1", "Q6_K", "Q8_0"]:
        kind = gguf.GGMLQuantizationType[name]
        block, size = gguf.GGML_QUANT_SIZES[kind]
        out = np.zeros((ROWS, COLS // block * size), np.uint8)
        library.ggml_quantize_chunk(int(kind), rows.ctypes.data, out.ctypes.data, 0, ROWS, COLS, importance.ctypes.data)
        error = gguf.quants.dequantize(out, kind).astype(np.float64) - rows.reshape(ROWS, COLS)
        energy = (importance * rows.reshape(ROWS, COLS).astype(np.float64) ** 2).sum()
        print(f"    (GgmlType::{name}, {(importance * error**2).sum() / energy:.4e}),")


if __name__ == "__main__":
    main()
