#!/usr/bin/env python3
"""Score gq files and llama.cpp's quants on text that the reference writes itself (`gq eval --self`).

    python3 scripts/self_text.py CHECKPOINT --measurements MEASUREMENTS --rows '--bpw 4.02' '--bpw 3.02' --out OUT.json \\
        [--llama WORK --imatrix IMATRIX.gguf --types Q4_K_M IQ4_XS] [--windows 40] [--cache DIR] [--gq target/release/gq]

WORK holds llama.cpp and the checkpoint's bf16 GGUF as `scripts/peers.py` leaves them; every file is scored by gq with f32
activations, on the same text. OUT is rewritten after every row. Needs only the Python standard library.
"""
import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--measurements", type=Path, required=True)
    parser.add_argument("--rows", nargs="*", default=["--bpw 4.02", "--bpw 3.02"])
    parser.add_argument("--llama", type=Path)
    parser.add_argument("--imatrix", type=Path)
    parser.add_argument("--types", nargs="*", default=["Q4_K_M", "IQ4_XS"])
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--gq", type=Path, default=Path("target/release/gq"))
    options = parser.parse_args()
    version = subprocess.run([options.gq, "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    result = {"made_by": "scripts/self_text.py", "gq": version, "machine": platform.machine(),
              "checkpoint": options.checkpoint.name, "windows": options.windows, "rows": []}
    quantize = next((options.llama or Path()).glob("llama_cpp_python-*/vendor/llama.cpp/build/bin/llama-quantize"), None)
    if options.llama and quantize is None:
        sys.exit(f"{options.llama}: no llama-quantize; `scripts/peers.py build` makes it")

    def score(name: str, file: Path) -> None:
        cache = ["--cache", options.cache] if options.cache else []
        command = [options.gq, "eval", file, "--reference", options.checkpoint, "--self", "--windows", str(options.windows),
                   "--activations", "f32", *cache, "--json", "--quiet"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        scored = json.loads(done.stdout)
        if any(row["eval"]["tokens_sha256"] != scored["tokens_sha256"] for row in result["rows"]):
            sys.exit(f"{name}: scored on another text")
        result["rows"].append({"row": name, "file_bytes": file.stat().st_size, "eval": scored})
        options.out.write_text(json.dumps(result, indent=1) + "\n")

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "file"
        for row in options.rows:
            subprocess.run([options.gq, "convert", options.checkpoint, "--measurements", options.measurements, *row.split(), "-o",
                            file.with_suffix(".gq"), "--quiet", "--json"], check=True, stdout=subprocess.DEVNULL)
            score(f"gq {row}", file.with_suffix(".gq"))
            file.with_suffix(".gq").unlink()
        for kind in options.types if options.llama else []:
            matrix = ["--imatrix", options.imatrix] if options.imatrix else []
            made = subprocess.run([quantize, *matrix, "--token-embedding-type", "q8_0",
                                   options.llama / f"{options.checkpoint.name}-bf16.gguf", file.with_suffix(".gguf"), kind],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            if made.returncode:
                sys.exit(made.stderr)
            score(f"llama.cpp {kind}{', imatrix' if options.imatrix else ''}", file.with_suffix(".gguf"))
            file.with_suffix(".gguf").unlink()


if __name__ == "__main__":
    main()
