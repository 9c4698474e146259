#!/usr/bin/env python3
"""ggml's block quantizers themselves, without llama.cpp's fallback at widths that 256 does not divide.

    .venv/bin/python scripts/ggml_blocks.py WORK CHECKPOINT --imatrix IMATRIX.gguf --text TEXT --out OUT.json \\
        [--types Q3_K IQ4_XS Q4_K Q5_K] [--gq target/release/gq]

Each matrix of the layers is seen as rows of lcm(width, 256): the same numbers in the same order, so every block is
a genuine one, with importance weights of `llama-imatrix` (mean squared inputs, repeated along the longer row) as
llama-quantize passes them. The embedding is rounded to Q8_0. What is decoded again is written as an f32
checkpoint, and `gq eval` scores it with f32 activations: codes are compared with codes, on the same windows as gq's own.
WORK holds llama.cpp as `scripts/peers.py build` leaves it. Rows that OUT has already are kept.
"""
import argparse
import ctypes
import json
import math
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import gguf
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

PARTS = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down"}


class Ggml:
    def __init__(self, work: Path):
        self.library = ctypes.CDLL(str(next(work.glob("llama_cpp_python-*/vendor/llama.cpp/build/bin/libggml-base.so"))))
        self.library.ggml_quantize_chunk.restype = ctypes.c_size_t
        self.library.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64,
                                                     ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]

    def round(self, kind: str, weights: np.ndarray, importance: np.ndarray | None) -> tuple[np.ndarray, int]:
        """Weights after quantization, and its bytes."""
        quantization = gguf.GGMLQuantizationType[kind]
        block, size = gguf.GGML_QUANT_SIZES[quantization]
        rows, cols = weights.shape
        width = math.lcm(cols, block)
        source = np.ascontiguousarray(weights, np.float32).reshape(-1, width)
        out = np.zeros((source.shape[0], width // block * size), np.uint8)
        tiled = None if importance is None else np.tile(importance.astype(np.float32), width // cols)
        self.library.ggml_quantize_chunk(int(quantization), source.ctypes.data, out.ctypes.data, 0, source.shape[0], width,
                                         None if tiled is None else tiled.ctypes.data)
        decoded = gguf.quants.dequantize(out, quantization).astype(np.float32)
        return decoded.reshape(rows, cols), out.nbytes


def importances(path: Path) -> dict[str, np.ndarray]:
    """Mean squared inputs by llama.cpp's tensor names."""
    tensors = {tensor.name: np.array(tensor.data, np.float32) for tensor in gguf.GGUFReader(path).tensors}
    ending = ".in_sum2"
    return {name[: -len(ending)]: (values / tensors[name[: -len(ending)] + ".counts"].reshape(-1, 1)).reshape(-1)
            for name, values in tensors.items() if name.endswith(ending)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--imatrix", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--types", nargs="+", default=["Q3_K", "IQ4_XS", "Q4_K", "Q5_K"])
    parser.add_argument("--cache", type=Path, help="where the reference's logits are kept")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--gq", type=Path, default=Path("target/release/gq"))
    options = parser.parse_args()
    head = {"made_by": "scripts/ggml_blocks.py", "checkpoint": options.checkpoint.name, "text": options.text.name,
            "windows": options.windows, "ctx": 512}
    result = json.loads(options.out.read_text()) if options.out.exists() else {**head, "rows": []}
    if {key: result.get(key) for key in head} != head:
        raise SystemExit(f"{options.out} was measured otherwise")
    ggml, importance = Ggml(options.work), importances(options.imatrix)
    kept = ["--cache", str(options.cache), "--cache-limit", "16GiB"] if options.cache else []
    for kind in options.types:
        if any(row["type"] == kind for row in result["rows"]):
            continue
        with tempfile.TemporaryDirectory() as folder:
            rounded, bits, weights = {}, 0, 0
            for file in sorted(options.checkpoint.glob("*.safetensors")):
                with safe_open(file, "pt") as tensors:
                    for name in tensors.keys():
                        values = tensors.get_tensor(name).float().numpy()
                        part = re.fullmatch(r"model\.layers\.(\d+)\.(.*)\.weight", name)
                        if part and part[2] in PARTS:
                            matrix = importance[f"blk.{part[1]}.{PARTS[part[2]]}.weight"]
                            values, size = ggml.round(kind, values, matrix)
                            bits, weights = bits + 8 * size, weights + values.size
                        elif "embed_tokens" in name or "lm_head" in name:
                            values, _ = ggml.round("Q8_0", values, None)
                        rounded[name] = values
            for file in options.checkpoint.iterdir():
                if file.suffix in (".json", ".jinja", ".model") and not file.name.endswith("index.json"):
                    shutil.copy(file, folder)
            save_file(rounded, Path(folder) / "model.safetensors", metadata={"format": "pt"})
            del rounded
            done = subprocess.run([options.gq, "eval", folder, "--reference", options.checkpoint, "--text", options.text,
                                   "--windows", str(options.windows), "--activations", "f32", "--json", "--quiet", *kept],
                                  check=True, stdout=subprocess.PIPE)
        report = json.loads(done.stdout)
        row = {"type": kind, "body_bpw": bits / weights, "ppl": report["ppl"]["model"], "kld": report["kld"],
               "top1": report["top1"]}
        result["rows"].append(row)
        options.out.write_text(json.dumps(result, indent=1) + "\n")
        print(f"| ggml {kind}, imatrix | {row['body_bpw']:.3f} | {row['ppl']:.3f} | {row['kld']['mean']:.4f} "
              f"| {100 * row['top1']:.1f} |", flush=True)


if __name__ == "__main__":
    main()
