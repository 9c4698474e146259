#!/usr/bin/env python3
"""What transformers makes of small templates, one construct each, for the tests of crates/gq-text.

    .venv/bin/python scripts/chat_constructs.py testdata/demo > testdata/chat/constructs.json

Each template is rendered for one conversation. `text` is what transformers renders, null where it raises.
"""
import json
import logging
import sys
from pathlib import Path

import transformers
from transformers.utils import chat_template_utils

MESSAGES = [
    {"role": "user", "content": "hello there!", "num": 3.0, "flag": True, "nothing": None,
     "data": {"b": 1, "a": "é", "list": [1, "x", None, True, 2.5]}},
    {"role": "assistant", "content": "hi"},
]

# The situation of neighbouring tools that render chats: options of tojson, Python's spelling, slices, rounding.
REPORTED = [
    "{{ messages[0].data | tojson(sort_keys=True) }}",
    "{{ messages[0].data | tojson(ensure_ascii=True) }}",
    "{{ messages[0].data | tojson(separators=(',', ':')) }}",
    "{{ messages[0].data | tojson(indent='\\t') }}",
    "{{ messages[0].data | tojson(indent=4) }}",
    "{{ messages[0].data | tojson(true) }}",
    "{{ messages[0].data | tojson }}",
    "{{ messages[0].num | tojson }}",
    "{{ messages[0].data }}",
    "{{ messages[0].data.list }}",
    "{{ messages[0].flag }} {{ messages[0].nothing }}",
    "{{ 'x' ~ messages[0].flag ~ messages[0].num }}",
    "{{ messages[0].data | string }}",
    "{% for k, v in messages[0].data | items %}{{ k }}={{ v }};{% endfor %}",
    "{% for k, v in messages[0].data | dictsort %}{{ k }}={{ v }};{% endfor %}",
    "{% for m in messages[::-1] %}{{ m.role }};{% endfor %}",
    "{{ '%s-%03d' | format(messages[0].role, 7) }}",
    "{{ '%s!' % messages[0].role }}",
    "{{ messages[0].role.title() }} {{ messages[0].role | capitalize }} {{ messages[0].content.split()[0] }}",
    "{{ messages[0].content.split(' ', 1)[1] }}",
    "{{ messages[0].content.strip('h').rstrip('!').lstrip() }}",
    "{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 6 / 2 }}",
    "{{ 1.0 }} {{ 1e20 }} {{ 0.1 + 0.2 }} {{ messages[0].num }}",
    "{{ messages[0].nothing | default('d') }}{{ messages[0].missing | default('d') }}{{ '' | default('d', true) }}",
    "[{{ messages[0].missing }}]",
    "{{ messages[0].data is mapping }} {{ messages[0].content is string }} {{ messages is iterable }} "
    "{{ messages[0].content is iterable }} {{ messages is sequence }} {{ messages[0].content is sequence }} "
    "{{ messages[0].num is number }} {{ messages[0].flag is boolean }} {{ 1 is integer }} {{ 1.0 is float }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }} "
    "{{ messages | rejectattr('role', 'eq', 'user') | map(attribute='role') | join(',') }}",
    "{{ messages[0].data.list | join(', ') }}",
    "{{ messages[0].content | wordcount }} {{ messages[0].content | length }} "
    "{{ messages[0].content | replace('h','j',1) }}",
    "{{ 2.5 | round }} {{ 3.14159 | round(2) }} {{ 2.5 | int }}",
    "{{ [3,1]|min }} {{ [3,1]|max }} {{ [3,1]|sum }} {{ [3,1,2]|sort }} {{ 'b,a'.split(',')|sort }}",
    "{{ messages[0].content.endswith('!') }} {{ messages[0].content.find('e') }} "
    "{{ messages[0].content.count('l') }} {{ messages[0].content.upper() }}",
    "{{ messages[0].get('missing', 'd') }} {{ messages[0].data.keys() | list }} {{ 'b' in messages[0].data }}",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + loop.index %}{% endfor %}{{ ns.n }}",
    "{% for m in messages %}{{ loop.index0 }}{{ loop.last }}{{ loop.previtem.role if loop.previtem is defined "
    "else '-' }}{{ loop.nextitem.role if loop.nextitem is defined else '-' }};{% endfor %}",
    "{% macro f(x, y='z') %}{{ x }}{{ y }}{% endmacro %}{{ f('a') }}{{ f('b', y='c') }}",
    "{% macro g(x) %}{{ h(x) }}{% endmacro %}{% macro h(x) %}<{{ x }}>{% endmacro %}{{ g('a') }}",
    "{{ '<b>&' }} {{ '<b>&' | e }} {{ \"it's\" }}",
    "{{ messages[0].data.list | tojson }} {{ ['it\\'s', \"q\\\"\"] }}",
    "[{{ '  a b \n' | trim }}] [{{ 'xxaxx' | trim('x') }}]",
    "{{ 'ß'.upper() }} {{ 'é' | length }} {{ '你好'[0] }}",
    "{{ messages[0].content[1:3] }} {{ messages[0].content[-2:] }} {{ messages[-1].role }}",
    "{{ strftime_now('%Y') | length }}",
    "{% filter upper %}abc{% endfilter %}",
    "{% set x %}a{{ 1 }}b{% endset %}{{ x }}",
    "{% macro w() %}[{{ caller() }}]{% endmacro %}{% call w() %}in{% endcall %}",
    "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.role }}{% break %}{% endfor %}",
    "{{ messages[0].missing is none }} {{ messages[0].nothing is none }} {{ messages[0].nothing == none }}",
    "{% set l = [] %}{% for m in messages %}{% set l = l + [m.role] %}{% endfor %}{{ l }}",
    "{% if true %}\n  a\n{% endif %}\n  {% if true %}b{% endif %}\n",
]

# `d` is the data, `s` the content of the first message, `u` undefined.
EXPRESSIONS = Path(__file__).with_name("chat_expressions.txt").read_text(encoding="utf-8").splitlines()

TEMPLATES = [
    "{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}",
    "{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}",
    "{% for i in [1, 2] %}{% if i == 1 %}{% set x = 5 %}{% endif %}[{{ x }}]{% endfor %}",
    "{% set x %}{% set y = 1 %}a{% endset %}{{ x }}{{ y }}",
    "{% filter upper %}{% set y = 'q' %}{{ y }}{% endfilter %}{{ y }}",
    "{% set x | upper %}abc{% endset %}{{ x }}",
    "{% set x | replace('a', 'b') | upper %}abc{% endset %}{{ x }}",
    "{% filter indent(2) | upper %}a\nb{% endfilter %}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}",
    "{% set a, b = [1, 2, 3] %}{{ a }}",
    "{% set (a, b) = (1, 2) %}{{ a }}{{ b }}",
    "{% set t = 1, 2 %}{{ t }}",
    "{% set ns = namespace() %}{% set ns.x = [] %}{% set ns.x = ns.x + [1] %}{{ ns.x }}{{ ns.y }}",
    "{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}{{ ns['a'] }}",
    "{% set d = {} %}{% set d.x = 1 %}{{ d }}",
    "{% set _ = [1].append(2) %}",
    "{% with x = 1 %}{{ x }}{% endwith %}{{ x }}",
    "{% with x = 1, y = 2 %}{{ x + y }}{% endwith %}",
    "{% set x = 5 %}{% with x = 1, y = x %}{{ y }}{% endwith %}",
    "{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}",
    "{% for k in {'a': 1, 'b': 2} %}{{ k }}{% endfor %}",
    "{% for k, v in {'a': 1} %}{{ k }}{% endfor %}",
    "{% for c in 'abc' %}{{ c }}.{% endfor %}",
    "{% for x in none %}{{ x }}{% endfor %}",
    "{% for x in 5 %}{{ x }}{% endfor %}",
    "{% for x in u %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in [] %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in [1, 2, 3] if x != 2 %}{{ x }}{{ loop.index }}{{ loop.length }}{% endfor %}",
    "{% for x in [1, 2, 3] if x > 5 %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in range(3) %}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }};{% endfor %}",
    "{% for x in range(3) %}{{ loop.cycle('a', 'b') }}{% endfor %}",
    "{% for x in [1, 1, 2] %}{{ loop.changed(x) }}{% endfor %}",
    "{% for x in [[1, [2]], [3, []]] recursive %}{{ x[0] }}({{ loop(x[1]) if x[1] is iterable and x[1] is not "
    "number and x[1] | length and x[1][0] is iterable }}){{ loop.depth }}{% endfor %}",
    "{% for x in 'ab' %}{% for y in 'cd' %}{{ loop.index }}{{ x }}{{ y }}{% endfor %}{{ loop.index }}{% endfor %}",
    "{% for x in [1, 2] %}{{ x }}{% endfor %}{{ x }}",
    "{% set x = 9 %}{% for x in [1, 2] %}{{ x }}{% endfor %}{{ x }}",
    "{% for x in [1, 2, 3, 4] %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 4 %}{% break %}{% endif %}"
    "{{ x }}{% endfor %}",
    "{% set g = [1, 2] | map('string') %}{% for x in g %}{{ x }}{% endfor %}|{% for x in g %}{{ x }}{% endfor %}",
    "{% for a, b in [[1, 2], [3, 4]] %}{{ a }}{{ b }}{% endfor %}",
    "{% for a, b in [[1, 2, 3]] %}{{ a }}{% endfor %}",
    "{% for a, (b, c) in [[1, [2, 3]]] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% macro f(a, b) %}[{{ a }}{{ b }}]{% endmacro %}{{ f(1) }}{{ f(1, 2) }}",
    "{% macro f(a) %}[{{ a }}]{% endmacro %}{{ f(1, 2) }}",
    "{% macro f(a) %}[{{ a }}]{% endmacro %}{{ f(b=2) }}",
    "{% macro f(a, b='d') %}[{{ a }}{{ b }}]{% endmacro %}{{ f(1, u) }}{{ f(1, none) }}{{ f(u) }}{{ f(1, b=u) }}",
    "{% macro f(a, b=a) %}[{{ a }}{{ b }}]{% endmacro %}{{ f(1) }}",
    "{% macro f(a, b=c) %}[{{ a }}{{ b }}]{% endmacro %}{% set c = 7 %}{{ f(1) }}",
    "{% macro f() %}{{ x }}{% endmacro %}{% set x = 1 %}{{ f() }}",
    "{% set x = 1 %}{% macro f() %}{{ x }}{% endmacro %}{% set x = 2 %}{{ f() }}",
    "{% macro f() %}{{ x }}{% endmacro %}{% for x in [1] %}{{ f() }}{% endfor %}",
    "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}",
    "{% macro f(a) %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1) }}",
    "{% macro f(a) %}x{% endmacro %}{{ f.name }}",
    "{% macro f(a) %}{{ a }}{% endmacro %}{{ f('<') | length }}{{ f('x') ~ 'y' }}{{ f('x') == 'x' }}",
    "{% macro f(a) %}\n {{ a }}\n{% endmacro %}[{{ f(1) }}]",
    "{% macro w(x) %}[{{ caller(x) }}]{% endmacro %}{% call(y) w(5) %}in{{ y }}{% endcall %}",
    "{% macro w() %}{{ caller is defined }}{% endmacro %}{{ w() }}",
    "{% generation %}a{% set x = 1 %}{{ x }}{% endgeneration %}{{ x }}",
    "{% for m in messages %}{% generation %}{{ m.role }}{{ loop.index }}{% endgeneration %}{% endfor %}",
    "{%- generation -%} b {%- endgeneration -%}",
    "{% raw %}{{ x }} {% generation %}{% endraw %}",
    "{# comment #}a{#- c -#} b",
    "{% if u %}a{% elif 0 %}b{% elif 1 %}c{% else %}d{% endif %}",
    "a\n{% if true %}\nb\n{% endif %}\nc\n",
    "a\n  {% if true %}\n  b\n  {% endif %}\nc\n\n",
    "  {% if true %}x{% endif %}  y\n",
    "{% if true %}  {% if true %}x{% endif %}{% endif %}",
    "a  {%- if true -%}  b  {%- endif -%}  c",
    "a  {%+ if true +%}  b  {% endif %}\n c",
    "  {#- x -#}  a\n  {# y #}\n b",
    "{{ 'a' }}\n{{ 'b' }}\n",
    "{{- 'a' -}}  b",
    "a\r\nb\r{{ 'c' }}\r\n",
    "{{ 'a\nb' }}",
    "{% set x = 'a\r\nb' %}{{ x | length }}",
    "\n\n a {{ 1 }} \n\n",
    "{% raw %}\n a {{ 1 }}\n{% endraw %}\n b",
    "{% raw -%}\n a \n{%- endraw %} b",
    "{{ 1 }}{% if true %}\n\n{% endif %}2",
    "{% do [].append(1) %}",
    "{% include 'x' %}",
    "{% import 'x' as y %}",
    "{% extends 'x' %}",
    "{% block a %}b{% endblock %}",
    "{% autoescape true %}{{ '<' }}{% endautoescape %}",
    "{% trans %}x{% endtrans %}",
    "{% unknown %}",
    "{% if true %}unclosed",
    "{% endif %}",
    "{{ 1 ",
    "{{ }}",
    "{{ [1, 2,] }}{{ (1, 2,) }}{{ {'a': 1,} }}",
    "{{ 1, 2 }}",
    "{{ 'a' if u.b is defined else 'c' }}",
    "{% if messages[0]['content'] is string and not messages[0]['x'] %}y{% endif %}",
    "{%- for m in messages %}{{- '<|' + m['role'] + '|>\n' + (m['content'] | trim) + '<|end|>\n' -}}{% endfor %}",
    "{% set x = {'type': 'object', 'items': {'type': 'string'}} %}{{ x.items.type }}|{{ x['items'].type }}|"
    "{{ x.type }}|{{ x.items() | list | length }}|{% if x['keys'] %}t{% endif %}",
    "{{ strftime_now('%d %B %Y') | length > 0 }}",
    "{% set s = '' %}{% for i in range(3) %}{% set s = s ~ i %}{% endfor %}[{{ s }}]",
    "{% set ns = namespace(s='') %}{% for i in range(3) %}{% set ns.s = ns.s ~ i %}{% endfor %}[{{ ns.s }}]",
    "{% set x = messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | first %}{{ x }}",
    "{% set f = {'a': 1} %}{% for k in f | sort %}{{ k }}: {{ f[k] }}{% endfor %}",
    "{{ ('a', 'b') | join }}{{ 'x'.join(('a', 'b')) }}",
    "{{ messages | tojson }}",
    "{{ messages[0] | tojson }}",
    "{{ messages[0] }}",
    "{{ messages[1].keys() | list }}",
    "{{ messages | map(attribute='content') | map('length') | sum }}",
    "{% for m in messages | reverse %}{{ m.role }}{% endfor %}",
    "{% for m in messages | batch(1) %}{{ m | length }}{% endfor %}",
    "{% for g in messages | groupby('role') %}{{ g.grouper }}{% endfor %}",
    "{% for k, v in messages | groupby('role') %}{{ k }}{{ v | length }}{% endfor %}",
]

CONVERSATIONS = {
    "plain": MESSAGES,
    "reasoning": [
        {"content": None, "role": "user", "tool_calls": None},
        {"role": "assistant", "reasoning": "so", "content": [{"type": "text", "text": "a"}, {"type": "image"}]},
        {"role": "assistant", "thinking": "then", "content": "b"},
        {"role": "assistant", "reasoning_content": "r", "thinking": "t", "content": ""},
    ],
}

FIELDS = [
    "{{ messages }}",
    "{% for m in messages %}{{ m | tojson }}\n{% endfor %}",
    "{% for m in messages %}{{ m.content is defined }}{{ m['tool_calls'] is defined }}{{ m.thinking }}"
    "{{ m.reasoning_content }}{{ m.reasoning }};{% endfor %}",
    "{% for p in messages[1].content %}{{ p.type }}{{ p.text }}{% endfor %}",
]


class Fixed:
    """The present time, always the same words."""

    @staticmethod
    def now():
        return Fixed

    @staticmethod
    def strftime(form: str) -> str:
        return "2025"


def main() -> None:
    logging.disable(logging.WARNING)
    chat_template_utils.datetime = Fixed
    tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
    prefix = "{% set d = messages[0].data %}{% set s = messages[0].content %}"
    sets = [("reported", REPORTED, "plain"), ("expressions", ["{{ " + e + " }}" for e in EXPRESSIONS], "plain"),
            ("templates", TEMPLATES, "plain"), ("fields", FIELDS, "reasoning")]
    cases = []
    for name, templates, conversation in sets:
        for template in templates:
            whole = prefix + template if name == "expressions" else template
            try:
                text = tokenizer.apply_chat_template(
                    CONVERSATIONS[conversation], chat_template=whole, tokenize=False)
            except Exception as error:  # whatever it raises, it does not render
                text = None
                print(f"{whole}: {type(error).__name__}: {error}", file=sys.stderr)
            cases.append({"set": name, "conversation": conversation, "template": whole, "text": text})
    document = {
        "made_by": f"scripts/chat_constructs.py with transformers {transformers.__version__}",
        "now": "2025", "conversations": CONVERSATIONS}
    head = json.dumps(document, ensure_ascii=False)[:-1]
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    print(f'{head}, "cases": [\n{lines}\n]}}')


if __name__ == "__main__":
    main()
