#!/usr/bin/env python3
"""Gemma 4's tokenizer and chat template from the vocabulary in llama.cpp's source tree, checked on its test pairs.

    .venv/bin/python scripts/peers.py build WORK      # or just its first step: the unpacked source package
    .venv/bin/python scripts/gemma4_tokenizer.py WORK OUT_DIR

Writes tokenizer.json, tokenizer_config.json and chat_template.jinja into OUT_DIR, ready to lie next to a checkpoint of
make_shapes.py, after every text of ggml-vocab-gemma-4.gguf.inp has given the token ids of its .out file.
Gemma terms apply to the vocabulary: never commit it.
"""
import argparse
import json
from pathlib import Path

from gguf import GGUFReader
from tokenizers import Tokenizer

from real_models import added_tokens, scalar

SEPARATOR = "\n__ggml_vocab_test__\n"


def tokenizer_json(reader: GGUFReader) -> dict:
    tokens = scalar(reader, "tokenizer.ggml.tokens")
    types = scalar(reader, "tokenizer.ggml.token_type")
    merges = [m.split(" ", 1) for m in scalar(reader, "tokenizer.ggml.merges")]
    bos = {"SpecialToken": {"id": "<bos>", "type_id": 0}}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added_tokens(tokens, types),
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
                          "invert": False},
        "post_processor": {"type": "TemplateProcessing",
                           "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
                           "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                           "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": {t: i for i, t in enumerate(tokens)}, "merges": merges},
    }


def check(tokenizer: Tokenizer, vocabulary: Path) -> int:
    """Number of texts whose ids agree; exits naming the first that does not."""
    texts = Path(f"{vocabulary}.inp").read_bytes().decode().split(SEPARATOR)
    expected = Path(f"{vocabulary}.out").read_text().split("\n")
    for text, ids in zip(texts, expected):
        actual = tokenizer.encode(text, add_special_tokens=False).ids
        if actual != [int(i) for i in ids.split()]:
            raise SystemExit(f"{text!r} gives {actual}, expected {ids}")
    return len(texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", type=Path, help="where peers.py unpacked llama.cpp")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    vocabulary = next(options.work.glob("llama_cpp_python-*/vendor/llama.cpp/models/ggml-vocab-gemma-4.gguf"))
    reader = GGUFReader(vocabulary)
    text = json.dumps(tokenizer_json(reader), ensure_ascii=False)
    agreed = check(Tokenizer.from_str(text), vocabulary)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "tokenizer.json").write_text(text)
    (options.out / "tokenizer_config.json").write_text(json.dumps(
        {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>", "add_bos_token": True,
         "tokenizer_class": "GemmaTokenizerFast"}, indent=2) + "\n")
    (options.out / "chat_template.jinja").write_text(scalar(reader, "tokenizer.chat_template"))
    print(f"{options.out}: {agreed} texts give the expected token ids")


if __name__ == "__main__":
    main()
