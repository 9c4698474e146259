#!/usr/bin/env python3
"""Render the chat templates that public packages ship with gq and with transformers, and compare.

    cargo build --release -p gq-text --example render_chats
    .venv/bin/python scripts/check_chat_templates.py testdata/demo target/release/examples/render_chats

Every template is rendered for every conversation below, with and without a generation prompt. Outcomes:

  equal      both render the same text, or both refuse
  refused    transformers renders and gq refuses, naming the construct
  different  the texts differ, or gq renders what transformers refuses

Exit 1 when anything is different, or less than 95 % are equal. The templates come from the source packages of
llama-cpp-python and vllm (pinned below), downloaded by pip into a temporary folder, or from --folder. Nothing of them
is kept. pip runs the packages' own metadata step, which needs torch, setuptools-scm, setuptools-rust, scikit-build-core,
packaging and jinja2 in the environment.
"""
import argparse
import collections
import hashlib
import json
import logging
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGES = [
    ("llama-cpp-python==0.3.36", "vendor/llama.cpp/models/templates/", {}),
    ("vllm==0.33.0", "", {"VLLM_TARGET_DEVICE": "empty", "VLLM_VERSION_OVERRIDE": "0.33.0"}),
]
NOW = "26 July 2025"

WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "The weather at a place.\nToday's.",
    "parameters": {"type": "object", "properties": {
        "city": {"type": "string", "description": "Name, such as \"Zürich\"", "minLength": 1},
        "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
        "days": {"type": ["integer", "null"], "minimum": 1, "maximum": 1e20},
        "places": {"type": "array", "items": {"type": "object", "properties": {"lat": {"type": "number"}},
                                              "required": ["lat"]}}},
        "required": ["city"]},
    "return": {"type": "string"}}}
CLOCK = {"type": "function", "function": {"name": "now", "description": "The time.", "parameters": {
    "type": "object", "properties": {}}}}


def said(role: str, content: object, **rest: object) -> dict:
    return {"role": role, "content": content, **rest}


def called(name: str, arguments: object, ident: str = "call00001") -> dict:
    return {"id": ident, "type": "function", "function": {"name": name, "arguments": arguments}}


SYSTEM = said("system", "Answer in one sentence. 'Quotes' & <tags>.")
USER = said("user", "  Who wrote \"Emma\"? <b>Tell</b> me.\n")
ANSWER = said("assistant", "Jane Austen — in 1815.\n")
AGAIN = said("user", "And before?\n\nTwo lines.")
ARGUMENTS = {"city": "Zürich", "days": 2, "exact": 1.0, "deep": {"list": [1, None, True, "it's"]}}
CALL = said("assistant", "", tool_calls=[called("get_weather", ARGUMENTS)])
CALL_TEXT = said("assistant", None, tool_calls=[called("get_weather", json.dumps(ARGUMENTS))])
CALLS = said("assistant", "Both.", tool_calls=[called("get_weather", {"city": "Bern"}), called("now", {}, "call00002")])
RESULT = said("tool", "{\"temperature\": 21.5}", tool_call_id="call00001", name="get_weather")
RESULT2 = said("tool", "noon", tool_call_id="call00002", name="now")
PARTS = said("user", [{"type": "text", "text": "Look:"}, {"type": "image"}, {"type": "text", "text": "What is it?"}])
TEXT_PARTS = said("user", [{"type": "text", "text": "One"}, {"type": "text", "text": "two"}])
THOUGHT = said("assistant", "Jane Austen.", reasoning_content="Emma, 1815.\nSo Austen.")
THOUGHT_TEXT = said("assistant", "<think>\nEmma, 1815.\n</think>\n\nJane Austen.")
TOOLS = {"tools": [WEATHER, CLOCK]}
DOCUMENTS = {"documents": [{"title": "Emma", "text": "A novel.", "doc_id": 0}, {"title": "Persuasion", "text": "Too."}]}

# Name, messages, variables.
CONVERSATIONS = [
    ("user", [USER], {}),
    ("system", [SYSTEM, USER], {}),
    ("turns", [USER, ANSWER, AGAIN], {}),
    ("system turns", [SYSTEM, USER, ANSWER, AGAIN], {}),
    ("finished", [SYSTEM, USER, ANSWER], {}),
    ("parts", [PARTS], {}),
    ("text parts", [said("system", [{"type": "text", "text": "Be kind."}]), TEXT_PARTS, ANSWER, TEXT_PARTS], {}),
    ("tools", [SYSTEM, USER], TOOLS),
    ("tools alone", [USER], TOOLS),
    ("empty tools", [USER], {"tools": []}),
    ("call", [SYSTEM, USER, CALL, RESULT], TOOLS),
    ("call text", [USER, CALL_TEXT, RESULT], TOOLS),
    ("call answered", [USER, CALL, RESULT, ANSWER, AGAIN], TOOLS),
    ("calls", [SYSTEM, USER, CALLS, RESULT, RESULT2, ANSWER, AGAIN], TOOLS),
    ("call without tools", [USER, CALL, RESULT], {}),
    ("thinking", [USER, THOUGHT, AGAIN], {"enable_thinking": True}),
    ("not thinking", [USER, THOUGHT, AGAIN], {"enable_thinking": False}),
    ("thinking text", [USER, THOUGHT_TEXT, AGAIN], {}),
    ("thinking call", [USER, {**CALL, "reasoning_content": "Ask."}, RESULT], {"enable_thinking": True, **TOOLS}),
    ("thinking variables", [SYSTEM, USER, THOUGHT],
     {"thinking": True, "reasoning_effort": "high", "thinking_budget": 512, "preserve_thinking": True}),
    ("documents", [USER], DOCUMENTS),
    ("null", [USER, {"role": "assistant", "content": None}, AGAIN], {}),
    ("developer", [said("developer", "Be brief."), USER], TOOLS),
    ("user twice", [USER, AGAIN], {}),
]


class Fixed:
    """The present time, always the same words."""

    @staticmethod
    def now() -> type:
        return Fixed

    @staticmethod
    def strftime(_: str) -> str:
        return NOW


def download(folder: Path) -> None:
    for package, inside, variables in PACKAGES:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:",
             "--no-build-isolation", "-d", folder, package],
            check=True, env={**os.environ, **variables})
        name = package.split("=")[0].replace("-", "_")
        with tarfile.open(next(folder.glob(f"{name}-*.tar.gz"))) as archive:
            for member in archive:
                if inside in member.name and member.name.endswith(".jinja") and member.isfile():
                    target = folder / name / member.name.split("/", 1)[1]
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(archive.extractfile(member).read())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tokenizer", type=Path, help="checkpoint whose special tokens are used")
    parser.add_argument("renderer", type=Path, help="the built example render_chats")
    parser.add_argument("--folder", type=Path, help="templates (*.jinja, at any depth) instead of the packages'")
    parser.add_argument("--json", type=Path, help="where to write the outcome")
    parser.add_argument("--show", type=int, default=20, help="how many differences are shown")
    options = parser.parse_args()
    import transformers
    from transformers.utils import chat_template_utils
    logging.disable(logging.WARNING)
    chat_template_utils.datetime = Fixed
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.tokenizer)
    config = json.loads((options.tokenizer / "tokenizer_config.json").read_text())
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if not options.folder:
            download(folder)
        texts: dict[str, str] = {}
        for file in sorted(folder.rglob("*.jinja")):
            # Packages carry copies of the same template.
            texts.setdefault(file.read_bytes().decode(), file.relative_to(folder).as_posix())
    lines, wanted = [], []
    for template, name in texts.items():
        for conversation, messages, variables in CONVERSATIONS:
            for prompt in (True, False):
                lines.append(json.dumps({
                    "template": template, "messages": messages, "variables": variables, "now": NOW,
                    "tokenizer_config": config, "add_generation_prompt": prompt}))
                try:
                    text = tokenizer.apply_chat_template(
                        messages, chat_template=template, tokenize=False, add_generation_prompt=prompt, **variables)
                except Exception as error:  # whatever it raises, it does not render
                    text = error
                wanted.append((name, conversation, prompt, text))
    answers = subprocess.run([options.renderer], input="\n".join(lines), capture_output=True, text=True, check=True)
    counts: collections.Counter[str] = collections.Counter()
    refused: dict[str, collections.Counter[str]] = {}
    shown = 0
    for (name, conversation, prompt, text), line in zip(wanted, answers.stdout.splitlines(), strict=True):
        got = json.loads(line)
        if isinstance(text, Exception) and "error" in got:
            counts["equal (both refuse)"] += 1
        elif got.get("text") == text:
            counts["equal"] += 1
        elif "error" in got:
            counts["refused"] += 1
            refused.setdefault(name, collections.Counter())[got["error"]] += 1
        else:
            counts["different"] += 1
            if shown < options.show:
                shown += 1
                mine, theirs = got["text"], text if isinstance(text, str) else f"<{type(text).__name__}: {text}>"
                at = next((i for i, (a, b) in enumerate(zip(mine, theirs)) if a != b), min(len(mine), len(theirs)))
                print(f"{name}: {conversation}, prompt {prompt}, from character {at}\n  transformers "
                      f"{theirs[max(0, at - 40):at + 60]!r}\n  gq           {mine[max(0, at - 40):at + 60]!r}")
    for name, errors in refused.items():
        for error, count in errors.items():
            print(f"{name}: {count} refused: {error}")
    total = len(wanted)
    equal = counts["equal"] + counts["equal (both refuse)"]
    print(f"{len(texts)} templates, {total} renderings with transformers {transformers.__version__}: "
          f"{100 * equal / total:.2f} % equal, {counts['refused']} refused, {counts['different']} different "
          f"({counts['equal']} rendered equal, {counts['equal (both refuse)']} refused by both)")
    if options.json:
        command = " ".join(["python", "scripts/check_chat_templates.py", *sys.argv[1:]])
        options.json.write_text(json.dumps({
            "command": command, "packages": None if options.folder else [package for package, _, _ in PACKAGES],
            "templates_sha256": hashlib.sha256("\0".join(sorted(texts)).encode()).hexdigest(),
            "transformers": transformers.__version__, "templates": len(texts), "renderings": total,
            "equal_percent": round(100 * equal / total, 2), "rendered_equal": counts["equal"],
            "refused_by_both": counts["equal (both refuse)"], "refused_by_gq": counts["refused"],
            "different": counts["different"],
            "refused": {name: dict(errors) for name, errors in refused.items()}}, indent=1) + "\n")
    if counts["different"] or equal < 0.95 * total:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
