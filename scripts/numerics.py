#!/usr/bin/env python3
"""Measure every data-free size of a checkpoint: bytes, perplexity, KL divergence, top-1 agreement.

    cargo build --release -p gq
    python3 scripts/numerics.py CHECKPOINT --text TEXT [--windows 40] [--out docs/measurements/NAME.json]

Converts with `gq convert` at 8, 6, 5, 4, 3 and 2 bits (embedding and head at 8 bits) and scores each with `gq eval`,
with int8 and with f32 activations. Needs only the Python standard library. TEXT is read byte for byte.
Compare quantizers only on checkpoints that do not sit on a quantization grid (`-smooth` of scripts/real_models.py).
"""
import argparse, json, subprocess, tempfile
from pathlib import Path

BITS = (8, 6, 5, 4, 3, 2)


def gq(program: Path, *arguments: str) -> dict:
    done = subprocess.run([program, *arguments, "--json", "--quiet"], check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--bits", type=int, nargs="*", default=BITS)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--gq", type=Path, default=Path("target/release/gq"))
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for bits in options.bits:
            file = str(Path(folder) / f"{bits}.gq")
            converted = gq(options.gq, "convert", str(options.checkpoint), "-o", file, "--bits", str(bits))
            row = {"encoding": f"tq{bits}", "convert_seconds": converted["seconds"],
                   "relative_mse": converted["report"]["relative_mse"]}
            for activations in ("int8", "f32"):
                report = gq(options.gq, "eval", file, "--reference", str(options.checkpoint), "--text",
                            str(options.text), "--windows", str(options.windows), "--activations", activations)
                report.pop("kld_by_position")
                row[activations] = report
            rows.append(row)
            int8 = row["int8"]
            print(f"| tq{bits} | {int8['bytes']['file']:,} | {int8['bpw']['body']:.3f} | {int8['ppl']['model']:.3f} "
                  f"| {int8['kld']['mean']:.4f} | {row['f32']['kld']['mean']:.4f} | {100 * int8['top1']:.1f} |", flush=True)
    if options.out:
        result = {"made_by": "scripts/numerics.py", "checkpoint": options.checkpoint.name, "text": options.text.name,
                  "windows": options.windows, "ctx": 512, "rows": rows}
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
