#!/usr/bin/env python3
"""Reference outputs of a real checkpoint: what `gq eval MODEL --reference FILE` compares with.

    nice .venv/bin/python scripts/reference_logits.py CHECKPOINT OUT.safetensors --text FILE [--windows 2 --ctx 512]

Writes `input_ids` i64 [n, ctx] and `logits` f32 [n, ctx, vocab] (f64 with --f64), computed by transformers in float64
from the reloaded checkpoint, and prints the reference's own float32 difference and the perplexity of the windows.
The text is read as it is (WikiText-2 as distributed here has CR LF line ends, and a reader that translates them scores
another text). Windows: it is tokenized once, cut into pieces of --ctx tokens, and the first token of each is <bos> where the
tokenizer puts one in front of text. Special-token strings in the text are read as plain text.
The logits of a 262,144-token vocabulary take 1 MiB per token in f32.
"""
import argparse
import math
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer


def windows(checkpoint: Path, text: str, count: int, ctx: int) -> torch.Tensor:
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    front = tokenizer.encode("a").ids[:-1]  # what the post-processor puts in front: <bos> or nothing
    ids = front + ids
    if len(ids) < count * ctx:
        raise SystemExit(f"the text has {len(ids)} tokens, {count * ctx} are needed")
    rows = np.array(ids[:count * ctx]).reshape(count, ctx)
    if front:
        rows[:, 0] = front[0]
    return torch.from_numpy(rows)


@torch.no_grad()
def run(checkpoint: Path, ids: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype, attn_implementation="sdpa")
    return torch.stack([model.eval()(input_ids=row[None], use_cache=False).logits[0] for row in ids])


def perplexity(logits: torch.Tensor, ids: torch.Tensor) -> float:
    """Over the second half of each window, as gq and llama-perplexity score it."""
    scored = torch.arange(ids.shape[1] // 2, ids.shape[1] - 1)
    losses = [-row[scored].double().log_softmax(-1)[torch.arange(len(scored)), tokens[scored + 1]]
              for row, tokens in zip(logits, ids)]
    return math.exp(torch.cat(losses).mean().item())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--windows", type=int, default=1)
    parser.add_argument("--ctx", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--f64", action="store_true", help="store float64 logits")
    parser.add_argument("--no-floor", action="store_true", help="skip the float32 run")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers.utils.logging.disable_progress_bar()
    ids = windows(options.checkpoint, options.text.read_bytes().decode(), options.windows, options.ctx)
    logits = run(options.checkpoint, ids, torch.float64)
    print(f"perplexity {perplexity(logits, ids):.6f}")
    if not options.no_floor:
        single = run(options.checkpoint, ids, torch.float32)
        print(f"float32 differs by at most {(single - logits).abs().max().item():.2e}")
    save_file({"input_ids": ids, "logits": logits.to(torch.float64 if options.f64 else torch.float32)}, options.out)


if __name__ == "__main__":
    main()
