#!/usr/bin/env python3
"""Train the small language model of testdata/demo, the one that `gq demo` converts, measures and runs.

    python3 -m venv .venv && .venv/bin/pip install -r scripts/requirements.txt
    nice .venv/bin/python scripts/make_demo_model.py [--minutes 14] [--threads 1]

Text: Jane Austen's novels (scripts/demo_text.py). Steps: a byte-level BPE vocabulary, training from scratch on the
CPU within the minutes given, then perplexity on the held-out text next to that of a unigram model. Writes

    config.json model.safetensors tokenizer.json tokenizer_config.json chat_template.jinja generation_config.json
    eval.txt         the beginning of one held-out chapter of each novel
    training.json    text, versions, settings, perplexities
    training.csv     step, seconds, training loss
and the loss curve as docs/measurements/demo-training-loss.svg. `--plot` draws that again from training.csv.

Not bit-reproducible: the number of steps follows the clock and the sums follow the CPU. The files are committed.
"""
import argparse
import json
import math
import time
from collections import Counter
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

import demo_text

ROOT = Path(__file__).parent.parent

VOCAB = 1536
SPECIAL = ["<pad>", "<eos>", "<bos>", "<|turn>", "<turn|>"]
PAD, EOS, BOS = 0, 1, 2
CONTEXT, BATCH, PEAK_LR, WARM_UP = 512, 4, 6e-3, 40

CHAT_TEMPLATE = """{{ bos_token }}{% for message in messages -%}
<|turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}
{{ message['content'] | trim }}<turn|>
{% endfor %}{% if add_generation_prompt %}<|turn>model
{% endif %}"""


def llama_config() -> transformers.PreTrainedConfig:
    return transformers.LlamaConfig(
        vocab_size=VOCAB, hidden_size=192, intermediate_size=512, num_hidden_layers=4, num_attention_heads=6,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=1024, rms_norm_eps=1e-5,
        tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD)


def gemma4_config() -> transformers.PreTrainedConfig:
    """A small Gemma 4 E: per-layer embeddings, cache-sharing layers with double-wide MLPs, sliding and full layers."""
    sliding, full = "sliding_attention", "full_attention"
    return transformers.Gemma4TextConfig(
        vocab_size=VOCAB, hidden_size=192, intermediate_size=352, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=1, head_dim=32, global_head_dim=64, sliding_window=128,
        layer_types=[sliding, sliding, full, sliding, sliding, full], num_kv_shared_layers=3,
        use_double_wide_mlp=True, hidden_size_per_layer_input=32, vocab_size_per_layer_input=VOCAB,
        final_logit_softcapping=30.0, max_position_embeddings=1024, tie_word_embeddings=True,
        bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD)


FAMILIES = {"llama": llama_config, "gemma4": gemma4_config}


@torch.no_grad()
def initialize(model) -> None:
    """Start Gemma 4 where it can learn: its attention has no 1/sqrt(head_dim), and embeddings come out near one."""
    for name, parameter in model.named_parameters():
        width = parameter.shape[-1]
        if name.endswith(("q_norm.weight", "k_norm.weight")):
            parameter.fill_(width ** -0.25)
        elif "embed_tokens_per_layer" in name:
            parameter.normal_(std=0.5 * model.config.hidden_size_per_layer_input ** -0.5)
        elif parameter.ndim == 2:
            parameter.normal_(std=width ** -0.5)
        elif "post_" in name:
            parameter.fill_(0.5)
    for name, buffer in model.named_buffers():
        if name.endswith("layer_scalar"):
            buffer.fill_(0.9)  # not learned; anything but one, so that it is seen to matter


def train_tokenizer(texts: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=SPECIAL, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", pair="<bos> $A <bos> $B",
                                                             special_tokens=[("<bos>", BOS)])
    return tokenizer


def chat(remark: str, answer: str) -> str:
    return f"<|turn>user\n{remark}<turn|>\n<|turn>model\n{answer}<turn|>\n"


def token_stream(tokenizer: Tokenizer, text: demo_text.Text) -> np.ndarray:
    """All training documents, each with its <bos> and <eos>, dialogues spread between the chapters."""
    documents = [e.ids + [EOS] for e in tokenizer.encode_batch(text.train)]
    for i, (remark, answer) in enumerate(text.dialogues):
        documents[i % len(text.train)] += tokenizer.encode(chat(remark, answer)).ids + [EOS]
    return np.concatenate([np.array(d, dtype=np.int64) for d in documents])


def train(model, stream: np.ndarray, minutes: float) -> list[tuple[int, float, float]]:
    """Warm-up, then a linear decay that ends with the clock; returns (step, seconds, loss) rows."""
    rng = np.random.default_rng(0)
    decay = [p for p in model.parameters() if p.ndim >= 2]
    other = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": 0.1}, {"params": other, "weight_decay": 0.0}],
                                  betas=(0.9, 0.95))
    start, rows, step, recent = time.monotonic(), [], 0, []
    while (done := (time.monotonic() - start) / (60 * minutes)) < 1:
        rate = PEAK_LR * min((step + 1) / WARM_UP, 1.02 - done)
        for group in optimizer.param_groups:
            group["lr"] = rate
        starts = rng.integers(0, len(stream) - CONTEXT, BATCH)
        batch = torch.from_numpy(np.stack([stream[s:s + CONTEXT] for s in starts]))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        recent.append(loss.item())
        step += 1
        if step % 25 == 0:
            rows.append((step, time.monotonic() - start, sum(recent) / len(recent)))
            print(f"step {step:5}  {rows[-1][1]:6.0f} s  loss {rows[-1][2]:.4f}  rate {rate:.1e}", flush=True)
            recent = []
    return rows


def windows(ids: list[int]) -> np.ndarray:
    """Windows of CONTEXT tokens whose first is replaced by <bos>; only the second half of each is scored."""
    ids = [BOS] + ids
    rows = np.array([ids[i:i + CONTEXT] for i in range(0, len(ids) - CONTEXT + 1, CONTEXT)])
    rows[:, 0] = BOS
    return rows


@torch.no_grad()
def perplexity(model, rows: np.ndarray) -> float:
    total = []
    for row in torch.from_numpy(rows):
        log_p = model(input_ids=row[None], use_cache=False).logits[0].double().log_softmax(-1)
        scored = torch.arange(CONTEXT // 2, CONTEXT - 1)
        total.append(log_p[scored, row[scored + 1]])
    return math.exp(-torch.cat(total).mean().item())


def unigram_perplexity(stream: np.ndarray, rows: np.ndarray) -> float:
    """The same tokens scored by their frequency in the training text (add-one smoothing)."""
    counts = Counter(stream.tolist())
    total = len(stream) + VOCAB
    scored = rows[:, CONTEXT // 2 + 1:].ravel()
    return math.exp(-np.mean([math.log((counts[t] + 1) / total) for t in scored.tolist()]))


def save(model, tokenizer: Tokenizer, text: demo_text.Text, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for old in out.iterdir():
        old.unlink()
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=BOS, eos_token_id=[EOS, SPECIAL.index("<turn|>")], pad_token_id=PAD, do_sample=True,
        temperature=0.8, top_p=0.95)
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save(str(out / "tokenizer.json"))
    (out / "tokenizer_config.json").write_text(json.dumps(
        {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "add_bos_token": True,
         "model_max_length": 1024, "tokenizer_class": "PreTrainedTokenizerFast"}, indent=2) + "\n")
    (out / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    (out / "eval.txt").write_text("\n".join(text.held_out))


def plot(csv: Path, svg: Path) -> None:
    import matplotlib
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "gq"
    from matplotlib import pyplot
    steps, _, losses = np.loadtxt(csv, delimiter=",", skiprows=1, unpack=True)
    facts = json.loads((csv.parent / "training.json").read_text())
    figure, axes = pyplot.subplots(figsize=(6, 3.2))
    axes.plot(steps, losses, label="training loss, mean of 25 steps")
    for name, key in (("unigram model", "unigram_perplexity"), ("trained model", "perplexity")):
        value = math.log(facts["eval"][key])
        axes.axhline(value, linestyle=":", color="gray")
        axes.annotate(f"{name} on held-out text: {value:.2f}", (steps[-1], value), ha="right", va="bottom", fontsize=8)
    axes.set(xlabel=f"step ({BATCH} x {CONTEXT} tokens)", ylabel="nats per token", title="testdata/demo")
    axes.legend(loc="upper right", bbox_to_anchor=(1, 0.85), fontsize=8)
    figure.tight_layout()
    svg.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(svg, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--family", choices=FAMILIES, default="gemma4")
    parser.add_argument("--minutes", type=float, default=14.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--deb", type=Path, help="the text package's file, when it is already there")
    parser.add_argument("--out", type=Path, default=ROOT / "testdata" / "demo")
    parser.add_argument("--plot", action="store_true", help="only draw the loss curve from training.csv")
    options = parser.parse_args()
    curve = ROOT / "docs" / "measurements" / "demo-training-loss.svg"
    if options.plot:
        return plot(options.out / "training.csv", curve)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    transformers.utils.logging.disable_progress_bar()

    text = demo_text.load(options.deb)
    tokenizer = train_tokenizer(text.train)
    stream = token_stream(tokenizer, text)
    model = transformers.AutoModelForCausalLM.from_config(FAMILIES[options.family]())
    if options.family == "gemma4":
        initialize(model)
    weights = sum(p.numel() for p in model.parameters())
    print(f"{len(stream)} training tokens, {weights} weights")
    rows = train(model.train(), stream, options.minutes)
    save(model.eval(), tokenizer, text, options.out)

    scored = windows(tokenizer.encode("\n".join(text.held_out), add_special_tokens=False).ids)
    reloaded = transformers.AutoModelForCausalLM.from_pretrained(options.out, dtype=torch.float32).eval()
    facts = {
        "made_by": "scripts/make_demo_model.py",
        "text": {"name": "Jane Austen's six novels", "package": demo_text.PACKAGE, "version": demo_text.VERSION,
                 "sha256": demo_text.SHA256, "licence": "public domain (package: MIT)"},
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__,
                     "tokenizers": tokenizers.__version__},
        "weights": weights, "training_tokens": len(stream), "steps": rows[-1][0],
        "tokens_seen": rows[-1][0] * BATCH * CONTEXT, "minutes": options.minutes, "threads": options.threads,
        "final_training_loss": rows[-1][2],
        "eval": {"windows": len(scored), "context": CONTEXT, "scored": "second half of each window",
                 "perplexity": perplexity(reloaded, scored), "unigram_perplexity": unigram_perplexity(stream, scored)},
    }
    (options.out / "training.json").write_text(json.dumps(facts, indent=1) + "\n")
    (options.out / "training.csv").write_text(
        "step,seconds,loss\n" + "".join(f"{s},{t:.1f},{loss:.4f}\n" for s, t, loss in rows))
    for file in options.out.iterdir():
        file.chmod(0o644)
    plot(options.out / "training.csv", curve)
    print(json.dumps(facts["eval"], indent=1))


if __name__ == "__main__":
    main()
