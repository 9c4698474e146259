#!/usr/bin/env bash
# PEFT 0.21.2, `target_parameters` on a stack of experts `[experts, outputs, inputs]`: the two factors are stored flat,
# and count differently. Rows of lora_A `[experts * r, inputs]` go expert by expert, columns of lora_B
# `[outputs, r * experts]` rank by rank with the experts fastest. Whoever cuts both alike gets a plausible merge of
# right shapes that mixes the experts. (Before 0.19 the second dimension was taken for the inputs as well, so the same
# parameter had factors of other shapes.)
#
# Guess before running: expert e has rows e*r .. (e+1)*r of lora_A and columns e*r .. (e+1)*r of lora_B.
# Exits 1 when PEFT behaves otherwise. Installs into a folder that is removed at the end; needs several GB for that.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q torch==2.15.0 transformers==5.23.0 peft==0.21.2 numpy==2.4.6
cd "$dir" && PYTHONWARNINGS=ignore "$dir/venv/bin/python" - <<'PY'
import peft, torch
from peft import LoraConfig, get_peft_model

class Experts(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.up = torch.nn.Parameter(torch.zeros(4, 6, 5))  # [experts, outputs, inputs]
    def forward(self, x):
        return torch.einsum("eoi,bi->beo", self.up, x)

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.experts = Experts()
    def forward(self, x):
        return self.experts(x)

print("peft", peft.__version__)
torch.manual_seed(0)
E, r = 4, 2
model = get_peft_model(Model(), LoraConfig(r=r, lora_alpha=r, target_modules=[], target_parameters=["experts.up"]))
factors = {name.split(".")[-3]: p for name, p in model.named_parameters() if "lora_" in name}
A, B = factors["lora_A"], factors["lora_B"]
torch.nn.init.normal_(B)
A0, B0 = A.detach().clone(), B.detach().clone()
print("lora_A", tuple(A.shape), "lora_B", tuple(B.shape))
merged = model.merge_and_unload().experts.up.detach()
alike = torch.stack([B0[:, e * r:(e + 1) * r] @ A0[e * r:(e + 1) * r] for e in range(E)])
apart = torch.stack([B0[:, e::E] @ A0[e * r:(e + 1) * r] for e in range(E)])
print("both cut alike:          largest difference", (merged - alike).abs().max().item())
print("lora_B with experts fastest: largest difference", (merged - apart).abs().max().item())
assert torch.allclose(merged, apart, atol=1e-6) and not torch.allclose(merged, alike, atol=1e-2)
PY
