#!/usr/bin/env python3
"""Does llama.cpp compute of a Phi's GGUF what transformers computes of the checkpoint, and gq of a GGUF that is not ours?

    .venv/bin/pip install --no-deps xllamacpp==2026.10.11549
    nice .venv/bin/python scripts/check_phi3_gguf.py --gq target/debug/gq          # half a minute

The tiny checkpoints of testdata/tiny, with the original context set so that the one or the other list of LongRoPE counts
for everybody: llama.cpp takes the long one where it is started with more tokens than that (512 here, its default),
transformers and `gq eval` where the text is longer (56 tokens). Without a window, which llama.cpp does not apply.

For each: `gq export --type F32` of it, llama.cpp on that file against transformers in float64 (mean KL divergence, nats);
and a file by gguf-py's writer, `gq eval` on it against the same logits (largest error). Exit 1 above 1e-4 or 1e-3.
"""
import argparse
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import Phi3ForCausalLM

import independent_gguf
import llama_cpp_judge

TINY = Path(__file__).resolve().parent.parent / "testdata/tiny"
CASES = [
    ("short list, a part of each head turns", "phi3", {"original_max_position_embeddings": 512}, {"attention_factor": 1.1}),
    ("long list, a part of each head turns", "phi3", {"original_max_position_embeddings": 16}, {}),
    ("long list, whole heads turn", "phi3-long", {"sliding_window": None}, {}),
    ("default, a part of each head turns", "phi3", {"original_max_position_embeddings": 256}, None),
]


def checkpoint(folder: Path, name: str, top: dict, rope: dict | None) -> dict:
    """A copy with another configuration, in the newer spelling."""
    shutil.copytree(TINY / name, folder, ignore=shutil.ignore_patterns("reference*"))
    config = json.loads((folder / "config.json").read_text())
    parameters = config.pop("rope_scaling", None) or config["rope_parameters"]
    parameters = {"rope_theta": config.pop("rope_theta", None)} | parameters
    config["rope_parameters"] = {("rope_type" if key == "type" else key): value for key, value in parameters.items()}
    config |= top
    original = config["original_max_position_embeddings"]
    config["rope_parameters"] |= {"original_max_position_embeddings": original} | (rope or {})
    if rope is None:
        partial = config["rope_parameters"]["partial_rotary_factor"]
        config["rope_parameters"] = {"rope_type": "default", "rope_theta": config["rope_parameters"]["rope_theta"],
                                     "partial_rotary_factor": partial}
    config["num_key_value_heads"] = config.get("num_key_value_heads") or config["num_attention_heads"]
    (folder / "config.json").write_text(json.dumps(config))
    return config


@torch.no_grad()
def reference(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    model = Phi3ForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()
    return model(input_ids=ids, use_cache=False).logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gq", type=Path, required=True)
    options = parser.parse_args()
    bad = False
    for name, variant, top, rope in CASES:
        with tempfile.TemporaryDirectory() as scratch:
            scratch = Path(scratch)
            config = checkpoint(scratch / "m", variant, top, rope)
            ids = load_file(TINY / variant / "reference.safetensors")["input_ids"]
            logits = reference(scratch / "m", ids)
            run = lambda *args: subprocess.run([options.gq, *args], check=True, capture_output=True, cwd=scratch)
            run("export", "m", "--gguf", "--type", "F32", "--no-measure", "-o", "ours.gguf")
            theirs = llama_cpp_judge.logits(scratch / "ours.gguf", ids.numpy())
            divergence = llama_cpp_judge.kld(logits.numpy(), theirs)
            weights = {}
            for file in (scratch / "m").glob("*.safetensors"):
                weights |= {key: value.float().numpy() for key, value in load_file(file).items()}
            if rope is None:
                pairs = int(config["hidden_size"] // config["num_attention_heads"]
                            * config["rope_parameters"]["partial_rotary_factor"]) // 2
                config["rope_parameters"] |= {"long_factor": [1.0] * pairs, "short_factor": [1.0] * pairs,
                                              "attention_factor": 1.0}
            independent_gguf.write(scratch / "theirs.gguf", "phi3", independent_gguf.metadata("phi3", config),
                                   independent_gguf.tensors("phi3", config, weights))
            save_file({"input_ids": ids, "logits": logits.contiguous()}, scratch / "reference.safetensors")
            said = run("eval", "theirs.gguf", "--reference", "reference.safetensors", "--activations", "f32", "--json")
            error = json.loads(said.stdout)["logits"]["max_abs_error"]
            # Some programs write queries, keys and values apart.
            data = independent_gguf.tensors("phi3", config, weights)
            for fused in [key for key in data if key.endswith("attn_qkv.weight")]:
                whole = data.pop(fused)
                heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
                dim = whole.shape[0] // (heads + 2 * kv)
                parts = np.split(whole, [heads * dim, (heads + kv) * dim])
                data |= {fused.replace("qkv", part): rows for part, rows in zip("qkv", parts)}
            independent_gguf.write(scratch / "apart.gguf", "phi3", independent_gguf.metadata("phi3", config), data)
            apart = run("eval", "apart.gguf", "--reference", "reference.safetensors", "--activations", "f32", "--json")
            error = max(error, json.loads(apart.stdout)["logits"]["max_abs_error"])
            print(f"{name}: llama.cpp on ours {divergence:.1e} nats, gq on gguf-py's {error:.1e}")
            bad |= not (divergence < 1e-4 and error < 1e-3)
    raise SystemExit(int(bad))


if __name__ == "__main__":
    np.seterr(all="ignore")
    main()
