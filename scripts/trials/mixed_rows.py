#!/usr/bin/env python3
"""What bits of their own for the rows of a matrix bring, measured: a model whose rows come from files of 2, 3 and 4 bits.

    python3 scripts/trials/mixed_rows.py CHECKPOINT MEASUREMENTS TEXT [--codes OTHER_MEASUREMENTS] [--windows 40] [--gq target/release/gq]

Makes `tt2`, `tt3` and `tt4` of the checkpoint, exports them, and takes of every matrix of the body each row from one of
them: as many from 2 as from 4 bits, so that the mean stays 3, the costly rows (squared gradient times energy, of MEASUREMENTS;
a tenth of the mean added, as in rounding) from 4, the cheap ones from 2, as many of both as predicts the least damage.
Scores that and `tt3` against the checkpoint. --codes rounds by other measurements, such as without_gradients.py makes:
then the rows of a strip weigh alike, which is what groups of rows that cost alike would have.
An optimistic bound of what a format with mixed rows reaches: which row has which bits is not stored.
Needs numpy and safetensors; a checkpoint with one weight file or several.
"""
import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from safetensors import safe_open
from without_gradients import matrices

PRIOR = 0.1
DISTORTION = {2: 0.072514, 3: 0.018611, 4: 0.004865}


def shares(costs: np.ndarray) -> tuple[int, float]:
    """How many of the costliest rows get 4 bits, and as many of the cheapest 2; damage against 3 bits everywhere."""
    ordered = np.sort(costs)
    below = np.concatenate([[0], np.cumsum(ordered)])
    count = np.arange(len(costs) // 2 + 1)
    low, high = below[count], below[-1] - below[len(costs) - count]
    damage = low * DISTORTION[2] + high * DISTORTION[4] + (below[-1] - low - high) * DISTORTION[3]
    best = int(damage.argmin())
    return best, float(damage[best] / damage[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("measurements", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--codes", type=Path)
    parser.add_argument("--windows", default="40")
    parser.add_argument("--gq", default="target/release/gq")
    parser.add_argument("--cache", default=None)
    options = parser.parse_args()

    def gq(*arguments) -> dict:
        done = subprocess.run([options.gq, *map(str, arguments), "--json", "--quiet"], check=True, stdout=subprocess.PIPE)
        return json.loads(done.stdout)

    with tempfile.TemporaryDirectory() as folder:
        work, values = Path(folder), {}
        for bits in (2, 3, 4):
            gq("convert", options.checkpoint, "-o", work / f"{bits}.gq", "--measurements", options.codes or options.measurements,
               "--encoding", f"tt{bits}")
            gq("export", work / f"{bits}.gq", "--safetensors", "-o", work / str(bits), "--no-measure")
            (work / f"{bits}.gq").unlink()
        weights = dict(matrices(options.checkpoint))
        (target,) = (work / "3").glob("*.safetensors")
        raw = bytearray(target.read_bytes())
        length = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + length])
        others = {bits: np.fromfile(next((work / str(bits)).glob("*.safetensors")), np.uint8) for bits in (2, 4)}
        data, ratios, moved = np.frombuffer(raw, np.uint8), [], 0
        with safe_open(options.measurements / "gradients.safetensors", "numpy") as gradients:
            for name in gradients.keys():
                if "embed" in name or "lm_head" in name or name not in header:
                    continue
                squares = gradients.get_tensor(name)
                energies = np.square(weights[name].reshape(len(squares), -1)).sum(1)
                costs = (squares + PRIOR * squares.mean()) * energies
                count, ratio = shares(costs)
                ratios.append((weights[name].size, ratio, count / len(costs)))
                order = np.argsort(costs, kind="stable")
                begin, end = (8 + length + offset for offset in header[name]["data_offsets"])
                rows = data[begin:end].reshape(len(squares), -1)
                for bits, chosen in ((2, order[:count]), (4, order[len(order) - count :])):
                    rows[chosen] = others[bits][begin:end].reshape(rows.shape)[chosen]
                    moved += len(chosen) * rows.shape[1] // 2
        (work / "mixed").mkdir()
        for file in (work / "3").iterdir():
            if file != target:
                (work / "mixed" / file.name).write_bytes(file.read_bytes())
        (work / "mixed" / target.name).write_bytes(raw)
        size = np.array([row[0] for row in ratios])
        print(f"codes by {(options.codes or options.measurements).name}: predicted damage of mixed rows "
              f"{np.average([row[1] for row in ratios], weights=size):.3f} of that of 3 bits, "
              f"{np.average([row[2] for row in ratios], weights=size):.3f} of the weights at 4 and as many at 2 bits")
        for name in ("3", "mixed"):
            kept = ["--cache", options.cache, "--cache-limit", "16GiB"] if options.cache else []
            report = gq("eval", work / name, "--reference", options.checkpoint, "--text", options.text, "--windows",
                        options.windows, "--activations", "f32", *kept)
            print(f"{'tt3' if name == '3' else 'mixed rows'}: divergence {report['kld']['mean']:.4f} "
                  f"± {report['kld']['stderr']:.4f}", flush=True)


if __name__ == "__main__":
    main()
