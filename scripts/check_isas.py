#!/usr/bin/env python3
"""One layer of a real checkpoint, calibrated, on every instruction set and with one and two threads: the same file each time.

    target/release/gq calibrate CHECKPOINT -o MEASUREMENTS --calibration TEXT
    python3 scripts/check_isas.py CHECKPOINT MEASUREMENTS [--layer 7] [--encoding tt3-s12] [--gq target/release/gq]

Everything but that layer's matrices is stored exactly. With --measure TEXT, the measurements themselves are made again on a
little of the text for each combination, and their digests compared too (the scalar definition takes its time).
Exit 1 on any difference. Standard library only.
"""
import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SMALL = ["--calibration-tokens", "1536", "--calibration-ctx", "128", "--gradient-tokens", "128", "--trial-tokens", "128"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("measurements", type=Path)
    parser.add_argument("--layer", type=int, default=7)
    parser.add_argument("--encoding", default="tt3-s12")
    parser.add_argument("--measure", type=Path)
    parser.add_argument("--isas", nargs="*", default=["scalar", "avx2", "avx512"],
                        help="what this machine has not is left out")
    parser.add_argument("--gq", default="target/release/gq")
    options = parser.parse_args()
    ran: list[str] = []
    seen: dict[str, set[str]] = {"file": set(), "measurements": set()}
    with tempfile.TemporaryDirectory() as folder:
        for isa in options.isas:
            for threads in ("1", "2"):
                machine = ["--isa", isa, "--threads", threads, "--quiet"]
                started, file = time.monotonic(), Path(folder) / "layer.gq"
                done = subprocess.run([options.gq, "convert", options.checkpoint, "-o", file, "--measurements", options.measurements,
                                       "--encoding", "exact", "--embedding", "exact", "--head", "exact",
                                       "--override", rf"layers\.{options.layer}\..*_proj={options.encoding}", *machine],
                                      stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
                if done.returncode and f"--isa {isa}: " in done.stderr:
                    print(f"{isa}: not on this machine")
                    break
                if done.returncode:
                    sys.exit(done.stderr)
                ran += [isa] if isa not in ran else []
                digest = hashlib.sha256(file.read_bytes()).hexdigest()
                seen["file"].add(digest)
                print(f"{isa}, {threads} threads: file {digest} in {time.monotonic() - started:.0f} s", flush=True)
                if options.measure:
                    started, measurements = time.monotonic(), Path(folder) / f"measurements-{isa}-{threads}"
                    told = subprocess.run([options.gq, "calibrate", options.checkpoint, "-o", measurements, "--calibration",
                                           options.measure, *SMALL, *machine, "--json"], check=True,
                                          stdout=subprocess.PIPE)
                    digests = json.dumps(json.loads(told.stdout)["measurements"], sort_keys=True)
                    digest = hashlib.sha256(digests.encode()).hexdigest()
                    seen["measurements"].add(digest)
                    print(f"{isa}, {threads} threads: measurements {digest} in {time.monotonic() - started:.0f} s",
                          flush=True)
    if len(ran) < 2:
        sys.exit(f"nothing to compare: this machine has {', '.join(ran) or 'none of them'} alone")
    differ = [what for what, digests in seen.items() if len(digests) > 1]
    print(f"different: {', '.join(differ)}" if differ else "all the same")
    sys.exit(bool(differ))


if __name__ == "__main__":
    main()
