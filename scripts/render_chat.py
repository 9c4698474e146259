#!/usr/bin/env python3
"""Render a checkpoint's chat template with transformers: the expected text for gq's own renderer.

    .venv/bin/python scripts/render_chat.py testdata/demo > testdata/chat/demo.json
    .venv/bin/python scripts/render_chat.py CHECKPOINT > expected.json       # e.g. with Gemma 4's template in it

JSON: a list of {messages, add_generation_prompt, enable_thinking, text}; `text` is null where the template refuses
the conversation (some have no system turn).
"""
import argparse
import json
from pathlib import Path

import jinja2
from transformers import AutoTokenizer

SYSTEM = {"role": "system", "content": "Answer in one sentence."}
USER = {"role": "user", "content": "  Who wrote \"Emma\"? <b>Tell</b> me & my friend.\n"}
ASSISTANT = {"role": "assistant", "content": "Jane Austen — in 1815."}
AGAIN = {"role": "user", "content": "And before?\n\nTwo lines."}
CONVERSATIONS = [[USER], [SYSTEM, USER], [USER, ASSISTANT], [USER, ASSISTANT, AGAIN], [SYSTEM, USER, ASSISTANT, AGAIN]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.checkpoint)
    cases = []
    for messages in CONVERSATIONS:
        for prompt in (False, True):
            for thinking in (False, True):
                case = {"messages": messages, "add_generation_prompt": prompt, "enable_thinking": thinking}
                try:
                    case["text"] = tokenizer.apply_chat_template(
                        messages, add_generation_prompt=prompt, enable_thinking=thinking, tokenize=False)
                except jinja2.TemplateError:
                    case["text"] = None
                cases.append(case)
    print(json.dumps(cases, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
