#!/usr/bin/env python3
"""Plot size against divergence: gq next to llama.cpp, one picture per model.

    python3 scripts/frontier.py docs/measurements/gq-NAME.json[,gq-NAME-MORE.json] docs/measurements/llama-cpp-NAME.json OUT.svg \\
        [docs/measurements/llama-cpp-NAME-f32.json]

Files that another of the same size is closer than are left out. Of several files of gq, a row of a later one takes the place of those with the same recipe before it.
Needs matplotlib. Whole-file bytes; gq's points are its `--size` rows joined by a line, its `--bpw` rows apart.
llama.cpp's files are scored with its own int8 activations, those of the last file (WikiText-2 test) with f32 ones.
"""
import json, sys

import matplotlib

matplotlib.use("Agg")
matplotlib.rcParams["svg.hashsalt"] = "gq"
import matplotlib.pyplot as plt


def main() -> None:
    ours, theirs, out = sys.argv[1:4]
    rows = list({(row["recipe"], bool(row.get("calibration"))): row
                 for file in ours.split(",") for row in json.load(open(file))["rows"]}.values())
    quality = json.load(open(theirs))["quality"]["rows"]
    figure, axes = plt.subplots(figsize=(7.5, 4.8))

    def line(points, label, **style):
        points = sorted(points)
        axes.plot([bytes / 1e6 for bytes, _, _ in points], [kld for _, kld, _ in points], label=label, **style)
        for bytes, kld, name in points:
            if name:
                axes.annotate(name, (bytes / 1e6, kld), textcoords="offset points", xytext=(5, 4), fontsize=7)

    def points(kind, calibrated=True):
        some = [(row["f32"]["bytes"]["file"], row["f32"]["kld"]["mean"], "")
                for row in rows if row["recipe"].startswith(kind) and bool(row.get("calibration")) == calibrated]
        # A frontier: what another file of the same size is closer than is left out.
        return [at for at in some if not any(b <= 1.001 * at[0] and kld < at[1] for b, kld, _ in some)]

    line(points("--size"), "gq, whole file to a byte budget", marker="o", color="#0b6e4f")
    line(points("--bpw"), "gq, embedding kept at 8 bits", marker="s", color="#5aa786", linestyle=":")
    for imatrix, color in ((True, "#b5651d"), (False, "#c9a27e")):
        some = [(row["file_bytes"], row["kld"]["mean"], row["type"]) for row in quality
                if row["imatrix"] == imatrix and row["type"] != "BF16"]
        line(some, "llama.cpp" + (", imatrix" if imatrix else ""), marker="^", linestyle="", color=color)
    if len(sys.argv) > 4:
        f32 = json.load(open(sys.argv[4]))
        scored = [(row, row.get("wikitext2-test.raw.txt")) for row in f32.get("quality_f32", f32)["rows"]]
        some = [(row.get("file_bytes") or eval_["bytes"]["file"], eval_["kld"]["mean"], "") for row, eval_ in scored if eval_]
        line(some, "llama.cpp, imatrix, f32 activations", marker="v", linestyle="", color="#7a3b10", markersize=5)
    axes.set_yscale("log")
    axes.set_xlabel("file, MB")
    axes.set_ylabel("mean KL divergence, nats per token")
    axes.set_title(json.load(open(ours.split(",")[0]))["checkpoint"])
    axes.grid(True, which="both", alpha=0.25)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    main()
