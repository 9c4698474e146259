#!/usr/bin/env python3
"""Check the values of GPTQ and AWQ in testdata/sources/integers.safetensors by those libraries' own code, on the CPU.

    .venv/bin/pip download --no-deps auto_gptq==0.7.1 autoawq==0.2.9      # and unpack both
    .venv/bin/python scripts/check_integers.py AUTO_GPTQ AUTOAWQ

The arguments are the unpacked folders that have `auto_gptq/` and `awq/`. Neither package is imported as a whole, as both
ask for older versions of transformers. `qlinear_cuda` takes a zero point of the first version that is stored as the
largest code for one more than the largest, `qlinear_cuda_old` for 0, as `gq` does: values of such groups are counted and
left out of the comparison with the first.
"""
import importlib
import sys
import types
from pathlib import Path

import torch
from safetensors.torch import load_file

TENSORS = load_file(Path(__file__).parent.parent / "testdata" / "sources" / "integers.safetensors")


def pieces(name: str) -> dict:
    return {key[len(name) + 1:]: value for key, value in TENSORS.items() if key.startswith(name + ".")}


def check_awq(folder: str) -> bool:
    spec = importlib.util.spec_from_file_location("packing", Path(folder) / "awq/utils/packing_utils.py")
    packing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(packing)
    awq = pieces("awq")
    values = packing.dequantize_gemm(awq["qweight"], awq["qzeros"], awq["scales"].float(), 4, 16).T
    equal = torch.equal(values, awq["decoded"])
    print("awq dequantize_gemm", "equal" if equal else "DIFFERENT")
    return equal


def check_gptq(folder: str, module: str, name: str, bits: int, wraps: bool) -> bool:
    for package in ("auto_gptq", "auto_gptq.nn_modules", "auto_gptq.nn_modules.qlinear"):
        stub = types.ModuleType(package)
        stub.__path__ = [str(Path(folder) / package.replace(".", "/"))]
        sys.modules.setdefault(package, stub)
    linear = importlib.import_module(f"auto_gptq.nn_modules.qlinear.{module}").QuantLinear(
        bits, 16, 64, 48, False, weight_dtype=torch.float32)
    gptq, most = pieces(name), (1 << bits) - 1
    linear.qweight, linear.qzeros, linear.g_idx = gptq["qweight"], gptq["qzeros"], gptq["g_idx"]
    linear.scales, linear.autogptq_cuda_available = gptq["scales"].float(), False
    stored = (gptq["qzeros"].unsqueeze(2) >> (torch.arange(32 // bits) * bits)) & most
    largest = (stored.reshape(4, 48) == most)[gptq["g_idx"].long()].T
    different = linear(torch.eye(64)).T != gptq["decoded"]
    wrong = (different if wraps else different & ~largest).sum().item()
    print(module, name, f"{wrong} of {different.numel()} different; {largest.sum().item()} have the largest zero point")
    return wrong == 0


if __name__ == "__main__":
    auto_gptq, autoawq = sys.argv[1:]
    import transformers.pytorch_utils  # noqa: F401  (auto_gptq takes it for loaded)

    good = [check_awq(autoawq), check_gptq(auto_gptq, "qlinear_cuda_old", "gptq", 4, True)]
    good += [check_gptq(auto_gptq, "qlinear_cuda", name, bits, False)
             for name, bits in (("gptq", 4), ("gptq-order", 4), ("gptq-8", 8))]
    sys.exit(not all(good))
