#!/usr/bin/env python3
"""Make the adapters of testdata/lora-layouts/: what PEFT saves beyond plain factors, and what it merges them to.

    .venv/bin/pip install -r scripts/requirements.txt
    .venv/bin/python scripts/make_lora_layouts.py          # about a minute

Token rows, biases, tables whose vocabulary grew or shrank, parameters of experts in both orders of their dimensions,
excluded modules, and PiSSA and OLoRA saved for the original base. The two small Llamas they are for are made here too.
cases.json and merged/ are as in testdata/lora/ (scripts/make_lora.py): every row_stride-th row of every tensor that
`merge_and_unload` changes, computed by PEFT in float64 and stored in float32.
"""
import json
import math
import shutil
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

TESTDATA = Path(__file__).parent.parent / "testdata"
OUT = TESTDATA / "lora-layouts"
STRIDE, STRIDE_OF_EXPERTS = 7, 29
Q = ["q_proj"]
LAYER = "model.layers.1.experts."
# Adapter: base, settings, rows after resizing (None: as they are).
ADAPTERS = {
    "lora-bias": ("base", dict(r=2, target_modules=["q_proj", "o_proj"], lora_bias=True), None),
    "bias-all": ("base", dict(r=2, target_modules=Q, bias="all"), None),
    "bias-lora-only": ("base", dict(r=2, target_modules=Q, bias="lora_only"), None),
    "token-rows": ("base", dict(r=2, target_modules=Q, trainable_token_indices=[9, 5]), None),
    "token-rows-both": ("base", dict(r=2, target_modules=Q,
                                     trainable_token_indices={"embed_tokens": [7], "lm_head": [14, 0]}), None),
    "token-rows-more": ("base", dict(r=2, target_modules=["k_proj"], trainable_token_indices=[14, 30]), None),
    "token-rows-tied": ("tied", dict(r=2, target_modules=Q, trainable_token_indices=[9, 7]), None),
    "resized": ("base", dict(r=2, target_modules=Q), 43),
    "resized-to-save": ("base", dict(r=2, target_modules=Q, modules_to_save=["embed_tokens", "lm_head"]), 43),
    "resized-token-rows": ("base", dict(r=2, target_modules=Q, trainable_token_indices=[40, 42]), 43),
    "resized-tied": ("tied", dict(r=2, target_modules=Q), 43),
    "resized-embedding-tied": ("tied", dict(r=2, target_modules=["q_proj", "embed_tokens"]), 43),
    "shrunk": ("base", dict(r=2, target_modules=Q), 36),
    # The head is resized and not saved: its new rows are lost, and no merge can have them.
    "resized-embedding": ("base", dict(r=2, target_modules=["q_proj", "embed_tokens"]), 43),
    "experts": ("tiny/gemma4-moe", dict(
        r=2, lora_alpha=6, target_modules=[],
        target_parameters=[LAYER + "gate_up_proj", LAYER + "down_proj", "layers.2.experts.down_proj"],
        rank_pattern={r".*\.gate_up_proj": 1}, alpha_pattern={r"layers\.2\.experts\.down_proj": 3}), None),
    # As PEFT before 0.19 took every parameter: the second dimension for inputs.
    "experts-other-order": ("tiny/gemma4-moe", dict(r=1, target_modules=[],
                                                    target_parameters=[LAYER + "down_proj"]), None),
    "parameter": ("base", dict(r=2, target_modules=[], target_parameters=["k_proj.weight"],
                               rank_pattern={r"layers\.0\.self_attn\.k_proj\.weight": 3}), None),
    "exclude-text": ("base", dict(r=2, target_modules=["q_proj", "down_proj"],
                                  exclude_modules=r".*layers\.0\..*"), None),
    "exclude-list": ("base", dict(r=2, target_modules=["q_proj", "down_proj"], exclude_modules=["down_proj"]), None),
    "caret": ("base", dict(r=2, target_modules=Q, rank_pattern={"^model.layers.0.self_attn.q_proj": 3},
                           alpha_pattern={"^model.layers.0.self_attn.q_proj": 16}), None),
    "fan-in-fan-out": ("base", dict(r=2, target_modules=["q_proj", "embed_tokens"], fan_in_fan_out=True), None),
    "one-layer": ("base", dict(r=2, target_modules=["q_proj", "up_proj"], layers_to_transform=1), None),
    "pissa-converted": ("base", dict(r=2, target_modules=Q, init_lora_weights="pissa"), None),
    "olora-converted": ("base", dict(r=2, target_modules=Q, init_lora_weights="olora", use_rslora=False), None),
}
CASES = [(name, [name]) for name in ADAPTERS if name != "resized-embedding"] + [
    ("rows-after-rows", ["token-rows", "token-rows-more"]),
]


@torch.no_grad()
def make_base(name: str, seed: int, tied: bool) -> None:
    config = LlamaConfig(vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, head_dim=8,
                         num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64, attention_bias=True,
                         tie_word_embeddings=tied)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    for key, value in model.named_parameters():
        if key.endswith("bias"):
            value.copy_(torch.randn(value.shape) * 0.1)
    model.save_pretrained(OUT / name)
    (OUT / name / "generation_config.json").unlink(missing_ok=True)


def load(name: str, dtype: torch.dtype, rows: int | None):
    checkpoint, _, _ = ADAPTERS[name]
    folder = OUT / checkpoint if "/" not in checkpoint else TESTDATA / checkpoint
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    if rows is not None:
        torch.manual_seed(0)
        model.resize_token_embeddings(rows)
    if name == "experts-other-order":
        for module in model.modules():
            if type(module).__name__.endswith("Experts"):
                module.is_transposed = True
    return model


@torch.no_grad()
def make(name: str, seed: int) -> None:
    checkpoint, settings, rows = ADAPTERS[name]
    converted = name.endswith("-converted")
    model = load(name, torch.float32, rows)
    settings = {"lora_alpha": 8, **settings}
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))
    with tempfile.TemporaryDirectory() as scratch:
        if converted:  # the factors that training begins with
            model.peft_config["default"].init_lora_weights = True
            model.save_pretrained(f"{scratch}/begun")
            model.peft_config["default"].init_lora_weights = settings["init_lora_weights"]
        generator = torch.Generator().manual_seed(seed)
        seen = set()
        parts = ("lora_", "modules_to_save", "trainable_tokens_delta")
        for key, value in model.named_parameters():
            trained = any(part in key for part in parts) or (settings.get("bias") and key.endswith("bias"))
            if value.data_ptr() in seen or not trained or (settings.get("bias") == "lora_only" and "base_layer" not in key and key.endswith("bias")):
                continue
            seen.add(value.data_ptr())
            noise = torch.randn(value.shape, generator=generator)
            if converted:
                value.add_(noise * 0.05)
            elif "lora_" in key and not key.endswith("bias"):
                value.copy_(noise * (0.3 / math.sqrt(value.shape[-1])))
            else:
                value.copy_(noise * 0.1)
        how = {"path_initial_model_for_weight_conversion": f"{scratch}/begun"} if converted else {}
        # The folder that PEFT compares the vocabulary with; the name that is kept is put in below.
        folder = OUT / checkpoint if "/" not in checkpoint else TESTDATA / checkpoint
        model.peft_config["default"].base_model_name_or_path = str(folder)
        model.save_pretrained(f"{scratch}/done", **how)
        done = Path(scratch) / "done"
        (OUT / name).mkdir(parents=True)
        tensors = load_file(done / "adapter_model.safetensors")
        save_file(tensors, OUT / name / "adapter_model.safetensors", metadata={"format": "pt"})
        config = json.loads((done / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = checkpoint
    for field in ("target_modules", "modules_to_save", "target_parameters"):  # sets: their order changes
        if isinstance(config[field], list):
            config[field] = sorted(config[field])
    (OUT / name / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n")


@torch.no_grad()
def merged(adapters: list[str], dtype: torch.dtype) -> tuple[dict, dict]:
    rows = ADAPTERS[adapters[0]][2]
    before = {key: value.clone() for key, value in load(adapters[0], dtype, None).state_dict().items()}
    peft = PeftModel.from_pretrained(load(adapters[0], dtype, rows), OUT / adapters[0], adapter_name="a0")
    for index, name in enumerate(adapters[1:], 1):
        peft.load_adapter(OUT / name, adapter_name=f"a{index}")
    after = peft.to(dtype).merge_and_unload(adapter_names=[f"a{i}" for i in range(len(adapters))])
    return before, {key: value.clone() for key, value in after.state_dict().items()}


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    make_base("base", 1, False)
    make_base("tied", 2, True)
    for seed, name in enumerate(ADAPTERS):
        make(name, seed)
    cases = []
    (OUT / "merged").mkdir()
    for case, adapters in CASES:
        before, after = merged(adapters, torch.float64)
        changed = [key for key in after if key not in before or not torch.equal(before[key], after[key])]
        if ADAPTERS[adapters[0]][0] in ("tied", "tiny/gemma4-moe"):
            changed = [key for key in changed if key != "lm_head.weight"]
        assert changed, case
        rows = {key: after[key].float() for key in changed}
        rows = {key: value.reshape(-1, value.shape[-1]) if value.dim() > 1 else value for key, value in rows.items()}
        stride = STRIDE_OF_EXPERTS if case.startswith("experts") else STRIDE
        save_file({key: value[::stride].contiguous() for key, value in rows.items()},
                  OUT / "merged" / f"{case}.safetensors")
        checkpoint = ADAPTERS[adapters[0]][0]
        cases.append({
            "case": case,
            "checkpoint": checkpoint if "/" in checkpoint else f"lora-layouts/{checkpoint}",
            "adapters": [{"adapter": name, "weight": 1.0} for name in adapters],
            "row_stride": stride,
            "vocab_size": after["model.embed_tokens.weight"].shape[0],
        })
        print(f"{case}: {', '.join(changed)}")
    (OUT / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
