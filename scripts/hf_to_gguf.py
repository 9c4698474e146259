#!/usr/bin/env python3
"""Write a GGUF file from a Hugging Face checkpoint (Llama or Gemma 3), with the metadata of an existing GGUF.

    .venv/bin/python scripts/hf_to_gguf.py CHECKPOINT LIKE.gguf OUT.gguf --type f32|bf16

llama.cpp's own converter knows a tokenizer by a hash of what it does, and refuses those that were rebuilt from a
GGUF file. The checkpoints of real_models.py come from GGUF files, so their metadata (tokenizer, hyperparameters) is
right as it stands there: this copies it and writes the checkpoint's weights under GGUF's names and row order.
Matrices are written as `--type` (bf16 weights are exact in both), vectors as f32.
"""
import argparse
from pathlib import Path

import gguf
import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from ml_dtypes import bfloat16
from safetensors import safe_open

from real_models import GEMMA3_NAMES, LLAMA_NAMES, scalar

SKIPPED = ("GGUF.", "general.file_type", "general.quantization_version", "general.architecture")


def load_weights(checkpoint: Path) -> dict[str, np.ndarray]:
    """All tensors of the checkpoint in f32."""
    tensors = {}
    for file in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(file, framework="np") as reader:
            tensors.update({name: reader.get_tensor(name).astype(np.float32) for name in reader.keys()})
    return tensors


def permute(w: np.ndarray, n_head: int) -> np.ndarray:
    """The row order that GGUF uses for Llama's rotary q and k (the inverse of real_models.unpermute)."""
    rows, cols = w.shape
    return w.reshape(n_head, 2, rows // n_head // 2, cols).swapaxes(1, 2).reshape(rows, cols)


def hugging_face_name(name: str, arch: str) -> str:
    base = name.removesuffix(".weight")
    if base in ("token_embd", "output_norm"):
        return {"token_embd": "model.embed_tokens.weight", "output_norm": "model.norm.weight"}[base]
    _, layer, part = base.split(".", 2)
    names = GEMMA3_NAMES if arch == "gemma3" else LLAMA_NAMES
    return f"model.layers.{layer}.{names[part]}.weight"


def copy_metadata(reader: GGUFReader, writer: GGUFWriter) -> None:
    for field in reader.fields.values():
        if field.name.startswith(SKIPPED):
            continue
        kind = field.types[0]
        element = field.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=element)


def write(checkpoint: Path, like: Path, out: Path, kind: str) -> None:
    reader = GGUFReader(like)
    arch = reader.fields["general.architecture"].contents()
    heads = {"attn_q": scalar(reader, f"{arch}.attention.head_count"),
             "attn_k": scalar(reader, f"{arch}.attention.head_count_kv")}
    weights = load_weights(checkpoint)
    writer = GGUFWriter(out, arch)
    copy_metadata(reader, writer)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32 if kind == "f32" else gguf.LlamaFileType.MOSTLY_BF16)
    for tensor in reader.tensors:
        w = weights.pop(hugging_face_name(tensor.name, arch))
        part = tensor.name.removesuffix(".weight").rsplit(".", 1)[-1]
        if arch == "llama" and part in heads:
            w = permute(w, heads[part])
        if arch == "gemma3" and part.endswith("norm"):
            w = w + np.float32(1.0)
        if w.ndim == 2 and kind == "bf16":
            writer.add_tensor(tensor.name, w.astype(bfloat16).view(np.uint8),
                              raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            writer.add_tensor(tensor.name, np.ascontiguousarray(w))
    if weights:
        raise SystemExit("tensors without a place in GGUF: " + ", ".join(weights))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("like", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--type", choices=("f32", "bf16"), default="bf16")
    options = parser.parse_args()
    write(options.checkpoint, options.like, options.out, options.type)


if __name__ == "__main__":
    main()
