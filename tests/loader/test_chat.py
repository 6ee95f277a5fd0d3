"""Chat templates: equal to llama.cpp's own engine where that matters, harmless where they are hostile."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from ternrun.errors import TemplateError
from ternrun.loader.chat.template import ChatTemplate, template_for
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
