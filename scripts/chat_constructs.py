#!/usr/bin/env python3
"""What transformers makes of small templates, one construct each, for the tests of crates/gq-text.

    .venv/bin/python scripts/chat_constructs.py testdata/demo > testdata/chat/constructs.json

Each template is rendered for one conversation. `text` is what transformers renders, null where it raises.
"""
import json
import logging
import sys

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
EXPRESSIONS = """
d.items() | list
d.items()
d.keys()
d.values()
d.items
d.items is defined
d['items'] is defined
d['items']
d['b']
d.get('b')
d.get('z')
d.get('z') is none
d.copy() == d
d.update({'z': 1})
d.list.append(1)
d.list.index('x')
d.list.count(1)
d.list[-1]
d.list[9]
d.list[9] is defined
d.list['x'] is defined
d.list.x is defined
d.nothing.more
none.more is defined
none['more'] is defined
u.more
u.more is defined
u['more']
u + 'x'
'x' + u
u ~ 'x'
u | length
u | list
u | upper
u | trim
u | tojson
none | tojson
none | upper
none | trim
none + 'x'
none ~ 'x'
u == none
u is none
u == u
not u
u in [1]
1 in u
'b' in d
'z' not in d
1 in [1.0]
1 in 'abc'
none in [none]
'' in 'abc'
[1] in [[1], 2]
1 < 'a'
'a' < 'b' < 'c'
3 > 2 >= 2 != 1
1 == 1.0 == true
true + 1
-true
[1, 2] + [3]
[1, 2] + (3,)
(1, 2) + (3,)
[1] * 3
'ab' * 2
3 * 'ab'
'ab' * -1
(1,) * 2
(1,)
()
(1, 'a')
[]
{}
{'a': 1, 1: 'b', none: [], 1.5: ()}
{'a': 1}['a']
{1: 'x'}[1.0]
{(1, 2): 3}
{[1]: 2}
[1] == (1,)
{'a': 1} == {'a': 1.0}
[1, [2, (3, {'x': none})]]
"it's"
["it's", 'say "hi"', 'both \\' and "']
['\\n\\t\\\\', '\\x00\\x7f', 'é\\u200b', '\\U0001F600', '\\u3000']
['a\\/b', '\\d']
'\\a\\v\\f\\b'
'a' 'b'
1e5
1e16
1e15
123456789.123
1e-5
0.0001
1.5e300
100000000000000000000
1_000
0x1F
0b11
0o17
10 // 3
10 // -3
10 // 3.0
-10 // 3.0
10 % 3
-10 % 3
10 % -3
10.5 % 3
-10.5 % 3
1 / 3
10 / 5
1 / 0
1 // 0
1 % 0
2 ** 10
2 ** -1
2 ** 0.5
-2 ** 2
2 ** 3 ** 2
-1 | abs
(-1) | abs
-5.5 | int
'%d' % 3
'%d items' % 3.7
'%s' % none
'%s' % [1, 2]
'%s %s' % (1, 2)
'%s %s' % (1,)
'%s' % (1, 2)
'%r' % 'a'
'%5d|%-5d|%05d|%+d' % (1, 2, 3, 4)
'%.2f %5.1f %e %g %g' % (3.14159, 2.25, 12345.678, 0.00001, 1e20)
'%x %X %o' % (255, 255, 8)
'%(a)s %(b)d' % {'a': 1, 'b': 2}
'%%' % ()
'%d%%' % 5
'%5s|%-5s|%.2s' % ('a', 'b', 'cde')
'%c' % 'a'
'%s' % u
'%d' % 'a'
'100%' | format()
'%s and %s' | format('a', 'b')
'%(x)s' | format(x=1)
'{} {}'.format(1, 'a')
'{0} {1} {0}'.format('a', 'b')
'{x}'.format(x=3)
'{:>5}|{:<5}|{:^5}|{:*^7}'.format('a', 'b', 'c', 'd')
'{:05d} {:,} {:.2f} {:e}'.format(42, 1234567, 3.14159, 1234.5)
'{:x} {:b} {:o}'.format(255, 5, 8)
'{{}} {}'.format(1)
'{!r}'.format('a')
'{0[a]} {0[list][0]}'.format(d)
'{}'.format([1, 'a', none])
'{:.1%}'.format(0.256)
'{:g}'.format(0.1)
'{:+}'.format(3)
s.upper()
s.lower()
s.title()
'they\\'re bill\\'s'.title()
'they\\'re bill\\'s (x) [y]' | title
'éa bC'.capitalize()
'éa bC' | capitalize
'ß'.capitalize()
'ǆx'.title()
s.split()
s.split('e')
s.split('e', 1)
s.split(maxsplit=1)
'  a  b  c '.split()
'  a  b  c '.split(none, 1)
'  a  b  c '.split(' ')
'  a  b  c '.rsplit(none, 1)
'a,b,c'.rsplit(',', 1)
'a,b,c'.rsplit(',')
''.split()
''.split(',')
'a\\nb\\r\\nc\\n'.splitlines()
'a\\nb\\r\\nc\\n'.splitlines(true)
'a\\x0bb\\x85c'.splitlines()
''.splitlines()
'xxhixx'.strip('x')
'xyhiyx'.lstrip('xy')
'\\x1f hi \\u2003'.strip()
'hi'.rstrip('i')
s.startswith('hello')
s.startswith(('a', 'he'))
s.startswith(['a', 'he'])
s.startswith('there', 6)
s.endswith(('!', '?'))
s.endswith('o', 0, 5)
s.find('there')
s.find('zz')
s.rfind('e')
s.index('e')
s.index('zz')
s.count('e')
s.count('')
s.replace('l', 'L')
s.replace('l', 'L', 1)
s.replace('', '-')
s.replace('l', 'L', count=1)
s.partition(' ')
s.rpartition('e')
s.partition('zz')
s.removeprefix('hello ')
s.removesuffix('!')
s.zfill(15)
'-5'.zfill(4)
s.center(20) + '|'
s.center(21, '*')
'abc'.center(4) + '|'
'abcd'.center(7) + '|'
s.ljust(15, '.')
s.rjust(15)
', '.join(['a', 'b'])
', '.join(d)
', '.join([1])
''.join([])
'-'.join('abc')
'abc'.isalpha()
'abc1'.isalnum()
'12'.isdigit()
'1.2'.isdigit()
''.isdigit()
' \\n'.isspace()
'abc'.islower()
'ABC1'.isupper()
'Abc'.istitle()
'é'.isalpha()
'!é'.isalpha()
'abc'.isascii()
'abc'.swapcase()
'ABC'.casefold()
'abc'.encode()
'abc'.nothing()
'abc'.nothing
'abc'.upper is defined
'abc'['upper'] is defined
'abc'[0]
'abc'[-1]
'abc'[5]
'abc'[::-1]
'abcdef'[1:5:2]
'abcdef'[5:1:-2]
'abcdef'[-3:-1]
'abcdef'[:-10]
'abcdef'[10:]
'abc'[none:2]
'日本語'[1:]
d.list[::2]
d.list[::-1]
d.list[1:3]
d.list[-2:]
(1, 2, 3)[1:]
d.list[1:] is sequence
d.list[1:][0]
d.list[1:] | length
d.list[1:] | tojson
d[1:]
none[1:] is defined
range(3)
range(3) | list
range(1, 10, 3) | list
range(5, 0, -2) | list
range(3) | length
range(3)[1]
range(200000) | length
d | length
d | list
d | first
d | last
d | join(',')
d | dictsort
d | dictsort(reverse=true)
{'b': 1, 'A': 2} | dictsort
{'b': 1, 'A': 2} | dictsort(true)
{'b': 1, 'A': 0} | dictsort(by='value')
d | items
d | items | list
u | items | list
[1] | items
['b', 'A', 'c'] | sort
['b', 'A', 'c'] | sort(case_sensitive=true)
['b', 'A', 'c'] | sort(reverse=true)
[3, 'a'] | sort
messages | sort(attribute='role') | map(attribute='role') | list
messages | map(attribute='role') | join('-')
messages | map(attribute='zzz', default='?') | list
messages | map(attribute='data.b') | list
messages | map('length') | list
['a', 'b'] | map('upper') | list
['a', 'b'] | map('replace', 'a', 'z') | list
['a', 'b'] | map('default', 'x') | list
messages | selectattr('data') | list | length
messages | selectattr('role', 'in', ['user']) | list | length
messages | selectattr('num', 'defined') | list | length
messages | rejectattr('num', 'defined') | map(attribute='role') | list
[1, 2, 3] | select('odd') | list
[1, 2, 3] | reject('odd') | list
[0, 1, '', 'a'] | select | list
[1, 2, 3] | select('gt', 1) | list
[1, 2, 3] | select('>', 1) | list
[] | select | length
'yes' if [] | select else 'no'
([1] | map('string')) + ['b']
([1] | map('string')) is sequence
[1, 2] | map('string') | first
[3, 1, 2] | min
['b', 'A'] | min
[] | max
[1, 2] | sum
[1.5, 2] | sum
[{'a': 1}, {'a': 2}] | sum(attribute='a')
[1, 1, 2] | unique | list
['a', 'A'] | unique | list
[1, 2, 3] | reverse | list
[1, 2, 3] | reverse
'abc' | reverse
[1, 2, 3, 4, 5] | batch(2) | list
[1, 2, 3] | batch(2, 0) | list
[1, 2, 3, 4, 5] | slice(2) | list
messages | groupby('role')
[1, 2] | first
[] | first
[] | first is defined
[1, 2] | last
'abc' | last
'abc' | list
'abc' | first
5 | string
5 | list
'5' | int
'5.7' | int
'abc' | int
'abc' | int(7)
' 12 ' | int
'1f' | int(0, 16)
none | int
true | int
'3.5' | float
'x' | float
5 | float
3.7 | int
5 | round
2.5 | round
3.5 | round
2.675 | round(2)
2.1 | round(0, 'ceil')
2.9 | round(0, 'floor')
-2.5 | round
1234.5678 | round(-2)
-3 | abs
'abc' | abs
'a b c' | wordcount
'x' | center(5)
'a\\nb' | indent
'a\\n\\nb' | indent(2)
'a\\n\\nb' | indent(2, true)
'a\\n\\nb' | indent(2, blank=true)
'a\\nb' | indent('> ', true)
'a\\nb\\n' | indent(2)
'foo bar baz qux' | truncate(9)
'foo bar baz qux' | truncate(9, true)
'foo bar baz qux' | truncate(11)
'foo bar baz qux' | truncate(11, false, '...', 0)
'a' | default('b')
u | default
u | default('b')
none | default('b')
none | default('b', true)
'' | d('b', boolean=true)
'<a>' | e
('<a>' | e) + '<b>'
'<b>' + ('<a>' | e)
('<a>' | e) ~ '<b>'
('<a>' | safe) + '<b>'
'<a>' | safe | upper
'<a>' | escape | escape
('<a>' | e) is escaped
['<a>' | e]
'<a href="x">' | e
'aXbX' | replace('X', 'Y')
'aXbX' | replace('X', 'Y', 1)
12 | replace('1', '2')
' a ' | trim
'aba' | trim('a')
12 | trim
d | tojson(indent=2)
d | tojson(indent=0)
d | tojson(indent='--')
d | tojson(false, 2)
d | tojson(indent=none)
d | tojson(separators=(',', ':'), indent=1)
d | tojson(unknown=1)
[] | tojson(indent=2)
{} | tojson(indent=2)
[[], {}] | tojson(indent=2)
{'a': {'b': [1, 2]}} | tojson(indent=2, sort_keys=true)
{1: 'a', none: 'b', true: 'c', 1.5: 'd'} | tojson
{(1, 2): 3} | tojson
{2: 1, 1: 2} | tojson(sort_keys=true)
{'b': 1, 1: 2} | tojson(sort_keys=true)
'é😀\\x7f"\\\\/\\n\\x01' | tojson
'é😀\\x7f"\\\\/\\n\\x01' | tojson(ensure_ascii=true)
[1e20, 1.0, 0.1, 1e-7, 123456789012345678] | tojson
'<&>\\'' | tojson
(1, 2) | tojson
range(3) | tojson
d.keys() | tojson
d.items() | list | tojson
true is boolean
true is number
true is integer
1 is boolean
1.0 is integer
'a' is string
d is mapping
d is sequence
d is iterable
none is iterable
5 is iterable
u is iterable
u is sequence
u is string
u is mapping
d.keys() is sequence
d.keys() is iterable
range(2) is sequence
3 is odd
4 is even
6 is divisibleby 3
6 is divisibleby(4)
'a' is in ['a']
1 is eq 1
1 is ne 2
2 is gt 1
'abc' is lower
'ABC' is upper
true is true
1 is true
none is none
none is sameas none
true is sameas true
1 is sameas true
1 is not none
not 1 is none
1 is none or 2 is odd
'a' is defined and u is not defined
u is undefined
d.items is callable
raise_exception is callable
1 if true
1 if false
(1 if false) is defined
1 if false else 2
'a' if 0 else 'b' if 1 else 'c'
1 and 0
1 or 0
'' or 'b'
[] or none
not [] and 1
1 + 2 * 3 - 4 / 2
'a' ~ 1 + 2
1 ~ 2 * 3
1 - -1
+1
- 1
8 - 3 - 2
[1, 2, 3][1]
(1, 2)[0]
messages[0]['content'][0]
messages[0].content.0
messages.0.role
messages[5].role
messages[0].role.upper().lower()
dict(a=1, b=2)
dict({'a': 1}, b=2)
dict()
namespace(a=1).a
namespace(a=1)
namespace(a=1).b is defined
namespace(_a=1)
d.__class__
''.__class__.__mro__
messages.__len__()
cycler('a', 'b')
joiner(',')
lipsum()
unknown()
unknown_filter | nothing
1 is nothing
raise_exception('no')
loop
self
tools
documents
tools is none
add_generation_prompt
bos_token
eos_token
pad_token is defined
messages[0].nothing is defined
messages[0].reasoning_content is defined
d.list | map('string') | join('|')
d.list | string
d.list | join
d.list | tojson | length
d.values() | list
d.items() | map(attribute=0) | list
d.items() | sort(attribute=0) | first
(d.items() | list)[0][1]
d.list == [1, 'x', none, true, 2.5]
d | tojson == d | tojson
3.0 == 3
'3' == 3
3.0 | string
7.0 // 2
7.0 | int
2.50
1.0e3
-0.0
1e400
""".strip("\n").split("\n")

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
