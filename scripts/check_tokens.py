#!/usr/bin/env python3
"""Do the checkpoint's tokenizer.json and llama.cpp give the same token ids on 100 kB of mixed text?

    .venv/bin/python scripts/check_tokens.py WORK MODEL.gguf CHECKPOINT --text FILE [--save mixed.txt]

WORK is where peers.py built llama.cpp; MODEL.gguf is any GGUF with the model's tokenizer. The text is a mixture: 55 kB
of FILE, source code of this repository, many scripts and emoji, runs of white space, numbers, and the special tokens
spelled out (read as plain text). Exit 1 with the first difference.
"""
import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

ROOT = Path(__file__).parent.parent
# The first letters of alphabets and syllabaries; words are drawn from each.
SCRIPTS = ["abcdefghijklmnopqrstuvwxyz", "äöüßéèêçñøåœ", "абвгдежзиклмнопрстуфхцчшщыэюя", "αβγδεζηθικλμνξοπρστυφχψω",
           "אבגדהוזחטיכלמנסעפצקרשת", "ابتثجحخدذرزسشصضطظعغفقكلمنهوي", "अआइईउऊएऐकखगघचछजझटठडढतथदधनपफबभमयरलवशषसह",
           "กขคงจฉชซญดตถทนบปผพฟภมยรลวสหอ", "あいうえおかきくけこさしすせそたちつてと", "カキクケコサシスセソタチツテト",
           "的一是不了人我在有他这中大来上国", "가나다라마바사아자차카타파하", "😀🦙🚀🎉👩‍💻🇫🇷❤️∑∫√≈≠±×÷€£¥©®™"]


def mixed(text: str, seed: int = 0) -> str:
    rng = np.random.default_rng(seed)
    parts = [text[:55_000]]
    for path in sorted(ROOT.glob("crates/gq-tensor/src/*.rs"))[:3] + [ROOT / "scripts" / "peers.py"]:
        parts.append(path.read_text()[:8_000])
    for letters in SCRIPTS:
        symbols = list(letters)
        words = ["".join(rng.choice(symbols, rng.integers(1, 9))) for _ in range(120)]
        parts.append(" ".join(w.capitalize() if rng.random() < 0.2 else w for w in words) + ".\n")
    gaps = [" ", "  ", "   ", "\t", "\t\t", "\n", "\n\n", " \n", "\r\n", "\n \n", " \t ", "\u00a0", "\u3000"]
    parts += ["".join(rng.choice(gaps)) * int(rng.integers(1, 12)) + str(rng.integers(0, 10 ** int(rng.integers(1, 12))))
              for _ in range(800)]
    parts += [f"{a}{b}" for a in ("'s", "'ll", "don't", "WE'RE", "it’s", "#include", "a_b.c", "x->y", "1,234.5e-6")
              for b in ("", " ", "\n", "!?")]
    parts += ["<bos>", "<eos>", " <pad> ", "<|im_start|>user\n", "<|im_end|>", "<start_of_turn>", "<unused7>"] * 3
    return "".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--save", type=Path, help="keep the mixed text")
    options = parser.parse_args()
    text = mixed(options.text.read_bytes().decode())
    tool = next(options.work.glob("llama_cpp_python-*/vendor/llama.cpp/build/bin/llama-tokenize"))
    with tempfile.NamedTemporaryFile(suffix=".txt") as file:
        file.write(text.encode())
        file.flush()
        output = subprocess.run([tool, "-m", options.model, "-f", file.name, "--ids", "--no-bos", "--no-parse-special",
                                 "--no-escape", "--log-disable"], check=True, stdout=subprocess.PIPE).stdout.decode()
    theirs = json.loads(output[output.rindex("["):])
    tokenizer = Tokenizer.from_file(str(options.checkpoint / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    ours = tokenizer.encode(text, add_special_tokens=False).ids
    if options.save:
        options.save.write_bytes(text.encode())
    if ours != theirs:
        at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
        show = lambda ids: [tokenizer.id_to_token(i) for i in ids[max(0, at - 3):at + 5]]
        raise SystemExit(f"token {at} of {len(ours)}: {show(ours)} here, {show(theirs)} in llama.cpp")
    print(f"{options.checkpoint.name}: the same {len(ours)} token ids for {len(text.encode())} bytes")


if __name__ == "__main__":
    main()
