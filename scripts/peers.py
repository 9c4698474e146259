#!/usr/bin/env python3
"""Measure llama.cpp next to gq: size, divergence, conversion cost and speed of its quantizations.

    .venv/bin/python scripts/peers.py build WORK                  # llama.cpp from its PyPI source package, 15 min
    .venv/bin/python scripts/real_models.py MODELS
    nice .venv/bin/python scripts/peers.py quality WORK --checkpoint MODELS/smollm2-135m-instruct-smooth \\
        --like MODELS/gguf/smollm2-135m-instruct-q4_1.gguf --text wikitext2-test.raw.txt \\
        --out docs/measurements/llama-cpp-smollm2-135m.json [--imatrix-text FILE]
    .venv/bin/python scripts/peers.py quality-f32 WORK --checkpoint … --like … --out … --gq target/release/gq \\
        --imatrix-text FILE --imatrix-windows 0 --texts wikitext2-test.raw.txt sympy-code.txt
    .venv/bin/python scripts/peers.py convert-speed WORK --checkpoint … --like … --out … --gq target/release/gq
    .venv/bin/python scripts/peers.py decode-speed  WORK --checkpoint … --like … --out … --gq target/release/gq \\
        --gq-files tq4.gq tq8.gq            # both on a quiet machine; with --gq the peers take turns in one run
    .venv/bin/python scripts/peers.py table docs/measurements/llama-cpp-*.json              # JSON as Markdown

`quality` writes the checkpoint as f32 GGUF (scripts/hf_to_gguf.py), lets llama-perplexity save its logits on
windows of the text, quantizes from bf16, and scores every type against those logits. Reference weights, text and
windows are the same ones that gq is measured on. The embedding (tied to the head in these models) is held at Q8_0
in every row, as gq's default has it; `default_file_bytes` is the size under llama.cpp's own choice for it.
Results are JSON without machine paths. `quality-f32` lets `gq eval` score the
files with f32 activations, as gq's own tables are, so that codes are compared with codes; 0 windows are all of the text.
`quality` and `quality-f32` keep the rows they find and add the missing ones; the two speed
commands replace their own part of the file.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

from gguf import GGUFReader

import hf_to_gguf

SOURCE_PACKAGE = "llama-cpp-python==0.3.36"  # carries the whole of llama.cpp under vendor/
TOOLS = ("llama-quantize", "llama-perplexity", "llama-imatrix", "llama-bench", "llama-tokenize", "llama-completion")
TYPES = ("BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "Q2_K")
SPEED_TYPES = ("Q8_0", "Q4_K_M")
QUIET = 0.5  # load average below which a timing is believed
HEAD = ("token_embd", "output.")
PARTIAL = object()  # stands for the unfinished output file in a command


def build(work: Path) -> None:
    """Fetch the source package and build the tools with the compiler at hand (cmake and ninja from PyPI)."""
    work.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "llama-cpp-python",
                    "-d", str(work), SOURCE_PACKAGE], check=True)
    subprocess.run(["tar", "xf", next(work.glob("llama_cpp_python-*.tar.gz")), "-C", work], check=True)
    tree = next(work.glob("llama_cpp_python-*/vendor/llama.cpp"))
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    switches = ["-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_CURL=OFF", "-DLLAMA_BUILD_TESTS=OFF",
                "-DLLAMA_BUILD_SERVER=OFF", "-DLLAMA_BUILD_UI=OFF"]
    subprocess.run(["cmake", "-B", "build", "-G", "Ninja", *switches], cwd=tree, env=environment, check=True)
    subprocess.run(["cmake", "--build", "build", "-j2", "--target", *TOOLS], cwd=tree, env=environment, check=True)


class Llama:
    """The built tools, and a record of the commands run, without the folders of this machine."""

    def __init__(self, work: Path):
        self.bin = next(work.glob("llama_cpp_python-*/vendor/llama.cpp/build/bin"))
        self.commands: list[str] = []

    def start(self, tool: str, *arguments) -> subprocess.Popen:
        self.record(tool, *arguments)
        return subprocess.Popen([self.bin / tool, *map(str, arguments)], stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)

    def make(self, path: Path, tool: str, *arguments) -> Path:
        """The file that the command writes, run only if it is not there; PARTIAL in the arguments is its name."""
        partial = path.with_suffix(".partial")
        if path.exists():
            self.record(tool, *[path if a is PARTIAL else a for a in arguments])
        else:
            self.run(tool, *[partial if a is PARTIAL else a for a in arguments])
            self.commands[-1] = self.commands[-1].replace(partial.name, path.name)
            partial.rename(path)
        return path

    def record(self, tool: str, *arguments) -> None:
        """Keep the command, with file names in place of paths."""
        self.commands.append(" ".join([tool, *[Path(a).name if isinstance(a, Path) else str(a) for a in arguments]]))

    def run(self, tool: str, *arguments) -> str:
        process = self.start(tool, *arguments)
        output, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"{self.commands[-1]}: exit {process.returncode}\n{output[-2000:]}")
        return output


def gguf_of(options, kind: str) -> Path:
    """The checkpoint as a GGUF file of f32 or bf16 in the work folder; made once."""
    path = options.work / f"{options.checkpoint.name}-{kind}.gguf"
    if not path.exists():
        partial = path.with_suffix(".partial")
        hf_to_gguf.write(options.checkpoint, options.like, partial, kind)
        partial.rename(path)
    return path


def quantize(llama: Llama, options, kind: str, imatrix: Path | None = None) -> Path:
    source = gguf_of(options, "bf16")
    if kind == "BF16":
        return source
    path = options.work / f"{options.checkpoint.name}-{kind}{'-imatrix' if imatrix else ''}.gguf"
    with_imatrix = ["--imatrix", imatrix] if imatrix else []
    return llama.make(path, "llama-quantize", *with_imatrix, "--token-embedding-type", "q8_0", source, PARTIAL, kind,
                      options.threads)


def default_bytes(llama: Llama, options, kind: str) -> int:
    """Size of the file when llama.cpp also chooses the embedding's type."""
    path = options.work / "default.gguf"
    llama.run("llama-quantize", gguf_of(options, "bf16"), path, kind, 2)
    size = path.stat().st_size
    path.unlink()
    return size


def sizes(path: Path) -> dict:
    """Bytes of the file and of the body (all weights but embedding and head), as bits per weight too."""
    body = [t for t in GGUFReader(path).tensors if not t.name.startswith(HEAD)]
    everything = GGUFReader(path).tensors
    body_bytes, file_bytes = sum(int(t.n_bytes) for t in body), path.stat().st_size
    return {
        "file_bytes": file_bytes, "body_bytes": body_bytes,
        "bpw_file": 8 * file_bytes / sum(int(t.n_elements) for t in everything),
        "bpw_body": 8 * body_bytes / sum(int(t.n_elements) for t in body),
        "tensor_types": count(t.tensor_type.name for t in everything),
    }


def count(names) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in names:
        found[name] = found.get(name, 0) + 1
    return found


def statistics(output: str) -> dict:
    """The figures of llama-perplexity --kl-divergence."""
    def value(label: str) -> list[float]:
        match = re.search(rf"{label}\s*:\s*([-\d.]+)%?(?:\s*±\s*([\d.]+))?", output)
        return [float(g) for g in match.groups() if g is not None]
    ppl, kld = value(r"Mean PPL\(Q\)"), value(r"Mean\s+KLD")
    return {
        "ppl": {"model": ppl[0], "error": ppl[1], "reference": value(r"Mean PPL\(base\)")[0],
                "ln_ratio": value(r"Mean ln\(PPL\(Q\)/PPL\(base\)\)")[0]},
        "kld": {"mean": kld[0], "error": kld[1], "median": value(r"Median\s+KLD")[0],
                "p99": value(r"99\.0%\s+KLD")[0], "p999": value(r"99\.9%\s+KLD")[0],
                "max": value(r"Maximum KLD")[0]},
        "top1": value(r"Same top p")[0] / 100, "rms_dp": value(r"RMS Δp")[0] / 100,
    }


def quality(options, facts: dict, save) -> None:
    """One row per type, and per type with an imatrix where a text for it is given; rows already there are kept."""
    llama = Llama(options.work)
    protocol = {"checkpoint": options.checkpoint.name, "text": options.text.name, "ctx": options.ctx,
                "windows": options.windows, "scored": "second half of each window",
                "reference": "the same checkpoint as f32 GGUF in llama.cpp; its logits are stored in 16 bits"}
    done = facts.get("quality", {})
    if {k: done.get(k) for k in protocol} != protocol:
        done = {"cpu": cpu(), **protocol, "imatrix": None, "rows": [], "commands": []}
    windows = ["-c", options.ctx, "--chunks", options.windows, "-t", options.threads]
    base = llama.make(options.work / f"{options.checkpoint.name}-{options.text.stem}-{options.windows}x{options.ctx}.logits",
                      "llama-perplexity", "-m", gguf_of(options, "f32"), "-f", options.text, *windows,
                      "--kl-divergence-base", PARTIAL)
    imatrix = None
    if options.imatrix_text:
        imatrix = importance(llama, options)
        done["imatrix"] = {"text": options.imatrix_text.name, "windows": options.imatrix_windows}
    wanted = [(kind, None) for kind in options.types]
    wanted += [(kind, imatrix) for kind in options.types if imatrix and kind not in ("BF16", "Q8_0")]
    for kind, matrix in wanted:
        if any(r["type"] == kind and r["imatrix"] == (matrix is not None) for r in done["rows"]):
            continue
        model = quantize(llama, options, kind, matrix)
        output = llama.run("llama-perplexity", "-m", model, "-f", options.text, *windows,
                           "--kl-divergence-base", base, "--kl-divergence")
        row = {"type": kind, "imatrix": matrix is not None, **sizes(model), **statistics(output)}
        if kind != "BF16" and matrix is None:
            row["default_file_bytes"] = default_bytes(llama, options, kind)
        done["rows"].append(row)
        done["commands"] += [c for c in llama.commands if c not in done["commands"]]
        facts["quality"] = done
        save()
        print(f"{kind:8}{' imatrix' if matrix else '        '}  {row['bpw_body']:5.2f} bpw  "
              f"KLD {row['kld']['mean']:.4f}  PPL {row['ppl']['model']:.3f}", flush=True)
        if kind not in ("BF16", *SPEED_TYPES) or matrix:
            model.unlink()


def importance(llama: Llama, options) -> Path:
    """The importance matrix of --imatrix-text, or of its first windows."""
    windows = options.imatrix_windows
    name = f"{options.checkpoint.name}-{options.imatrix_text.stem}-{windows or 'all'}.imatrix.gguf"
    some = ["--chunks", windows] if windows else []
    return llama.make(options.work / name, "llama-imatrix", "-m", gguf_of(options, "bf16"), "-f", options.imatrix_text,
                      "-o", PARTIAL, "--output-format", "gguf", "--no-ppl", "-c", options.ctx, *some, "-t", options.threads)


def quality_f32(options, facts: dict, save) -> None:
    """Files of llama-quantize with an importance matrix, scored by `gq eval` on every text; rows there already are kept."""
    llama = Llama(options.work)
    protocol = {"checkpoint": options.checkpoint.name, "ctx": options.ctx, "windows": options.windows,
                "imatrix": {"text": options.imatrix_text.name, "windows": options.imatrix_windows or "all"},
                "scored_by": "gq eval --activations f32"}
    done = facts.get("quality_f32", {})
    if {k: done.get(k) for k in protocol} != protocol:
        done = {**protocol, "rows": []}
    matrix = importance(llama, options)
    for kind in options.types:
        row = next((row for row in done["rows"] if row["type"] == kind), None)
        if row is None:
            row = {"type": kind}
            done["rows"].append(row)
        wanted = [text for text in options.texts if text.name not in row]
        if not wanted:
            continue
        model = quantize(llama, options, kind, matrix)
        row |= sizes(model)
        for text in wanted:
            output = subprocess.run([options.gq, "eval", model, "--reference", options.checkpoint, "--text", text, "--windows",
                                     str(options.windows), "--activations", "f32", "--json", "--quiet", "--cache",
                                     options.work / "logits"], check=True, stdout=subprocess.PIPE)
            report = json.loads(output.stdout)
            row[text.name] = {key: report[key] for key in ("ppl", "kld", "top1", "kld_by_window")}
            facts["quality_f32"] = {**done, "commands": llama.commands}
            save()
            print(f"{kind:8} {row['bpw_body']:5.2f} bpw  {text.name}  KLD {report['kld']['mean']:.4f}", flush=True)
        model.unlink()


def watch_memory(process: subprocess.Popen, peak: dict) -> None:
    """Largest anonymous and file-mapped resident memory of the process, polled every 2 ms."""
    path = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        try:
            fields = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
        except OSError:
            return
        for name in ("RssAnon", "RssFile"):
            if name in fields:
                peak[name] = max(peak.get(name, 0), int(fields[name].split()[0]) * 1024)
        time.sleep(0.002)


def quiet_load(options) -> float:
    """The load average once it is low; timings taken during other work are worth nothing."""
    for _ in range(1 if options.busy else 120):
        if (load := os.getloadavg()[0]) < QUIET:
            return load
        if not options.busy:
            time.sleep(5)
    if options.busy:
        return load
    raise SystemExit(f"the load is still {load:.1f} after ten minutes, {QUIET} is the limit (--busy measures all the same)")


def timed(process: subprocess.Popen) -> dict:
    """Wall and CPU seconds and peak memory of a process that has just been started."""
    peak: dict = {}
    start, before = time.monotonic(), os.times()
    watcher = threading.Thread(target=watch_memory, args=(process, peak))
    watcher.start()
    process.communicate()
    watcher.join()
    after = os.times()
    if process.returncode:
        raise SystemExit(f"{process.args[0]} failed with code {process.returncode}")
    return {"wall_s": time.monotonic() - start, "rss_anon_peak": peak["RssAnon"],
            "cpu_s": after.children_user + after.children_system - before.children_user - before.children_system,
            "rss_file_peak": peak.get("RssFile", 0)}


def convert_speed(options, facts: dict, save) -> None:
    """llama-quantize from bf16, and with --gq `gq convert --bits 4` from the same weights, in turn."""
    llama, load = Llama(options.work), quiet_load(options)
    source, out = gguf_of(options, "bf16"), options.work / "speed.out"
    threads = str(options.threads)
    rows = [{"type": kind, "source_bytes": source.stat().st_size, "runs": []} for kind in options.types]
    if options.gq:
        rows.append({"type": "gq convert --bits 4", "runs": []})
    for _ in range(options.repeat):
        for row in rows:
            if row["type"].startswith("gq"):
                command = [options.gq, *row["type"].split()[1:], "--threads", threads, "--quiet", options.checkpoint,
                           "-o", out]
                row["runs"].append(timed(subprocess.Popen(command, stdout=subprocess.DEVNULL)))
            else:
                row["runs"].append(timed(llama.start("llama-quantize", "--token-embedding-type", "q8_0", source, out,
                                                     row["type"], threads)))
            print(row["type"], row["runs"][-1], flush=True)
            out.unlink()
    facts["convert_speed"] = {"cpu": cpu(), "checkpoint": options.checkpoint.name, "threads": options.threads,
                              "load_average": load, "rows": rows, "commands": sorted(set(llama.commands))}
    save()


def decode_speed(options, facts: dict, save) -> None:
    """llama-bench pp512 and tg64, tokens per second; with --gq `gq bench` on each of --gq-files, in turn."""
    llama, rows, load = Llama(options.work), {}, quiet_load(options)
    threads = str(options.threads)
    files = {kind: quantize(llama, options, kind) for kind in options.types}

    def add(name: str, test: str, sample: float) -> None:
        row = rows.setdefault((name, test), {"type": name, "test": test, "samples": []})
        row["samples"].append(sample)
        print(name, test, f"{sample:.1f} t/s", flush=True)

    for _ in range(options.repeat):
        for kind, path in files.items():
            output = llama.run("llama-bench", "-m", path, "-t", threads, "-p", 512, "-n", 64, "-r", 1, "-o", "json")
            for test in json.loads(output[output.index("["):output.rindex("]") + 1]):
                add(kind, f"pp{test['n_prompt']}" if test["n_prompt"] else f"tg{test['n_gen']}", test["avg_ts"])
        for path in options.gq_files if options.gq else ():
            done = subprocess.run([options.gq, "bench", path, "--threads", threads, "--repetitions", "1", "--json",
                                   "--quiet"], check=True, stdout=subprocess.PIPE)
            report = json.loads(done.stdout)
            add(f"gq {path.stem}", "pp512", report["pp"]["tokens_per_second"][0])
            add(f"gq {path.stem}", "tg64", report["tg"]["tokens_per_second"][0])
    for row in rows.values():
        row["tokens_per_s"] = sorted(row["samples"])[len(row["samples"]) // 2]
    facts["decode_speed"] = {"cpu": cpu(), "checkpoint": options.checkpoint.name, "threads": options.threads,
                             "load_average": load, "rows": list(rows.values()), "commands": sorted(set(llama.commands))}
    save()


def cpu() -> str:
    text = Path("/proc/cpuinfo").read_text()
    name, flags = (re.search(rf"{key}\s*: (.*)", text)[1] for key in ("model name", "flags"))
    levels = [f for f in ("avx2", "avx512f", "avx512_vnni", "avx_vnni") if f in flags.split()]
    return f"{name}, {os.cpu_count()} cores, {' '.join(levels)}"


def table(files: list[Path]) -> str:
    lines = []
    for file in files:
        facts = json.loads(file.read_text())
        if "quality" in facts:
            q = facts["quality"]
            lines += [f"**{q['checkpoint']}**, {q['windows']} windows of {q['ctx']}, {q['text']}, reference PPL "
                      f"{q['rows'][0]['ppl']['reference']:.3f}", "",
                      "| llama.cpp type | file MB | body bpw | KLD | median | p99 | PPL | top-1 % |",
                      "|---|--:|--:|--:|--:|--:|--:|--:|"]
            lines += [f"| {r['type']}{' + imatrix' if r['imatrix'] else ''} | {r['file_bytes'] / 1e6:.1f} | "
                      f"{r['bpw_body']:.2f} | {r['kld']['mean']:.4f} | {r['kld']['median']:.4f} | "
                      f"{r['kld']['p99']:.3f} | {r['ppl']['model']:.3f} | {100 * r['top1']:.1f} |" for r in q["rows"]]
            lines.append("")
        if "convert_speed" in facts:
            c = facts["convert_speed"]
            lines += [f"llama-quantize, {c['threads']} threads", "", "| type | best wall s | CPU s | peak anonymous MB |",
                      "|---|--:|--:|--:|"]
            lines += [f"| {r['type']} | {min(x['wall_s'] for x in r['runs']):.2f} | "
                      f"{min(x['cpu_s'] for x in r['runs']):.2f} | "
                      f"{max(x['rss_anon_peak'] for x in r['runs']) / 1e6:.0f} |" for r in c["rows"]]
            lines.append("")
        if "decode_speed" in facts:
            d = facts["decode_speed"]
            lines += [f"llama-bench, {d['threads']} threads", "", "| type | test | tokens/s |", "|---|---|--:|"]
            lines += [f"| {r['type']} | {r['test']} | {r['tokens_per_s']:.1f} ({min(r['samples']):.1f} to "
                      f"{max(r['samples']):.1f}) |" for r in d["rows"]]
            lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build").add_argument("work", type=Path)
    commands.add_parser("table").add_argument("files", type=Path, nargs="+")
    kinds = ("Q6_K", "Q4_K_M", "IQ4_XS", "Q3_K_M")
    for name, types in (("quality", TYPES), ("quality-f32", kinds), ("convert-speed", ("Q4_K_M",)), ("decode-speed", SPEED_TYPES)):
        command = commands.add_parser(name)
        command.add_argument("work", type=Path)
        command.add_argument("--checkpoint", type=Path, required=True, help="a folder made by real_models.py")
        command.add_argument("--like", type=Path, required=True, help="the GGUF file it was made from")
        command.add_argument("--out", type=Path, required=True, help="JSON to write into")
        command.add_argument("--types", nargs="+", default=list(types))
        command.add_argument("--threads", type=int, default=2)
        command.add_argument("--repeat", type=int, default=3)
        if name == "quality-f32":
            command.add_argument("--texts", type=Path, nargs="+", required=True)
            command.add_argument("--gq", type=Path, required=True, help="the gq program that scores")
        if name.endswith("-speed"):
            command.add_argument("--busy", action="store_true", help="do not wait for a quiet machine")
            command.add_argument("--gq", type=Path, help="the gq program, measured in the same run")
        if name == "decode-speed":
            command.add_argument("--gq-files", type=Path, nargs="*", default=[], help=".gq files for `gq bench`")
        if name == "quality":
            command.add_argument("--text", type=Path, required=True)
        if name.startswith("quality"):
            command.add_argument("--ctx", type=int, default=512)
            command.add_argument("--windows", type=int, default=40)
            command.add_argument("--imatrix-text", type=Path, required=name != "quality")
            command.add_argument("--imatrix-windows", type=int, default=100)
    options = parser.parse_args()
    if options.command == "build":
        return build(options.work)
    if options.command == "table":
        return print(table(options.files))
    measure = {"quality": quality, "quality-f32": quality_f32, "convert-speed": convert_speed, "decode-speed": decode_speed}[options.command]
    facts = json.loads(options.out.read_text()) if options.out.exists() else {}
    facts |= {"made_by": "scripts/peers.py", "llama_cpp": SOURCE_PACKAGE}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    measure(options, facts, lambda: options.out.write_text(json.dumps(facts, indent=1) + "\n"))


if __name__ == "__main__":
    main()
