#!/usr/bin/env python3
"""Does gq read the tokenizer of a GGUF as a prebuilt llama.cpp does? Ids of one text, over many vocabularies.

    .venv/bin/pip install --no-deps xllamacpp==2026.10.11549
    .venv/bin/pip download --no-deps --no-binary llama-cpp-python llama-cpp-python && tar xf llama_cpp_python-*.tar.gz
    cargo build -p gq-checkpoint --example gguf_tokenizer
    nice .venv/bin/python scripts/judge_gguf_tokenizers.py llama_cpp_python-*/vendor/llama.cpp/models/ggml-vocab-*.gguf

`gguf_tokenizer` prints the tokenizer.json that gq rebuilds from the metadata; the Hub's tokenizers library runs it;
llama.cpp reads the same file. Compared are texts of many kinds, each with special tokens read as text and as tokens,
the texts that llama.cpp tests its own vocabularies with (the .inp of a file), every added token in several places, and
every token of the vocabulary as a word. Files whose kind gq refuses are listed with the reason. Exit 1 on a difference.

    ... scripts/judge_gguf_tokenizers.py --make testdata/gguf/judged     # the small vocabularies of the tests

makes small GGUFs with a vocabulary and no weights, and the ids that llama.cpp gives a text in each.
"""
import argparse
import ctypes
import json
import subprocess
import sys
from pathlib import Path

from check_gguf_export import SILENT, Defaults, LOGGER

ROOT = Path(__file__).resolve().parent.parent
SEPARATOR = "\n__ggml_vocab_test__\n"


class Vocabulary:
    """A GGUF's vocabulary in the prebuilt library."""

    def __init__(self, path: Path):
        import importlib.util
        package = Path(importlib.util.find_spec("xllamacpp").origin).parent
        self.lib = lib = ctypes.CDLL(str(next(package.glob("xllamacpp*.so"))))
        pointer = ctypes.c_void_p
        for name, result, arguments in [
            ("llama_log_set", None, [LOGGER, pointer]), ("llama_model_default_params", Defaults, []),
            ("llama_model_load_from_file", pointer, [ctypes.c_char_p, Defaults]),
            ("llama_model_get_vocab", pointer, [pointer]), ("llama_model_free", None, [pointer]),
            ("llama_tokenize", ctypes.c_int32, [pointer, ctypes.c_char_p, ctypes.c_int32, ctypes.POINTER(ctypes.c_int32),
                                                ctypes.c_int32, ctypes.c_bool, ctypes.c_bool]),
        ]:
            function = getattr(lib, name)
            function.restype, function.argtypes = result, arguments
        lib.llama_log_set(SILENT, None)
        parameters = lib.llama_model_default_params()
        parameters.bytes[vocab_only_at(lib)] = 1
        self.model = lib.llama_model_load_from_file(str(path).encode(), parameters)
        if not self.model:
            raise ValueError("llama.cpp does not load it")
        self.vocab = lib.llama_model_get_vocab(self.model)

    def ids(self, text: str, parse: bool, add: bool = False) -> list[int]:
        data = text.encode()
        ids = (ctypes.c_int32 * (2 * len(data) + 16))()
        count = self.lib.llama_tokenize(self.vocab, data, len(data), ids, len(ids), add, parse)
        return list(ids[:count])

    def close(self) -> None:
        self.lib.llama_model_free(self.model)


def vocab_only_at(lib) -> int:
    """Where `vocab_only` is among the parameters of b11549; checked by the defaults around it."""
    data = bytes(lib.llama_model_default_params().bytes)
    if any(data[40:74]) or data[74] != 1:
        raise SystemExit("the parameters of this llama.cpp are not those of b11549")
    return 72


def samples() -> list[str]:
    """The texts of gq-text's sample_text.rs."""
    import re
    source = (ROOT / "crates/gq-text/src/sample_text.rs").read_text()
    found = re.findall(r'\(\s*"[^"]*",\s*"((?:[^"\\]|\\.)*)",?\s*\)', source)
    plain = lambda text: re.sub(r"\\u\{([0-9A-Fa-f]+)\}|\\(.)", lambda m: chr(int(m[1], 16)) if m[1] else
                                {"n": "\n", "r": "\r", "t": "\t"}.get(m[2], m[2]), text)
    assert len(found) == 16, len(found)
    return [plain(text) for text in found]


def texts_for(path: Path, tokenizer) -> list[tuple[str, bool]]:
    texts = [(text, parse) for text in samples() for parse in (False, True)]
    tests = path.with_name(path.name + ".inp")
    if tests.exists():
        texts += [(text, False) for text in tests.read_bytes().decode().split(SEPARATOR)]
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    texts += [(f"a{t}b {t} c {t}{t}\n{t}\n", parse) for t in added for parse in (False, True)]
    words = [tokenizer.decode([i], skip_special_tokens=False) for i in range(tokenizer.get_vocab_size())]
    words = [word for word in words if "\ufffd" not in word and "\0" not in word]
    for i in range(0, len(words), 512):
        texts += [(" ".join(words[i:i + 512]), False), ("\n".join(words[i:i + 512]), False)]
    return [(text, parse) for text, parse in texts if "\0" not in text]


def rebuilt(path: Path, options):
    from tokenizers import Tokenizer
    done = subprocess.run([options.reader, path, *options.pre], capture_output=True, text=True)
    if done.returncode:
        raise ValueError(done.stderr.strip())
    return Tokenizer.from_str(done.stdout)


def judge(path: Path, options) -> dict:
    name = path.stem.removeprefix("ggml-vocab-")
    try:
        ours = rebuilt(path, options)
    except ValueError as error:
        return {"name": name, "refused": str(error)[:120]}
    theirs = Vocabulary(path)
    compared = ids = 0
    kinds, different = {}, []
    for text, parse in texts_for(path, ours):
        ours.encode_special_tokens = not parse
        a, b = ours.encode(text, add_special_tokens=False).ids, theirs.ids(text, parse)
        compared, ids = compared + 1, ids + len(b)
        if a != b:
            at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
            different.append((text[:40], parse, [ours.id_to_token(i) for i in a[at - 1:at + 3]], [ours.id_to_token(i) for i in b[at - 1:at + 3]]))
    for text in ("a", "", " a"):
        a, b = ours.encode(text).ids, theirs.ids(text, False, True)
        if a != b:
            different.append((text, "with special tokens", a, b))
    theirs.close()
    return {"name": name, "texts": compared, "ids": ids, "different": different}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--reader", type=Path, default=ROOT / "target/debug/examples/gguf_tokenizer")
    parser.add_argument("--pre", nargs=1, default=[], help="assumed where a file names none")
    parser.add_argument("--make", type=Path, help="make the small vocabularies of the tests here")
    options = parser.parse_args()
    failed = False
    for path in options.files:
        found = judge(path, options)
        if "refused" in found:
            print(f"{found['name']}: refused: {found['refused']}", flush=True)
            continue
        print(f"{found['name']}: {found['texts']} texts, {found['ids']} ids, {len(found['different'])} texts differ", flush=True)
        for text, parse, a, b in found["different"][:6]:
            print(f"    {text!r} ({'tokens parsed' if parse is True else parse or 'plain'}): gq {a}, llama.cpp {b}")
        failed |= bool(found["different"])
    if options.make:
        from judged_tokenizers import make
        make(options.make, Vocabulary)
    sys.exit(failed)


if __name__ == "__main__":
    main()
