#!/usr/bin/env python3
"""What more calibration brings the first command, and what it costs: divergence against CPU time.

    .venv/bin/python scripts/trials/amounts.py MODELS/smollm2-135m-instruct-smooth WORK --gq target/release/gq \\
        --size 88000000 --texts wikitext2-test.raw.txt TEXTS/sympy-code.txt --out docs/measurements/amounts-smollm2-135m.json

For each amount (tokens of moments, gradients, trials) on the built-in text: `gq calibrate`, then `gq convert --size` from its
measurements, then `gq eval` on both texts with f32 activations. CPU seconds are user and system time of `gq calibrate` alone
(conversion costs the same for all). Rows that are in the output already are kept.
"""
import argparse
import json
import resource
import subprocess
from pathlib import Path

AMOUNTS = ((4096, 1024, 1024), (16384, 2048, 0), (16384, 2048, 1024), (32768, 4096, 2048))


def run(command: list) -> tuple[str, float]:
    """What a command printed, and its CPU seconds."""
    def used():
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime
    before = used()
    output = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout
    return output, used() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--gq", type=Path, required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--texts", type=Path, nargs="+", required=True)
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    rows = json.loads(options.out.read_text()) if options.out.exists() else []
    for moments, gradients, trials in AMOUNTS:
        row = {"moments": moments, "gradients": gradients, "trials": trials}
        if any(row.items() <= done.items() for done in rows):
            continue
        measurements, file = options.work / "amounts.measurements", options.work / "amounts.gq"
        subprocess.run(["rm", "-rf", measurements, file], check=True)
        _, row["cpu_seconds"] = run([options.gq, "calibrate", options.checkpoint, "-o", measurements, "--calibration", "builtin",
                                     "--calibration-tokens", moments, "--gradient-tokens", gradients, "--trial-tokens", trials])
        run([options.gq, "convert", options.checkpoint, "--measurements", measurements, "--size", options.size, "-o", file, "--force"])
        row["bytes"] = file.stat().st_size
        for text in options.texts:
            shown, _ = run([options.gq, "eval", file, "--reference", options.checkpoint, "--text", text, "--windows",
                            options.windows, "--activations", "f32", "--json", "--quiet", "--cache", options.work / "cache"])
            row[text.stem] = json.loads(shown)["kld"]["mean"]
        rows.append(row)
        options.out.write_text(json.dumps(rows, indent=1) + "\n")
        print(row)


if __name__ == "__main__":
    main()
