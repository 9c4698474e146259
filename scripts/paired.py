#!/usr/bin/env python3
"""Differences of divergence between files scored on the same windows, with the standard error of the paired difference.

    python3 scripts/paired.py docs/measurements/gq-NAME.json[,MORE.json] [--rows '--size 70MB' '--size 90.8MB' …]

Each row is compared with the one before it, by size; the later row of two with the same recipe counts.
Needs only the Python standard library.
"""
import argparse
import json
import math
import statistics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", help="files of scripts/numerics.py, separated by commas")
    parser.add_argument("--rows", nargs="*")
    options = parser.parse_args()
    rows = {row["recipe"]: row["f32"] for file in options.files.split(",") for row in json.load(open(file))["rows"]}
    wanted = [recipe for recipe in rows if not options.rows or recipe in options.rows]
    wanted.sort(key=lambda recipe: rows[recipe]["bytes"]["file"])
    for before, after in zip(wanted, wanted[1:]):
        a, b = (rows[recipe]["kld_by_window"] for recipe in (before, after))
        if len(a) != len(b):
            raise SystemExit(f"{before} and {after} were scored on other windows")
        differences = [y - x for x, y in zip(a, b)]
        error = statistics.stdev(differences) / math.sqrt(len(differences))
        closer = sum(d < 0 for d in differences)
        print(f"{before} ({rows[before]['bytes']['file']:,}) -> {after} ({rows[after]['bytes']['file']:,}): "
              f"{statistics.mean(differences):+.5f} ± {error:.5f}, closer on {closer} of {len(differences)} windows")


if __name__ == "__main__":
    main()
