#!/usr/bin/env python3
"""Write the tables of docs/NUMERICS.md and README.md from docs/measurements/, between their markers.

    python3 scripts/numerics_page.py            # writes them
    python3 scripts/numerics_page.py --check    # exits with 1 if a page differs from the measurements

A table stands between `<!-- table NAME -->` and `<!-- end of table -->`; NAME is a function below.
"""
import argparse
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
MEASUREMENTS = ROOT / "docs" / "measurements"
PAGES = (ROOT / "docs" / "NUMERICS.md", ROOT / "README.md")
NAMES = {"smollm2-135m-instruct": "SmolLM2 135M", "gemma-3-270m": "Gemma 3 270M"}
MARKED = re.compile(r"<!-- table (\w+) -->\n(.*?)<!-- end of table -->", re.DOTALL)


def measured(name: str):
    return json.loads((MEASUREMENTS / name).read_text())


def rows(header: list[str], body: list[list[str]]) -> str:
    """A Markdown table; columns after the text ones are aligned to the right."""
    numeric = [all(re.match(r"[-\d.,]+( |$)", row[i]) for row in body) for i in range(len(header))]
    lines = ["| " + " | ".join(header) + " |", "|" + "|".join("--:" if right else "---" for right in numeric) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in body]) + "\n"


def first_command() -> str:
    """Divergence and size of `gq convert MODEL`, with their shares of Q4_K_M's."""
    found = measured("first-command.json")["rows"]
    peers = {row["model"]: row for row in found if row["file"] == "Q4_K_M"}
    body = []
    for row in found:
        peer, ours = peers[row["model"]], row["file"] != "Q4_K_M"

        def share(ours_value: float, peer_value: float, shown: str) -> str:
            return f"{shown} ({ours_value / peer_value:.2f})" if ours else shown

        kld = [share(row[text]["kld"], peer[text]["kld"], f"{row[text]['kld']:.4f}") for text in ("wikitext2-test.raw", "sympy-code")]
        name = "`gq convert`" if ours else "llama.cpp Q4_K_M"
        body.append([NAMES[row["model"]], name, share(row["bytes"], peer["bytes"], f"{row['bytes']:,}"), *kld])
    return rows(["model", "file", "bytes", "WikiText-2 test", "SymPy source"], body)


def amounts() -> str:
    """Divergence against the tokens and the CPU time of calibration."""
    found = sorted(measured("amounts-smollm2-135m.json"), key=lambda row: row["cpu_seconds"])
    default = {"moments": 16384, "gradients": 2048, "trials": 1024}
    body = [
        [
            f"{row['moments']:,}" + (" (default)" if default.items() <= row.items() else ""),
            f"{row['gradients']:,}",
            f"{row['trials']:,}",
            f"{row['cpu_seconds']:.0f}",
            f"{row['wikitext2-test.raw']:.4f}",
            f"{row['sympy-code']:.4f}",
        ]
        for row in found
    ]
    return rows(["tokens of moments", "of gradients", "of trials", "CPU seconds", "WikiText-2 test", "SymPy source"], body)


def gguf_export() -> str:
    """What an exported GGUF computes in llama.cpp, against gq on the same weights."""
    body = []
    for row in measured("gguf-export.json"):
        same = row.get("llama_cpp_in_f32", row)
        body.append([
            NAMES[row["model"]],
            row["type"],
            f"{row['mixed_text']['ids']:,}",
            f"{same['kld']['mean']:.1e}",
            f"{same['ppl']['gq']:.3f}",
            f"{same['ppl']['llama.cpp']:.3f}",
        ])
    return rows(["model", "type", "equal token ids", "KLD, f32 activations", "perplexity, gq", "llama.cpp"], body)


TABLES = {table.__name__: table for table in (first_command, amounts, gguf_export)}


def filled(page: str) -> str:
    return MARKED.sub(lambda found: f"<!-- table {found[1]} -->\n{TABLES[found[1]]()}<!-- end of table -->", page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only")
    options = parser.parse_args()
    used = set()
    for path in PAGES:
        page = path.read_text()
        used |= {found[1] for found in MARKED.finditer(page)}
        new = filled(page)
        if options.check and new != page:
            sys.exit(f"{path.relative_to(ROOT)} differs from docs/measurements/: run scripts/numerics_page.py")
        path.write_text(new)
    if used != set(TABLES):
        sys.exit(f"tables on no page: {sorted(set(TABLES) - used)}")


if __name__ == "__main__":
    main()
