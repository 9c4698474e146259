#!/usr/bin/env python3
"""What bits of their own for groups of rows would bring, beyond bits by tensor.

    python3 scripts/trials/row_groups.py CHECKPOINT MEASUREMENTS

A row's error costs its squared gradient times its energy (`gq calibrate` measures both). Spending bits by group instead of one
rate for the tensor gains 1/2 log2 of the arithmetic over the geometric mean of the groups' costs, in bits per weight, if
rates were continuous: with whole bits per group it is less. Groups are strips of 256 rows as they lie in the file, or
of rows sorted by cost, which would also have to be stored. As in rounding, a tenth of the mean is added to every row.
Needs numpy and safetensors.
"""
import re
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from safetensors import safe_open
from without_gradients import matrices

PRIOR = 0.1


def gain(costs: np.ndarray, size: int) -> float:
    """Bits per weight of groups of `size` rows."""
    groups = [costs[i : i + size] for i in range(0, len(costs), size)]
    rows = np.array([len(group) for group in groups]) / len(costs)
    means = np.array([group.mean() for group in groups])
    return 0.5 * float(np.log2((rows * means).sum()) - (rows * np.log2(means)).sum())


def main() -> None:
    checkpoint, measurements = Path(sys.argv[1]), Path(sys.argv[2])
    weights = {name: values for name, values in matrices(checkpoint)}
    gains = defaultdict(list)
    with safe_open(measurements / "gradients.safetensors", "numpy") as gradients:
        for name in gradients.keys():
            if name not in weights or "embed" in name or "lm_head" in name:
                continue
            squares = gradients.get_tensor(name)
            energies = np.square(weights[name].reshape(len(squares), -1)).sum(1)
            costs = (squares + PRIOR * squares.mean()) * energies
            if not (costs > 0).all():
                continue
            role = re.sub(r".*layers\.\d+\.(.*)\.weight", r"\1", name)
            row = [gain(costs, 256), gain(np.sort(costs), 256), gain(np.sort(costs), 64)]
            gains[role].append((weights[name].size, *row))
    print(f"{'tensors':24} {'strips as they lie':>20} {'sorted, 256':>12} {'sorted, 64':>12}")
    everything = [row for rows in gains.values() for row in rows]
    for role, rows in [*sorted(gains.items()), ("all", everything)]:
        size, *columns = zip(*rows)
        means = [np.average(column, weights=size) for column in columns]
        print(f"{role:24} {means[0]:20.3f} {means[1]:12.3f} {means[2]:12.3f}")


if __name__ == "__main__":
    main()
