"""Distributions that transformers samples from, for the sampler's tests.

    python scripts/make_sampling.py testdata/sampling/transformers.json

Needs torch and transformers. The order of the processors is that of `GenerationMixin._get_logits_processor`.
"""

import json
import sys

import torch
from transformers.generation import logits_process as lp

VOCAB = 40


def probabilities(case: dict) -> list[float]:
    """The distribution after the processors, in float64."""
    context = torch.tensor([case["context"]], dtype=torch.long)
    scores = torch.tensor([case["logits"]], dtype=torch.float32).double()
    processors = []
    if case["repetition_penalty"] != 1.0:
        processors.append(lp.RepetitionPenaltyLogitsProcessor(penalty=case["repetition_penalty"]))
    if case["temperature"] != 1.0:
        processors.append(lp.TemperatureLogitsWarper(case["temperature"]))
    if case["top_k"]:
        processors.append(lp.TopKLogitsWarper(top_k=case["top_k"]))
    if case["top_p"] < 1.0:
        processors.append(lp.TopPLogitsWarper(top_p=case["top_p"]))
    if case["min_p"]:
        processors.append(lp.MinPLogitsWarper(min_p=case["min_p"]))
    for processor in processors:
        scores = processor(context, scores)
    return torch.softmax(scores, dim=-1)[0].tolist()


def main() -> None:
    torch.manual_seed(20)
    settings = [
        dict(),
        dict(temperature=0.5),
        dict(temperature=1.7),
        dict(top_k=5),
        dict(top_k=1),
        dict(top_p=0.9),
        dict(top_p=0.31),
        dict(min_p=0.1),
        dict(repetition_penalty=1.3),
        dict(repetition_penalty=0.7),
        dict(temperature=0.7, top_k=20, top_p=0.8, min_p=0.02, repetition_penalty=1.1),
        dict(temperature=1.2, top_k=50, top_p=0.95, repetition_penalty=2.0),
    ]
    cases = []
    for given in settings:
        for length in (3, 60):
            case = dict(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, repetition_penalty=1.0) | given
            case["context"] = torch.randint(VOCAB, (length,)).tolist()
            logits = (torch.randn(VOCAB) * 2.5).double()
            case["logits"] = [round(float(x), 4) for x in logits]
            case["probabilities"] = probabilities(case)
            cases.append(case)
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        file.write("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")


if __name__ == "__main__":
    main()
