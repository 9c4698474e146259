#!/usr/bin/env python3
"""Make testdata/sources/integers.safetensors: matrices of integer codes as quantizers store them, and what they decode to.

    .venv/bin/pip install --no-deps compressed-tensors==0.20.1 loguru==0.7.3
    .venv/bin/python scripts/make_quantized.py

ct-*    packed and decompressed by compressed-tensors itself, scales and values in f32; `ct-order` has the g_idx of older
        versions (0.20.1 has none any more), which this script applies
gptq-*  packed and decoded here, independently, by the formulas of auto_gptq 0.7.1 (`qlinear_cuda_old.py`: zero + 1, then
        the lowest bits of it)
awq     packed and decoded here by the formulas of autoawq 0.2.9 (`packing_utils.py`)

Scales of gptq and awq are f16, their values f32: those libraries round the same products to f16. Their own code judges the
values in `scripts/check_integers.py`.
"""
from pathlib import Path

import numpy as np
import torch
from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from safetensors.torch import save_file

OUT = Path(__file__).parent.parent / "testdata" / "sources" / "integers.safetensors"
ROWS, COLS, GROUP = 48, 64, 16
random = np.random.default_rng(18)


def compressed(name: str, bits: int, symmetric: bool, group: int | None, rows: int, cols: int) -> dict:
    strategy = {"strategy": "group", "group_size": group} if group else {"strategy": "channel"}
    args = QuantizationArgs(num_bits=bits, type="int", symmetric=symmetric, **strategy)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    groups, half = cols // (group or cols), 1 << (bits - 1)
    scale = torch.from_numpy(random.uniform(0.01, 0.1, (rows, groups)).astype("f4"))
    weight = torch.from_numpy(random.normal(0, 0.5, (rows, cols)).astype("f4"))
    state = {"weight": weight, "weight_scale": scale}
    if not symmetric:
        zero = random.integers(-half, half, (rows, groups)).astype("i1")
        state["weight_zero_point"] = torch.from_numpy(zero)
    stored = PackedQuantizationCompressor.compress(state, scheme)
    stored = {key: value for key, value in stored.items() if key.startswith("weight_")}
    decoded = PackedQuantizationCompressor.decompress(dict(stored), scheme)["weight"].float()
    return {f"{name}.{key}": value.contiguous() for key, value in {**stored, "decoded": decoded}.items()}


def ordered() -> dict:
    """A matrix with the groups of columns in no order: columns of the library's own values, each with its group's scale."""
    plain = compressed("x", 4, False, GROUP, ROWS, COLS)
    from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32

    order = torch.from_numpy(random.permutation(np.arange(COLS) // GROUP).astype("i4"))
    codes = unpack_from_int32(plain["x.weight_packed"], 4, torch.Size((ROWS, COLS))).float()
    zero = unpack_from_int32(plain["x.weight_zero_point"], 4, torch.Size((ROWS, COLS // GROUP)), packed_dim=0)
    at = order.long()
    decoded = (codes - zero.float()[:, at]) * plain["x.weight_scale"][:, at]
    found = {key.replace("x.", "ct-order."): value for key, value in plain.items()}
    return {**found, "ct-order.weight_g_idx": order, "ct-order.decoded": decoded.contiguous()}


def words(codes: np.ndarray, bits: int, order=None) -> np.ndarray:
    """Codes along the last axis in words, the lowest bits first."""
    per = 32 // bits
    codes = codes.reshape(*codes.shape[:-1], -1, per).astype("u4")[..., order or list(range(per))]
    return (codes << (bits * np.arange(per, dtype="u4"))).sum(-1, dtype="u4").view("i4")


def made(bits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes `[cols, rows]`, zero points and scales `[groups, rows]`."""
    codes = random.integers(0, 1 << bits, (COLS, ROWS))
    zeros = random.integers(0, 1 << bits, (COLS // GROUP, ROWS))
    return codes, zeros, random.uniform(0.01, 0.1, zeros.shape).astype("f2")


def pack(name: str, parts: dict) -> dict:
    return {f"{name}.{key}": torch.from_numpy(np.ascontiguousarray(value)) for key, value in parts.items()}


def gptq(name: str, bits: int, less: int, shuffled: bool) -> dict:
    codes, zeros, scales = made(bits)
    order = np.arange(COLS) // GROUP
    order = (random.permutation(order) if shuffled else order).astype("i4")
    stored = (zeros - less) & ((1 << bits) - 1)
    decoded = ((codes - zeros[order]).astype("f4") * scales[order].astype("f4")).T
    return pack(name, {"qweight": words(codes.T, bits).T, "qzeros": words(stored, bits), "scales": scales,
                       "g_idx": order, "decoded": decoded})


def awq() -> dict:
    codes, zeros, scales = made(4)
    order, group = [0, 2, 4, 6, 1, 3, 5, 7], np.arange(COLS) // GROUP
    decoded = ((codes - zeros[group]).astype("f4") * scales[group].astype("f4")).T
    return pack("awq", {"qweight": words(codes, 4, order), "qzeros": words(zeros, 4, order), "scales": scales,
                        "decoded": decoded})


if __name__ == "__main__":
    tensors = {
        **compressed("ct-int4", 4, True, GROUP, ROWS, COLS),
        **compressed("ct-int4-zeros", 4, False, GROUP, 45, COLS),
        **compressed("ct-int4-channel", 4, True, None, ROWS, 61),
        **compressed("ct-int8-channel", 8, False, None, 45, 62),
        **compressed("ct-int8", 8, True, GROUP, ROWS, COLS),
        **ordered(),
        **gptq("gptq", 4, 1, False),
        **gptq("gptq-order", 4, 1, True),
        **gptq("gptq-8", 8, 1, True),
        **gptq("gptq_v2", 4, 0, False),
        **awq(),
    }
    save_file(tensors, OUT, metadata={"format": "pt"})
    print({name: (tuple(tensor.shape), str(tensor.dtype)) for name, tensor in tensors.items()})
