#!/usr/bin/env python3
"""Measure sizes of a checkpoint: bytes, perplexity, KL divergence, top-1 agreement.

    cargo build --release -p gq
    python3 scripts/numerics.py CHECKPOINT --text TEXT --out docs/measurements/NAME.json
    target/release/gq calibrate CHECKPOINT -o MEASUREMENTS --calibration CALIBRATION_TEXT
    python3 scripts/numerics.py CHECKPOINT --text TEXT --measurements MEASUREMENTS --out docs/measurements/NAME.json \\
        --rows '--encoding tq4' '--encoding tt4' '--bpw 4.02' '--size 105.5MB'

Each row is what `gq convert` is told besides source and output; with --measurements, every row uses those measurements.
What follows ` + ` in a row is done to the file then: `improve --rounds` or `improve --scales` on the text of --calibration, with more options.
Without --rows: data-free at 8, 6, 5, 4, 3 and 2 bits. Embedding and head are at 8 bits but for `--size` rows, where they
compete. Each file is scored by `gq eval` with f32 activations (codes alone), and with int8 as they run when --int8 is given, and timed when --bench is: best of three (512 tokens of a prompt, 64 generated).
--also TEXT OUT scores each new file on another text as well, into a file of its own (f32 activations).
scripts/encodings.py prints a table of all encodings from two such files.
OUT is rewritten after every row; rows that it has already are kept and not measured again.
Needs only the Python standard library. TEXT is read byte for byte.
Compare quantizers only on checkpoints that do not sit on a quantization grid (`-smooth` of scripts/real_models.py).
"""
import argparse, hashlib, json, subprocess, tempfile
from pathlib import Path

DATA_FREE = [f"--bits {bits}" for bits in (8, 6, 5, 4, 3, 2)]


def gq(program: Path, *arguments: str) -> dict:
    done = subprocess.run([program, *arguments, "--json", "--quiet"], check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--rows", nargs="*", default=DATA_FREE)
    parser.add_argument("--encodings", nargs="*", help="in place of --rows: a row `--encoding NAME` for each")
    parser.add_argument("--measurements", type=Path)
    parser.add_argument("--calibration", type=Path, help="text for rows with ` + improve`")
    parser.add_argument("--int8", action="store_true", help="also with int8 activations")
    parser.add_argument("--bench", action="store_true", help="also tokens per second, by `gq bench`")
    parser.add_argument("--cache", type=Path, help="where the reference's logits are kept")
    parser.add_argument("--keep", type=Path, help="keep the files that --encodings makes here, and use those that are there")
    parser.add_argument("--also", nargs=2, type=Path, metavar=("TEXT", "OUT"), help="another text to score new files on")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--gq", type=Path, default=Path("target/release/gq"))
    options = parser.parse_args()
    head = {"made_by": "scripts/numerics.py", "checkpoint": options.checkpoint.name, "text": options.text.name,
            "windows": options.windows, "ctx": 512}
    result = json.loads(options.out.read_text()) if options.out.exists() else {**head, "rows": []}
    if {key: result.get(key) for key in head} != head:
        raise SystemExit(f"{options.out} was measured otherwise")
    other = {}
    if options.also:
        head = {**head, "text": options.also[0].name}
        other = json.loads(options.also[1].read_text()) if options.also[1].exists() else {**head, "rows": []}
        if {key: other.get(key) for key in head} != head:
            raise SystemExit(f"{options.also[1]} was measured otherwise")
    calibrated = {}
    if options.measurements:
        measurements = json.loads((options.measurements / "measurements.json").read_text())
        calibrated = {key: measurements[key] for key in ("format", "text_sha256", "tokens", "held_out_tokens", "gradient_tokens")}
        calibrated["trials"] = "corrections" in measurements
    cache = ["--cache", str(options.cache), "--cache-limit", "16GiB"] if options.cache else []
    for recipe in [f"--encoding {name}" for name in options.encodings] if options.encodings else options.rows:
        known = [row for row in result["rows"] if row["recipe"] == recipe and row.get("calibration", {}) == calibrated]
        row = known[0] if known else {"recipe": recipe, **({"calibration": calibrated} if calibrated else {})}
        wanted = [mode for mode in ("f32", "int8") if mode not in row and (mode == "f32" or options.int8)]
        bench = options.bench and "bench" not in row
        same = [row for row in other.get("rows", [])
                if row["recipe"] == recipe and row.get("calibration", {}) == calibrated]
        also = options.also and not same
        if not wanted and not bench and not also:
            continue
        with tempfile.TemporaryDirectory() as folder:
            # A kept file is found again by everything it was made from.
            made_from = json.dumps([options.checkpoint.name, recipe, calibrated])
            name = f"{recipe.split()[-1]}-{hashlib.sha256(made_from.encode()).hexdigest()[:12]}.gq"
            kept = options.keep / name if options.keep and options.encodings else None
            file = str(kept or Path(folder) / "model.gq")
            measured = ["--measurements", str(options.measurements)] if options.measurements else []
            convert, *steps = recipe.split(" + ")
            if not kept or not kept.exists():
                made = gq(options.gq, "convert", str(options.checkpoint), "-o", file, *convert.split(), *measured)
                row["convert_seconds"] = made["seconds"]
                row["relative_mse"] = made["report"]["relative_mse"]
            for number, step in enumerate(steps):
                verb, step, *how = step.split()
                common = [file, "--reference", str(options.checkpoint), "--calibration", str(options.calibration), *how]
                if step == "--rounds":
                    file = str(Path(folder) / f"step-{number}.gq")
                    common += [*measured, "-o", file]
                done = gq(options.gq, verb, step, *common)
                name = {"--rounds": "rounded_again", "--scales": "scales_tuned"}[step]
                of_step = done[step.removeprefix("--")]
                row[name] = {**{key: of_step[key] for key in ("helped", "held_out", "tokens")}, "seconds": done["seconds"]}
            def score(text: Path, mode: str) -> dict:
                report = gq(options.gq, "eval", file, "--reference", str(options.checkpoint), "--text", str(text),
                            "--windows", str(options.windows), "--activations", mode, *cache)
                report.pop("kld_by_position", None)
                return report

            for mode in wanted:
                row[mode] = score(options.text, mode)
            if also:
                again = {key: value for key, value in row.items() if key not in ("f32", "int8", "bench")}
                other["rows"].append({**again, "f32": score(options.also[0], "f32")})
                options.also[1].write_text(json.dumps(other, indent=1) + "\n")
            if bench:
                speed = gq(options.gq, "bench", file)
                row["bench"] = {test: max(speed[test]["tokens_per_second"]) for test in ("pp", "tg")}
        if not known:
            result["rows"].append(row)
        options.out.write_text(json.dumps(result, indent=1) + "\n")
        shown = row["f32"]
        print(f"| {'calibrated ' if calibrated else ''}`{recipe}` | {shown['bytes']['file']:,} | {shown['bpw']['body']:.3f} "
              f"| {shown['ppl']['model']:.3f} | {shown['kld']['mean']:.4f} | {100 * shown['top1']:.1f} |", flush=True)


if __name__ == "__main__":
    main()
