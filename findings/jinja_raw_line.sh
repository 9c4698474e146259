#!/usr/bin/env bash
# minijinja 3.1.0 (Python package) drops the line end behind {% raw %} under trim_blocks; Jinja2 3.1.6 keeps it.
# Guess before running: trim_blocks means the same in both. A chat template with a raw block loses a line end where
# it is rendered by minijinja and keeps it where transformers renders it.
# Output seen: jinja2 '\na\n', minijinja 'a\n' for "{% raw %}\na\n{% endraw %}"; both '\na\n' without trim_blocks.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jinja2==3.1.6 minijinja==3.1.0
"$folder/venv/bin/python" - <<'PYTHON'
import jinja2
import minijinja

TEMPLATE = "{% raw %}\na\n{% endraw %}"
seen = {}
for trim in (True, False):
    seen["jinja2", trim] = jinja2.Environment(trim_blocks=trim).from_string(TEMPLATE).render()
    seen["minijinja", trim] = minijinja.Environment(trim_blocks=trim).render_str(TEMPLATE)
for (engine, trim), text in seen.items():
    print(f"{engine:10} trim_blocks={trim!s:5} {text!r}")
expected = {("jinja2", True): "\na\n", ("minijinja", True): "a\n",
            ("jinja2", False): "\na\n", ("minijinja", False): "\na\n"}
assert seen == expected, "the behaviour has changed"
PYTHON
