"""Writes random chat templates and renders them: `python -m tests.loader.chat_fuzz [--count N] [--seed N]`.

A template is a random tree of everything that Jinja offers, with small numbers and huge ones, short texts and texts of
megabytes. Each must end within the limit in a text or in one sentence; without huge values, jinja2 itself must write
the same text.
"""

from __future__ import annotations

import argparse
import re
import time
from random import Random

from jinja2.defaults import DEFAULT_FILTERS, DEFAULT_TESTS

from ternrun.errors import TemplateError
from ternrun.loader.chat.template import MAX_SOURCE, ChatTemplate

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Grüße 😀 " * 20},
    {"role": "assistant", "content": "a" * 5000, "tool_calls": [{"function": {"name": "f", "arguments": {"x": [1]}}}]},
    {"role": "user", "content": [{"type": "text", "text": "b,c\n" * 200}]},
]
TOOLS = [{"name": "f"}]
RANDOM = ("random", "lipsum", "strftime_now")  # never the same twice
ANY = ("messages", "m", "x", "y", "n.v", "m.content", "missing", "tools", "loop", "none", "true", "{}", "()", "3.5")
BINARY = ("+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", ">=", "in", "not in", "and", "or")
METHODS = tuple(m for kind in (str, dict, list, int) for m in dir(kind) if not m.startswith("_"))
FILTERS = tuple(sorted(f for f in DEFAULT_FILTERS if f not in RANDOM))
TESTS = tuple(sorted(t for t in DEFAULT_TESTS if t.isidentifier()))

# How to make a value of each kind: T a text, N a number, L a list, A anything, S a size, R the length of a range, Z a
# width of a format, V a name, O an operator, F a filter, M a method, K a test
FORMS = {
    "T": (
        "'a'", "'a,b c'", "'é😀'", "y", "messages[1].content", "m.role | string", "bos_token", "(T ~ T)", "(T + T)",
        "(A ~ A)", "(T * S)", "T[S:]", "T[S:S]", "T[::-1]", "T.strip(T)", "T.lstrip(T)", "T.rstrip(T)",
        "T.replace(T, T)", "T.upper()", "T.title()", "T.center(S, 'x')", "T.ljust(S)", "T.zfill(S)",
        "T.join(L | map('string'))", "T.partition(T)[0]", "T.removeprefix(T)", "T.expandtabs(S)",
        "T.translate({97: T})", "T.format(A)", "'{:>Z} {x!r:.Z}'.format(T, x=T)", "('%Zs' | format(T))", "('%s' % T)",
        "('%0Zd' % N)", "(T | trim(T))", "(T | replace(T, T))", "(T | indent(S))", "(T | wordwrap(S))",
        "(T | truncate(S))", "(T | title)", "(T | center(S))", "(T | urlize)", "(T | striptags)", "(T | escape)",
        "(T | forceescape)", "(T | urlencode)", "(T | reverse)", "(A | string)", "(A | tojson)", "(A | pprint)",
        "(L | join(T))", "(N | filesizeformat)", "(A | default(T))", "(T if A else T)", "f(A)", "joiner(T)()",
        "(A | tojson(indent=S))", "(T | capitalize | lower)", "({T: A} | xmlattr)", "cycler(T, T).next()",
),
    "N": (
        "0", "1", "-1", "7", "2.5", "S", "(N + N)", "(N - N)", "(N * N)", "(N // 3)", "(N % 7)", "(N ** 2)",
        "(2 ** S)", "(L | length)", "(T | length)", "(T | wordcount)", "T.find(T)", "T.rfind(T)", "T.count(T)",
        "(T | int)", "(N | abs)", "(T | float)", "(N | round(S))", "(L | map('length') | sum)", "L.count(A)",
        "(A in L) | int", "(T in T) | int", "loop.index | default(3)", "(N | int).bit_length()", "range(R) | sum",
),
    "L": (
        "messages", "[]", "[A, A]", "[T, T, T]", "[N, N]", "(L + L)", "(L * S)", "L[S:]", "L[::-1]",
        "T.split(T ~ ',')", "T.rsplit(',')", "T.splitlines()", "(T | list)", "(range(R) | list)", "(L | sort | list)",
        "(L | unique | list)", "(L | reverse | list)", "(L | map('string') | list)", "(L | map('upper') | list)",
        "(L | batch(S, A) | list)", "(L | slice(S) | list)", "(L | select | list)", "(L | reject('none') | list)",
        "(messages | groupby('role'))", "(messages | selectattr('role', 'in', L) | list)",
        "(messages | map(attribute='role') | list)", "(dict(a=A, b=A) | dictsort)", "({T: A, T: A} | items | list)",
        "dict.fromkeys(L | map('string'), A).keys() | list", "(L | map('tojson') | sort(reverse=true))",
),
    "A": (
        "T", "T", "T", "T", "T", "N", "N", "N", "L", "L", "L", "V", "V", "V", "(A O A)", "(A | F)", "A.M(A)",
        "(A is K)", "{T: A}", "(A, A)", "(A if A else A)", "namespace(a=A)",
),
}  # fmt: skip
SIZES = {
    False: {"S": ("0", "2", "5", "9"), "R": ("0", "2", "9"), "Z": ("2", "12")},
    True: {"S": ("2", "1000", "99999", "999999999"), "R": ("2", "1000", "99999"), "Z": ("2", "5000", "999999999")},
}
HUGE = {
    "T": ("('a' * 10**6)", "('ab ' * 10**5)", "('a' * 10**6 ~ 'b')", "('\\n' * 10**6)", "('<a ' * 10**5)"),
    "N": ("10**9", "10**30", "2**70", "10**4000", "-10**9", "1e308"),
    "L": ("(range(100000) | list)", "(['a' * 10**5] * 1000)", "((range(1000) | list) * 1000)", "([[]] * 10**6)"),
}  # fmt: skip


class Writer:
    """Writes one template. `huge`: whether it may use values out of proportion."""

    def __init__(self, rng: Random, *, huge: bool) -> None:
        self._rng, self._huge = rng, huge

    def template(self) -> str:
        """A template of one to six statements, with a few names already set."""
        head = "{% set n = namespace(v=1) %}{% set x = messages %}{% set y = 'abc' %}{% set m = messages[0] %}"
        return f"{head}{{% macro f(a) %}}<{{{{ a }}}}>{{% endmacro %}}{self._body(self._rng.randrange(1, 7), 2)}"

    def _body(self, count: int, depth: int) -> str:
        return "".join(self._statement(depth) for _ in range(count))

    def _statement(self, depth: int) -> str:
        inner = self._body(self._rng.randrange(1, 3), depth - 1) if depth else "text"
        forms = (
            "{{ A }}", "{{ T }}", "text {{ N }} {{ L }}", "{% for m in L %}INNER{% else %}none{% endfor %}",
            "{% for m in messages if A %}{{ m.role }}INNER{% endfor %}",
            "{% if A %}INNER{% elif N > N %}INNER{% endif %}", "{% set y = T %}", "{% set x = L %}",
            "{% for i in range(R) %}{% set n.v = n.v ~ T %}{% endfor %}{{ n.v }}",
            "{% for i in range(R) %}{% if i > N %}{% break %}{% endif %}INNER{% endfor %}",
            "{% set y %}INNER{% endset %}",
            "{% macro f(a, b=T) %}INNER{{ a }}{{ caller() if caller }}{% endmacro %}{{ f(A) }}",
            "{% call f(A) %}INNER{% endcall %}", "{% filter upper | replace(T, T) %}INNER{% endfilter %}",
            "{% generation %}INNER{% endgeneration %}", "{%- with x = L, y = T -%} INNER {%- endwith -%}",
            "{% for m in [[1], [2, [3]]] recursive %}{{ loop(m) if m is sequence else N }}{% endfor %}",
)  # fmt: skip
        # the inner text is complete: it must not be expanded again
        return inner.join(map(self._expanded, self._rng.choice(forms).split("INNER")))

    def _expanded(self, form: str, depth: int = 2) -> str:
        """The form with a value in place of each capital letter that stands alone."""
        return re.sub(r"(?<![\w'%])[TNLASROFMVK](?!\w)|(?<=[>.0%])Z", lambda match: self._value(match[0], depth), form)

    def _value(self, kind: str, depth: int) -> str:
        chosen = self._rng.choice
        names = {"O": BINARY, "F": FILTERS, "M": METHODS, "V": ANY, "K": TESTS} | SIZES[self._huge]
        if kind in names:
            return chosen(names[kind])
        if self._huge and self._rng.random() < 0.15 and kind in HUGE:
            return chosen(HUGE[kind])
        if depth == 0:
            return {"T": "'a,b'", "N": "3", "L": "x", "A": chosen(ANY)}[kind]
        return self._expanded(chosen(FORMS[kind]), depth - 1)


def random_template(seed: int) -> str:
    """The template of that number; every second one has no huge values."""
    return Writer(Random(seed), huge=seed % 2 == 0).template()[:MAX_SOURCE]


def outcome(source: str) -> tuple[str, float]:
    """The text or the refusal of a template, and the seconds that it took. A refusal must be one short line."""
    start = time.perf_counter()
    try:
        text = "text: " + ChatTemplate(source, "<s>", "</s>").render(MESSAGES, tools=TOOLS)
    except TemplateError as e:
        text = str(e)
        assert text.startswith("the chat template "), text
        assert "\n" not in text, text
        assert len(text) < 350, text
    return text, time.perf_counter() - start


def main() -> None:
    """Render COUNT templates and say how they ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    ended: dict[str, int] = {}
    took: list[tuple[float, int]] = []
    for seed in range(args.seed, args.seed + args.count):
        text, seconds = outcome(random_template(seed))
        kind = text[:5] if text.startswith("text: ") else text.split(":")[0]
        ended[kind] = ended.get(kind, 0) + 1
        took.append((seconds, seed))
    for kind, count in sorted(ended.items(), key=lambda item: -item[1]):
        print(f"{count:6d}  {kind}")
    print("slowest:", ", ".join(f"{seconds:.2f} s (seed {seed})" for seconds, seed in sorted(took)[-5:]))


if __name__ == "__main__":
    main()
