#!/usr/bin/env python3
"""Measure `gq convert MODEL` as it is typed first, without options, next to what llama-quantize makes unless told otherwise.

    npm pack @node-llama-cpp/linux-x64@3.22.1 && tar xzf node-llama-cpp-linux-x64-*.tgz
    .venv/bin/python scripts/real_models.py MODELS
    .venv/bin/python scripts/fetch_text.py code TEXTS
    .venv/bin/python scripts/first_command.py MODELS WORK --gq target/release/gq --llama package/bins/linux-x64 \\
        --texts wikitext2-test.raw.txt TEXTS/sympy-code.txt --out docs/measurements/first-command.json
    .venv/bin/python scripts/first_command.py --table docs/measurements/first-command.json

Both sides are made from the `-smooth` checkpoint in this one run: llama.cpp's file from its bf16 GGUF, as Q4_K_M without
an importance matrix. Both are scored by `gq eval` with f32 activations. What the conversion said first that it would
take, and what it took, are recorded with it. Files that are there already are not made again (delete WORK to begin again).
"""
import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

MODELS = {"smollm2-135m-instruct": "smollm2-135m-instruct-q4_1.gguf", "gemma-3-270m": "gemma-3-270m-q4_k_m.gguf"}
HERE = Path(__file__).parent


def quantized(options, model: str) -> Path:
    """llama.cpp's file of the checkpoint."""
    whole, small = options.work / f"{model}.bf16.gguf", options.work / f"{model}.q4_k_m.gguf"
    checkpoint, like = options.models / f"{model}-smooth", options.models / "gguf" / MODELS[model]
    if not small.exists():
        subprocess.run([sys.executable, HERE / "hf_to_gguf.py", checkpoint, like, whole, "--type", "bf16"], check=True)
        subprocess.run([sys.executable, HERE / "quantize_gguf.py", options.llama, whole, small, "Q4_K_M", "2"], check=True)
        whole.unlink()
    return small


def converted(options, model: str) -> tuple[Path, dict]:
    """gq's file, and the command, the time it said and the time it took."""
    out, kept = options.work / f"{model}.gq", options.work / f"{model}.time.json"
    if not (out.exists() and kept.exists()):
        command = [options.gq, "convert", options.models / f"{model}-smooth", "-o", out, "--threads", str(options.threads)]
        start = time.monotonic()
        run = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds = time.monotonic() - start
        said = [line for line in (run.stdout + run.stderr).splitlines() if re.search(r"about|took|divergence|KLD", line)]
        kept.write_text(json.dumps({"seconds": round(seconds, 1), "said": said}))
    return out, json.loads(kept.read_text())


def score(options, model: str, path: Path, text: Path) -> dict:
    command = [options.gq, "eval", path, "--reference", options.models / f"{model}-smooth", "--text", text, "--windows",
               str(options.windows), "--activations", "f32", "--json", "--quiet", "--cache", options.work / "cache"]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {"kld": result["kld"]["mean"]}


def measure(options) -> None:
    options.work.mkdir(parents=True, exist_ok=True)
    version = subprocess.run([options.gq, "--version"], check=True, capture_output=True, text=True).stdout.strip()
    rows = []
    for model in options.only or MODELS:
        ours, took = converted(options, model)
        for name, path in (("gq convert", ours), ("Q4_K_M", quantized(options, model))):
            row = {"model": model, "file": name, "bytes": path.stat().st_size}
            row |= {text.stem: score(options, model, path, text) for text in options.texts}
            rows.append(row | (took if path == ours else {}))
            print(row, file=sys.stderr)
    facts = {"gq": version, "windows": options.windows, "threads": options.threads, "rows": rows}
    options.out.write_text(json.dumps(facts, indent=1) + "\n")
    table(facts)


def table(facts: dict) -> None:
    texts = [key for key, value in facts["rows"][0].items() if isinstance(value, dict)]
    print("| model | file | bytes |", " | ".join(texts), "|\n|---|---|--:|" + "--:|" * len(texts))
    for row in facts["rows"]:
        peer = next(r for r in facts["rows"] if r["model"] == row["model"] and r["file"] == "Q4_K_M")
        size = f" ({row['bytes'] / peer['bytes']:.3f})" if row is not peer else ""
        cells = [f"{row[t]['kld']:.4f}" + (f" ({row[t]['kld'] / peer[t]['kld']:.2f})" if row is not peer else "") for t in texts]
        print(f"| {row['model']} | {row['file']} | {row['bytes']:,}{size} |", " | ".join(cells), "|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="?")
    parser.add_argument("work", type=Path, nargs="?")
    parser.add_argument("--gq", type=Path)
    parser.add_argument("--llama", type=Path)
    parser.add_argument("--texts", type=Path, nargs="+")
    parser.add_argument("--only", nargs="+", choices=MODELS)
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    if options.table:
        table(json.loads(options.table.read_text()))
    else:
        measure(options)


if __name__ == "__main__":
    main()
