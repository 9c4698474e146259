#!/usr/bin/env python3
"""Every encoding's size, divergence and speed as a Markdown table, from what scripts/numerics.py measured.

    E=$(python3 scripts/encodings.py --list)
    python3 scripts/numerics.py CHECKPOINT --text TEXT --bench --out DATA_FREE.json --encodings $E
    python3 scripts/numerics.py CHECKPOINT --text TEXT --measurements MEASUREMENTS --out CALIBRATED.json --encodings $E
    python3 scripts/encodings.py DATA_FREE.json [CALIBRATED.json [OLDER.json ...]]

The body is in the encoding throughout, embedding and head at tq8. A `-` was not measured or does not exist: product and
polar codes are reference modes, grids hold what sits on them already. What is missing is taken from older files: speeds as they
are, divergences on fewer windows with the windows behind them.
"""
import json
import sys

SCALAR = [f"tq{bits}" for bits in range(8, 1, -1)] + ["tq1"]
GROUPS = [f"tq{bits}-g{group}" for bits in (4, 3) for group in (64, 32)]
TRELLIS = [f"tt{bits}{states}" for bits in range(6, 1, -1) for states in ("", "-s12", "-s14")]
REFERENCE = ["tqp5", "tqp4", "tqp3", "tqp2", "tqpo5", "tqpo4", "tqpo3", "tqpo2", "polar5333", "polar4322", "polar4222"]
ALL = SCALAR + GROUPS + TRELLIS + REFERENCE


def rows(path: str) -> dict:
    known = json.load(open(path))["rows"]
    return {row["recipe"].removeprefix("--encoding "): row for row in known if row["recipe"].startswith("--encoding ")}


def main() -> None:
    if sys.argv[1:] == ["--list"]:
        print(" ".join(ALL))
        return
    free = rows(sys.argv[1])
    calibrated = rows(sys.argv[2]) if len(sys.argv) > 2 else {}
    older = [(rows(path), json.load(open(path))["windows"]) for path in sys.argv[3:]]
    is_calibrated = lambda row: "calibration" in row
    columns = ["encoding", "body bits/weight", "file", "KLD, data-free", *(["KLD, calibrated"] if calibrated else []), "pp512", "tg64"]
    print("| " + " | ".join(columns) + " |")
    print("|---" + "|--:" * (len(columns) - 1) + "|")
    for name in ALL:
        files = [free, calibrated, *(of for of, _ in older)]
        row = next((of[name] for of in files if name in of), None)
        if not row:
            continue

        def kld(of: dict, measured: bool) -> str:
            if name in of:
                return f"{of[name]['f32']['kld']['mean']:.4f}"
            found = [(of[name], windows) for of, windows in older if name in of and is_calibrated(of[name]) == measured]
            return f"{found[0][0]['f32']['kld']['mean']:.4f} ({found[0][1]})" if found else "-"

        timed = next((of[name]["bench"] for of in files if "bench" in of.get(name, {})), None)
        speed = lambda test: f"{timed[test]:.0f}" if timed else "-"
        size = row["f32"]["bytes"]["file"] / 1e6
        cells = [f"`{name}`", f"{row['f32']['bpw']['body']:.2f}", f"{size:.1f} MB", kld(free, False)]
        cells += [kld(calibrated, True)] if calibrated else []
        print("| " + " | ".join([*cells, speed("pp"), speed("tg")]) + " |")


if __name__ == "__main__":
    main()
