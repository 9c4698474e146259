#!/usr/bin/env bash
# transformers 5.23.0: the wrapper class of Mistral Small 3.x and Ministral 3 (`Mistral3ForConditionalGeneration`) ties
# its head to the embedding unless `tie_word_embeddings: false` stands at the top of config.json. The text part's own
# `tie_word_embeddings: false` is not asked, although the text model, loaded by itself with the same configuration, is
# untied. A fine-tune whose configuration says it in the text part alone is initialized tied, and a trained head that
# the file lacks is not missed.
#
# Guess before running: the text part decides, since the two tensors belong to the text model.
# Exits 1 when transformers behaves otherwise. Installs into a folder that is removed at the end; needs several GB.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q torch==2.15.0 transformers==5.23.0 numpy==2.4.6
cd "$dir" && PYTHONWARNINGS=ignore "$dir/venv/bin/python" - <<'PY'
import transformers
from transformers import AutoModelForCausalLM, Mistral3Config, Mistral3ForConditionalGeneration

print("transformers", transformers.__version__)
TEXT = dict(model_type="mistral", vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=1, head_dim=8,
            num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=False)
VISION = dict(model_type="pixtral", hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
              image_size=28, patch_size=14)

def tied(model):
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight

config = Mistral3Config(text_config=dict(TEXT), vision_config=VISION)
whole = Mistral3ForConditionalGeneration(config)
said = Mistral3ForConditionalGeneration(Mistral3Config(text_config=dict(TEXT), vision_config=VISION,
                                                       tie_word_embeddings=False))
text = AutoModelForCausalLM.from_config(config.text_config)
print("text part says", config.text_config.tie_word_embeddings, "| wrapper is tied:", tied(whole),
      "| with the key at the top:", tied(said), "| text model alone:", tied(text))
assert config.text_config.tie_word_embeddings is False
assert tied(whole) and not tied(said) and not tied(text)
PY
