"""Tiny random checkpoints of the sweep, their logits in transformers, and what `gq` makes of them."""
import json
import subprocess
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

from tiny_variants import random_weight

VOCAB, ROWS, TOKENS = 288, 2, 56
DROP = object()  # of a patch: the key is left out
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
torch.set_num_threads(1)

COMMON = {"vocab_size": VOCAB, "max_position_embeddings": 256, "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
SLIDING, FULL = "sliding_attention", "full_attention"
SIX = [SLIDING] * 5 + [FULL]
BASES = {
    "llama": {**COMMON, "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
              "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
              "head_dim": 16, "hidden_act": "silu", "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
              "attention_bias": False, "mlp_bias": False,
              "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    "qwen2": {**COMMON, "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 64,
              "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
              "hidden_act": "silu", "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
              "use_sliding_window": False, "sliding_window": None,
              "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    "qwen3": {**COMMON, "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 64,
              "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
              "head_dim": 32, "hidden_act": "silu", "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
              "attention_bias": False, "sliding_window": None,
              "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    "qwen3moe": {**COMMON, "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": 64,
                 "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
                 "head_dim": 32, "hidden_act": "silu", "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
                 "attention_bias": False, "num_experts": 8, "num_experts_per_tok": 3,
                 "moe_intermediate_size": 32, "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [],
                 "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    "mistral": {**COMMON, "architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_size": 64,
                "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
                "head_dim": 32, "hidden_act": "silu", "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
                "sliding_window": None, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    "mistral3": {**COMMON, "architectures": ["Ministral3ForCausalLM"], "model_type": "ministral3", "hidden_size": 64,
                 "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
                 "head_dim": 32, "hidden_act": "silu", "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
                 "sliding_window": None,
                 "rope_parameters": {"rope_type": "yarn", "rope_theta": 500.0, "factor": 8.0, "beta_fast": 32.0,
                                     "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0,
                                     "original_max_position_embeddings": 16, "llama_4_scaling_beta": 0.5}},
    # Everybody takes the long list: llama.cpp is started with 512 tokens, texts have 56.
    "phi3": {**COMMON, "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "hidden_size": 96,
             "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3, "num_key_value_heads": 1,
             "hidden_act": "silu", "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "sliding_window": None,
             "original_max_position_embeddings": 16, "partial_rotary_factor": 0.75,
             "rope_parameters": {"rope_type": "longrope", "rope_theta": 500.0, "partial_rotary_factor": 0.75,
                                 "original_max_position_embeddings": 16,
                                 "short_factor": [1.0 + 0.5 * i for i in range(12)],
                                 "long_factor": [1.0 + i * i / 8 for i in range(12)]}},
    "gpt-oss": {**COMMON, "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "hidden_size": 64,
                "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
                "head_dim": 32, "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "attention_bias": True,
                "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16, "swiglu_alpha": 1.702,
                "swiglu_limit": 7.0, "layer_types": [SLIDING, FULL, SLIDING, FULL],
                "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    "gemma3": {**COMMON, "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "hidden_size": 64,
               "intermediate_size": 96, "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2,
               "head_dim": 16, "query_pre_attn_scalar": 16, "hidden_activation": "gelu_pytorch_tanh",
               "rms_norm_eps": 1e-6, "tie_word_embeddings": True, "attention_bias": False, "sliding_window": 16,
               "layer_types": SIX, "final_logit_softcapping": None, "attn_logit_softcapping": None,
               "rope_parameters": {SLIDING: {"rope_type": "default", "rope_theta": 100.0},
                                   FULL: {"rope_type": "default", "rope_theta": 5000.0}}},
    "gemma4": {**COMMON, "architectures": ["Gemma4ForCausalLM"], "model_type": "gemma4_text", "hidden_size": 64,
               "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
               "num_global_key_value_heads": None, "attention_k_eq_v": False, "head_dim": 16, "global_head_dim": 32,
               "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-2, "tie_word_embeddings": True,
               "attention_bias": False, "sliding_window": 16, "layer_types": [SLIDING, FULL, SLIDING, FULL],
               "final_logit_softcapping": 30.0, "hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": VOCAB,
               "num_kv_shared_layers": 0, "use_double_wide_mlp": False, "enable_moe_block": False,
               "num_experts": None, "top_k_experts": None, "moe_intermediate_size": None,
               "rope_parameters": {SLIDING: {"rope_type": "default", "rope_theta": 100.0},
                                   FULL: {"rope_type": "proportional", "rope_theta": 5000.0,
                                          "partial_rotary_factor": 0.25}}},
}
TOKENIZERS = Path(__file__).resolve().parent.parent / "testdata/gguf/tokenizers"


def input_ids() -> np.ndarray:
    return np.random.default_rng(0).integers(8, VOCAB, (ROWS, TOKENS))


def patched(family: str, *patches: dict) -> dict:
    """The base configuration with keys set, or left out."""
    config = dict(BASES[family])
    for patch in patches:
        config |= patch
    return {key: value for key, value in config.items() if value is not DROP}


def write_config(folder: Path, config: dict, family: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        tokenizer = family if (TOKENIZERS / family).exists() else "llama"
        (folder / name).write_bytes((TOKENIZERS / tokenizer / name).read_bytes())


def read_config(folder: Path):
    return transformers.AutoConfig.from_pretrained(folder)


def build(folder: Path, config: dict, family: str, seed: int = 1) -> dict[str, np.ndarray]:
    """Writes a checkpoint with random f32 weights, configuration as given; returns the weights."""
    two = config.get("two tensors", False)
    config = {key: value for key, value in config.items() if key != "two tensors"}
    write_config(folder, config | {"tie_word_embeddings": False} if two else config, family)
    parsed = read_config(folder)
    model = transformers.AutoModelForCausalLM.from_config(parsed)
    names = {name for name, _ in model.named_parameters()} | {n for n in model.state_dict() if "layer_scalar" in n}
    tied = getattr(parsed, "tie_word_embeddings", True)
    weights = {}
    for name, tensor in model.state_dict().items():
        if name in names:
            values = random_weight(name, tuple(tensor.shape), seed, config["model_type"], tied)
            if name.endswith(".bias"):
                values = values * 3
            weights[name] = np.asarray(values, dtype=np.float32)
    save_file({n: torch.from_numpy(w).contiguous() for n, w in weights.items()}, folder / "model.safetensors",
              metadata={"format": "pt"})
    write_config(folder, config, family)
    return weights


@torch.no_grad()
def transformers_logits(folder: Path, ids: np.ndarray, config: dict | None = None) -> np.ndarray:
    """Logits f64 by transformers in float64, from the files of `folder`; `config` in place of its own."""
    settings = {"attn_implementation": "eager", "dtype": torch.float64}
    if config is not None:
        weights = load_file(folder / "model.safetensors")
        folder = folder.parent / (folder.name + "-other")
        headless = config.pop("no lm_head", False)
        write_config(folder, config, "llama")
        save_file({n: w for n, w in weights.items() if not (headless and n == "lm_head.weight")},
                  folder / "model.safetensors", metadata={"format": "pt"})
    spelled = config or json.loads((folder / "config.json").read_text())
    if spelled.get("enable_moe_block") or spelled["model_type"] in ("qwen3_moe", "gpt_oss"):
        settings["experts_implementation"] = "eager"
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, **settings).eval()
    return model(input_ids=torch.from_numpy(ids), use_cache=False).logits.numpy()


def save_outputs(path: Path, ids: np.ndarray, logits: np.ndarray) -> None:
    """The file of reference outputs that `gq eval --reference` takes."""
    save_file({"input_ids": torch.from_numpy(ids), "logits": torch.from_numpy(np.ascontiguousarray(logits))}, path)


def gq(program: Path, *arguments) -> tuple[int, dict]:
    """Exit code and JSON document of one call."""
    done = subprocess.run([program, *map(str, arguments), "--json", "--threads", "1"], capture_output=True, text=True)
    try:
        return done.returncode, json.loads(done.stdout)
    except json.JSONDecodeError:
        return done.returncode, {"error": {"message": (done.stdout + done.stderr)[-300:]}}


def export(program: Path, source: Path, out: Path) -> str | None:
    """The GGUF in f32; what `gq` says when it refuses."""
    out.unlink(missing_ok=True)
    code, said = gq(program, "export", source, "--gguf", "--type", "F32", "--no-measure", "-o", out)
    return None if code == 0 else said["error"]["message"]


def divergence(program: Path, model: Path, ids: np.ndarray, logits: np.ndarray) -> float | str:
    """KLD from `logits` to those of `gq` on a checkpoint or GGUF; what `gq` says when it refuses."""
    reference = model.with_name(model.name + ".reference.safetensors")
    save_outputs(reference, ids, logits)
    code, said = gq(program, "eval", model, "--reference", reference, "--cache-limit", "0")
    return said["kld"]["mean"] if "kld" in said else said["error"]["message"]
