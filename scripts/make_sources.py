#!/usr/bin/env python3
"""Make testdata/sources/: weights as other quantizers store them, with what the owning library decodes them to.

    .venv/bin/python scripts/make_sources.py

mxfp4.safetensors   random codes with every power of two that leaves them finite, and transformers' values of them
"""
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

OUT = Path(__file__).parent.parent / "testdata" / "sources"


def mxfp4() -> None:
    generator = torch.Generator().manual_seed(1)
    blocks = torch.randint(0, 256, (2, 64, 2, 16), generator=generator, dtype=torch.uint8)
    scales = torch.arange(256).clamp(max=252).to(torch.uint8).reshape(2, 64, 2)
    decoded = convert_moe_packed_tensors(blocks.clone(), scales.clone())
    tensors = {"blocks": blocks, "scales": scales, "decoded": decoded.contiguous()}
    save_file(tensors, OUT / "mxfp4.safetensors", metadata={"format": "pt"})
    print({name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()})


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    mxfp4()
