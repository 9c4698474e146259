#!/usr/bin/env python3
"""Does a prebuilt llama.cpp say of a GGUF what `gq` says of it? Token ids, logits and perplexity.

    .venv/bin/pip install --no-deps xllamacpp==2026.10.11549     # llama.cpp b11549 as PyPI ships it
    nice .venv/bin/python scripts/check_gguf_export.py CHECKPOINT... --text wikitext2-test.raw.txt \\
        --gq target/release/gq [--types F16,Q8_0] [--windows 4] [--out FILE.json]

For each checkpoint and type: `gq export`, then

- the ids of 100 kB of mixed text (that of check_tokens.py) in llama.cpp and in the checkpoint's tokenizer.json;
- the logits of llama.cpp on windows of 512 tokens of the text, against `gq eval`'s on the same file: KL divergence of
  every position, from llama.cpp to gq, as `gq eval` computes it;
- for a quantized type, also with llama.cpp on the same weights written as F32: what is left then is not of the file.

A GGUF in place of a CHECKPOINT is read as it is: the ids are those of the tokenizer.json that gq makes of its metadata
(`cargo build --release -p gq-checkpoint --example gguf_tokenizer`, found next to gq).

Exit 1 when ids differ, or a mean divergence is above 1e-3 (1e-2 for a quantized type: llama.cpp rounds activations to
8 bits before a product with one, to 16 before one with F16; gq does neither with a GGUF).

The library is called through its C interface. Its parameter structures are passed as they come from the function that
fills in defaults (512 tokens of context), so that nothing here depends on their layout.
"""
import argparse
import ctypes
import importlib.util
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from check_tokens import mixed
from reference_logits import windows

CTX = 512  # llama.cpp's default
FLOATS = ("F32", "F16", "BF16")
LOGGER = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
SILENT = LOGGER(lambda level, text, data: None)


class Defaults(ctypes.Structure):
    """Parameters of llama.cpp, larger than any version's: passed and returned in memory, so the rest is not looked at."""

    _fields_ = [("bytes", ctypes.c_uint8 * 1024)]


class Batch(ctypes.Structure):
    _fields_ = [("n_tokens", ctypes.c_int32), ("token", ctypes.POINTER(ctypes.c_int32)), ("embd", ctypes.c_void_p),
                ("pos", ctypes.POINTER(ctypes.c_int32)), ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
                ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))), ("logits", ctypes.POINTER(ctypes.c_int8))]


class Llama:
    """A model and a context of 512 tokens in the prebuilt library."""

    def __init__(self, path: Path):
        package = Path(importlib.util.find_spec("xllamacpp").origin).parent
        self.lib = lib = ctypes.CDLL(str(next(package.glob("xllamacpp*.so"))))
        pointer = ctypes.c_void_p
        for name, result, arguments in [
            ("llama_log_set", None, [LOGGER, pointer]),
            ("llama_model_default_params", Defaults, []), ("llama_context_default_params", Defaults, []),
            ("llama_model_load_from_file", pointer, [ctypes.c_char_p, Defaults]),
            ("llama_init_from_model", pointer, [pointer, Defaults]),
            ("llama_model_get_vocab", pointer, [pointer]), ("llama_vocab_n_tokens", ctypes.c_int32, [pointer]),
            ("llama_n_ctx", ctypes.c_uint32, [pointer]),
            ("llama_tokenize", ctypes.c_int32, [pointer, ctypes.c_char_p, ctypes.c_int32, ctypes.POINTER(ctypes.c_int32),
                                                ctypes.c_int32, ctypes.c_bool, ctypes.c_bool]),
            ("llama_batch_init", Batch, [ctypes.c_int32] * 3), ("llama_batch_free", None, [Batch]),
            ("llama_decode", ctypes.c_int32, [pointer, Batch]),
            ("llama_get_logits_ith", ctypes.POINTER(ctypes.c_float), [pointer, ctypes.c_int32]),
            ("llama_get_memory", pointer, [pointer]), ("llama_memory_clear", None, [pointer, ctypes.c_bool]),
            ("llama_set_n_threads", None, [pointer, ctypes.c_int32, ctypes.c_int32]),
            ("llama_free", None, [pointer]), ("llama_model_free", None, [pointer]),
        ]:
            function = getattr(lib, name)
            function.restype, function.argtypes = result, arguments
        lib.llama_log_set(SILENT, None)
        self.model = lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
        if not self.model:
            raise SystemExit(f"{path}: llama.cpp does not load it")
        self.vocab = lib.llama_model_get_vocab(self.model)
        self.vocab_size = lib.llama_vocab_n_tokens(self.vocab)
        self.context = lib.llama_init_from_model(self.model, lib.llama_context_default_params())
        if not self.context or lib.llama_n_ctx(self.context) < CTX:
            raise SystemExit(f"llama.cpp's default context has less than {CTX} tokens")

    def tokenize(self, text: str) -> list[int]:
        data = text.encode()
        ids = (ctypes.c_int32 * len(data))()
        count = self.lib.llama_tokenize(self.vocab, data, len(data), ids, len(data), False, False)
        return list(ids[:count])

    def logits(self, tokens: list[int], threads: int):
        """f32 logits of each position in turn, of a window that starts from nothing."""
        lib = self.lib
        lib.llama_set_n_threads(self.context, threads, threads)
        lib.llama_memory_clear(lib.llama_get_memory(self.context), True)
        batch = lib.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
            batch.seq_id[i][0] = 0
        code = lib.llama_decode(self.context, batch)
        lib.llama_batch_free(batch)
        if code:
            raise SystemExit(f"llama_decode: {code}")
        for i in range(len(tokens)):
            yield np.ctypeslib.as_array(lib.llama_get_logits_ith(self.context, i), (self.vocab_size,))

    def close(self) -> None:
        self.lib.llama_free(self.context)
        self.lib.llama_model_free(self.model)


def save_outputs(llama: Llama, ids: np.ndarray, path: Path, threads: int) -> None:
    """The file of reference outputs that `gq eval --reference` takes."""
    rows, ctx = ids.shape
    ids_bytes, logits_bytes = ids.size * 8, ids.size * llama.vocab_size * 4
    header = json.dumps({
        "input_ids": {"dtype": "I64", "shape": [rows, ctx], "data_offsets": [0, ids_bytes]},
        "logits": {"dtype": "F32", "shape": [rows, ctx, llama.vocab_size],
                   "data_offsets": [ids_bytes, ids_bytes + logits_bytes]}}).encode()
    header += b" " * (-len(header) % 8)
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header + ids.astype("<i8").tobytes())
        for row in ids:
            for logits in llama.logits(row.tolist(), threads):
                file.write(logits.astype("<f4").tobytes())


def compare_ids(llama: Llama, checkpoint: Path, text: str) -> dict:
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    ours, theirs = tokenizer.encode(text, add_special_tokens=False).ids, llama.tokenize(text)
    if ours != theirs:
        at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
        raise SystemExit(f"{checkpoint.name}: token {at} of {len(ours)}: {ours[at:at + 3]} here, {theirs[at:at + 3]} in llama.cpp")
    return {"bytes": len(text.encode()), "ids": len(ours)}


def check(checkpoint: Path, kind: str, options, scratch: Path) -> dict:
    shipped = checkpoint.suffix == ".gguf"
    model = checkpoint if shipped else scratch / f"model-{kind}.gguf"
    export = lambda source, kind, to: gq(options, "export", source, "--gguf", "--type", kind, "--no-measure", "-o", to)
    if shipped:
        checkpoint = scratch / checkpoint.stem
        checkpoint.mkdir()
        reader = [options.gq.parent / "examples" / "gguf_tokenizer", model]
        (checkpoint / "tokenizer.json").write_bytes(subprocess.run(reader, check=True, stdout=subprocess.PIPE).stdout)
    else:
        export(checkpoint, kind, model)
    text = options.text.read_bytes().decode()
    ids = windows(checkpoint, text, options.windows, CTX).numpy()
    llama = Llama(model)
    result = {"model": checkpoint.name, "type": kind, "mixed_text": compare_ids(llama, checkpoint, mixed(text))}
    result |= compare_logits(llama, model, ids, options, scratch)
    if kind not in FLOATS:
        plain = scratch / "plain.gguf"
        export(model, "F32", plain)
        result["llama_cpp_in_f32"] = compare_logits(Llama(plain), model, ids, options, scratch)
        plain.unlink()
    if not shipped:
        model.unlink()
    return result


def gq(options, *arguments) -> bytes:
    command = [options.gq, *map(str, arguments), "--quiet", "--threads", str(options.threads)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def compare_logits(llama: Llama, model: Path, ids: np.ndarray, options, scratch: Path) -> dict:
    outputs = scratch / "outputs.safetensors"
    save_outputs(llama, ids, outputs, options.threads)
    llama.close()
    report = json.loads(gq(options, "eval", model, "--reference", outputs, "--json"))
    outputs.unlink()
    return {
        "tokens": report["tokens"], "kld": {key: report["kld"][key] for key in ("mean", "stderr", "p99", "max")},
        "top1": report["top1"], "ppl": {"gq": report["ppl"]["model"], "llama.cpp": report["ppl"]["reference"],
                "stderr": report["ppl"]["reference_stderr"], "ln_ratio": report["ln_ratio"]},
    }


def line(result: dict) -> str:
    kld, ppl = result["kld"], result["ppl"]
    return (f"{result['tokens']} tokens, KLD {kld['mean']:.2e} (p99 {kld['p99']:.2e}, max {kld['max']:.2e}), top-1 "
            f"{result['top1']:.4f}, perplexity {ppl['llama.cpp']:.4f} in llama.cpp, {ppl['gq']:.4f} in gq")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--gq", type=Path, default=Path("target/release/gq"))
    parser.add_argument("--types", default="F16,Q8_0")
    parser.add_argument("--windows", type=int, default=4, help="of 512 tokens")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results, failed = [], False
    with tempfile.TemporaryDirectory() as scratch:
        for checkpoint in options.checkpoints:
            for kind in ["as it is"] if checkpoint.suffix == ".gguf" else options.types.split(","):
                result = check(checkpoint, kind, options, Path(scratch))
                results.append(result)
                bad = not result["kld"]["mean"] <= (1e-3 if kind in FLOATS else 1e-2)
                plain = result.get("llama_cpp_in_f32")
                failed |= bad or bool(plain and not plain["kld"]["mean"] <= 1e-3)
                print(f"{checkpoint.name} {kind}: {result['mixed_text']['ids']} ids the same; {line(result)}"
                      + (f"; llama.cpp on these weights in F32: {line(plain)}" if plain else "")
                      + (": ABOVE THE LIMIT" if failed else ""), flush=True)
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n")
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
