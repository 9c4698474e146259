#!/usr/bin/env bash
# transformers 5.23.0: a GPT-OSS configuration with `"rope_scaling": null` (or `{}`), the usual spelling of "plain
# rotary embeddings", gets YaRN with the published factor 32, its frequencies and its factor on cosines and sines. Only
# `rope_parameters` with `"rope_type": "default"` is plain. For Llama the same null is plain.
#
# Guess before running: null means no scaling, as in every other family.
# Exits 1 when transformers behaves otherwise. Installs into a folder that is removed at the end; needs several GB.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q torch==2.15.0 transformers==5.23.0 numpy==2.4.6
cd "$dir" && PYTHONWARNINGS=ignore "$dir/venv/bin/python" - <<'PY'
import json, os
import transformers
from transformers import AutoConfig

print("transformers", transformers.__version__)
BASE = dict(vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=1, head_dim=8,
            num_attention_heads=2, num_key_value_heads=2)

def kind(family, name, **keys):
    os.makedirs(name, exist_ok=True)
    json.dump({"model_type": family, **BASE, **keys}, open(f"{name}/config.json", "w"))
    rope = AutoConfig.from_pretrained(name).rope_parameters
    print(f"{family:8} {json.dumps(keys):70} -> {rope.get('rope_type')}, factor {rope.get('factor')}")
    return rope["rope_type"]

null = kind("gpt_oss", "null", rope_scaling=None)
empty = kind("gpt_oss", "empty", rope_scaling={})
plain = kind("gpt_oss", "plain", rope_parameters={"rope_type": "default", "rope_theta": 150000.0})
llama = kind("llama", "llama", rope_scaling=None)
assert (null, empty, plain, llama) == ("yarn", "yarn", "default", "default")
PY
