#!/usr/bin/env python3
"""How good an estimate of the expected error is that 64 rows of random residuals give (`measurements/damping.rs`).

    python3 scripts/trials/probes.py MEASUREMENTS [--layers 0 5 15 29]

For the widest input of each layer, at two dampings: the exact trace of `A = U^-1 H' U^-T` over the width, and the standard
error of the mean of 64 values of `r A r^T` with r of plus or minus 1, `sqrt(2 / 64)` times the norm of what is off A's
diagonal over its trace. Not a part of gq: the record of a choice. Needs numpy and safetensors.
"""
import argparse
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

PROBES = 64


def full(triangle: np.ndarray) -> np.ndarray:
    n = int((np.sqrt(8 * len(triangle) + 1) - 1) / 2)
    lower = np.zeros((n, n))
    lower[np.tril_indices(n)] = triangle
    whole = lower + np.tril(lower, -1).T
    return whole / np.trace(whole) * n


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurements", type=Path)
    parser.add_argument("--layers", type=int, nargs="*", default=[0, 5, 15, 29])
    options = parser.parse_args()
    for layer in options.layers:
        tensors = [(name, values) for path in sorted(options.measurements.glob(f"moments-{layer:04d}-*.safetensors"))
                   for name, values in load_file(path).items()]
        values = dict(tensors)
        name = max((name for name in values if name.endswith(".moment")), key=lambda name: len(values[name]))
        moment, held = full(values[name]), full(values[name[:-len("moment")] + "held_out"])
        for damping in (0.03, 0.1):
            flipped = np.linalg.cholesky((moment + damping * np.eye(len(moment)))[::-1, ::-1])[::-1, ::-1]
            inverse = np.linalg.inv(flipped / np.diag(flipped)[None, :])
            a = inverse @ held @ inverse.T
            off = np.linalg.norm(a - np.diag(np.diag(a)))
            print(f"{name}: width {len(a)}, damping {damping}: {np.trace(a) / len(a):.4f} "
                  f"+- {100 * np.sqrt(2 / PROBES) * off / np.trace(a):.2f} %")


if __name__ == "__main__":
    main()
