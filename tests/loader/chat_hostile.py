"""Templates that ask for more time, memory or output than anybody should have, or for what is not theirs."""

from __future__ import annotations

FIXED = "a" * 60_000

# two texts; an operation whose cost is the product of their lengths takes hours
BIG = "{% set a = 'c' * 4000000 %}{% set b = 'b' * 3999999 ~ 'c' %}"
# numbers of one hash
ALIKE = "{% set n = namespace(l=[]) %}{% for i in range(20000) %}{% set n.l = n.l + [i * (2**61 - 1)] %}{% endfor %}"
MANY = "{% set many = range(100000) | list * 20 %}"

HOSTILE = {
    "loops": "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "filtered loops": "{% for i in range(100000) %}{% for j in range(100000) if false %}{% endfor %}{% endfor %}",
    "long loop body": "{% for i in range(100000) %}" + "{% set c = 1 %}" * 2000 + "{% endfor %}",
    "doubling": "{% set n = namespace(x='aaaa') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "doubling by plus": "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "doubling a list": "{% set n = namespace(x=[]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}",
    "doubling a tuple": "{% set n = namespace(x=()) %}{% for i in range(60) %}{% set n.x = (n.x, n.x) %}{% endfor %}",
    "doubling a block": (
        "{% set n = namespace(x='aaaa') %}"
        "{% for i in range(60) %}{% set x %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = x %}{% endfor %}"
    ),
    "times": "{{ 'a' * 10**9 }}",
    "list times": "{% set x = [0] * 10**9 %}",
    "power": "{{ 9**(9**9) }}",
    "squares": "{% set n = namespace(x=9) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "one string many times": "{% set b = 'a' * 1000000 %}{{ [b] * 10000 }}",
    "upper": "{% set l = ['a' * 1000000] * 15 %}{% for i in range(1000) %}{% set x = l | upper %}{% endfor %}",
    "map": "{% set l = ['a' * 1000000] * 15 %}{% for i in range(9) %}{% set x = l | map('upper') | list %}{% endfor %}",
    "center": "{{ 'a' | center(10**9) }}",
    "ljust": "{{ 'a'.ljust(10**9) }}",
    "zfill": "{{ 'a'['zfill'](10**9) }}",
    "format": "{{ '{:999999999}'.format('a') }}",
    "format by name": "{{ 'a'['format'](1) }}",
    "percent": "{{ '%0999999999d' % 1 }}",
    "replace": "{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}",
    "replace filter": "{{ ('a' * 1000000) | replace('a', 'b' * 1000000) }}",
    "join": "{{ ('b' * 1000000).join('a' * 1000000) }}",
    "join filter": "{{ ('a' * 1000000) | join('b' * 1000000) }}",
    "indent": "{{ ('a\n' * 1000000) | indent(10**9) }}",
    "tojson indent": "{{ [1, [2]] | tojson(indent=10**9) }}",
    "tojson separators": "{{ [1, 2] | tojson(separators=('a' * 1000, ':')) }}",
    "slices": (
        "{% set n = namespace(l=[]) %}{% set b = 'a' * 1000000 %}"
        "{% for i in range(100000) %}{% set n.l = n.l + [b[i:]] %}{% endfor %}"
    ),
    "output": "{% for i in range(100000) %}{{ 'a' * 1000 }}{% endfor %}",
    "fixed text": "{% for i in range(5000) %}" + FIXED + "{% endfor %}",
    "constants": "{% for i in range(5000) %}{{ '" + FIXED + "' }}{% endfor %}",
    "fixed text in a block": (
        "{% set s %}{% for i in range(5000) %}" + FIXED + "{% endfor %}{% endset %}{{ s | length }}"
    ),
    "fixed text in many blocks": "{% for i in range(5000) %}{% set s %}" + FIXED + "{% endset %}{% endfor %}",
    "fixed text in a macro": (
        "{% macro m() %}{% for i in range(5000) %}" + FIXED + "{% endfor %}{% endmacro %}{% set s = m() %}"
    ),
    "sorting": "{% for i in range(100000) %}{% set x = range(100000) | list | sort %}{% endfor %}",
    "selecting": "{% for i in range(100000) %}{% set x = range(100000) | select('odd') | list %}{% endfor %}",
    "searching": "{% set b = 'a' * 9**7 %}{% for i in range(9999) %}{% set x = ('a' * 40000 + 'b') in b %}{% endfor %}",
    "strip": BIG + "{{ a.strip(b) }}",
    "lstrip": BIG + "{{ a.lstrip(b) }}",
    "trim": BIG + "{{ a | trim(b) }}",
    "find": BIG + "{{ a.find(a[:2000000] ~ 'b' ~ a) }}",
    "rfind": BIG + "{{ a.rfind('cb' ~ a[:2000000]) }}",
    "rindex": BIG + "{{ a.rindex('cb' ~ a[:2000000]) }}",
    "rsplit": BIG + "{{ a.rsplit('cb' ~ a[:2000000]) }}",
    "rpartition": BIG + "{{ a.rpartition('cb' ~ a[:2000000]) }}",
    "count": BIG + "{{ a.count('cb' ~ a[:2000000]) }}",
    "in a text": BIG + "{{ ('cb' ~ a[:2000000]) in a }}",
    "translate": BIG + "{{ a.translate({99: b}) }}",
    "expandtabs": "{{ ('\\t' * 1000000).expandtabs(1000000) }}",
    "startswith": MANY + "{% for i in range(1000) %}{{ 'a'.startswith(('b',) * 1000000) }}{% endfor %}",
    "in a list": MANY + "{% for i in range(1000) %}{{ 'a' in many }}{% endfor %}",
    "count in a list": MANY + "{% for i in range(1000) %}{{ many.count('a') }}{% endfor %}",
    "equal lists": MANY + "{% set x = many + [1] %}{% for i in range(1000) %}{{ x == many + [1] }}{% endfor %}",
    "max": MANY + "{% for i in range(1000) %}{{ many | max }}{% endfor %}",
    "groupby": "{{ ([{'k': 'a' * 10000}] * 100000) | groupby('k') | length }}",
    "unique": ALIKE + "{{ n.l | unique | list | length }}",
    "equal hashes": ALIKE + "{{ dict.fromkeys(n.l) | length }}",
    "sum of lists": "{{ ([[0]] * 100000) | sum(start=[]) | length }}",
    "wordwrap": BIG + "{{ (a ~ ' ' ~ a) | wordwrap(1, true, a) | length }}",
    "urlize": "{{ ('http://a.' * 400000) | urlize | length }}",
    "urlize mails": "{{ ('a@' * 1000000) | urlize | length }}",
    "striptags": "{{ ('<' * 4000000) | striptags | length }}",
    "striptags comments": "{{ ('<!--' * 1000000) | striptags | length }}",
    "indent lines": "{{ ('\\n' * 4000000) | indent('a' * 1000, true, true) | length }}",
    "title": BIG + "{% for i in range(1000) %}{% set x = a | title %}{% endfor %}",
    "pprint": "{{ ([[1] * 1000] * 1000) | pprint | length }}",
    "filesize": "{{ 10**1000000 | filesizeformat }}",
    "round": "{{ (10**300 / 3) | round(10**9) }}",
    "round numbers": "{% for i in range(100000) %}{{ (10**4000 + i) | round(-3) }}{% endfor %}",
    "truncate": BIG + "{{ a | truncate(3999999, true, a) | length }}",
    "batch": "{{ [1] | batch(10**9, 'x') | list | length }}",
    "slice": "{{ [1] | slice(10**9) | list | length }}",
    "number's text": "{{ (10**4000000) | string | length }}",
    "number from text": "{{ ('9' * 4000000) | int }}",
    "shift": "{{ 2 ** (2 ** 40) }}",
    "modulo": "{% set x = 7 ** 2000000 %}{{ x % (x // 3) }}",
    "xmlattr": MANY + "{{ dict.fromkeys(many, 1) | xmlattr }}",
    "tojson": (
        "{% set n = namespace(x=[]) %}{% for i in range(40) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x | tojson }}"
    ),
    "text of lists": (
        "{% set n = namespace(x=[]) %}{% for i in range(40) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}"
    ),
    "equal trees": (
        "{% set n = namespace(x=[], y=[]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}"
        "{% set n.y = [n.y, n.y] %}{% endfor %}{{ n.x == n.y }}"
    ),
    "hash of a tree": (
        "{% set n = namespace(x=()) %}{% for i in range(60) %}{% set n.x = (n.x, n.x) %}{% endfor %}{{ {n.x: 1} }}"
    ),
    "text of an error": (
        "{% set n = namespace(x=()) %}{% for i in range(60) %}{% set n.x = (n.x, n.x) %}{% endfor %}{{ [].index(n.x) }}"
    ),
    "deep text": "{% set n = namespace(x=[]) %}{% for i in range(99999) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x }}",
    "deep tuple": (
        "{% set n = namespace(x=()) %}{% for i in range(99999) %}{% set n.x = (n.x,) %}{% endfor %}{{ {n.x: 1} }}"
    ),
    "range": "{{ range(10**12) | length }}",
    "range in range": "{{ range(100000) | map('string') | map('list') | map('length') | sum }}" * 50,
    "endless macro": "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "exponential macro": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
    "endless loop": "{% for i in [[1]] recursive %}{{ loop([[1], [1]]) }}{% endfor %}",
    "endless block": "{% block a %}{{ self.a() }}{% endblock %}",
    "parentheses": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "lists": "{{ " + "[" * 30000 + "]" * 30000 + " }}",
    "nots": "{{ " + "not " * 10000 + "1 }}",
    "sums": "{{ 1" + "+1" * 20000 + " }}",
    "dots": "{{ a" + ".b" * 20000 + " }}",
    "blocks": "{% for i in [1] %}" * 60 + "x" + "{% endfor %}" * 60,
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "classes by name": "{{ messages['__class__'].__mro__ }}",
    "attr filter": "{{ '' | attr('__class__') }}",
    "globals": "{{ raise_exception.__globals__['os'] }}",
    "mutation": "{{ messages.append(1) }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}",
    "lipsum": "{{ lipsum(10**6) }}",
    "time": "{{ strftime_now('%0999999999d') }}",
    "syntax": "{% if %}",
    "unclosed": "{{ a",
    "huge number": "{{ " + "1" * 60000 + " }}",
    "huge": " " * 100_000,
    "format widths": "{{ '%*d' | format(10**9, 1) }}",
    "format number": "{{ '%.999999999f' | format(1.5) }}",
    "format map": "{{ '{x:>999999999}'.format_map({'x': 1}) }}",
    "format nested": "{{ '{0:{1}}'.format('a', 10**9) }}",
    "joiner": "{% set j = joiner('a' * 1000000) %}{% for i in range(100000) %}{{ j() }}{% endfor %}",
    "call itself": "{% macro f() %}{{ caller() if caller else f() }}{% endmacro %}{% call f() %}{{ f() }}{% endcall %}",
    "namespaces": (
        "{% set n = namespace() %}{% for i in range(99999) %}{% set n.x = namespace(y=n, z='a' * 9999) %}{% endfor %}"
    ),
    "cycle": "{% set n = namespace() %}{% set n.x = [n] %}{% for i in range(100000) %}{{ n.x }}{% endfor %}",
    "comment": "{#" * 30000,
    "raw": "{% raw %}" * 6000,
    "quotes": "{{ '" + "\\\\" * 30000,
    "braces": "{{" * 30000,
    "filters": "{{ 'a' " + "| upper" * 8000 + " }}",
    "conditions": "{{ " + "1 if 1 else " * 5000 + "1 }}",
    "concatenations": "{{ 'a'" + " ~ 'a'" * 10000 + " }}",
    "elifs": "{% if a %}" + "{% elif a %}" * 5000 + "{% endif %}",
    "sets": "{% set a = 1 %}" * 4000,
    "macros": "".join(f"{{% macro m{i}() %}}{{% endmacro %}}" for i in range(1500)),
    "arguments": "{{ f(" + "a," * 30000 + ") }}",
    "powers": "{{ 9" + " ** 9" * 1000 + " }}",
    "null": "\0{{ '\0' }}{% \0 %}",
    "surrogate": "{{ '\ud800' }}\ud800",
}

# they cost little in the end; the length of what they write
HARMLESS = {
    "doubling a list": 0, "doubling a tuple": 0, "format by name": 1, "tojson separators": 1004, "find": 2, "count": 1,
    "in a text": 5, "striptags": 7, "striptags comments": 7, "number from text": 1, "attr filter": 0, "surrogate": 2,
    "fixed text in many blocks": 0, "urlize mails": 7, "round": 23,
}  # fmt: skip
# as the machine is fast
EITHER = (
    "map",
    "fixed text in a block",
    "fixed text in a macro",
    "urlize",
    "time",
    "concatenations",
    "macros",
    "elifs",
)
