#!/usr/bin/env python3
"""Every encoding's size, divergence and speed as a Markdown table, from what scripts/numerics.py measured.

    E=$(python3 scripts/encodings.py --list)
    python3 scripts/numerics.py CHECKPOINT --text TEXT --bench --out DATA_FREE.json --encodings $E
    python3 scripts/numerics.py CHECKPOINT --text TEXT --tune TUNE --out CALIBRATED.json --encodings $E
    python3 scripts/encodings.py DATA_FREE.json CALIBRATED.json

The body is in the encoding throughout, embedding and head at tq8. A `-` was not measured or does not exist: product and
polar codes are reference modes, grids hold what sits on them already.
"""
import json
import sys

SCALAR = [f"tq{bits}" for bits in range(8, 1, -1)] + ["tq1"]
GROUPS = [f"tq{bits}-g{group}" for bits in (4, 3) for group in (64, 32)]
TRELLIS = [f"tt{bits}{states}" for bits in range(6, 1, -1) for states in ("", "-s12")]
REFERENCE = ["tqp5", "tqp4", "tqp3", "tqpo4", "polar5333", "polar4322", "polar4222"]
ALL = SCALAR + GROUPS + TRELLIS + REFERENCE


def rows(path: str) -> dict:
    known = json.load(open(path))["rows"]
    return {row["recipe"].removeprefix("--encoding "): row for row in known if row["recipe"].startswith("--encoding ")}


def main() -> None:
    if sys.argv[1:] == ["--list"]:
        print(" ".join(ALL))
        return
    free, calibrated = (rows(path) for path in sys.argv[1:3])
    print("| encoding | body bits/weight | file | KLD, data-free | KLD, calibrated | pp512 | tg64 |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for name in ALL:
        row = free.get(name) or calibrated.get(name)
        if not row:
            continue
        kld = lambda of: f"{of[name]['f32']['kld']['mean']:.4f}" if name in of else "-"
        speed = lambda test: f"{row['bench'][test]:.0f}" if "bench" in row else "-"
        size = row["f32"]["bytes"]["file"] / 1e6
        print(f"| `{name}` | {row['f32']['bpw']['body']:.2f} | {size:.1f} MB | {kld(free)} | {kld(calibrated)} "
              f"| {speed('pp')} | {speed('tg')} |")


if __name__ == "__main__":
    main()
