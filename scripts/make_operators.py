#!/usr/bin/env python3
"""Write testdata/operators.json: what transformers' own modules make of small inputs, in float64.

    python scripts/make_operators.py            # packages: scripts/requirements.txt

Routers (GLM-4.5, DeepSeek-V3, Kimi K2, DeepSeek-V2, Qwen3-MoE, GPT-OSS), GPT-OSS's gated activation and its attention
with sinks. The modules compute parts in float32 by name; here that name means float64.
"""
import json
from pathlib import Path

import torch
from transformers import DeepseekV2Config, DeepseekV3Config, Glm4MoeConfig, GptOssConfig, Qwen3MoeConfig
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2TopkRouter
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter
from transformers.models.glm4_moe.modeling_glm4_moe import Glm4MoeTopkRouter
from transformers.models.gpt_oss import modeling_gpt_oss as gpt_oss
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeTopKRouter

TOKENS = 10
# A chosen expert leads the next one by so much: f32 chooses alike.
LEAD = 1e-4


def numbers(*shape: int) -> torch.Tensor:
    """Normal numbers that are exact in f32."""
    return torch.randn(*shape, dtype=torch.float32).to(torch.float64)


def router(name: str, module: torch.nn.Module, experts: int, rule: dict, spread: float = 1.0) -> dict:
    module = module.to(torch.float64)
    module.weight.data = torch.eye(experts, dtype=torch.float64)  # inputs are the scores
    bias = None
    if rule["selection_bias"]:
        bias = numbers(experts) * 0.5
        bias = bias.to(torch.float32).to(torch.float64)
        module.e_score_correction_bias = bias
    rows = []
    while len(rows) < TOKENS:
        scores = (numbers(1, experts) * spread).to(torch.float32).to(torch.float64)
        with torch.no_grad():
            _, factors, chosen = module(scores)
            # The same choice whichever way the scores move a little.
            moved = [set(module(scores + LEAD * numbers(1, experts))[2][0].tolist()) for _ in range(8)]
        if any(other != set(chosen[0].tolist()) for other in moved):
            continue
        pairs = sorted(zip(chosen[0].tolist(), factors[0].tolist()))
        rows.append({"scores": scores[0].tolist(), "experts": [e for e, _ in pairs], "factors": [f for _, f in pairs]})
    return {"name": name, "rule": rule, "bias": None if bias is None else bias.tolist(), "rows": rows}


def rule(scoring: str, top_k: int, **more) -> dict:
    plain = {"groups": None, "selection_bias": False, "renormalize": True, "scale": 1.0}
    return {"scoring": scoring, "top_k": top_k, **plain, **more}


def routers() -> list[dict]:
    def sigmoid(config, module, experts, top_k, groups, kept, scale):
        made = config(
            num_experts_per_tok=top_k, n_routed_experts=experts, num_local_experts=experts, hidden_size=experts,
            n_group=groups, topk_group=kept, routed_scaling_factor=scale, norm_topk_prob=True,
        )
        grouped = {"count": groups, "kept": kept, "best": 2} if groups > 1 else None
        more = rule("sigmoid", top_k, groups=grouped, selection_bias=True, scale=scale)
        return module(made), experts, more

    v2 = DeepseekV2Config(
        num_experts_per_tok=6, n_routed_experts=32, num_local_experts=32, hidden_size=32, n_group=8, topk_group=3,
        routed_scaling_factor=16.0, topk_method="group_limited_greedy",
    )
    v2_rule = rule(
        "softmax", 6, groups={"count": 8, "kept": 3, "best": 1}, renormalize=False, scale=16.0
    )
    qwen = {
        norm: Qwen3MoeConfig(num_experts_per_tok=8, num_experts=40, hidden_size=40, norm_topk_prob=norm)
        for norm in (True, False)
    }
    oss = gpt_oss.GptOssTopKRouter(GptOssConfig(num_experts_per_tok=4, num_local_experts=32, hidden_size=32))
    oss.bias.data.zero_()
    return [
        router("glm-4.5", *sigmoid(Glm4MoeConfig, Glm4MoeTopkRouter, 24, 8, 1, 1, 2.5)),
        router("deepseek-v3", *sigmoid(DeepseekV3Config, DeepseekV3TopkRouter, 32, 8, 8, 4, 2.5)),
        router("kimi-k2", *sigmoid(DeepseekV3Config, DeepseekV3TopkRouter, 48, 8, 1, 1, 2.827)),
        router("deepseek-v2", DeepseekV2TopkRouter(v2), 32, v2_rule),
        router("qwen3-moe", Qwen3MoeTopKRouter(qwen[True]), 40, rule("softmax", 8), 3.0),
        router("olmoe", Qwen3MoeTopKRouter(qwen[False]), 40, rule("softmax", 8, renormalize=False)),
        router("gpt-oss", oss, 32, rule("softmax_of_chosen", 4, renormalize=False), 2.0),
    ]


def activation() -> dict:
    config = GptOssConfig(num_local_experts=2, hidden_size=8, intermediate_size=8)
    module = gpt_oss.GptOssExperts(config)
    gate, up = numbers(64) * 6, numbers(64) * 6
    gate[:4], up[:4] = torch.tensor([9.0, -9.0, 7.5, 0.0]), torch.tensor([9.0, -9.0, 0.0, 7.5])
    gate, up = (x.to(torch.float32).to(torch.float64) for x in (gate, up))
    both = torch.stack([gate, up], dim=-1).flatten()
    out = module._apply_gate(both[None])[0]
    return {
        "alpha": module.alpha, "limit": module.limit, "gate": gate.tolist(), "up": up.tolist(), "out": out.tolist()
    }


def sinks() -> dict:
    heads, kv_heads, dim, tokens, window = 6, 2, 8, 19, 7
    module = torch.nn.Module()
    module.num_key_value_groups, module.training, module.sinks = heads // kv_heads, False, numbers(heads)
    q, k, v = numbers(1, heads, tokens, dim), numbers(1, kv_heads, tokens, dim), numbers(1, kv_heads, tokens, dim)
    at = torch.arange(tokens)
    seen = (at[None] <= at[:, None]) & (at[None] > at[:, None] - window)
    mask = torch.where(seen, 0.0, -torch.inf).to(torch.float64)[None, None]
    out, _ = gpt_oss.eager_attention_forward(module, q, k, v, mask, scaling=dim**-0.5)
    rows = lambda x: x[0].transpose(0, 1).flatten().tolist()  # [tokens, heads * dim]
    return {
        "heads": heads, "kv_heads": kv_heads, "head_dim": dim, "window": window, "sinks": module.sinks.tolist(),
        "q": rows(q), "k": rows(k), "v": rows(v), "out": out[0].flatten().tolist(),
    }


def main() -> None:
    torch.manual_seed(16)
    f32, single = torch.float32, torch.float

    def patched(call):
        def run(*arguments, **named):
            torch.float32 = torch.float = torch.float64
            try:
                return call(*arguments, **named)
            finally:
                torch.float32, torch.float = f32, single
        return run

    for module in (Glm4MoeTopkRouter, DeepseekV3TopkRouter, DeepseekV2TopkRouter, Qwen3MoeTopKRouter):
        module.forward = patched(module.forward)
    gpt_oss.eager_attention_forward = patched(gpt_oss.eager_attention_forward)
    out = {"routers": routers(), "gpt_oss_activation": activation(), "gpt_oss_attention": sinks()}
    path = Path(__file__).parent.parent / "testdata" / "operators.json"
    path.write_text(json.dumps(out, separators=(",", ":")) + "\n")
    print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
