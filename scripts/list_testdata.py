#!/usr/bin/env python3
"""List every file of testdata/ with its size and sha256 in testdata/README.md, or check that the list is true.

    python3 scripts/list_testdata.py            # rewrite the table below the marker
    python3 scripts/list_testdata.py --check    # exit 1 and name the differences if it is stale

Standard library only. The text above the marker is written by hand: one section per folder, with the command
that makes it.
"""
import argparse
import hashlib
import sys
from pathlib import Path

MARKER = "<!-- written by scripts/list_testdata.py: do not edit below -->"


def table(root: Path) -> str:
    lines = ["| file | bytes | sha256 |", "|---|--:|---|"]
    for file in sorted(f for f in root.rglob("*") if f.is_file() and f != root / "README.md"):
        data = file.read_bytes()
        lines.append(f"| `{file.relative_to(root).as_posix()}` | {len(data)} | `{hashlib.sha256(data).hexdigest()}` |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare only, change nothing")
    options = parser.parse_args()
    root = Path(__file__).parent.parent / "testdata"
    readme = root / "README.md"
    head, _, listed = readme.read_text().partition(MARKER)
    fresh = f"\n\n{table(root)}"
    if not options.check:
        readme.write_text(head + MARKER + fresh)
    elif listed != fresh:
        for line in sorted(set(listed.splitlines()) ^ set(fresh.splitlines())):
            print("listed " if line in listed else "actual ", line, file=sys.stderr)
        raise SystemExit("testdata/README.md is stale: run scripts/list_testdata.py")


if __name__ == "__main__":
    main()
