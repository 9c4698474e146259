#!/usr/bin/env python3
"""How true is the time left that gq shows? Runs one command and compares what was said with what came.

    python3 scripts/time_left.py target/release/gq convert MODELS/smollm2-135m-instruct-smooth -o /tmp/m.gq

The command gets `--progress plain`: a line every five seconds that ends in the time left. Printed are, for every such
line after a tenth of the time and until five seconds before the end, the seconds gone, said and left, and then the
worst error as a part of the time left, and as a part of the whole time. Needs an otherwise idle machine.
"""
import re
import subprocess
import sys
import time

UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> float | None:
    """Seconds of `1 min 5 s`."""
    parts = re.findall(r"([\d.]+) (d|h|min|s)\b", text)
    return sum(float(number) * UNITS[unit] for number, unit in parts) if parts else None


def main() -> None:
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    began, said, first = time.monotonic(), [], None
    command = [sys.argv[1], "--progress", "plain", *sys.argv[2:]]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    for line in child.stderr:
        gone = time.monotonic() - began
        if first is None and " takes " in line:
            first = line.strip()
            print(first)
        if line.rstrip().endswith(" left"):
            said.append((gone, seconds(line.rsplit(",", 1)[1])))
    whole = time.monotonic() - began
    if child.wait():
        raise SystemExit(f"exit code {child.returncode}")
    of_left, of_whole = [], []
    for gone, told in said:
        left = whole - gone
        if told is None or gone < whole / 10 or left < 5:
            continue
        print(f"{gone:6.0f} s gone, {told:5.0f} s said, {left:5.0f} s left: {told / left:.2f}")
        of_left.append(told / left - 1)
        of_whole.append((told - left) / whole)
    if not of_left:
        raise SystemExit(f"{whole:.0f} s: too short to say")
    within = sum(abs(error) <= 0.3 for error in of_left)
    print(f"{whole:.0f} s in all; of the time left {min(of_left):+.0%} to {max(of_left):+.0%}, {within} of {len(of_left)} "
          f"lines within 30 %; of the whole {min(of_whole):+.0%} to {max(of_whole):+.0%}")


if __name__ == "__main__":
    main()
