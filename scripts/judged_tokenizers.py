"""Small vocabularies for tests of GGUF tokenizers, and llama.cpp's ids of a text in each.

    nice .venv/bin/python scripts/judge_gguf_tokenizers.py --make testdata/gguf/judged

bytes.gguf    byte-level BPE whose merges cross words, digits and punctuation, so that every pre-tokenizer shows
pieces.gguf   SentencePiece with scores; turn tokens that a chat template writes
ids.json      texts, and ids for each value of `tokenizer.ggml.pre` (an empty one: the key is missing), with and without
              a space in front, as Gemma 4, and with turn tokens of the types CONTROL and NORMAL
"""
import json
import tempfile
from pathlib import Path

import gguf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

ROOT = Path(__file__).resolve().parent.parent
PRES = ["", "default", "gpt-2", "smollm", "llama-bpe", "smaug-bpe", "qwen2", "falcon", "deepseek-coder", "gpt-4o", "tekken"]
MORE = ["phi-2", "mpt", "olmo", "exaone4", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "llama3",
        "llama-v3", "falcon3", "pixtral", "dbrx", "deepseek-r1-qwen", "stablelm2", "megrez", "llama4"]
TEMPLATE = ("{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m['role'] }}\n{{ m['content'] }}<end_of_turn>\n"
            "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}")
PROMPT = "<start_of_turn>user\nhello there<end_of_turn>\n<start_of_turn>model\n"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6


def corpus() -> list[str]:
    """The project's own documents, and lines that make merges across the borders of words."""
    text = "\n".join((ROOT / name).read_text() for name in ["docs/STYLE.md", "docs/GGUF.md"])
    extra = "I'll don't WE'VE it's 12345 2024 1,000 ... ==> -- !! \n\n\n\t\t  x = 1;\n    return y\n" * 40
    return [text[i:i + 400] for i in range(0, len(text), 400)] + [extra]


def byte_level() -> tuple[list[str], list[str], list[int]]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(vocab_size=520, special_tokens=["<s>", "</s>", "<|im_start|>", "<tool>"], max_token_length=8,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    types = [NORMAL] * len(tokens)
    types[:4] = [CONTROL, CONTROL, CONTROL, USER_DEFINED]
    return tokens, [" ".join(pair) for pair in model["merges"]], types


def pieces() -> tuple[list[str], list[str], list[int], list[float]]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\n", "isolated")
    specials = ["<unk>", "<bos>", "<eos>", "<pad>", "<start_of_turn>", "<end_of_turn>", "<tool>"]
    specials += [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=520, special_tokens=specials, max_token_length=8, limit_alphabet=70, show_progress=False)
    tokenizer.train_from_iterator([text.replace(" ", "▁") for text in corpus()], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    types = [UNKNOWN, CONTROL, CONTROL, CONTROL, CONTROL, CONTROL, USER_DEFINED] + [BYTE] * 256
    types += [NORMAL] * (len(tokens) - len(types))
    rank = {}
    for pair in model["merges"]:
        rank.setdefault("".join(pair), len(rank))
    scores = [float(-rank.get(token, len(rank) + i)) for i, token in enumerate(tokens)]
    return tokens, [" ".join(pair) for pair in model["merges"]], types, scores


def write(path: Path, keys: dict, drop=()) -> None:
    """A GGUF with a vocabulary and no weights, as llama.cpp ships them for its tests."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_rope_dimension_count(32)
    writer.add_layer_norm_rms_eps(1e-5)
    for key, value in keys.items():
        if isinstance(value, list):
            writer.add_array(f"tokenizer.{key}", value)
        elif isinstance(value, bool):
            writer.add_bool(f"tokenizer.{key}", value)
        elif isinstance(value, int):
            writer.add_uint32(f"tokenizer.{key}", value)
        else:
            writer.add_string(f"tokenizer.{key}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make(out: Path, vocabulary) -> None:
    """`vocabulary` opens a GGUF in llama.cpp: `judge_gguf_tokenizers.Vocabulary`."""
    from judge_gguf_tokenizers import samples
    out.mkdir(parents=True, exist_ok=True)
    texts = samples()

    def ids(keys: dict, parse: bool, of: list[str]) -> list[list[int]]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "m.gguf"
            write(path, keys)
            opened = vocabulary(path)
            found = [opened.ids(text, parse, True) for text in of]
            opened.close()
        return found

    tokens, merges, types = byte_level()
    bytes_ = {"ggml.model": "gpt2", "ggml.pre": "gpt-2", "ggml.tokens": tokens, "ggml.token_type": types, "ggml.merges": merges,
              "ggml.bos_token_id": 0, "ggml.eos_token_id": 1}
    write(out / "bytes.gguf", bytes_)
    of_pre = lambda pre: {key: pre if key == "ggml.pre" else value for key, value in bytes_.items() if pre or key != "ggml.pre"}
    by_pre = {pre: ids(of_pre(pre), False, texts) for pre in PRES}
    same = {pre: next(known for known in PRES[1:] if ids(of_pre(pre), False, texts) == by_pre[known]) for pre in MORE}
    assert by_pre[""] == by_pre["default"], "a missing pre-tokenizer is the default one"

    tokens, merges, types, scores = pieces()
    spm = {"ggml.model": "llama", "ggml.pre": "default", "ggml.tokens": tokens, "ggml.scores": scores, "ggml.token_type": types,
           "ggml.merges": merges, "ggml.bos_token_id": 1, "ggml.eos_token_id": 2, "ggml.unknown_token_id": 0,
           "ggml.add_bos_token": True, "chat_template": TEMPLATE}
    write(out / "pieces.gguf", spm)
    start = tokens.index("<start_of_turn>")
    normal = [NORMAL if i in (start, start + 1) else kind for i, kind in enumerate(types)]
    result = {
        "texts": texts,
        "pre": by_pre,
        "same_as": same,
        "parsed": ids(bytes_, True, texts + ["<s>a</s><|im_start|>  <tool>b <tool>"]),
        "pieces": {"space": ids(spm, False, texts), "no_space": ids(spm | {"ggml.add_space_prefix": False}, False, texts),
                   "gemma4": ids(spm | {"ggml.model": "gemma4"}, False, texts)},
        "turns": {"prompt": PROMPT, "control": ids(spm, True, [PROMPT])[0],
                  "normal": ids(spm | {"ggml.token_type": normal}, True, [PROMPT])[0]},
    }
    text = json.dumps(result, ensure_ascii=True, separators=(",", ":"))
    (out / "ids.json").write_text(text + "\n")
    print(f"{out}: {len(text)} bytes of ids; {len(result['turns']['control'])} and {len(result['turns']['normal'])} ids of the prompt")
