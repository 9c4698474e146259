#!/usr/bin/env python3
"""Make testdata/gguf: GGUF files and what the reference implementations make of them.

    python scripts/make_gguf_fixtures.py --llama-cpp LLAMA_CPP_SOURCES [--only types|tokenizers|models|names]

types       types.gguf: every kind of metadata value; random blocks of every tensor type that gq decodes.
            types.safetensors: the same tensors dequantized by gguf-py, and rows with gguf-py's encoding of them.
            split-0000N-of-00003.gguf: a model in three files.
            aligned-0000N-of-00003.gguf: the same with an alignment of 256, which only the first file says.
tokenizers  tokenizers/*: small tokenizers, with the ids that a text has.
models      models/*.json: metadata and tensors (name, type, shape, sha256) that convert_hf_to_gguf.py writes for the
            tiny checkpoints with those tokenizers.
names       names.json: what gguf-py finds a model is called, from its card, its configuration and its folder.

Needs gguf, numpy, safetensors, tokenizers, torch, transformers, sentencepiece, and llama.cpp's source tree.
"""
import argparse
import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "testdata/gguf"
COLS, ROWS = 512, 2
# Type, and where its blocks have f16 numbers, which random bytes must not make infinite.
TYPES = {
    "F32": None, "F16": None, "BF16": None,
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
    "IQ4_NL": [0], "IQ4_XS": [0], "MXFP4": [],
}
ENCODED = ["BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]


def random_blocks(rng, kind: str) -> np.ndarray:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    data = rng.integers(0, 256, (ROWS, COLS // block, size), dtype=np.uint8)
    for at in TYPES[kind]:
        scales = rng.normal(size=data.shape[:2]).astype(np.float16)
        data[:, :, at:at + 2] = scales.view(np.uint8).reshape(*data.shape[:2], 2)
    if kind == "MXFP4":
        data[:, 0, 0], data[:, 1, 0] = 0, 1  # the two subnormal scales
        data[:, 2:, 0] = rng.integers(100, 150, data[:, 2:, 0].shape)
    return data.reshape(ROWS, -1)


def make_types() -> None:
    import gguf
    from safetensors.numpy import save_file
    rng = np.random.default_rng(1)
    writer = gguf.GGUFWriter(OUT / "types.gguf", "test")
    writer.add_uint8("value.u8", 200)
    writer.add_int8("value.i8", -100)
    writer.add_uint16("value.u16", 60000)
    writer.add_int16("value.i16", -30000)
    writer.add_uint32("value.u32", 4_000_000_000)
    writer.add_int32("value.i32", -2_000_000_000)
    writer.add_float32("value.f32", 1e-6)
    writer.add_bool("value.bool", True)
    writer.add_string("value.string", "Grüße ▁")
    writer.add_uint64("value.u64", 2**63 + 1)
    writer.add_int64("value.i64", -2**62)
    writer.add_float64("value.f64", 0.1)
    kinds = gguf.GGUFValueType
    for name, values, kind in [
        ("u8", [1, 2, 3, 4, 5], kinds.UINT8), ("i16", [-1, 2], kinds.INT16), ("u32", list(range(7)), kinds.UINT32),
        ("i32", [-5, 5], kinds.INT32), ("f32", [0.5, -0.25], kinds.FLOAT32), ("bool", [True, False], kinds.BOOL),
        ("string", ["a", "", "bc", "d", "e"], kinds.STRING), ("u64", [2**40], kinds.UINT64), ("f64", [0.1], kinds.FLOAT64),
    ]:
        writer.add_key_value(f"array.{name}", values, kinds.ARRAY, kind)
    expected = {}
    for kind in TYPES:
        q = gguf.GGMLQuantizationType[kind]
        if TYPES[kind] is None:
            values = rng.normal(size=(ROWS, COLS)).astype(np.float32)
            data = gguf.quants.quantize(values, q)
        else:
            data = random_blocks(rng, kind)
        raw = data.view(np.uint8) if kind in ("F32", "F16") else data
        writer.add_tensor(f"t.{kind}", raw, raw_dtype=q)
        expected[f"decoded.{kind}"] = gguf.quants.dequantize(data, q).astype(np.float32).reshape(ROWS, COLS)
    rows = rng.normal(size=(8, 96)).astype(np.float32)
    rows[1] = 0
    rows[2, 5] = 1000
    rows[3] = np.abs(rows[3])
    rows[4] *= 1e-7
    rows[5] = 0.25
    expected["rows"] = rows
    for kind in ENCODED:
        expected[f"encoded.{kind}"] = gguf.quants.quantize(rows, gguf.GGMLQuantizationType[kind]).view(np.uint8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(expected, OUT / "types.safetensors")

    make_split("split", None)
    make_split("aligned", 256)


def make_split(name: str, alignment: int | None) -> None:
    import gguf
    writer = gguf.GGUFWriter(OUT / f"{name}.gguf", "test", split_max_tensors=2)
    if alignment:
        writer.add_custom_alignment(alignment)
    for i in range(5):
        writer.add_tensor(f"t.{i}", np.full((2, 32), i, np.float32))
    writer.write_header_to_file(OUT / f"{name}.gguf")
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


TEXT = (ROOT / "testdata/demo/eval.txt")
SAMPLE = """Hello, world!  Two  spaces,\ttabs\n\nand\r\nlines. I'll don't WE'VE 12345 6 78 3.14
äöü ß ñ é 你好，世界 こんにちは мир 🙂👩‍👩‍👧 \u00a0nbsp \u200bzero <bos> <|turn>user x<turn|> </s> ▁ <0x41>
def f(x): return x**2  # trailing   
"""
LLAMA_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
               r"|\s*[\r\n]+|\s+(?!\S)|\s+")
TEMPLATE = "{% for m in messages %}<|turn>{{ m['role'] }}\n{{ m['content'] }}<turn|>\n{% endfor %}"


def bpe_tokenizer(folder: Path) -> None:
    """Byte-level BPE with Llama 3's pre-tokenizer, 288 tokens."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA_SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    specials = [AddedToken(t, special=True, normalized=False) for t in ("<pad>", "<eos>", "<bos>", "<|turn>", "<turn|>")]
    trainer = trainers.BpeTrainer(vocab_size=288, special_tokens=specials, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([TEXT.read_text()], trainer)
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=True),
        processors.TemplateProcessing(single="<bos> $A", pair="<bos> $A <bos>:1 $B:1", special_tokens=[("<bos>", 2)])])
    finish_tokenizer(folder, tokenizer)


def spm_tokenizer(folder: Path, name: str) -> None:
    """SentencePiece BPE with byte fallback, 288 tokens, and its tokenizer.json as Gemma's is made."""
    from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2
    from tokenizers import Tokenizer
    model = sentencepiece_model_pb2.ModelProto()
    piece = sentencepiece_model_pb2.ModelProto.SentencePiece
    merged = ["▁t", "he", "▁a", "in", "▁the", "er", "nd", "▁and", "is", "on", "re", "▁th", "or"]
    letters = list("▁etaonisrhd")
    table = [("<pad>", piece.CONTROL), ("<eos>", piece.CONTROL), ("<bos>", piece.CONTROL), ("<unk>", piece.UNKNOWN),
             ("<|turn>", piece.CONTROL), ("<turn|>", piece.CONTROL), ("\n", piece.USER_DEFINED), ("▁▁", piece.USER_DEFINED)]
    table += [(f"<0x{byte:02X}>", piece.BYTE) for byte in range(256)]
    for text, kind in table:
        model.pieces.add(piece=text, score=0, type=kind)
    for rank, text in enumerate(merged + letters):
        model.pieces.add(piece=text, score=-rank, type=piece.NORMAL)
    spec, normalizer = model.trainer_spec, model.normalizer_spec
    spec.model_type, spec.vocab_size, spec.byte_fallback = spec.BPE, len(model.pieces), True
    spec.pad_id, spec.eos_id, spec.bos_id, spec.unk_id = 0, 1, 2, 3
    spec.pad_piece, spec.eos_piece, spec.bos_piece, spec.unk_piece = "<pad>", "<eos>", "<bos>", "<unk>"
    normalizer.name, normalizer.add_dummy_prefix, normalizer.remove_extra_whitespaces = "identity", False, False
    model = model.SerializeToString()
    if name == "gemma3":
        (folder / "tokenizer.model").write_bytes(model)
    sp = SentencePieceProcessor(model_proto=model)
    n = sp.get_piece_size()
    pieces = [sp.id_to_piece(i) for i in range(n)]
    vocab = {p: i for i, p in enumerate(pieces)}
    merges = []
    for i, piece in enumerate(pieces):
        if sp.is_control(i) or sp.is_byte(i) or sp.is_unknown(i):
            continue
        local = [(vocab[piece[:k]], vocab[piece[k:]], piece[:k], piece[k:]) for k in range(1, len(piece))
                 if piece[:k] in vocab and piece[k:] in vocab]
        merges += [(sp.get_score(i), a, b) for _, _, a, b in sorted(local)]
    merges.sort(key=lambda m: m[0], reverse=True)
    added = [{"id": i, "content": p, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": sp.is_control(i) or sp.is_unknown(i)}
             for i, p in enumerate(pieces) if sp.is_control(i) or sp.is_unknown(i) or p in ("\n", "▁▁")]
    bos = {"SpecialToken": {"id": "<bos>", "type_id": 0}}
    tokenizer = Tokenizer.from_str(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
        "post_processor": {"type": "TemplateProcessing", "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
                           "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                           "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": vocab, "merges": [[a, b] for _, a, b in merges]}}))
    finish_tokenizer(folder, tokenizer)


def finish_tokenizer(folder: Path, tokenizer) -> None:
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    config = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "add_bos_token": True, 
              "tokenizer_class": "PreTrainedTokenizerFast"}
    if "gemma" in folder.name:
        config |= {"unk_token": "<unk>", "additional_special_tokens": ["<|turn>", "<turn|>"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    ids = {"text": SAMPLE, "ids": tokenizer.encode(SAMPLE).ids, "plain": tokenizer.encode(SAMPLE, add_special_tokens=False).ids}
    (folder / "ids.json").write_text(json.dumps(ids) + "\n")


def make_tokenizers() -> None:
    for name in ("llama", "gemma3", "gemma4"):
        folder = OUT / "tokenizers" / name
        folder.mkdir(parents=True, exist_ok=True)
        bpe_tokenizer(folder) if name == "llama" else spm_tokenizer(folder, name)


# Checkpoint, tokenizer, and what of its configuration GGUF has no place for.
MODELS = [
    ("llama", "llama", {}), ("llama3", "llama", {}), ("qwen2", "llama", {}), ("qwen3", "llama", {}),
    ("qwen3-moe", "llama", {}), ("gemma3", "gemma3", {"query_pre_attn_scalar": 32}),
    ("gemma4-e2b", "gemma4", {}), ("gemma4-e4b", "gemma4", {}), ("gemma4-moe", "gemma4", {}), ("gemma4-dense", "gemma4", {}),
]


def make_models(sources: Path, only: str | None) -> None:
    import hashlib
    import shutil
    import subprocess
    import tempfile
    folder = OUT / "models"
    folder.mkdir(exist_ok=True)
    # The converter knows byte-level tokenizers by the hash of their ids; ours are new.
    patch = ("import sys; sys.argv = ['convert'] + sys.argv[1:]; from conversion.base import TextModel; "
             "TextModel.get_vocab_base_pre = lambda self, tokenizer: 'llama-bpe'; "
             # For Qwen2 transformers takes a class that adds a token of its own.
             "import transformers; transformers.AutoTokenizer = transformers.PreTrainedTokenizerFast; "
             "import runpy; runpy.run_path('convert_hf_to_gguf.py', run_name='__main__')")
    from gguf import GGUFReader
    for name, tokenizer, changes in MODELS:
        if only not in (None, name):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            model = Path(scratch) / "tiny-model"
            shutil.copytree(ROOT / "testdata/tiny" / name, model)
            for extra in ("reference.safetensors", "reference.json"):
                (model / extra).unlink()
            for file in (OUT / "tokenizers" / tokenizer).iterdir():
                if file.name != "ids.json":
                    shutil.copy(file, model)
            config = json.loads((model / "config.json").read_text())
            (model / "config.json").write_text(json.dumps({**config, **changes}))
            out = Path(scratch) / "out.gguf"
            for kind in ("f16", "q8_0"):
                subprocess.run([sys.executable, "-c", patch, str(model), "--outfile", str(out), "--outtype", kind],
                               cwd=sources, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                reader = GGUFReader(out)
                keys = {key: {"type": [t.name for t in field.types], "value": field.contents()}
                        for key, field in reader.fields.items() if not key.startswith("GGUF.")}
                tensors = [{"name": t.name, "type": t.tensor_type.name, "shape": [int(n) for n in reversed(t.shape)],
                            "sha256": hashlib.sha256(t.data.tobytes()).hexdigest()} for t in reader.tensors]
                (folder / f"{name}-{kind}.json").write_text(json.dumps(
                    {"changes": changes, "metadata": keys, "tensors": tensors}, ensure_ascii=False, indent=None) + "\n")


# Folder, parameters, and for some a configuration and a card.
NAMES = [(folder, parameters, {}, None) for folder, parameters in [
    ("tiny-model", 200_000), ("gemma-3-270m", 268_098_176), ("gemma-3-270m-it", 268_098_176), ("gemma-3-1b-it", 999_885_952),
    ("gemma-4-E2B-it", 5_100_000_000), ("gemma-4-31B-it", 31_270_000_000), ("gemma-4-26B-A4B-it", 25_800_000_000),
    ("SmolLM2-135M-Instruct", 134_515_008), ("smollm2-135m-instruct", 134_515_008), ("Llama-3.2-1B-Instruct", 1_235_814_400),
    ("Llama-3.1-8B", 8_030_000_000), ("Meta-Llama-3.1-8B-Instruct-128k", 8_030_000_000), ("Llama-2-7b-chat-hf", 6_738_000_000),
    ("Mixtral-8x7B-Instruct-v0.1", 46_700_000_000), ("bloom-7b1", 7_069_000_000), ("phi-3-mini-4k-instruct", 3_800_000_000),
    ("Hermes-2-Pro-Llama-3-8B", 8_030_000_000), ("model", 1_000_000), ("my model of mine", 1_000_000), ("v2", 1_000_000),
    ("model-q4_k_m-fp16", 1_000_000), ("a--b", 1_000_000), ("gpt2-xl", 1_500_000_000), ("xl-large-7B", 7_000_000_000),
    ("Qwen1.5-0.5B-Chat", 464_000_000), ("Yi-1.5-34B-Chat-16K", 34_400_000_000), ("iter3-tuned-1.5B-v2-alpha", 1_500_000_000),
    ("llama-3-lora", 8_000_000_000), ("x-1_5b-7B", 7_000_000_000), ("e5-small", 33_000_000), ("0", 1_000_000),
    ("snowflake-arctic-embed-m-v1.5", 109_000_000), ("Mistral-Nemo-Instruct-2407", 12_200_000_000), ("ALLCAPS-name-3b", 3_000_000_000),
]] + [
    ("abcdef0123", 134_515_008, {"_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct"}, None),
    ("gemma-3-270m", 268_098_176, {"_name_or_path": "/models/of/mine/gemma"}, None),
    ("gemma-3-270m", 268_098_176, {"_name_or_path": "./gemma-3-270m-mine"}, None),
    ("SmolLM2-135M-Instruct", 134_515_008, {}, "---\nlibrary_name: transformers\nlicense: apache-2.0\nlanguage:\n- en\n"
     "pipeline_tag: text-generation\ntags:\n- safetensors\n- onnx\nbase_model:\n- HuggingFaceTB/SmolLM2-135M\n---\n\n# SmolLM2\n"),
    ("gemma-3-270m-it", 268_098_176, {}, "---\nbase_model: google/gemma-3-270m\nlicense: gemma\ntags:\n- gemma3\n- google\n"
     "pipeline_tag: text-generation\nlibrary_name: transformers\nextra_gated_heading: Access\nextra_gated_prompt: >-\n  To access\n"
     "  it, agree.\n---\ntext\n"),
    ("Llama-3.2-1B", 1_235_814_400, {}, "---\nlanguage:\n- en\n- de\n- no\nlicense: other\nlicense_name: llama3.2\nlicense_link: >-\n"
     "  LICENSE.txt\ndatasets: [org/one, \"org/two-v2\"]\nextra_gated_fields:\n  First Name: text\n---\n"),
    ("merge-7B", 7_000_000_000, {}, "---\nmodel_name: A Merge\nmodel_creator: me\nmodel_type: llama\nversion: v3\nbase_model:\n"
     "- https://huggingface.co/org/base-7B-v0.1\n- https://example.org/x\n- ./local\n- name-only\nlicense:\n- mit\n- apache-2.0\n"
     "model_description: \"what it does\"\nurl: https://example.org\nmodel_doi: 10.1/x\nrepo_url: https://example.org/r\n---\n"),
    ("plain-1B", 1_000_000_000, {}, "# no front matter\n"),
    ("plain-1B", 1_000_000_000, {}, "---\ntags:\nbase_model:\n---\n"),
]


def make_names() -> None:
    import tempfile
    import gguf
    cases = []
    for folder, parameters, config, readme in NAMES:
        with tempfile.TemporaryDirectory() as scratch:
            model = Path(scratch) / folder
            model.mkdir()
            (model / "config.json").write_text(json.dumps(config))
            if readme:
                (model / "README.md").write_text(readme)
            metadata = gguf.Metadata.load(None, model, None, parameters)
            # As the converter does after loading.
            metadata.size_label = metadata.size_label or gguf.size_label(parameters, parameters, 0, 0)
            writer = gguf.GGUFWriter(None, "llama")
            metadata.set_gguf_meta_model(writer)
        keys = {key: value.value for key, value in writer.kv_data[0].items() if key != "general.architecture"}
        cases.append({"folder": folder, "parameters": parameters, "config": config, "readme": readme, "metadata": keys})
    lines = [json.dumps(case, ensure_ascii=False) for case in cases]
    (OUT / "names.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-cpp", type=Path, help="source tree with convert_hf_to_gguf.py")
    parser.add_argument("--only", choices=["types", "tokenizers", "models", "names"])
    parser.add_argument("--model", help="of the models this one alone")
    args = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    if args.llama_cpp:
        sys.path[:0] = [str(args.llama_cpp), str(args.llama_cpp / "gguf-py")]
    if args.only in (None, "types"):
        make_types()
    if args.only in (None, "tokenizers"):
        make_tokenizers()
    if args.only in (None, "models"):
        make_models(args.llama_cpp, args.model)
    if args.only in (None, "names"):
        make_names()


if __name__ == "__main__":
    main()
