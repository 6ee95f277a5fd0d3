"""Chat templates: equal to llama.cpp's own engine where that matters, harmless where they are hostile."""

from __future__ import annotations

import json
import threading
import time
import tracemalloc
from typing import Any

import pytest

from ternrun.errors import TemplateError
from ternrun.loader.chat.template import MAX_SOURCE, ChatTemplate, template_for
from ternrun.loader.gguf.file import open_gguf
from tests.smollm2 import smollm2
from tests.texts import HERE, read

CHATS: dict[str, Any] = json.loads(read(HERE / "smollm2_chat.json"))["conversations"]
HELLO = [{"role": "user", "content": "Hello"}]


def render(source: str, messages: Any = HELLO, **options: Any) -> str:
    return ChatTemplate(source, "<s>", "</s>").render(messages, **options)


@pytest.mark.parametrize("name", CHATS)
def test_smollm2_equals_llama_cpp(name: str) -> None:
    template = ChatTemplate(template_for(open_gguf(smollm2()).metadata) or "")
    assert template.render(CHATS[name]["messages"]) == CHATS[name]["prompt"]


def test_bitnet_template_is_corrected() -> None:
    wrong = "{% for m in messages %}{{ 'Human: ' + m['content'] + '\\n\\nBITNETAssistant: ' }}{% endfor %}"
    source = template_for({"tokenizer.chat_template": wrong})
    assert source is not None
    asked = ChatTemplate(source, "<|begin_of_text|>").render(HELLO)
    assert asked == "<|begin_of_text|>User: Hello<|eot_id|>Assistant: "
    two = [{"role": "system", "content": "Be brief. "}, *HELLO, {"role": "assistant", "content": "Hi."}]
    assert render(source, two, add_generation_prompt=False) == (
        "<s>System: Be brief.<|eot_id|>User: Hello<|eot_id|>Assistant: Hi.<|eot_id|>"
    )
    assert template_for({"tokenizer.chat_template": "{{ messages }}"}) == "{{ messages }}"
    assert template_for({}) is None
    with pytest.raises(TemplateError, match="must be text"):
        template_for({"tokenizer.chat_template": 3})


def test_what_templates_use() -> None:
    tools = [{"function": {"name": "f", "text": "<é & 'x'>"}}]
    assert render("{{ tools[0].function | tojson }}", tools=tools) == '{"name": "f", "text": "<é & \'x\'>"}'
    assert render("{{ tools | tojson(indent=2) }}", tools=[1]) == "[\n  1\n]"
    assert render("{% if tools %}t{% endif %}{% if documents is none %}d{% endif %}") == "d"
    assert render("{{ bos_token }}{{ messages[0].role | upper }}{{ eos_token }}") == "<s>USER</s>"
    assert render("{% if add_generation_prompt %}A{% endif %}", add_generation_prompt=False) == ""
    assert render("{{ enable_thinking }}{{ bos_token }}", variables={"enable_thinking": 1, "bos_token": "no"}) == "1<s>"
    assert render("{% generation %}a{% endgeneration %}b") == "ab"
    assert render("{%- for m in messages %}{% if loop.index > 0 %}{% break %}{% endif %}{% endfor %}x") == "x"
    assert (
        render("{% set ns = namespace(n=1) %}{% for i in range(3) %}{% set ns.n = ns.n * 2 %}{% endfor %}{{ ns.n }}")
        == "8"
    )
    assert render("{{ 'a,b'.split(',')[1] }}{{ ['x', 'y'] | join('-') }}{{ 'aa' | replace('a', 'b') }}") == "bx-ybb"
    assert render("{{ messages | map(attribute='role') | list | first }}{{ '\\n'.join(['a', 'b']) }}") == "usera\nb"
    assert render("{{ 'a\nb' | indent(2) }}{{ (messages + messages) | length }}{{ 'x' * 3 }}") == "a\n  b2xxx"
    assert len(render("{{ strftime_now('%Y-%m-%d') }}")) == 10
    assert render("{{ date_string == strftime_now('%d %b %Y') and datetime == strftime_now('%b %d %Y') }}") == "True"
    assert render("{{ date_string }}", variables={"date_string": "1 Jan 2000"}) == "1 Jan 2000"
    assert render("  {% if true %}\n  yes\n  {% endif %}\n") == "  yes\n"


def test_a_template_may_refuse() -> None:
    with pytest.raises(TemplateError, match="refuses these messages: roles must alternate"):
        render("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(TemplateError, match="does not fit these messages: UndefinedError"):
        render("{{ messages[0].parts.text }}")


def test_long_conversations_are_not_hostile() -> None:
    turns = [{"role": "user" if i % 2 == 0 else "assistant", "content": "word " * 2000} for i in range(200)]
    source = (
        "{% for m in messages %}{% if loop.index0 == messages | length - 1 %}{{ '[last]' }}{% endif %}"
        "{{ '<|' + m.role + '|>' + m['content'] | trim + eos_token }}{% endfor %}"
    )
    assert len(render(source, turns)) > 200 * 9999


FIXED = "a" * 60_000
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
    "range": "{{ range(10**12) | length }}",
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
    "huge": " " * (MAX_SOURCE + 1),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_templates_end_quickly(name: str) -> None:
    start = time.thread_time()
    with pytest.raises(TemplateError) as raised:
        render(HOSTILE[name])
    assert time.thread_time() - start < 2.0  # mostly the compiler's; rendering may take a quarter of a second
    assert len(str(raised.value)) < 350
    assert "\n" not in str(raised.value)


BULKY = ("constants", "doubling", "one string many times", "slices", "map", "output")


@pytest.mark.parametrize("name", [name for name in HOSTILE if name.startswith("fixed") or name in BULKY])
def test_hostile_templates_take_little_memory(name: str) -> None:
    template = ChatTemplate(HOSTILE[name])
    tracemalloc.start()
    with pytest.raises(TemplateError):
        template.render(HELLO)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200_000_000


def test_a_template_recovers_from_hostile_messages() -> None:
    template = ChatTemplate("{% for m in messages %}{{ m.content * m.n }}{% endfor %}")
    with pytest.raises(TemplateError):
        template.render([{"content": "a" * 1000, "n": 10**9}])
    assert template.render([{"content": "a", "n": 2}]) == "aa"


def test_threads_share_a_template() -> None:
    template = ChatTemplate("{% for i in range(200) %}{{ messages[0].content }}{% endfor %}")
    found: list[bool] = []

    def work(word: str) -> None:
        found.append(template.render([{"content": word}]) == word * 200)

    threads = [threading.Thread(target=work, args=(word,)) for word in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 8
