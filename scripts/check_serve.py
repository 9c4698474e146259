#!/usr/bin/env python3
"""Judges `gq serve` by OpenAI's own Python client, and under load.

    pip install openai
    cargo build --release -p gq
    python3 scripts/check_serve.py --gq target/release/gq --model testdata/demo

1. What the client can ask for: models, answers whole and streamed, usage, logprobs, stop strings, seeds, errors.
2. Load: `--clients` at once and `--requests` in all, of random kinds: whole, streamed, left in the middle, malformed,
   cut connections. Every whole greedy answer must be the one that the prompt had alone (the server runs with
   --deterministic, so to the bit), nothing may be lost, and the memory afterwards is compared with the memory after the
   first tenth.
3. SIGTERM: exit code 0, and nothing of a panic on standard error.

    python3 scripts/check_serve.py --speed --model smol.gq --head-share 0.21 --llama smol-q4_1.gguf

`--speed` measures instead: tokens per second of `--clients` answers at once, best of three, beside what `gq bench` says of
prompts, less the head's share (`--head-share`, its weights' share of a token's: every token of an answer needs the head),
and beside llama.cpp's server (xllamacpp) with as many slots, in the same run.

Servers listen on loopback, on ports of their own. Prints one JSON document; exit code 1 if a check failed.
"""

import argparse
import asyncio
import json
import random
import re
import signal
import subprocess
import sys
import threading
import time

import openai

try:
    import httpx2 as httpx  # what openai brings from 3.0 on
except ImportError:
    import httpx

KEY = "sk-of-this-check"


class Server:
    """`gq serve` on a free port."""

    def __init__(self, gq, model, options):
        command = [gq, "serve", model, "--port", "0", "--name", "checked", "--api-key", KEY, *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.said = []
        for line in self.process.stderr:
            self.said.append(line)
            found = re.search(r"http://127\.0\.0\.1:(\d+)/v1", line)
            if found:
                self.port = int(found[1])
                break
        else:
            raise SystemExit("".join(self.said))
        threading.Thread(target=lambda: self.said.extend(self.process.stderr), daemon=True).start()
        self.root = f"http://127.0.0.1:{self.port}"

    def memory(self):
        """Resident bytes."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1]) << 10

    def metrics(self):
        page = httpx.get(self.root + "/metrics", headers={"authorization": "Bearer " + KEY}).text
        lines = [line for line in page.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def check(truth, what):
    if not truth:
        raise AssertionError(what)


def refused(kind, ask):
    try:
        ask()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def interface(server):
    """What the client can ask for."""
    client = openai.OpenAI(base_url=server.root + "/v1", api_key=KEY, max_retries=0)
    check([model.id for model in client.models.list()] == ["checked"], "models")
    check(client.models.retrieve("checked").id == "checked", "model")
    ask = dict(model="checked", messages=[{"role": "user", "content": "Where is he?"}], temperature=0)
    whole = client.chat.completions.create(**ask, max_tokens=24, logprobs=True, top_logprobs=2)
    choice = whole.choices[0]
    check(choice.message.role == "assistant" and choice.finish_reason in ("stop", "length"), "choice")
    tokens = choice.logprobs.content
    check("".join(token.token for token in tokens) == choice.message.content, "logprobs are of the text")
    check(all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in tokens), "top_logprobs")
    check(whole.usage.completion_tokens == len(tokens), "usage")
    chunks = list(client.chat.completions.create(**ask, max_tokens=24, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    check(text == choice.message.content, "stream and whole")
    check(chunks[-1].usage.total_tokens == whole.usage.total_tokens, "usage of the stream")
    with client.chat.completions.stream(**ask, max_completion_tokens=24) as stream:
        check(stream.get_final_completion().choices[0].message.content == text, "the client's own collector")
    stop = text[3:6]
    cut = client.chat.completions.create(**ask, max_tokens=24, stop=[stop]).choices[0]
    check(cut.message.content == text[: text.index(stop)] and cut.finish_reason == "stop", "stop")
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
    check(client.chat.completions.create(**ask, max_tokens=2, tools=tools).choices, "tools")
    seeded = dict(model="checked", prompt="She said", max_tokens=16, temperature=1.2, seed=5, logprobs=2)
    first, again = (client.completions.create(**seeded).choices[0] for _ in range(2))
    check(first.text == again.text and len(first.logprobs.tokens) == len(first.logprobs.token_logprobs), "seed")
    streamed = client.completions.create(**seeded, stream=True)
    check("".join(chunk.choices[0].text for chunk in streamed) == first.text, "stream of a completion")
    error = refused(openai.BadRequestError, lambda: client.chat.completions.create(**ask, n=3))
    check(error.param == "n" and error.type == "invalid_request_error", "error's parameter")
    refused(openai.NotFoundError, lambda: client.chat.completions.create(**{**ask, "model": "gpt-5"}))
    other = openai.OpenAI(base_url=server.root + "/v1", api_key="sk-wrong", max_retries=0)
    refused(openai.AuthenticationError, other.models.list)


PROMPTS = [f"{start} {end}" for start in ("It was", "She said", "The man", "Nobody", "In the", "Why")
           for end in ("a", "the old", "that he", "nothing of", "to her")]


async def answer(client, prompt):
    done = await client.completions.create(model="checked", prompt=prompt, max_tokens=12, temperature=0)
    return done.choices[0].text


async def one(client, raw, server, expected, chance, counts):
    """One request of a random kind."""
    prompt = chance.choice(PROMPTS)
    kind = chance.choices(["whole", "stream", "leave", "abort", "malformed", "cut"], [40, 20, 15, 10, 10, 5])[0]
    counts[kind] = counts.get(kind, 0) + 1
    if kind == "whole":
        check(await answer(client, prompt) == expected[prompt], f"another answer to {prompt!r}")
    elif kind == "stream":
        stream = await client.completions.create(model="checked", prompt=prompt, max_tokens=12, temperature=0, stream=True)
        text = "".join([chunk.choices[0].text async for chunk in stream])
        check(text == expected[prompt], f"another stream for {prompt!r}")
    elif kind == "leave":
        long = dict(model="checked", prompt=prompt, max_tokens=400, extra_body={"ignore_eos": True})
        stream = await client.completions.create(**long, stream=True)
        left = chance.randrange(6)
        async for _ in stream:
            left -= 1
            if left < 0:
                break
        await stream.close()
    elif kind == "abort":
        long = {"prompt": prompt, "max_tokens": 400, "ignore_eos": True}
        try:
            await raw.post("/v1/completions", json=long, timeout=chance.uniform(0.001, 0.2))
        except (httpx.TimeoutException, httpx.TransportError):
            pass
    elif kind == "malformed":
        bodies = [b"", b"{", b"[1]", b"\xff\xfe", b"{}", b'{"prompt": 3}', b'{"prompt": "a", "temperature": "x"}',
                  b'{"messages": [{"role": "user"}], "prompt": []}', b"[" * 5000, b'{"prompt": "' + b"x" * 5_000_000]
        reply = await raw.post(chance.choice(["/v1/completions", "/v1/chat/completions"]), content=chance.choice(bodies))
        check(reply.status_code in (400, 413), f"{reply.status_code}: {reply.text[:200]}")
        check(set(reply.json()["error"]) == {"message", "type", "param", "code"}, reply.text[:200])
    else:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: 30\r\n\r\n"
        writer.write((head + '{"prompt": "a", "max_tokens"')[: chance.randrange(len(head) + 28)].encode())
        await writer.drain()
        writer.close()


async def load(server, requests, clients, seed):
    """Many clients; gives counts and the memory after a tenth and at the end."""
    client = openai.AsyncOpenAI(base_url=server.root + "/v1", api_key=KEY, max_retries=0, timeout=300)
    headers = {"authorization": "Bearer " + KEY}
    limits = httpx.Limits(max_connections=clients)
    raw = httpx.AsyncClient(base_url=server.root, headers=headers, limits=limits, timeout=300)
    expected = {prompt: await answer(client, prompt) for prompt in PROMPTS}
    counts, memory, left, failed = {}, [], [requests], []

    async def work(index):
        chance = random.Random(f"{seed} {index}")
        while left[0] > 0 and not failed:
            left[0] -= 1
            if left[0] == requests * 9 // 10:
                memory.append(server.memory())
            try:
                await one(client, raw, server, expected, chance, counts)
            except Exception as error:
                failed.append(f"{type(error).__name__}: {error}")

    begun = time.monotonic()
    await asyncio.gather(*(work(index) for index in range(clients)))
    seconds = time.monotonic() - begun
    await client.close()
    await raw.aclose()
    check(not failed, failed[:3])
    for _ in range(200):
        metrics = server.metrics()
        if metrics["gq_requests_running"] == metrics["gq_requests_waiting"] == 0:
            break
        time.sleep(0.05)
    check(metrics["gq_requests_running"] == metrics["gq_requests_waiting"] == 0, "requests are left")
    memory.append(server.memory())
    return {"kinds": counts, "seconds": round(seconds, 1), "memory_after_a_tenth": memory[0], "memory_after": memory[1],
            "metrics": metrics}


LLAMA = """
import sys, time, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_parallel, params.n_ctx = sys.argv[1], int(sys.argv[2]), int(sys.argv[2]) * 512
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(sys.argv[3])
server = xllamacpp.Server(params)
print("LISTENS", server.listening_address, flush=True)
time.sleep(3600)
"""


async def rate(root, clients, count):
    """Tokens per second of answers of `count` tokens to as many clients, best of three."""
    client = openai.AsyncOpenAI(base_url=root + "/v1", api_key=KEY, max_retries=0, timeout=900)

    async def one(index):
        ask = dict(model="checked", prompt=f"Number {index} of the stories that", max_tokens=count, temperature=0)
        done = await client.completions.create(**ask, extra_body={"ignore_eos": True})
        return done.usage.completion_tokens

    rates = []
    for _ in range(3):
        begun = time.monotonic()
        tokens = sum(await asyncio.gather(*(one(index) for index in range(clients))))
        rates.append(tokens / (time.monotonic() - begun))
    await client.close()
    return [round(one, 1) for one in sorted(rates, reverse=True)]


def speed(args):
    """Tokens per second beside prompts and beside llama.cpp."""
    bench = json.loads(subprocess.run([args.gq, "bench", args.model, "--json"], capture_output=True, check=True).stdout)
    pp = max(bench["pp"]["tokens_per_second"])
    report = {"clients": args.clients, "threads": bench["threads"], "isa": bench["isa"], "pp512": round(pp, 1),
              "pp512_less_head": round(pp * (1 - args.head_share), 1)}
    slots = ["--parallel", str(args.clients), "--ctx", "512"]
    server = Server(args.gq, args.model, slots)
    try:
        report["gq"] = asyncio.run(rate(server.root, args.clients, 64))
    finally:
        server.process.kill()
    report["share_of_prompts"] = round(report["gq"][0] / report["pp512_less_head"], 2)
    if args.llama:
        command = [sys.executable, "-c", LLAMA, args.llama, str(args.clients), str(bench["threads"])]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as llama:
            root = next(line.split()[1] for line in llama.stdout if line.startswith("LISTENS"))
            try:
                report["llama_server"] = asyncio.run(rate(root, args.clients, 64))
            finally:
                llama.kill()
        report["beside_llama_server"] = round(report["gq"][0] / report["llama_server"][0], 2)
    print(json.dumps(report, indent=1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gq", default="target/release/gq")
    parser.add_argument("--model", default="testdata/demo")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--growth", type=float, default=0.1, help="share by which memory may grow after the first tenth")
    parser.add_argument("--speed", action="store_true", help="measure instead")
    parser.add_argument("--head-share", type=float, default=0.0)
    parser.add_argument("--llama", metavar="GGUF", help="for llama.cpp's server, beside it")
    args = parser.parse_args()
    if args.speed:
        return speed(args)
    # As many at once as there are clients would leave the queue empty.
    options = ["--deterministic", "--temp", "0", "--ctx", "512", "--parallel", "16", "--queue", str(args.clients)]
    server = Server(args.gq, args.model, options)
    try:
        interface(server)
        report = asyncio.run(load(server, args.requests, args.clients, args.seed))
        report["exit_code"] = server.stop()
    finally:
        server.process.kill()
    report["panics"] = sum("panicked" in line for line in server.said)
    growth = report["memory_after"] / report["memory_after_a_tenth"] - 1
    report["passed"] = growth <= args.growth and report["exit_code"] == 0 and report["panics"] == 0
    print(json.dumps(report, indent=1))
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
