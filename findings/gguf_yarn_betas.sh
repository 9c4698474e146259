#!/usr/bin/env bash
# llama.cpp b11549 (xllamacpp 2026.10.11549 from PyPI) does not read a GGUF's YaRN betas for the llama architecture.
#
# gguf-py defines `<arch>.rope.scaling.yarn_beta_fast` and `yarn_beta_slow` (and ext_factor, attn_factor), and
# converters write them from `rope_scaling.beta_fast` and `beta_slow` of config.json. The guess was that the engine
# applies them. It computes the same logits, bit for bit, whatever they say: 32 and 1 are always taken, and a
# checkpoint with other betas runs with other frequencies than it was trained with, without a word. The keys
# `rope.scaling.factor` and `original_context_length` in the same file are read.
#
# Output seen:
#   yarn_beta_fast 1      largest difference of logits 0
#   yarn_beta_slow 16     largest difference of logits 0
#   yarn_ext_factor 0     largest difference of logits 0
#   yarn_attn_factor 2    largest difference of logits 0
#   factor 4              largest difference of logits above 1
# Exits 0 while that is so, 1 when it is not.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy gguf==0.19.0
"$work/venv/bin/pip" install --quiet --no-deps xllamacpp==2026.10.11549
cd "$work"
cat > probe.py <<'PYTHON'
import ctypes as C
import importlib.util
import sys
from pathlib import Path

import gguf
import numpy as np

LAYERS, HIDDEN, WIDTH, HEADS, DIM, VOCAB, TOKENS = 2, 64, 96, 4, 16, 64, 48


def write(path, keys):
    rng = np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "llama")
    plain = {"block_count": LAYERS, "context_length": 2048, "embedding_length": HIDDEN, "feed_forward_length": WIDTH,
             "attention.head_count": HEADS, "attention.head_count_kv": HEADS, "vocab_size": VOCAB,
             "rope.dimension_count": DIM, "attention.layer_norm_rms_epsilon": 1e-5, "rope.freq_base": 10000.0,
             "rope.scaling.type": "yarn", "rope.scaling.factor": 8.0, "rope.scaling.original_context_length": 256}
    for key, value in (plain | keys).items():
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)]
        add(f"llama.{key}", value)
    writer.add_string("tokenizer.ggml.model", "none")
    matrix = lambda rows, cols: (rng.standard_normal((rows, cols)) * 1.5 / np.sqrt(cols)).astype(np.float32)
    tensors = {"token_embd": matrix(VOCAB, HIDDEN) * 8, "output": matrix(VOCAB, HIDDEN) * 4}
    for i in range(LAYERS):
        square = {name: matrix(HIDDEN, HIDDEN) for name in ("attn_q", "attn_k", "attn_v", "attn_output")}
        mlp = {"ffn_gate": matrix(WIDTH, HIDDEN), "ffn_up": matrix(WIDTH, HIDDEN), "ffn_down": matrix(HIDDEN, WIDTH)}
        norms = {name: np.ones(HIDDEN, np.float32) for name in ("attn_norm", "ffn_norm")}
        tensors |= {f"blk.{i}.{name}": values for name, values in (square | mlp | norms).items()}
    tensors["output_norm"] = np.ones(HIDDEN, np.float32)
    for name, values in tensors.items():
        writer.add_tensor(f"{name}.weight", values)
    writer.write_header_to_file(); writer.write_kv_data_to_file(); writer.write_tensors_to_file(); writer.close()


class Defaults(C.Structure):  # larger than any parameters of the library: passed as they come
    _fields_ = [("bytes", C.c_uint8 * 1024)]


class Batch(C.Structure):
    _fields_ = [("n", C.c_int32), ("token", C.POINTER(C.c_int32)), ("embd", C.c_void_p), ("pos", C.POINTER(C.c_int32)),
                ("n_seq", C.POINTER(C.c_int32)), ("seq", C.POINTER(C.POINTER(C.c_int32))), ("logits", C.POINTER(C.c_int8))]


LOG = C.CFUNCTYPE(None, C.c_int, C.c_char_p, C.c_void_p)
silent = LOG(lambda *_: None)
package = Path(importlib.util.find_spec("xllamacpp").origin).parent
lib = C.CDLL(str(next(package.glob("xllamacpp*.so"))))
for name, result, arguments in [
        ("llama_log_set", None, [LOG, C.c_void_p]), ("llama_model_default_params", Defaults, []),
        ("llama_context_default_params", Defaults, []),
        ("llama_model_load_from_file", C.c_void_p, [C.c_char_p, Defaults]),
        ("llama_init_from_model", C.c_void_p, [C.c_void_p, Defaults]),
        ("llama_batch_init", Batch, [C.c_int32] * 3), ("llama_decode", C.c_int32, [C.c_void_p, Batch]),
        ("llama_get_logits_ith", C.POINTER(C.c_float), [C.c_void_p, C.c_int32]),
        ("llama_set_n_threads", None, [C.c_void_p, C.c_int32, C.c_int32])]:
    function = getattr(lib, name)
    function.restype, function.argtypes = result, arguments
lib.llama_log_set(silent, None)


def logits(keys):
    write("model.gguf", keys)
    model = lib.llama_model_load_from_file(b"model.gguf", lib.llama_model_default_params())
    context = lib.llama_init_from_model(model, lib.llama_context_default_params())
    lib.llama_set_n_threads(context, 1, 1)
    batch = lib.llama_batch_init(TOKENS, 0, 1)
    batch.n = TOKENS
    for i in range(TOKENS):
        batch.token[i], batch.pos[i], batch.n_seq[i], batch.logits[i] = (i * 7 + 3) % VOCAB, i, 1, 1
        batch.seq[i][0] = 0
    if lib.llama_decode(context, batch):
        sys.exit("llama_decode failed")
    rows = [np.ctypeslib.as_array(lib.llama_get_logits_ith(context, i), (VOCAB,)).copy() for i in range(TOKENS)]
    return np.stack(rows)


base, same = logits({}), True
for key, value, unread in [("yarn_beta_fast", 1.0, True), ("yarn_beta_slow", 16.0, True), ("yarn_ext_factor", 0.0, True),
                           ("yarn_attn_factor", 2.0, True), ("factor", 4.0, False)]:
    difference = float(np.abs(logits({f"rope.scaling.{key}": value}) - base).max())
    print(f"{key} {value:g}".ljust(22) + f"largest difference of logits {difference:g}")
    same &= (difference == 0) == unread
sys.exit(not same)
PYTHON
"$work/venv/bin/python" probe.py
