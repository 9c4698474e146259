#!/usr/bin/env bash
# PEFT 0.21.2: after `resize_token_embeddings`, an adapter that targets `embed_tokens` is saved with the grown embedding
# and without the grown, untied head. Loading it needs a base that was resized again, and the head's new rows are then
# whatever that resizing draws: two loads of one adapter answer differently. Without `embed_tokens` among the targets
# both tables are saved. (`save_embedding_layers="auto"` takes only layers that have a base layer once the embedding is
# targeted.)
#
# Guess before running: both tables are in the file in both cases, as the warning about the resized vocabulary says.
# Exits 1 when PEFT behaves otherwise. Installs into a folder that is removed at the end; needs several GB for that.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q torch==2.15.0 transformers==5.23.0 peft==0.21.2 safetensors==0.8.0 numpy==2.4.6
cd "$dir" && PYTHONWARNINGS=ignore "$dir/venv/bin/python" - <<'PY'
import peft, torch, transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

print("peft", peft.__version__, "transformers", transformers.__version__)
torch.manual_seed(0)
LlamaForCausalLM(LlamaConfig(vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=1, head_dim=8,
                             num_attention_heads=2, num_key_value_heads=2)).save_pretrained("base")

def resized():
    model = LlamaForCausalLM.from_pretrained("base")
    model.resize_token_embeddings(43)
    return model

def tables(targets):
    model = get_peft_model(resized(), LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM"))
    model.peft_config["default"].base_model_name_or_path = "base"
    model.save_pretrained("adapter")
    names = sorted(name for name in load_file("adapter/adapter_model.safetensors") if "layers" not in name)
    print(targets, "->", names)
    return {name.split("base_model.model.")[1].split(".")[0] for name in names}

both = tables(["q_proj"])
alone = tables(["q_proj", "embed_tokens"])
loads = [PeftModel.from_pretrained(resized(), "adapter").merge_and_unload().lm_head.weight[40:] for _ in range(2)]
differ = not torch.equal(*loads)
print("head's new rows after two loads of the second adapter are", "different" if differ else "the same")
assert both == {"model", "lm_head"}, both
assert alone == {"model"}, alone
assert differ
PY
