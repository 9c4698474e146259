#!/usr/bin/env python3
"""Recomputes every figure of an evaluation from the two models' saved outputs, with numpy alone.

    gq eval MODEL --reference REF --text FILE --save-outputs model.safetensors --json > report.json
    gq eval REF --reference REF --text FILE --save-outputs reference.safetensors
    python scripts/check_eval.py report.json model.safetensors reference.safetensors

Against a file of reference outputs, that file is the third argument.
Exit status: 0 when all figures agree to 1e-9 of their value, 1 when one does not, 2 for files that cannot be compared.
The noise floor and the sizes do not follow from outputs and are not checked.
"""

import json
import math
import struct
import sys

import numpy as np

RELATIVE = 1e-9
# Rounding of a difference of two log-probabilities around 10.
ABSOLUTE = 1e-13
DTYPES = {"I64": "<i8", "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class Outputs:
    """`input_ids` and `logits` of a safetensors file, mapped."""

    def __init__(self, path):
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        self.path, self.begin = path, 8 + length
        self.ids = self.tensor(header["input_ids"])
        self.bf16 = header["logits"]["dtype"] == "BF16"
        self.stored = self.tensor(header["logits"])

    def tensor(self, entry):
        offset = self.begin + entry["data_offsets"][0]
        return np.memmap(self.path, DTYPES[entry["dtype"]], "r", offset, tuple(entry["shape"]))

    def logits(self, row, col):
        values = self.stored[row, col]
        if self.bf16:
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype(np.float64)


def log_softmax(logits):
    shifted = logits - logits.max()
    return shifted - math.log(np.exp(shifted).sum())


def mean_and_error(values):
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return (values.mean() if len(values) else 0.0), error


def figures(report, model, reference):
    """The figures of the report, by path."""
    begin, end = report["scored"]["begin"], report["scored"]["end"]
    rows, width = model.ids.shape[0], end - begin
    kld, same = np.empty((rows, width)), np.empty((rows, width))
    ours, theirs = [], []
    worst, squares = 0.0, 0.0
    for row in range(rows):
        for col in range(begin, end):
            m, r = model.logits(row, col), reference.logits(row, col)
            worst = max(worst, np.abs(m - r).max())
            squares += ((m - r) ** 2).sum()
            q, p = log_softmax(m), log_softmax(r)
            kld[row, col - begin] = (np.exp(p) * (p - q)).sum()
            same[row, col - begin] = m.argmax() == r.argmax()
            if col + 1 < model.ids.shape[1]:
                target = model.ids[row, col + 1]
                ours.append(-q[target])
                theirs.append(-p[target])
    ours, theirs = np.array(ours), np.array(theirs)
    all_kld = kld.ravel()
    mean, error = mean_and_error(all_kld)
    top1, top1_error = mean_and_error(same.ravel())
    found = {
        "kld.mean": mean,
        "kld.stderr": error,
        "kld.min": all_kld.min(),
        "kld.median": np.quantile(all_kld, 0.5),
        "kld.p90": np.quantile(all_kld, 0.9),
        "kld.p99": np.quantile(all_kld, 0.99),
        "kld.p999": np.quantile(all_kld, 0.999),
        "kld.max": all_kld.max(),
        "top1": top1,
        "top1_stderr": top1_error,
        "windows": rows,
        "tokens": kld.size,
        "targets": len(ours),
    }
    found |= {f"kld_by_position.{i}": value for i, value in enumerate(kld.mean(axis=0))}
    found |= {f"kld_by_window.{i}": value for i, value in enumerate(kld.mean(axis=1))}
    if report["logits"] is not None:
        found["logits.max_abs_error"] = worst
        found["logits.rms_error"] = math.sqrt(squares / (kld.size * len(m)))
    if len(ours):
        for name, nll in (("model", ours), ("reference", theirs)):
            mean, error = mean_and_error(nll)
            found[f"ppl.{name}"] = math.exp(mean)
            found[f"ppl.{name}_stderr"] = math.exp(mean) * error
        found["ln_ratio.value"], found["ln_ratio.stderr"] = mean_and_error(ours - theirs)
        delta = np.exp(-ours) - np.exp(-theirs)
        square, error = mean_and_error(delta**2)
        found["rms_delta_p"] = math.sqrt(square)
        found["rms_delta_p_stderr"] = 0.5 * error / math.sqrt(square) if square else 0.0
        found["mean_delta_p"], found["min_delta_p"], found["max_delta_p"] = delta.mean(), delta.min(), delta.max()
    return found


def stated(report, path):
    value = report
    for key in path.split("."):
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


def main(arguments):
    if len(arguments) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    with open(arguments[0], encoding="utf-8") as file:
        report = json.load(file)
    model, reference = Outputs(arguments[1]), Outputs(arguments[2])
    if not np.array_equal(model.ids, reference.ids):
        print("the two files hold other tokens", file=sys.stderr)
        return 2
    found, wrong, largest = figures(report, model, reference), 0, 0.0
    for path, expected in found.items():
        actual = stated(report, path)
        difference = abs(actual - expected)
        largest = max(largest, difference / abs(expected) if expected else 0.0)
        if not difference <= RELATIVE * abs(expected) + ABSOLUTE:
            print(f"{path}: the report says {actual!r}, the outputs {expected!r}")
            wrong += 1
    counted = sum(report["kld_histogram"]["counts"])
    if counted != found["tokens"]:
        print(f"kld_histogram: {counted} positions, there are {found['tokens']}")
        wrong += 1
    print(f"{len(found) + 1} figures, {wrong} wrong, largest relative difference {largest:.1e}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
