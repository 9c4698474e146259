#!/usr/bin/env python3
"""Write testdata/malformed/checkpoint: one tiny checkpoint per broken rule, and `valid-*` ones they differ from.

    python3 scripts/make_malformed_checkpoints.py

Standard library only, and the same bytes on every machine. What each one must be refused with is in
crates/gq-checkpoint/tests/it/malformed.rs.
"""
import json
import shutil
import struct
from pathlib import Path

OUT = Path(__file__).resolve().parent.parent / "testdata" / "malformed" / "checkpoint"

CONFIG = {
    "model_type": "llama", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 6, "tie_word_embeddings": True,
}
GEMMA4 = {
    "model_type": "gemma4_text", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 6, "hidden_size_per_layer_input": 0,
    "head_dim": 4, "global_head_dim": 8, "layer_types": ["sliding_attention", "full_attention"],
}
SHAPES = {
    "model.embed_tokens.weight": [6, 8],
    "model.layers.0.input_layernorm.weight": [8],
    "model.layers.0.mlp.down_proj.weight": [8, 8],
    "model.layers.0.mlp.gate_proj.weight": [8, 8],
    "model.layers.0.mlp.up_proj.weight": [8, 8],
    "model.layers.0.post_attention_layernorm.weight": [8],
    "model.layers.0.self_attn.k_proj.weight": [4, 8],
    "model.layers.0.self_attn.o_proj.weight": [8, 8],
    "model.layers.0.self_attn.q_proj.weight": [8, 8],
    "model.layers.0.self_attn.v_proj.weight": [4, 8],
    "model.norm.weight": [8],
}
SIZES = {"F32": 4, "BF16": 2, "F8_E4M3": 1, "I32": 4}
ONE = {"F32": b"\0\0\x80\x3f", "BF16": b"\x80\x3f", "F8_E4M3": b"\x38", "I32": b"\1\0\0\0"}
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
UP, NORM = "model.layers.0.mlp.up_proj.weight", "model.norm.weight"


class Weights:
    """One weight file: entries in order, and the bytes behind the header."""

    def __init__(self, shapes=SHAPES, dtype="BF16"):
        self.entries, self.data = [], b""
        for name, shape in shapes.items():
            self.add(name, shape, dtype)

    def add(self, name, shape, dtype="BF16", value=None):
        count = 1
        for dim in shape:
            count *= dim
        begin = len(self.data)
        self.data += (ONE[dtype] if value is None else value) * count
        self.entries.append((name, {"dtype": dtype, "shape": shape, "data_offsets": [begin, len(self.data)]}))
        return self

    def entry(self, name):
        return dict(self.entries)[name]

    def without(self, name):
        """Without a tensor, and without its bytes."""
        rest = Weights({})
        for other, info in self.entries:
            if other != name:
                begin, end = info["data_offsets"]
                at = len(rest.data)
                rest.data += self.data[begin:end]
                rest.entries.append((other, info | {"data_offsets": [at, len(rest.data)]}))
        return rest

    def json(self):
        # By hand, so that a name may be written twice.
        pairs = [f"{json.dumps(name)}:{json.dumps(info, separators=(',', ':'))}" for name, info in self.entries]
        return ("{" + ",".join(pairs) + "}").encode()

    def file(self):
        return head(self.json()) + self.data


def head(text, length=None):
    return struct.pack("<Q", len(text) if length is None else length) + text


def config(**changes):
    return json.dumps({key: value for key, value in (CONFIG | changes).items() if value is not ...}).encode()


def halves():
    names = list(SHAPES)
    return Weights({n: SHAPES[n] for n in names[:6]}), Weights({n: SHAPES[n] for n in names[6:]})


def index(**changes):
    first, second = halves()
    files = {name: FIRST for name, _ in first.entries} | {name: SECOND for name, _ in second.entries}
    files = {name: file for name, file in (files | changes).items() if file is not ...}
    return json.dumps({"metadata": {"total_size": 0}, "weight_map": files}).encode()


def single(weights, **changes):
    """A checkpoint of one weight file."""
    return {"config.json": config(**changes), SINGLE: weights if isinstance(weights, bytes) else weights.file()}


def sharded(**files):
    """A checkpoint of two shards; a file given as None is left out."""
    first, second = halves()
    made = {"config.json": config(), INDEX: index(), FIRST: first.file(), SECOND: second.file()}
    made |= {{"index": INDEX, "first": FIRST, "second": SECOND}.get(key, key): value for key, value in files.items()}
    return {name: data for name, data in made.items() if data is not None}


def changed(name, **changes):
    """The valid file with one entry changed."""
    weights = Weights()
    weights.entry(name).update(changes)
    return weights


def patched(name, at, value):
    """The valid file with one element changed."""
    weights = Weights()
    at = weights.entry(name)["data_offsets"][0] + 2 * at
    weights.data = weights.data[:at] + value + weights.data[at + 2:]
    return weights


def f8(*scales):
    """The up projection in F8, with scale tensors (suffix, shape, value)."""
    weights = Weights().without(UP).add(UP, [8, 8], "F8_E4M3")
    for suffix, shape, value in scales:
        weights.add(UP + suffix, shape, "F32", value)
    return weights


def checkpoints():
    valid = Weights()
    norm = valid.entry(NORM)["data_offsets"]
    up = valid.entry(UP)["data_offsets"]
    half = struct.pack("<f", 0.5)
    yield "valid-single", single(valid)
    yield "valid-sharded", sharded()
    yield "valid-f8", single(f8(("_scale_inv", [1, 1], half)), quantization_config={"quant_method": "fp8"})
    yield "valid-repeated-head", single(Weights().add("lm_head.weight", [6, 8]))

    # config.json
    yield "config-absent", {SINGLE: valid.file()}
    yield "config-truncated", single(valid) | {"config.json": config()[:40]}
    yield "config-not-utf8", single(valid) | {"config.json": config()[:-1] + b', "x": "\xff"}'}
    yield "config-not-an-object", single(valid) | {"config.json": b"[]"}
    yield "config-repeated-key", single(valid) | {"config.json": config()[:-1] + b', "hidden_size": 16}'}
    yield "config-unknown-key", single(valid, **{"sparse\u001b[31m_attention": True})
    yield "config-missing-field", single(valid, hidden_size=...)
    yield "config-wrong-type", single(valid, hidden_size="8")
    yield "config-out-of-range", single(valid, num_hidden_layers=10**12)
    yield "config-negative", single(valid, vocab_size=-6)
    yield "config-head-groups", single(valid, num_attention_heads=4, num_key_value_heads=3)
    yield "config-activation", single(valid, hidden_act="relu2")
    yield "config-rope-type", single(valid, rope_scaling={"type": "longrope", "factor": 2.0})
    yield "config-rope-disagrees", single(valid, rope_theta=10000.0, rope_parameters={"rope_theta": 5000.0})
    yield "config-quantization", single(valid, quantization_config={"quant_method": "hqq", "bits": 4})
    yield "config-model-type", single(valid, model_type="gpt5")
    yield "config-heads-disagree", single(valid) | {
        "config.json": json.dumps(GEMMA4 | {"per_layer_config": {"1": {"head_dim": 4}}}).encode()}
    yield "config-no-shared-cache", single(valid) | {
        "config.json": json.dumps(GEMMA4 | {"num_kv_shared_layers": 1}).encode()}
    yield "config-layer-types", single(valid) | {
        "config.json": json.dumps(GEMMA4 | {"layer_types": ["full_attention"]}).encode()}

    # One weight file
    yield "weights-absent", {"config.json": config()}
    yield "weights-empty", single(b"")
    yield "weights-five-bytes", single(b"\5\0\0\0\0")
    yield "header-beyond-file", single(head(valid.json(), 1 << 40) + valid.data)
    yield "header-length-maximal", single(head(valid.json(), (1 << 64) - 1) + valid.data)
    yield "header-empty", single(head(b""))
    yield "header-not-an-object", single(head(b"[]"))
    yield "header-not-json", single(head(valid.json()[:-1]) + valid.data)
    yield "header-not-utf8", single(head(valid.json().replace(b"up_proj", b"\xff\xfe_proj")) + valid.data)
    yield "header-deep", single(head(b'{"x":' + b"[" * 500 + b"]" * 500 + b"}"))
    yield "header-metadata", single(head(b'{"__metadata__":{"format":1},' + valid.json()[1:]) + valid.data)
    yield "header-unknown-entry-key", single(changed(UP, strides=[8, 1]))
    yield "header-repeated-tensor", single(Weights().add(UP, [8, 8]))
    yield "header-empty-name", single(Weights().add("", [8]))
    yield "header-unknown-dtype", single(changed(UP, dtype="F4"))
    yield "header-rank", single(changed(UP, shape=[8, 8, 1, 1, 1, 1, 1, 1, 1]))
    yield "header-negative-dimension", single(changed(UP, shape=[-8, -8]))
    yield "header-shape-overflow", single(changed(UP, shape=[1 << 40, 1 << 40]))
    yield "header-shape-beyond-bytes", single(changed(UP, shape=[8, 9]))
    yield "header-offsets-reversed", single(changed(UP, data_offsets=[up[1], up[0]]))
    yield "header-offsets-maximal", single(changed(NORM, data_offsets=[(1 << 64) - 17, (1 << 64) - 1]))
    yield "header-overlap", single(changed(UP, data_offsets=[up[0] - 2, up[1] - 2]))
    yield "header-gap", single(changed(NORM, data_offsets=[norm[0] + 2, norm[1] + 2]))
    yield "header-gap-at-start", single(head(valid.json().replace(
        b'"model.embed_tokens.weight":{"dtype":"BF16","shape":[6,8],"data_offsets":[0,96]},', b"")) + valid.data)
    yield "data-truncated", single(valid.file()[:-7])
    yield "data-trailing", single(valid.file() + b"\0\0\0")

    # Tensors against the configuration
    yield "tensor-missing", single(valid.without(UP))
    yield "tensor-unexpected", single(Weights().add("model.layers.0.self_attn.q_norm\n\u202e.weight", [4]))
    yield "tensor-layer-beyond-last", single(Weights().add("model.layers.1.mlp.up_proj.weight", [8, 8]))
    yield "tensor-shape", single(valid.without(UP).add(UP, [8, 16]))
    yield "tensor-transposed", single(valid.without("model.layers.0.self_attn.k_proj.weight").add(
        "model.layers.0.self_attn.k_proj.weight", [8, 4]))
    yield "tensor-integers", single(valid.without(UP).add(UP, [8, 8], "I32"))
    yield "tensor-two-spellings", single(Weights().add("language_model.model.norm.weight", [8]))
    yield "tensor-tied-head-differs", single(Weights().add("lm_head.weight", [6, 8], value=b"\x00\x40"))
    yield "tensor-nan", single(patched(UP, 19, b"\xc0\x7f"))
    yield "tensor-infinite", single(patched("model.embed_tokens.weight", 47, b"\x80\xff"))

    # Scales of F8 weights
    yield "scale-shape", single(f8(("_scale_inv", [2, 2], half)))
    yield "scale-absent", single(f8(), quantization_config={"quant_method": "fp8"})
    yield "scale-without-weight", single(Weights().add(NORM + "_scale", [1], "F32"))
    yield "scale-twice", single(f8(("_scale", [1], half), ("_scale_inv", [1], half)))
    yield "scale-not-finite", single(f8(("_scale", [1], struct.pack("<f", float("nan")))))

    # Shards
    first, second = halves()
    yield "index-not-json", sharded(index=index()[:-1])
    yield "index-empty", sharded(index=b'{"weight_map": {}}')
    yield "index-repeated-tensor", sharded(index=index()[:-2] + f', "{NORM}": "{SECOND}"}}}}'.encode())
    yield "index-parent-directory", sharded(index=index(**{NORM: "../" + SECOND}))
    yield "index-absolute-path", sharded(index=index(**{NORM: "/etc/model.safetensors"}))
    yield "index-drive-letter", sharded(index=index(**{NORM: "C:model.safetensors"}))
    yield "index-other-file", sharded(index=index(**{NORM: "config.json"}))
    yield "index-file-absent", sharded(second=None)
    yield "index-tensor-nowhere", sharded(index=index(**{"model.layers.9.x": FIRST}))
    yield "index-wrong-shard", sharded(index=index(**{NORM: FIRST}))
    yield "index-tensor-unlisted", sharded(index=index(**{NORM: ...}))
    yield "shard-repeats-tensor", sharded(first=first.add(NORM, [8]).file())
    yield "shard-stray", sharded(**{"model-00003-of-00003.safetensors": second.file()})
    yield "shards-without-index", sharded(index=None)
    yield "single-beside-index", sharded(**{SINGLE: valid.file()})


if __name__ == "__main__":
    shutil.rmtree(OUT, ignore_errors=True)
    for name, files in checkpoints():
        folder = OUT / name
        folder.mkdir(parents=True)
        for file, data in files.items():
            (folder / file).write_bytes(data)
