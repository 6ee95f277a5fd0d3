"""Templates that use everything that Jinja offers them, and some that it refuses."""

from __future__ import annotations

from typing import Any

NAMES: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": " Be brief. \n"},
        {"role": "user", "content": "Grüße, 😀 <b>a & 'b'</b>\nhttps://example.com/x?y=1"},
        {"role": "assistant", "content": "one two  three"},
    ],
    "tools": [{"name": "f", "parameters": {"b": [1, 2.5, None], "a": {"x": True}}}, {"name": "g", "parameters": {}}],
    "words": ["pear", "Apple", "fig", "apple", "Fig"],
    "numbers": [3, -1, 4, 1, 5, 9, 2, 6],
    "table": {"b": 2, "a": 1, "C": 3},
}

FILTERS = r"""
{{ numbers[1] | abs }} {{ messages[1] | attr('role') }} {{ numbers | batch(3, 0) | list }} {{ 'hELLO' | capitalize }}
{{ 'mid' | center(11) }}| {{ numbers | count }} {{ missing | d('x') }} {{ '' | default('y', true) }}
{{ table | dictsort }} {{ table | dictsort(true, 'value', reverse=true) }} {{ '<b>' | e }} {{ '<&' | escape }}
{{ 123456789 | filesizeformat }} {{ 123456789 | filesizeformat(true) }} {{ words | first }} {{ '3.5' | float }}
{{ 'x' | float(1.5) }} {{ '<i>' | escape | forceescape }} {{ '%s: %05.1f %x' | format('a', 3.14159, 255) }}
{% for key, group in messages | groupby('role') %}{{ key }}={{ group | length }} {% endfor %}
{% for g in messages | groupby('name', default='none') %}{{ g.grouper }}{{ g.list | length }}{% endfor %}
{{ 'a\nb\n\nc' | indent }} {{ 'a\nb\n\nc' | indent(2, true, true) }} {{ 'a\nb' | indent('> ') }} {{ '42' | int }}
{{ 'ff' | int(0, 16) }} {{ 'z' | int(7) }} {{ table | items | list }} {{ words | join(', ') }}
{{ messages | join('/', attribute='role') }} {{ words | last }} {{ words | length }} {{ 'ab' | list }}
{{ 'ABC' | lower }} {{ words | map('upper') | list }} {{ messages | map(attribute='role') | join }}
{{ messages | map(attribute='name', default='-') | join }} {{ numbers | max }} {{ words | max(case_sensitive=true) }}
{{ numbers | min }} {{ tools | pprint }} {{ ['only'] | random }} {{ numbers | reject('odd') | list }}
{{ messages | rejectattr('role', 'equalto', 'user') | map(attribute='role') | list }}
{{ 'aXbX' | replace('X', '--') }}
{{ 'aXbXc' | replace('X', '-', 1) }} {{ 'abc' | reverse }} {{ numbers | reverse | list }} {{ 2.567 | round }}
{{ 2.567 | round(1) }} {{ 2.567 | round(2, 'floor') }} {{ 2.511 | round(1, 'ceil') }} {{ '<b>' | safe }}
{{ numbers | select('gt', 3) | list }} {{ numbers | select | list }}
{{ messages | selectattr('role', 'in', ['user', 'system']) | map(attribute='role') | list }}
{{ tools[:1] | selectattr('parameters.a.x') | list | length }} {{ numbers | slice(3) | list }}
{{ words | sort }} {{ words | sort(reverse=true, case_sensitive=true) }}
{{ messages | sort(attribute='role,content') }}
{{ 12 | string }} {{ '<p>a <b>b</b>\n c</p>' | striptags }} {{ numbers | sum }}
{{ tools | map(attribute='name') | list }} {{ [{'n': 2}, {'n': 3}] | sum(attribute='n', start=10) }}
{{ 'a title' | title }}
{{ tools | tojson }} {{ tools | tojson(indent=2) }} {{ tools | tojson(separators=(',', ':'), sort_keys=true) }}
{{ 'é<>&\u2028' | tojson }} {{ 'é😀' | tojson(ensure_ascii=true) }} {{ tools | tojson(indent='\t') }}
{{ '  x ' | trim }}
{{ 'xxaxx' | trim('x') }} {{ 'a long sentence to cut' | truncate(12) }} {{ 'abcdefgh' | truncate(5, true, '~', 0) }}
{{ words | unique | list }} {{ words | unique(true) | list }}
{{ messages | unique(attribute='role') | list | length }}
{{ 'abc' | upper }} {{ {'a b': 'ü&', 'c': 1} | urlencode }} {{ '/ü ?' | urlencode }}
{{ messages[1].content | urlize }} {{ 'www.example.com' | urlize(10, true, target='_blank') }}
{{ 'one two three' | wordcount }} {{ 'one two three four' | wordwrap(9) }} {{ 'abcdefghij' | wordwrap(4, false) }}
{{ {'class': 'a', 'id': none, 'x': '"'} | xmlattr }}
"""
TESTS = r"""
{{ print is callable }} {{ 1 is boolean }} {{ true is boolean }} {{ range is callable }} {{ missing is defined }}
{{ 6 is divisibleby 3 }} {{ 2 is eq 2 }} {{ 2 is equalto 3 }} {{ '<' | e is escaped }} {{ 2 is even }}
{{ false is false }}
{{ 'upper' is filter }} {{ 'nofilter' is filter }} {{ 1.5 is float }} {{ 2 is ge 2 }} {{ 2 is gt 2 }}
{{ 3 is greaterthan 2 }} {{ 2 is in [1, 2] }} {{ 2 is integer }} {{ true is integer }} {{ 'ab' is iterable }}
{{ 1 is iterable }}
{{ 1 is le 2 }} {{ 1 is lessthan 2 }} {{ 'ab' is lower }} {{ 1 is lt 1 }} {{ table is mapping }} {{ 1 is ne 2 }}
{{ none is none }} {{ 3 is number }} {{ 3 is odd }} {{ 1 is sameas 1 }} {{ words is sequence }} {{ 'a' is string }}
{{ 'odd' is test }} {{ true is true }} {{ missing is undefined }} {{ 'AB' is upper }} {{ words is not string }}
"""
GLOBALS = r"""
{{ dict(a=1, b=[2]) }} {{ dict([('x', 1)], y=2) | tojson }} {{ dict.fromkeys('ab', 0) }}
{{ dict(table, a=9).items() | list }}
{% set c = cycler('odd', 'even') %}{{ c.next() }} {{ c.next() }} {{ c.current }} {{ c.reset() }}{{ c.next() }}
{% set j = joiner(' | ') %}{% for w in words %}{{ j() }}{{ w }}{% endfor %}
{% set ns = namespace(n=0, text='') %}{% for n in numbers %}{% set ns.n = ns.n + n %}{% endfor %}{{ ns.n }}{{ ns.text }}
{% set ns = namespace({'self': 1}, x=2) %}{{ ns.x }}{{ ns['x'] }} {{ range(5) | list }} {{ range(9, 0, -3) | list }}
{{ lipsum(n=0) }}{{ lipsum(1, false, 3, 5) is string }} {{ strftime_now('%Y-%m-%d %j %a %A %B %% %U %y') }}
{{ strftime_now('%-d %z%Z|%5Y|%^a') }} {{ strftime_now('') }}
"""
METHODS = r"""
{{ 'aBc'.capitalize() }} {{ 'ß'.casefold() }} {{ 'a'.center(5, '*') }} {{ 'banana'.count('an') }}
{{ 'x.py'.endswith(('.py',)) }}
{{ 'a\tb'.expandtabs(4) }} {{ 'banana'.find('n', 3) }}
{{ '{0} {x:>5} {1!r}'.format(1, 'b', x='c') }}
{{ '{a}'.format_map({'a': 1}) }} {{ 'banana'.index('n') }} {{ 'a1'.isalnum() }}{{ 'a'.isalpha() }}{{ 'é'.isascii() }}
{{ '1'.isdecimal() }}{{ '²'.isdigit() }}{{ 'a_b'.isidentifier() }}{{ 'a'.islower() }}{{ '½'.isnumeric() }}
{{ '\n'.isprintable() }}{{ ' '.isspace() }}{{ 'Ab Cd'.istitle() }}{{ 'A'.isupper() }} {{ '-'.join(words) }}
{{ 'a'.ljust(3, '.') }}
{{ 'AB'.lower() }} {{ '  a '.lstrip() }}| {{ 'xya'.lstrip('yx') }} {{ 'a=b=c'.partition('=') }}
{{ 'prefix-a'.removeprefix('prefix-') }}
{{ 'a.txt'.removesuffix('.txt') }} {{ 'aaa'.replace('a', 'b', 2) }} {{ 'banana'.rfind('an') }}
{{ 'banana'.rindex('a') }}
{{ 'a'.rjust(3) }} {{ 'a=b=c'.rpartition('=') }} {{ 'a,b,c'.rsplit(',', 1) }}
{{ ' a  '.rstrip() }}| {{ 'a b  c'.split() }}
{{ 'a,b,c'.split(',', 1) }} {{ 'a\nb\r\nc'.splitlines() }} {{ 'a\nb'.splitlines(true) }} {{ 'abc'.startswith('ab') }}
{{ 'xxaxx'.strip('x') }} {{ 'aBc'.swapcase() }} {{ "they're here".title() }} {{ 'abc'.translate({97: 'z'}) }}
{{ 'ab'.upper() }}
{{ '-7'.zfill(4) }} {{ 'é'.encode('utf-8') }} {{ (3).bit_length() }} {{ (0.5).is_integer() }}
{{ (255).to_bytes(2, 'big') }}
{{ table.get('a') }} {{ table.get('z', 5) }} {{ table.items() | list }} {{ table.keys() | list }}
{{ table.values() | list }}
{{ table.copy() }} {{ words.count('fig') }} {{ words.index('fig') }} {{ words.copy() }} {{ (1, 2, 1).count(1) }}
{{ (1, 2).index(2) }}
"""
OPERATORS = r"""
{{ 1 + 2 * 3 - 4 / 2 }} {{ 7 // 2 }} {{ -7 % 3 }} {{ 2 ** 10 }} {{ -2 ** 2 }} {{ 'a' * 3 }} {{ [1] * 2 + [3] }}
{{ (1,) + (2,) }}
{{ 'a' ~ 1 ~ none }} {{ '%s-%03d' % ('x', 7) }} {{ '%(a)s' % {'a': 1} }} {{ 1 < 2 <= 2 }} {{ 1 == 1.0 }}
{{ 'a' != 'b' }}
{{ 1 in [1] and not 2 in [1] }} {{ 'an' in 'banana' }} {{ 'x' not in table }} {{ none or 'b' }} {{ 0 and 1 }}
{{ 'y' if words else 'n' }}
{{ 'y' if false }} {{ words[1] }} {{ words[-1] }} {{ words[1:3] }} {{ words[::-1] }} {{ 'banana'[1:-1:2] }}
{{ messages[0]['role'] }}
{{ messages[0].role }} {{ table.a }} {{ [[1, 2], [3]] }} {{ {'a': (1, 2), 3: none} }} {{ 1_000 }} {{ 0x1f }}
{{ 1e3 }} {{ true }} {{ None }}
{{ missing }}{{ messages[0].missing }} {{ 'a' 'b' }} {{ 10**30 }} {{ 1 / 3 }} {{ 2 ** -1 }} {{ +3 }} {{ not none }}
"""
STATEMENTS = r"""
{% for m in messages if m.role != 'system' %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.first }}
{{- loop.last }}{{ loop.length }}{{ loop.previtem is defined }}{{ loop.cycle('a', 'b') }}
{{- loop.changed(m.role) }}{{ loop.depth }}{% else %}none{% endfor %}{% for x in [] %}{% else %}empty{% endfor %}

{% for n in numbers %}
{% if n == 4 %}{% continue %}{% elif n == 9 %}{% break %}{% else %}{{ n }}{% endif %}{% endfor %}

{%- for item in [{'n': 1, 'c': [{'n': 2, 'c': []}]}] recursive %}({{ item.n }}{{ loop(item.c) }}){% endfor %}

{% macro say(text, mark='!', who=none) -%}
{{ text }}{{ mark }}{{ varargs }}{{ kwargs }}{% if caller %}[{{ caller('x') }}]{% endif %}
{%- endmacro %}{{ say('a', '?', 1, 2, z=3) }}
{% call(v) say('b') %}body {{ v }}{{ varargs }}{{ kwargs }}{% endcall %}
{{ say.name }}{{ say.arguments }}{{ say.catch_kwargs }}

{% macro f(n) %}{{ n }}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}{{ f(2) | length }}

{% set a, b = 1, 2 %}{{ a }}{{ b }} {% set block %}{{ a }} in a block{% endset %}{{ block }}
{% set upper | upper %}filtered{% endset %}{{ upper }} {% filter replace('a', 'o') | upper %}banana{% endfilter %}

{% with x = 5, y = 6 %}{{ x }}{{ y }}{% endwith %}{{ x }} {% block title %}in a block{% endblock %} {{ self.title() }}

{% raw %}{{ raw }}{% endraw %} {# a comment #} {%- if a is defined and b > 1 %} yes {%- else %} no {%- endif %}

{% set kept = 1 %}{% generation %}{% set kept = 2 %}{{ kept }}{{ messages[2].content }}{% endgeneration %}{{ kept }}

{% autoescape true %}{{ '<' }}{{ '<' | safe }}{% endautoescape %}{{ '<' }}

   {% if true %}
   lstrip and trim
   {% endif %}
   {%+ if true %}kept{% endif +%}
{{ messages | length -}}
   {{- ' end' }}
"""
LINES = {"filters": FILTERS, "tests": TESTS, "globals": GLOBALS, "methods": METHODS, "operators": OPERATORS}
CORPUS = {
    **{name: [line for line in text.splitlines() if line] for name, text in LINES.items()},
    "statements": STATEMENTS.split("\n\n"),
}
REFUSED = (
    "{{ raise_exception('no') }}",
    "{{ messages.append(1) }}",
    "{{ table.update(a=2) }}",
    "{{ ''.__class__.__mro__ }}",
    "{{ '{0.__class__.x}'.format(1) }}",
    "{{ messages[0].a.b }}",
    "{{ 1 / 0 }}",
    "{{ 'a' + 1 }}",
    "{{ words | nofilter }}",
    "{{ 1 is notest }}",
    "{% include 'x' %}",
    "{% import 'x' as y %}",
    "{% extends 'x' %}",
    "{% do 1 %}",
    "{% trans %}",
    "{{ namespace(_x=1) }}",
    "{% set n = namespace() %}{% set n._x = 1 %}",
    "{{ range(100001) }}",
    "{{ words | min(1, 2, 3) }}",
    "{{ dict.__class__.__init__() }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ [1] | tojson(sort=1) }}",
    "{{ (1).x() }}",
    "{{ 9 ** (9 ** (9 ** 9)) }}",
    "{% endfor %}",
    "{{ {1: 2} | tojson | fromjson }}",
    "{{ {[]: 1} }}",
    "{{ strftime_now(1) }}",
)
