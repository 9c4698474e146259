#!/usr/bin/env python3
"""Is every key of config.json and of GGUF's metadata read and written as the engines mean it? A sweep, judged by them.

    .venv/bin/pip install --no-deps xllamacpp==2026.10.11549     # llama.cpp b11549 as PyPI ships it
    nice .venv/bin/python scripts/sweep_gguf.py --gq target/debug/gq [--only llama] [--match yarn] [--out FILE.json]

Three parts, from the tables of sweep_cases.py and sweep_nulls.py:

export  Tiny random checkpoints, each with one key changed. Right are the logits of transformers in float64;
        `gq export --gguf --type F32`, llama.cpp loads the file, and the KL divergence of its logits is at most LIMIT
        -- or `gq` refuses and names the key. The same checkpoint with the wrong value of its key differs from
        llama.cpp's logits by more than MOVED: so a wrong key would have been seen.
import  GGUFs written by gguf-py, each with one key set or left out. Right are llama.cpp's logits; `gq eval` of the
        same file is at most LIMIT away, or the key is refused by name; llama.cpp with the wrong value moves by MOVED.
nulls   Configurations with one key null or left out: `gq` computes what transformers computes, or refuses.

Exit 1 when an outcome is not the one that the table expects.
"""
import argparse
import json
import sys
import tempfile
from pathlib import Path

import independent_gguf
import llama_cpp_judge as judge
import sweep_models as models
import sweep_nulls
from sweep_cases import EXPORTS, IMPORTS, Export, Import

LIMIT, MOVED = 1e-4, 1e-2


def verdict(refused: str | None, said: str | None, distance: float | None) -> bool:
    """Whether the outcome is the expected one: refused with these words, or within the limit."""
    if refused is not None:
        return said is not None and refused in said
    return said is None and distance is not None and distance <= LIMIT


def run_export(case: Export, program: Path, folder: Path) -> dict:
    ids = models.input_ids()
    models.build(folder, models.patched(case.family, case.right), case.family)
    right = models.transformers_logits(folder, ids)
    wrong = models.transformers_logits(folder, ids, models.patched(case.family, case.wrong))
    out = folder / "out.gguf"
    said = models.export(program, folder, out)
    distance, back, moved = None, None, judge.kld(right, wrong)
    if said is None:
        try:
            theirs = judge.logits(out, ids)
            distance, moved = judge.kld(right, theirs), judge.kld(wrong, theirs)
            back = models.divergence(program, out, ids, right)
        except judge.Refused as error:
            said = f"llama.cpp: {error}"
    pin = pinned(case, out)
    good = verdict(case.refused, said, distance) and moved > MOVED
    if case.refused is None:
        good = good and isinstance(back, float) and back <= LIMIT
    return {"part": "export", "family": case.family, "key": case.key, "expected": case.refused or "exported",
            "kld": distance, "read_back": back, "wrong_value": moved, "refused": said, "as_expected": good, "pin": pin}


def pinned(case: Export, out: Path) -> dict:
    """What a test without llama.cpp checks: the patch, and the keys and factors that llama.cpp was right about."""
    dropped = [key for key, value in case.right.items() if value is models.DROP]
    pin = {"family": case.family, "key": case.key, "absent": dropped,
           "set": {k: v for k, v in case.right.items() if k not in (*dropped, "two tensors")}}
    if case.refused is not None or not out.exists():
        return pin | {"refused": case.refused}
    reader = independent_gguf.gguf.GGUFReader(out)
    plain = lambda value: value.item() if hasattr(value, "item") else value
    architecture = "llama" if case.family == "mistral" else case.family
    pin["keys"] = {key: plain(field.contents()) for key, field in reader.fields.items()
                   if key.startswith(f"{architecture}.")}
    factors = [tensor.data.tolist() for tensor in reader.tensors if tensor.name == "rope_freqs.weight"]
    return pin | {"factors": factors[0] if factors else None}


def run_import(case: Import, program: Path, folder: Path) -> dict:
    ids = models.input_ids()
    config = models.patched(case.family, case.config)
    weights = models.build(folder, config, case.family)
    data = independent_gguf.tensors(case.family, config, weights)
    if case.factors:
        data["rope_freqs.weight"] = independent_gguf.np.array(case.factors, independent_gguf.np.float32)
    keys = independent_gguf.metadata(case.family, config) | case.keys

    def written(name: str, keys: dict) -> Path:
        independent_gguf.write(folder / name, case.family, keys, data)
        return folder / name
    path = written("in.gguf", keys)
    theirs = judge.logits(path, ids)
    moved = judge.kld(theirs, judge.logits(written("wrong.gguf", keys | case.wrong), ids))
    distance = models.divergence(program, path, ids, theirs)
    said, distance = (distance, None) if isinstance(distance, str) else (None, distance)
    return {"part": "import", "family": case.family, "key": case.key, "expected": case.refused or "read",
            "kld": distance, "wrong_value": moved, "refused": said,
            "as_expected": verdict(case.refused, said, distance) and moved > MOVED}


def show(result: dict) -> None:
    mark = "  " if result["as_expected"] else "! "
    number = lambda key: "" if result.get(key) is None else (
        f"{result[key]:.1e}" if isinstance(result[key], float) else str(result[key])[:40])
    print(f"{mark}{result['part']} {result['family']:9}{result['key'][:46]:47}{number('kld'):9}{number('read_back'):9}"
          f"{number('wrong_value'):9}{(result.get('refused') or '')[-150:]}", flush=True)


BEGIN, END = "<!-- sweep: generated by scripts/sweep_gguf.py -->\n", "<!-- end of sweep -->\n"


def table(results: list[dict]) -> str:
    """What docs/GGUF.md shows."""
    value = lambda number: "" if number is None else f"{number:.1e}"
    lines = ["", "| family | key of `config.json` | exported | KLD in llama.cpp | KLD of the wrong value |", "|---|---|---|---|---|"]
    for result in (r for r in results if r["part"] == "export"):
        outcome = "yes" if result["expected"] == "exported" else f"refused: {result['expected']}"
        lines.append(f"| {result['family']} | {result['key']} | {outcome} | {value(result['kld'])} | {value(result['wrong_value'])} |")
    lines += ["", "| family | key of the GGUF | read | KLD from llama.cpp | KLD of the wrong value |", "|---|---|---|---|---|"]
    for result in (r for r in results if r["part"] == "import"):
        outcome = "yes" if result["expected"] == "read" else f"refused: {result['expected']}"
        lines.append(f"| {result['family']} | {result['key']} | {outcome} | {value(result['kld'])} | {value(result['wrong_value'])} |")
    nulls = [r for r in results if r["part"] == "nulls"]
    same, refused = sum(r["kld"] is not None for r in nulls), sum(r["kld"] is None for r in nulls)
    lines += ["", f"Of {len(nulls)} configurations with one key null or left out, `gq` computes {same} as transformers does and refuses {refused}; "
              "it computes none that transformers refuses.", ""]
    return "\n".join(lines)


def guarded(run, case, program: Path, folder: Path) -> dict:
    try:
        return run(case, program, folder)
    except Exception as error:  # the case is at fault, or llama.cpp does not run its file
        said = f"{type(error).__name__}: {error}".replace("\n", " ")
        return {"part": run.__name__, "family": case.family, "key": case.key, "expected": "", "kld": None,
                "wrong_value": None, "refused": said, "as_expected": False}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gq", type=Path, default=Path("target/release/gq"))
    parser.add_argument("--only", help="one family")
    parser.add_argument("--match", default="", help="cases whose key contains this")
    parser.add_argument("--parts", default="export,import,nulls")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--pin", type=Path, help="where to write what testdata/gguf/sweep.json has")
    parser.add_argument("--doc", type=Path, help="the page whose tables are written")
    options = parser.parse_args()
    chosen = lambda case: options.only in (None, case.family) and options.match in case.key
    runs = {"export": (run_export, EXPORTS), "import": (run_import, IMPORTS),
            "nulls": (sweep_nulls.run, sweep_nulls.cases())}
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for part in options.parts.split(","):
            run, cases = runs[part]
            for number, case in enumerate(filter(chosen, cases)):
                results.append(guarded(run, case, options.gq, Path(scratch) / f"{part}-{number}"))
                show(results[-1])
    bad = [result for result in results if not result["as_expected"]]
    exports = [result for result in results if result["part"] == "export"]
    exported = sum(result["expected"] == "exported" and result["as_expected"] for result in exports)
    print(f"{len(results)} cases, {len(bad)} not as expected; {exported} of {len(exports)} exported within {LIMIT:g}")
    pins = [result.pop("pin") for result in results if "pin" in result]
    if options.pin and not bad:
        lines = ",\n".join(json.dumps(pin) for pin in pins)
        bases = json.dumps(models.BASES, indent=1)
        options.pin.write_text(f'{{"bases": {bases},\n"cases": [\n{lines}\n]}}\n')
    if options.doc and not bad:
        page = options.doc.read_text()
        front, rest = page.split(BEGIN)
        options.doc.write_text(front + BEGIN + table(results) + "\n" + END + rest.split(END)[1])
    if options.out:
        document = {"made_by": "scripts/sweep_gguf.py", "llama.cpp": "b11549 (xllamacpp 2026.10.11549)",
                    "transformers": models.transformers.__version__, "limit": LIMIT, "moved": MOVED, "cases": results}
        options.out.write_text(json.dumps(document, indent=1) + "\n")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
