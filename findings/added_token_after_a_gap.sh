#!/usr/bin/env bash
# An added token whose id in tokenizer.json lies beyond the next free one.
# Expected: it keeps the id that the file gives it, or the file is refused.
# Seen with tokenizers 0.22.2 and 0.23.3: it gets the next free id, nothing is said, and saving the tokenizer writes the
# new id. A model trained with id 10 is given id 3, so every text with that token reads another row of the embedding.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check tokenizers==0.23.3
"$work/venv/bin/python" - <<'PY'
import json
import tokenizers
from tokenizers import Tokenizer

file = {
    "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "pre_tokenizer": None,
    "post_processor": None, "decoder": None,
    "added_tokens": [{"id": 10, "content": "<late>", "single_word": False, "lstrip": False, "rstrip": False,
                      "normalized": False, "special": True}],
    "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
              "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
              "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]},
}
tokenizer = Tokenizer.from_str(json.dumps(file))
ids = tokenizer.encode("ab<late>").ids
saved = json.loads(tokenizer.to_str())["added_tokens"][0]["id"]
print(f"tokenizers {tokenizers.__version__}: <late> is written with id 10, encodes as {ids[1]}, is saved with id {saved}")
raise SystemExit(not (ids == [2, 3] and saved == 3))
PY
