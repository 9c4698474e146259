"""Logits that a prebuilt llama.cpp computes from a GGUF: the judge of sweep_gguf.py.

The library (xllamacpp on PyPI, llama.cpp b11549) is called through its C interface, in a process of its own for each
file: an assertion of llama.cpp then ends that process, and is a result like any other.
"""
import multiprocessing
import os
import tempfile
from pathlib import Path

import numpy as np

import check_gguf_export

os.environ["GGML_NO_BACKTRACE"] = "1"
ERROR = 3  # GGML_LOG_LEVEL_WARN; errors are 4


class Refused(Exception):
    """llama.cpp does not load or run the file; what it says."""


def _compute(path: str, ids: list[list[int]], out: Path) -> None:
    os.dup2(os.open(out / "stderr", os.O_CREAT | os.O_WRONLY), 2)
    said = []
    check_gguf_export.SILENT = check_gguf_export.LOGGER(
        lambda level, text, data: said.append(text.decode(errors="replace")) if level > ERROR else None)
    try:
        llama = check_gguf_export.Llama(Path(path))
        rows = [np.stack([row.astype(np.float64) for row in llama.logits(tokens, 1)]) for tokens in ids]
        np.save(out / "logits.npy", np.stack(rows))
    except SystemExit:
        (out / "said").write_text(" ".join(" ".join(said).split()))
    os._exit(0)


def logits(path: Path, ids: np.ndarray) -> np.ndarray:
    """Logits f64 [rows, tokens, vocab] of ids [rows, tokens]. Raises `Refused`."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        rows = [[int(token) for token in row] for row in ids]
        child = multiprocessing.get_context("fork").Process(target=_compute, args=(str(path), rows, out))
        child.start()
        child.join(120)
        if child.is_alive():
            child.terminate()
            raise Refused("no answer within 120 seconds")
        if (out / "logits.npy").exists():
            return np.load(out / "logits.npy")
        text = [(out / name).read_text(errors="replace") for name in ("said", "stderr") if (out / name).exists()]
        raise Refused(" ".join(" ".join(text).split())[-300:] or f"exit {child.exitcode}")


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64) - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def kld(p: np.ndarray, q: np.ndarray) -> float:
    """Mean KL divergence from softmax(p) to softmax(q) over all positions, in nats."""
    p, q = log_softmax(p), log_softmax(q)
    return float((np.exp(p) * (p - q)).sum(-1).mean())
