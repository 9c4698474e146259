"""Configurations in which one key is null, or left out: what transformers makes of them, and whether `gq` does.

Used by sweep_gguf.py. Nothing is expected in a table here: transformers is the expectation. Where it refuses a value
`gq` must refuse; where it computes, `gq` must compute the same or refuse.
"""
from dataclasses import dataclass
from pathlib import Path

import llama_cpp_judge as judge
import sweep_models as models

SAME = 1e-8  # nats: f32 against float64
SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size")  # shapes: nothing to be compared
NOT_GRAPH = ("architectures", "bos_token_id", "eos_token_id", "pad_token_id", "model_type")
# Keys of other spellings, absent from the bases.
MORE = {"llama": ["rope_scaling", "rope_theta", "partial_rotary_factor"],
        "qwen2": ["rope_scaling", "rope_theta", "layer_types", "max_window_layers"],
        "qwen3": ["rope_scaling", "rope_theta", "layer_types", "use_sliding_window", "max_window_layers"],
        "qwen3moe": ["rope_scaling", "rope_theta", "use_sliding_window", "max_window_layers", "num_local_experts", "shared_expert_intermediate_size"],
        "mistral": ["rope_scaling", "rope_theta", "attention_bias"],
        "mistral3": ["rope_scaling", "rope_theta", "attention_bias"],
        "phi3": ["rope_scaling", "rope_theta", "attention_bias", "lm_head_bias", "full_attn_mod"],
        "gpt-oss": ["rope_scaling", "rope_theta", "hidden_act", "experts_per_token", "initial_context_length"],
        "gemma3": ["rope_scaling", "rope_theta", "rope_local_base_freq", "sliding_window_pattern", "hidden_act",
                   "use_bidirectional_attention"],
        "gemma4": ["rope_scaling", "per_layer_config", "use_bidirectional_attention"]}


@dataclass
class Null:
    family: str
    key: str
    patch: dict


def cases() -> list[Null]:
    found = []
    for family, base in models.BASES.items():
        for key in base:
            if key in NOT_GRAPH:
                continue
            found.append(Null(family, f"{key}: null", {key: None}))
            if key not in SIZES:
                found.append(Null(family, f"{key} absent", {key: models.DROP}))
        found += [Null(family, f"{key}: null", {key: None}) for key in MORE[family]]
    return found


def run(case: Null, program: Path, folder: Path) -> dict:
    """The weights are those of the base; a reading that changes shapes fails in both."""
    ids = models.input_ids()
    models.build(folder, models.patched(case.family), case.family)
    models.write_config(folder, models.patched(case.family, case.patch), case.family)
    result = {"part": "nulls", "family": case.family, "key": case.key, "kld": None, "refused": None}
    try:
        theirs = models.transformers_logits(folder, ids)
        failed = None
    except Exception as error:  # whatever a wrong value leads to
        failed = f"transformers: {type(error).__name__}: {error}".replace("\n", " ")[:160]
        theirs = judge.np.zeros((*ids.shape, models.VOCAB))
    ours = models.divergence(program, folder, ids, theirs)
    if isinstance(ours, str):
        result["refused"] = ours
    else:
        result["kld"] = None if failed else ours
    result["transformers"] = failed or "computes"
    result["expected"] = "refused" if failed else "the same, or refused"
    result["as_expected"] = isinstance(ours, str) if failed else isinstance(ours, str) or ours <= SAME
    if failed and not isinstance(ours, str):
        result["refused"] = f"gq computes; {failed}"
    return result
