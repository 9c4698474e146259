#!/usr/bin/env python3
"""Count what the assembler makes of the committed PTX: machine instructions a weight in inner loops, and spills.

    python3 scripts/count_sass.py [--arch 80,86,89,90,120] > docs/measurements/sass.json

ptxas and nvdisasm 13.5.37 from PyPI (52 MB, in a folder of their own under target/). Needs no GPU and no driver. Fails
when a kernel spills registers or takes more instructions a weight than its limit.
"""
import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

PACKAGES = ("nvidia-cuda-nvcc==13.5.37", "nvidia-cuda-nvdisasm==13.5.37")
ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "target" / "cuda-tools-13.5.37"
KERNELS = ROOT / "crates" / "gq-cuda" / "kernels"
# Kernel: an instruction of its inner loop, weights of one lane and round, most instructions a weight.
LIMITS = {"scalar": {"gemv_tq4_x1": ("IDP", 32, 2.1)}, "trellis": {}}
for bits in range(2, 7):
    LIMITS["trellis"][f"gemv_tt{bits}"] = ("FFMA", 256, 5.3 if bits == 4 else 5.45)
    LIMITS["trellis"][f"gemm_tt{bits}"] = ("IMMA", 256, 5.9)


def tool(name: str) -> Path:
    found = FOLDER / "nvidia" / "cu13" / "bin" / name
    if not found.exists():
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(FOLDER), *PACKAGES],
                       check=True)
    found.chmod(0o755)
    return found


def assemble(module: str, arch: str) -> tuple[Path, dict[str, int]]:
    """The assembled module, and bytes that each of its kernels spills."""
    cubin = FOLDER / f"{module}.{arch}.cubin"
    command = [tool("ptxas"), f"-arch=sm_{arch}", "-v", KERNELS / f"{module}.ptx", "-o", cubin]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    pairs = re.findall(r"Function properties for (\w+)\n.*?(\d+) bytes spill stores", text)
    return cubin, {kernel: int(stored) for kernel, stored in pairs}


def functions(cubin: Path) -> dict[str, tuple[list[str], dict[str, int]]]:
    """Instructions of each kernel, and which of them labels stand before."""
    text = subprocess.run([tool("nvdisasm"), "-c", cubin], check=True, capture_output=True, text=True).stdout
    found, name = {}, None
    for line in text.splitlines():
        if section := re.match(r"\.text\.(\w+):", line):
            name = section[1]
            found[name] = ([], {})
        elif name and (label := re.match(r"\s*\.(L_x_\d+):", line)):
            found[name][1][label[1]] = len(found[name][0])
        elif name and (instruction := re.match(r"\s*/\*[0-9a-f]+\*/\s+(.*?);", line)):
            found[name][0].append(instruction[1])
    return found


def inner_loop(instructions: list[str], labels: dict[str, int], opcode: str) -> int:
    """Instructions of the shortest loop that has most of an opcode."""
    loops = []
    for at, instruction in enumerate(instructions):
        branch = re.search(r"BRA.*?`\(\.(L_x_\d+)\)", instruction)
        first = labels.get(branch[1], at + 1) if branch else at + 1
        if first <= at:
            body = instructions[first:at + 1]
            loops.append((-sum(opcode in each for each in body), len(body)))
    return min(loops)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--arch", default="80,86,89,90,120", help="compute capabilities")
    options, failures = parser.parse_args(), []
    table = {"command": "python3 scripts/count_sass.py", "instructions a weight": {}, "spills": {}}
    for arch in options.arch.split(","):
        for path in sorted(KERNELS.glob("*.ptx")):
            cubin, spills = assemble(path.stem, arch)
            for kernel, stored in spills.items():
                if stored:
                    table["spills"][f"{kernel} sm_{arch}"] = stored
                    failures.append(f"{kernel} spills {stored} bytes on sm_{arch}")
            limits = LIMITS.get(path.stem, {})
            code = functions(cubin) if limits else {}
            for kernel, (opcode, weights, limit) in limits.items():
                count = inner_loop(*code[kernel], opcode) / weights
                table["instructions a weight"].setdefault(kernel, {})[f"sm_{arch}"] = round(count, 2)
                if count > limit:
                    failures.append(f"{kernel} takes {count:.2f} instructions a weight on sm_{arch}, at most {limit}")
    print(json.dumps(table, indent=2))
    if failures:
        raise SystemExit("\n".join(failures))


if __name__ == "__main__":
    main()
