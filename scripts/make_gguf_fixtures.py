#!/usr/bin/env python3
"""Make testdata/gguf: GGUF files and what the reference implementations make of them.

    python scripts/make_gguf_fixtures.py --llama-cpp LLAMA_CPP_SOURCES [--only types|tokenizers|models]

types       types.gguf: every kind of metadata value; random blocks of every tensor type that gq decodes.
            types.safetensors: the same tensors dequantized by gguf-py, and rows with gguf-py's encoding of them.
            split-0000N-of-00003.gguf: a model in three files.
tokenizers  tokenizers/*: small tokenizers, with the ids that a text has.
models      models/*.json: metadata and tensors (name, type, shape, sha256) that convert_hf_to_gguf.py writes for the
            tiny checkpoints with those tokenizers.

Needs gguf, numpy, safetensors, tokenizers, torch, transformers, sentencepiece, and llama.cpp's source tree.
"""
import argparse
import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "testdata/gguf"
COLS, ROWS = 512, 2
# Type, and where its blocks have f16 numbers, which random bytes must not make infinite.
TYPES = {
    "F32": None, "F16": None, "BF16": None,
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
    "IQ4_NL": [0], "IQ4_XS": [0], "MXFP4": [],
}
ENCODED = ["BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]


def random_blocks(rng, kind: str) -> np.ndarray:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    data = rng.integers(0, 256, (ROWS, COLS // block, size), dtype=np.uint8)
    for at in TYPES[kind]:
        scales = rng.normal(size=data.shape[:2]).astype(np.float16)
        data[:, :, at:at + 2] = scales.view(np.uint8).reshape(*data.shape[:2], 2)
    if kind == "MXFP4":
        data[:, 0, 0], data[:, 1, 0] = 0, 1  # the two subnormal scales
        data[:, 2:, 0] = rng.integers(100, 150, data[:, 2:, 0].shape)
    return data.reshape(ROWS, -1)


def make_types() -> None:
    import gguf
    from safetensors.numpy import save_file
    rng = np.random.default_rng(1)
    writer = gguf.GGUFWriter(OUT / "types.gguf", "test")
    writer.add_uint8("value.u8", 200)
    writer.add_int8("value.i8", -100)
    writer.add_uint16("value.u16", 60000)
    writer.add_int16("value.i16", -30000)
    writer.add_uint32("value.u32", 4_000_000_000)
    writer.add_int32("value.i32", -2_000_000_000)
    writer.add_float32("value.f32", 1e-6)
    writer.add_bool("value.bool", True)
    writer.add_string("value.string", "Grüße ▁")
    writer.add_uint64("value.u64", 2**63 + 1)
    writer.add_int64("value.i64", -2**62)
    writer.add_float64("value.f64", 0.1)
    kinds = gguf.GGUFValueType
    for name, values, kind in [
        ("u8", [1, 2, 3, 4, 5], kinds.UINT8), ("i16", [-1, 2], kinds.INT16), ("u32", list(range(7)), kinds.UINT32),
        ("i32", [-5, 5], kinds.INT32), ("f32", [0.5, -0.25], kinds.FLOAT32), ("bool", [True, False], kinds.BOOL),
        ("string", ["a", "", "bc", "d", "e"], kinds.STRING), ("u64", [2**40], kinds.UINT64), ("f64", [0.1], kinds.FLOAT64),
    ]:
        writer.add_key_value(f"array.{name}", values, kinds.ARRAY, kind)
    expected = {}
    for kind in TYPES:
        q = gguf.GGMLQuantizationType[kind]
        if TYPES[kind] is None:
            values = rng.normal(size=(ROWS, COLS)).astype(np.float32)
            data = gguf.quants.quantize(values, q)
        else:
            data = random_blocks(rng, kind)
        raw = data.view(np.uint8) if kind in ("F32", "F16") else data
        writer.add_tensor(f"t.{kind}", raw, raw_dtype=q)
        expected[f"decoded.{kind}"] = gguf.quants.dequantize(data, q).astype(np.float32).reshape(ROWS, COLS)
    rows = rng.normal(size=(8, 96)).astype(np.float32)
    rows[1] = 0
    rows[2, 5] = 1000
    rows[3] = np.abs(rows[3])
    rows[4] *= 1e-7
    rows[5] = 0.25
    expected["rows"] = rows
    for kind in ENCODED:
        expected[f"encoded.{kind}"] = gguf.quants.quantize(rows, gguf.GGMLQuantizationType[kind]).view(np.uint8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(expected, OUT / "types.safetensors")

    writer = gguf.GGUFWriter(OUT / "split.gguf", "test", split_max_tensors=2)
    for i in range(5):
        writer.add_tensor(f"t.{i}", np.full((2, 32), i, np.float32))
    writer.write_header_to_file(OUT / "split.gguf")
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-cpp", type=Path, help="source tree with convert_hf_to_gguf.py")
    parser.add_argument("--only", choices=["types", "tokenizers", "models"])
    args = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    if args.llama_cpp:
        sys.path[:0] = [str(args.llama_cpp), str(args.llama_cpp / "gguf-py")]
    if args.only in (None, "types"):
        make_types()


if __name__ == "__main__":
    main()
