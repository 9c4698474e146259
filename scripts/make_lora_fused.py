#!/usr/bin/env python3
"""Make the adapters of testdata/lora-fused/: on projections that files have in one tensor (Phi).

    .venv/bin/pip install -r scripts/requirements.txt
    .venv/bin/python scripts/make_lora_fused.py          # some seconds

plain   LoRA on all four linear layers of a block; DoRA on the fused ones in `dora`; `saved` has one fused layer whole.

cases.json and merged/ are as in testdata/lora-experts/ (scripts/make_lora_experts.py), the fused tensors cut into the
parts that the graph has.
"""
import json
import math
import shutil
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

TESTDATA = Path(__file__).parent.parent / "testdata"
OUT = TESTDATA / "lora-fused"
CHECKPOINT, STRIDE, RANK = "tiny/phi3", 29, 2
CASES = {
    "plain": dict(target_modules=["qkv_proj", "gate_up_proj", "o_proj", "down_proj"], use_rslora=True),
    "dora": dict(target_modules=["qkv_proj", "gate_up_proj"], use_dora=True),
    "saved": dict(target_modules=["qkv_proj"], layers_to_transform=[0], modules_to_save=["1.mlp.gate_up_proj"]),
}


def load(dtype: torch.dtype):
    return AutoModelForCausalLM.from_pretrained(TESTDATA / CHECKPOINT, dtype=dtype).eval()


@torch.no_grad()
def train(name: str, seed: int) -> None:
    model = get_peft_model(load(torch.float32), LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=6, **CASES[name]))
    generator = torch.Generator().manual_seed(seed)
    for key, value in model.named_parameters():
        noise = torch.randn(value.shape, generator=generator) * (0.3 / math.sqrt(value.shape[-1]))
        if "lora_magnitude" in key:
            value.mul_(1.0 + 0.2 * torch.randn(value.shape, generator=generator))
        elif "lora_" in key:
            value.copy_(noise)
        elif "modules_to_save" in key:
            value.add_(noise)
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        config = json.loads((Path(scratch) / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = CHECKPOINT
        config["target_modules"] = sorted(config["target_modules"])  # a set: its order changes
        folder = OUT / name
        folder.mkdir(parents=True)
        tensors = load_file(Path(scratch) / "adapter_model.safetensors")
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n")


def apart(state: dict, config) -> dict:
    """The fused tensors as their parts."""
    dim = config.hidden_size // config.num_attention_heads
    sizes = {"self_attn.qkv_proj": {"q_proj": config.num_attention_heads * dim, "k_proj": config.num_key_value_heads * dim,
                                    "v_proj": config.num_key_value_heads * dim},
             "mlp.gate_up_proj": {"gate_proj": config.intermediate_size, "up_proj": config.intermediate_size}}
    out = {}
    for key, value in state.items():
        fused = next((name for name in sizes if key.endswith(f"{name}.weight")), None)
        if fused is None:
            out[key] = value
            continue
        stem = key.removesuffix(f"{fused}.weight") + fused.split(".")[0]
        for part, rows in zip(sizes[fused], value.split(list(sizes[fused].values()))):
            out[f"{stem}.{part}.weight"] = rows
    return out


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    cases = []
    for seed, name in enumerate(CASES, 1):
        train(name, seed)
        (OUT / "merged").mkdir(exist_ok=True)
        config = load(torch.float64).config
        before = apart({key: value.clone() for key, value in load(torch.float64).state_dict().items()}, config)
        peft = PeftModel.from_pretrained(load(torch.float64), OUT / name).to(torch.float64)
        after = apart(peft.merge_and_unload().state_dict(), config)
        changed = [key for key in after if not torch.equal(before[key], after[key])]
        rows = {key: after[key].float()[::STRIDE].contiguous() for key in changed}
        save_file(rows, OUT / "merged" / f"{name}.safetensors")
        cases.append({"case": name, "checkpoint": CHECKPOINT, "adapters": [{"adapter": name, "weight": 1.0}],
                      "row_stride": STRIDE, "vocab_size": None})
        print(f"{name}: {', '.join(changed)}")
    (OUT / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
