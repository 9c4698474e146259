#!/usr/bin/env python3
"""Compile CUDA C++ to the PTX text that is committed, with the one compiler whose output is committed.

    python3 scripts/build_ptx.py FILE.cu ...            # writes FILE.ptx next to each
    python3 scripts/build_ptx.py --check FILE.cu ...    # compiles, compares byte for byte, writes nothing

NVRTC 12.4.127 from PyPI (25 MB, in a folder of its own under target/), PTX ISA 8.4, compute_80. Needs no GPU and no
driver. --fmad=false: products and sums are fused only where the source says so, so that every result has defined bits.
The first lines of each PTX file name the compiler and the sha256 of its sources; a test compares them without a
compiler.
"""
import argparse
import ctypes
import hashlib
import re
import subprocess
import sys
from pathlib import Path

PACKAGES = ("nvidia-cuda-nvrtc-cu12==12.4.127", "nvidia-cuda-runtime-cu12==12.4.127")
OPTIONS = ("--gpu-architecture=compute_80", "--fmad=false", "--std=c++17", "--device-as-default-execution-space")
FOLDER = Path(__file__).resolve().parent.parent / "target" / "nvrtc-12.4.127"


def compiler() -> ctypes.CDLL:
    """NVRTC, installed first where it is not there."""
    library = FOLDER / "nvidia" / "cuda_nvrtc" / "lib" / "libnvrtc.so.12"
    if not library.exists():
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(FOLDER), *PACKAGES],
                       check=True)
    return ctypes.CDLL(str(library))


def sources(path: Path) -> list[Path]:
    """The file and the headers of its own folder that it includes, in order of inclusion."""
    found, queue = [], [path]
    while queue:
        file = queue.pop(0)
        if file in found:
            continue
        found.append(file)
        names = re.findall(r'^\s*#include "([^"]+)"', file.read_text(), re.M)
        queue += [file.parent / name for name in names]
    return found


def digest(path: Path) -> str:
    """sha256 over the name and text of every source."""
    total = hashlib.sha256()
    for file in sources(path):
        total.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return total.hexdigest()


def compile_ptx(nvrtc: ctypes.CDLL, path: Path) -> str:
    """The PTX of one file, with the header lines that say what it was made of."""
    def call(name: str, *arguments) -> None:
        status = getattr(nvrtc, name)(*arguments)
        if status:
            raise SystemExit(f"{path}: {name} gave {status}: {log(nvrtc, program)}")

    program = ctypes.c_void_p()
    call("nvrtcCreateProgram", ctypes.byref(program), path.read_bytes(), path.name.encode(), 0, None, None)
    include = FOLDER / "nvidia" / "cuda_runtime" / "include"
    options = [o.encode() for o in (*OPTIONS, f"-I{include}", f"-I{path.parent}")]
    status = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    if status:
        raise SystemExit(f"{path}: does not compile:\n{log(nvrtc, program)}")
    size = ctypes.c_size_t()
    call("nvrtcGetPTXSize", program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    call("nvrtcGetPTX", program, text)
    body = text.value.decode()
    head = f"// {path.name}, sha256 of its sources {digest(path)}\n// NVRTC 12.4.127 {' '.join(OPTIONS)}\n"
    return head + body


def log(nvrtc: ctypes.CDLL, program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value + 1)
    nvrtc.nvrtcGetProgramLog(program, text)
    return text.value.decode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--check", action="store_true", help="compare with what is there, write nothing")
    options = parser.parse_args()
    nvrtc = compiler()
    stale = []
    for path in options.files:
        made, target = compile_ptx(nvrtc, path), path.with_suffix(".ptx")
        if options.check:
            stale += [] if target.exists() and target.read_text() == made else [target.name]
        else:
            target.write_text(made)
            print(f"{target}: {len(made.splitlines())} lines")
    if stale:
        raise SystemExit("not what the compiler makes of the source: " + ", ".join(stale))


if __name__ == "__main__":
    main()
