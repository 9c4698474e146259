#!/usr/bin/env python3
"""What transformers makes of templates in the manner of the large families, for the tests of crates/gq-text.

    .venv/bin/python scripts/chat_families.py testdata/demo > testdata/chat/families.json

The templates below were written for this test. Each is rendered for the conversations of check_chat_templates.py.
`text` is null where transformers raises.
"""
import json
import logging
import sys

import transformers
from check_chat_templates import CONVERSATIONS, NOW, Fixed
from transformers.utils import chat_template_utils

TEMPLATES = {
    # A mark made of each role's name, tools in the system message, the end of text where no answer is asked for.
    "bars": """\
{% for message in messages %}
    {%- if message['role'] == 'system' and 'tools' in message and message['tools'] is not none -%}
        {{- '<|' + message['role'] + '|>' + message['content'] + '<|tool|>' + message['tools'] + '<|/tool|>' + '<|end|>' -}}
    {%- else -%}
        {{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}
    {%- endif -%}
{% endfor %}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- else -%}{{- eos_token -}}{%- endif -%}
""",
    # Turns between marks, tools as lines of JSON, reasoning only behind the last question.
    "marks": """\
{%- macro content_of(message) -%}
    {%- if message.content is string -%}
        {{- message.content -}}
    {%- elif message.content is iterable -%}
        {%- for part in message.content if part.type in ('text', 'image') -%}
            {{- part.text if part.type == 'text' else '<image>' -}}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro %}
{%- if messages[0].role == 'system' or tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- content_of(messages[0]).strip() + '\\n' }}
    {%- endif %}
    {%- if tools %}
        {{- "# Tools\\n<tools>" }}
        {%- for tool in tools %}
            {{- "\\n" ~ (tool | tojson) }}
        {%- endfor %}
        {{- "\\n</tools>\\n" }}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(searching=true, last=messages | length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages | length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and not (message.content is string and
        message.content.startswith('<tool_response>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role in ['user', 'developer'] or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content_of(message) + '<|im_end|>' + '\\n' }}
    {%- elif message.role == 'assistant' %}
        {%- generation %}
        {%- set said = content_of(message) %}
        {%- set thought = '' %}
        {%- if message.reasoning_content is string %}
            {%- set thought = message.reasoning_content %}
        {%- elif '</think>' in said %}
            {%- set thought = said.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set said = said.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.index0 > ns.last and (loop.last or thought) %}
            {{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- said.lstrip('\\n') }}
        {%- for call in message.tool_calls or [] %}
            {{- '\\n<tool_call>\\n{"name": "' ~ call.function.name ~ '", "arguments": ' }}
            {{- call.function.arguments if call.function.arguments is string else call.function.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
        {%- endgeneration %}
    {%- elif message.role == 'tool' %}
        {%- if loop.first or loop.previtem.role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' + content_of(message) + '\\n</tool_response>' }}
        {%- if loop.last or loop.nextitem.role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
""",
    # Headers, today's date, indented JSON of tools in the first question, one call a turn.
    "headers": """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = strftime_now("%d %b %Y") %}
{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
<|header|>system<|/header|>

Today Date: {{ date_string }}
{% if tools is not none %}
Environment: tools {{ tools | map(attribute='function.name') | join(', ') | upper }}
{% endif %}
{{- system_message }}<|eot|>
{%- if tools is not none and messages | length != 0 %}
    {%- set first = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
    {{- '<|header|>user<|/header|>\\n\\n' }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
    {{- first + "<|eot|>" }}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|header|>' + message['role'] + '<|/header|>\\n\\n' + message['content'] | trim + '<|eot|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls | length == 1 %}
            {{- raise_exception("One call a turn.") }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|header|>assistant<|/header|>\\n\\n' -}}
        {{- '{"name": "' + call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot|>" }}
    {%- else %}
        {{- "<|header|>ipython<|/header|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|header|>assistant<|/header|>\\n\\n' }}
{%- endif %}
""",
    # Turns that must alternate, call ids of nine characters, tools with the last question.
    "strict": """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace(index=0) %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("Turns must alternate.") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS][" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val | tojson }}
                    {%- endif %}
                    {%- if not loop.last %}{{- ", " }}{%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST]" + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST]" + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS][" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function | tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id | length != 9 %}
                {{- raise_exception("Ids have nine characters.") }}
            {%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" + eos_token }}{%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- message["content"] + eos_token }}
    {%- elif message["role"] in ["tool", "tool_results"] %}
        {{- '[TOOL_RESULTS]{"content": ' + message.content | string + ', "call_id": "' }}
        {{- message.tool_call_id[-9:] + '"}[/TOOL_RESULTS]' }}
    {%- else %}
        {{- raise_exception("Only user, assistant and tool: " ~ message.role) }}
    {%- endif %}
{%- endfor %}
""",
    # A schema written by macros that call each other, sorted; arguments by type.
    "schema": """\
{%- macro declare(properties, required, indent='') -%}
    {%- for key, value in properties | dictsort -%}
        {{- indent ~ key -}}{{ '' if key in required else '?' }}: {{ kind(value, indent) }}
        {%- if not loop.last %};{% endif %}
    {%- endfor -%}
{%- endmacro -%}
{%- macro kind(value, indent) -%}
    {%- if value['type'] is string and value['type'] == 'array' -%}
        [{{ kind(value['items'], indent) }}]
    {%- elif value['type'] == 'object' -%}
        { {{- declare(value['properties'], value.get('required', []), indent ~ ' ') -}} }
    {%- elif value['type'] is sequence and value['type'] is not string -%}
        {{ value['type'] | map('upper') | join(' or ') }}
    {%- else -%}
        {{ value['type'] | upper }}
    {%- endif -%}
    {%- if value.enum %} in {{ value.enum }}{% endif -%}
    {%- if value.default is defined %} = {{ value.default }}{% endif -%}
    {%- if 'maximum' in value %} <= {{ value.maximum }}{% endif -%}
    {%- if value.description %} # {{ value.description | replace('"', "'") }}{% endif -%}
{%- endmacro -%}
{%- macro argument(value) -%}
    {%- if value is string -%}<<{{ value }}>>
    {%- elif value is boolean -%}{{ 'true' if value else 'false' }}
    {%- elif value is mapping -%}{ {%- for k, v in value | dictsort -%}{{ k }}:{{ argument(v) }}
        {%- if not loop.last %},{% endif %}{%- endfor -%} }
    {%- elif value is iterable -%}[{%- for v in value -%}{{ argument(v) }}{% if not loop.last %},{% endif %}
        {%- endfor -%}]
    {%- else -%}{{ value }}
    {%- endif -%}
{%- endmacro -%}
{{ bos_token }}
{%- for tool in tools or [] %}
<declare>{{ tool.function.name }}(
    {{- declare(tool.function.parameters.properties, tool.function.parameters.required or []) -}}
)</declare>
{%- endfor %}
{%- for message in messages %}
<turn>{{ 'model' if message.role == 'assistant' else message.role | capitalize }}
{%- if message['reasoning_content'] and enable_thinking | default(false) %}
<thought>{{ message['reasoning_content'] }}</thought>
{%- endif %}
{%- for call in message['tool_calls'] | default([], true) %}
<call>{{ call.function.name }}{{ argument(call.function.arguments) }}</call>
{%- endfor %}
{%- if message.content is string and message.content %}
{{ message.content | trim }}
{%- elif message.content is defined and message.content is not none and message.content is not string %}
{{ message.content | selectattr('type', 'equalto', 'text') | map(attribute='text') | map('trim') | join('\\n') }}
{%- endif %}
</turn>
{%- endfor %}
{%- if documents %}
{% for document in documents -%}
Document {{ loop.index }}/{{ loop.length }}: {{ document.title ~ ': ' ~ document['text'] }}
{% endfor %}
{%- endif %}
{%- if add_generation_prompt %}
<turn>model
{% endif %}
""",
    # Python's spelling: whole messages and arguments printed as they are, `%` and format.
    "spelled": """\
{% for message in messages %}
{{ '%-10s|%3d|' % (message.role, loop.index) }}{{ message }}
{% for call in message.tool_calls or [] %}
{{ call.function.arguments }} {{ '{}({!r})'.format(call.function.name, call.id) }}
{{ call.function.arguments | string | length }} {{ (call.function.arguments | length) / 2 }}
{% endfor %}
{% endfor %}
{{ tools }} {{ documents }} {{ enable_thinking }} {{ add_generation_prompt }}
{{- '' if add_generation_prompt else none }}
""",
}

WANTED = ["user", "system turns", "parts", "text parts", "tools", "call", "call text", "calls", "thinking",
          "not thinking", "thinking text", "documents", "null", "user twice"]


def main() -> None:
    logging.disable(logging.WARNING)
    chat_template_utils.datetime = Fixed
    tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
    conversations = {name: {"messages": messages, "variables": variables}
                     for name, messages, variables in CONVERSATIONS if name in WANTED}
    cases = []
    for template, text in TEMPLATES.items():
        for name, conversation in conversations.items():
            try:
                rendered = tokenizer.apply_chat_template(
                    conversation["messages"], chat_template=text, tokenize=False, add_generation_prompt=True,
                    **conversation["variables"])
            except Exception as error:  # whatever it raises, it does not render
                rendered = None
                print(f"{template}, {name}: {type(error).__name__}: {error}", file=sys.stderr)
            cases.append({"template": template, "conversation": name, "text": rendered})
    head = json.dumps({
        "made_by": f"scripts/chat_families.py with transformers {transformers.__version__}", "now": NOW,
        "templates": TEMPLATES, "conversations": conversations}, ensure_ascii=False)[:-1]
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    print(f'{head}, "cases": [\n{lines}\n]}}')


if __name__ == "__main__":
    main()
