#!/usr/bin/env python3
"""Make the adapters of testdata/lora-experts/: for Qwen3's experts, in both ways that PEFT has trained them.

    .venv/bin/pip install -r scripts/requirements.txt
    .venv/bin/python scripts/make_lora_experts.py          # some seconds

fused   parameters of the stacks (`target_parameters`), as PEFT saves them with transformers 5.
gpt-oss parameters of GPT-OSS's stacks, whose matrices are transposed with gate and up in turn, and of its router.
each    a module for each matrix of each expert (`experts.5.gate_proj`) and the router, as PEFT saved them with
        transformers 4: written here by hand, read by PEFT's own conversion.

cases.json and merged/ are as in testdata/lora-layouts/ (scripts/make_lora_layouts.py): every row_stride-th row of every
tensor that `merge_and_unload` changes, computed by PEFT in float64 and stored in float32.
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
OUT = TESTDATA / "lora-experts"
CHECKPOINT, STRIDE, EXPERTS, RANK = "tiny/qwen3-moe", 29, 12, 2
GPT_OSS = "tiny/gpt-oss-resaved"


def load(dtype: torch.dtype, checkpoint: str = CHECKPOINT):
    return AutoModelForCausalLM.from_pretrained(TESTDATA / checkpoint, dtype=dtype, experts_implementation="eager").eval()


def noise(shape, generator) -> torch.Tensor:
    return torch.randn(shape, generator=generator) * (0.3 / math.sqrt(shape[-1]))


def save(name: str, tensors: dict, config: dict) -> None:
    folder = OUT / name
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    for field in ("target_modules", "target_parameters"):  # sets: their order changes
        if isinstance(config[field], list):
            config[field] = sorted(config[field])
    config["base_model_name_or_path"] = CHECKPOINT
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n")


@torch.no_grad()
def trained(name: str, checkpoint: str, settings: LoraConfig, seed: int) -> None:
    model = get_peft_model(load(torch.float32, checkpoint), settings)
    generator = torch.Generator().manual_seed(seed)
    for key, value in model.named_parameters():
        if "lora_" in key:
            value.copy_(noise(value.shape, generator))
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        tensors = load_file(Path(scratch) / "adapter_model.safetensors")
        config = json.loads((Path(scratch) / "adapter_config.json").read_text())
        save(name, tensors, config | {"base_model_name_or_path": checkpoint})


def gpt_oss() -> None:
    settings = LoraConfig(
        task_type="CAUSAL_LM", r=RANK, lora_alpha=6, target_modules=["q_proj", "o_proj"],
        target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"])
    trained("gpt-oss", GPT_OSS, settings, 3)


def graph_order(name: str, weight: torch.Tensor) -> torch.Tensor:
    """GPT-OSS's stacks as `[experts, outputs, inputs]`, gate rows above up rows."""
    if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
        return weight
    weight = weight.transpose(1, 2)
    return torch.cat([weight[:, ::2], weight[:, 1::2]], 1) if name.endswith("gate_up_proj") else weight


@torch.no_grad()
def fused() -> None:
    settings = LoraConfig(
        task_type="CAUSAL_LM", r=RANK, lora_alpha=6, target_modules=["q_proj"],
        target_parameters=["mlp.experts.gate_up_proj", "layers.1.mlp.experts.down_proj"])
    model = get_peft_model(load(torch.float32), settings)
    generator = torch.Generator().manual_seed(1)
    for key, value in model.named_parameters():
        if "lora_" in key:
            value.copy_(noise(value.shape, generator))
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        tensors = load_file(Path(scratch) / "adapter_model.safetensors")
        save("fused", tensors, json.loads((Path(scratch) / "adapter_config.json").read_text()))


def each() -> None:
    """Experts of layer 1 alone, and the router of layer 0, as transformers 4 called its modules."""
    generator = torch.Generator().manual_seed(2)
    sizes = {"gate_proj": (32, 64), "up_proj": (32, 64), "down_proj": (64, 32)}
    modules = {f"model.layers.{layer}.mlp.experts.{expert}.{part}": shape
               for layer in range(2) for expert in range(EXPERTS) for part, shape in sizes.items()}
    modules |= {f"model.layers.{layer}.mlp.gate": (EXPERTS, 64) for layer in range(2)}
    tensors = {}
    for module, (rows, cols) in modules.items():
        name = f"base_model.model.{module}"
        tensors[f"{name}.lora_A.weight"] = noise((RANK, cols), generator)
        tensors[f"{name}.lora_B.weight"] = noise((rows, RANK), generator)
    config = json.loads((OUT / "fused/adapter_config.json").read_text())
    config |= {"target_parameters": None, "target_modules": [*sizes, "gate"], "r": RANK, "lora_alpha": 6}
    save("each", tensors, config)


@torch.no_grad()
def merged(name: str, checkpoint: str) -> tuple[dict, dict]:
    before = {key: value.clone() for key, value in load(torch.float64, checkpoint).state_dict().items()}
    peft = PeftModel.from_pretrained(load(torch.float64, checkpoint), OUT / name).to(torch.float64)
    return before, peft.merge_and_unload().state_dict()


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    fused()
    each()
    gpt_oss()
    cases = []
    (OUT / "merged").mkdir()
    for name, checkpoint in (("fused", CHECKPOINT), ("each", CHECKPOINT), ("gpt-oss", GPT_OSS)):
        before, after = merged(name, checkpoint)
        if checkpoint == GPT_OSS:
            before, after = ({key: graph_order(key, value) for key, value in of.items()} for of in (before, after))
        changed = [key for key in after if not torch.equal(before[key], after[key])]
        rows = {key: after[key].float().reshape(-1, after[key].shape[-1])[::STRIDE].contiguous() for key in changed}
        save_file(rows, OUT / "merged" / f"{name}.safetensors")
        cases.append({"case": name, "checkpoint": checkpoint, "adapters": [{"adapter": name, "weight": 1.0}],
                      "row_stride": STRIDE, "vocab_size": None})
        print(f"{name}: {', '.join(changed)}")
    (OUT / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
