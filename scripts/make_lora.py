#!/usr/bin/env python3
"""Make the adapters of testdata/lora/ for the tiny checkpoints, and what PEFT merges them to.

    .venv/bin/pip install -r scripts/requirements.txt
    .venv/bin/python scripts/make_lora.py          # about a minute

One folder per adapter, as `save_pretrained` writes it, with random factors; the settings are those that Unsloth
exposes. cases.json says which adapters go onto which checkpoint with which weights, and merged/CASE.safetensors holds
every fifth row of every tensor that `merge_and_unload` changes, computed by PEFT in float64 and stored in float32.
float32_max_relative in cases.json is how far PEFT's own float32 merge is from that.
"""
import json
import math
import shutil
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

TESTDATA = Path(__file__).parent.parent / "testdata"
OUT = TESTDATA / "lora"
STRIDE = 5
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ALL = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]
# What Unsloth writes for the language layers of a vision model.
REGEX = (r"(?:.*?(?:language|text).*?(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense).*?"
         r"(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj).*?)|"
         r"(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense)\."
         r"(?:(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)))")

ADAPTERS = {
    "plain": ("tiny/llama", dict(r=4, lora_alpha=8, target_modules=ALL)),
    "rslora": ("tiny/llama", dict(r=8, lora_alpha=16, target_modules=ATTENTION, use_rslora=True)),
    "dora": ("tiny/llama", dict(r=4, lora_alpha=4, target_modules=["q_proj", "v_proj", "down_proj"], use_dora=True)),
    "patterns": ("tiny/llama", dict(r=4, lora_alpha=8, target_modules=["q_proj", "k_proj", "down_proj"],
                               rank_pattern={"q_proj": 2, r"layers\.1\.mlp\.down_proj": 6},
                               alpha_pattern={r".*layers\.0.*k_proj": 32, "down_proj": 3})),
    "one-layer": ("tiny/llama", dict(r=4, lora_alpha=8, target_modules=["q_proj", "up_proj"], layers_to_transform=[1],
                                layers_pattern="layers")),
    "modules-to-save": ("tiny/llama", dict(r=4, lora_alpha=8, target_modules=["o_proj"],
                                      modules_to_save=["embed_tokens", "lm_head", "input_layernorm"])),
    "embedding": ("tiny/llama", dict(r=4, lora_alpha=8, target_modules=["embed_tokens", "lm_head", "gate_proj"])),
    "bf16": ("tiny/llama", dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])),
    "tied-embedding": ("tiny/gemma3", dict(r=4, lora_alpha=8, target_modules=["embed_tokens", "q_proj"])),
    "tied-to-save": ("tiny/gemma3", dict(r=4, lora_alpha=8, target_modules=["q_proj"], modules_to_save=["embed_tokens"],
                                    ensure_weight_tying=True)),
    "demo": ("demo", dict(r=2, lora_alpha=8, target_modules=["q_proj", "down_proj"], layers_to_transform=[0, 1],
                          layers_pattern="layers")),
    "regex": ("tiny/gemma4-vision", dict(r=4, lora_alpha=8, target_modules=REGEX)),
}
CASES = [(name, [(name, 1.0)]) for name in ADAPTERS] + [
    ("weighted", [("plain", 0.75), ("rslora", -0.5)]),
    ("dora-after-plain", [("plain", 1.0), ("dora", 1.0)]),
    ("dora-weighted", [("dora", 0.5)]),
]


def base(checkpoint: str, dtype: torch.dtype):
    kind = AutoModelForImageTextToText if "vision" in checkpoint else AutoModelForCausalLM
    return kind.from_pretrained(TESTDATA / checkpoint, dtype=dtype).eval()


@torch.no_grad()
def make(name: str, seed: int) -> None:
    checkpoint, settings = ADAPTERS[name]
    model = get_peft_model(base(checkpoint, torch.float32), LoraConfig(task_type="CAUSAL_LM", **settings))
    generator = torch.Generator().manual_seed(seed)
    seen = set()
    for key, value in model.named_parameters():
        if value.data_ptr() in seen or not ("lora_" in key or "modules_to_save" in key):
            continue
        seen.add(value.data_ptr())
        noise = torch.randn(value.shape, generator=generator)
        if "lora_magnitude_vector" in key or "modules_to_save" in key:
            value.mul_(1 + 0.1 * noise)
        else:
            value.copy_(noise * (0.3 / math.sqrt(value.shape[-1])))
    folder = OUT / name
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        folder.mkdir(parents=True)
        tensors = load_file(Path(scratch) / "adapter_model.safetensors")
        if name == "bf16":
            tensors = {key: value.bfloat16() for key, value in tensors.items()}
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        config = json.loads((Path(scratch) / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = checkpoint
    for field in ("target_modules", "modules_to_save"):  # sets: their order changes from run to run
        if isinstance(config[field], list):
            config[field] = sorted(config[field])
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


@torch.no_grad()
def merged(adapters: list[tuple[str, float]], dtype: torch.dtype) -> tuple[dict, dict]:
    """State dict before and after the merge."""
    model = base(ADAPTERS[adapters[0][0]][0], dtype)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    names = [f"a{i}" for i in range(len(adapters))]
    peft = PeftModel.from_pretrained(model, OUT / adapters[0][0], adapter_name=names[0])
    for name, (adapter, _) in list(zip(names, adapters))[1:]:
        peft.load_adapter(OUT / adapter, adapter_name=name)
    peft = peft.to(dtype)
    for module in peft.modules():
        for name, (_, weight) in zip(names, adapters):
            if isinstance(getattr(module, "scaling", None), dict) and name in module.scaling:
                module.set_scale(name, weight)
    after = peft.merge_and_unload(adapter_names=names)
    return before, after.state_dict()


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    for seed, name in enumerate(ADAPTERS):
        make(name, seed)
    cases = []
    (OUT / "merged").mkdir()
    for case, adapters in CASES:
        before, after = merged(adapters, torch.float64)
        _, single = merged(adapters, torch.float32)
        changed = [key for key in after if key not in before or not torch.equal(before[key], after[key])]
        head, embedding = after.get("lm_head.weight"), after.get("model.embed_tokens.weight")
        tied = head is not None and embedding is not None and head.data_ptr() == embedding.data_ptr()
        changed = [key for key in changed if not (tied and key == "lm_head.weight")]
        assert changed, case
        worst = max(((single[k].double() - after[k]).norm() / after[k].norm()).item() for k in changed)
        rows = {key: after[key].float()[::STRIDE].contiguous() for key in changed}
        save_file(rows, OUT / "merged" / f"{case}.safetensors")
        cases.append({
            "case": case,
            "checkpoint": ADAPTERS[adapters[0][0]][0],
            "adapters": [{"adapter": name, "weight": weight} for name, weight in adapters],
            "row_stride": STRIDE,
            "float32_max_relative": worst,
        })
        print(f"{case}: {len(changed)} tensors, float32 within {worst:.1e}")
    (OUT / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
