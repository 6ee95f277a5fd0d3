"""Messages reach a template as transformers passes them on: plain data, no empty fields, reasoning by every name."""

from __future__ import annotations

import enum
from collections import UserDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from ternrun.errors import TemplateError
from ternrun.loader.chat.messages import prepare_messages
from ternrun.loader.chat.template import ChatTemplate


@dataclass
class Part:
    type: str
    text: str


class Model:
    """As pydantic's, which OpenAI's client returns."""

    def model_dump(self) -> dict[str, Any]:
        return {"role": "assistant", "content": None, "parts": [Part("text", "a")]}


class Role(str, enum.Enum):  # noqa: UP042 (its text is not its value)
    USER = "user"


class Level(enum.IntEnum):
    HIGH = 3


def shown(value: Any) -> str:
    return ChatTemplate("{{ value }}").render([], variables={"value": value})


def test_fields_that_are_none_are_left_out() -> None:
    messages = [{"role": "assistant", "content": None, "tool_calls": [{"id": None}]}, {"role": "user", "content": ""}]
    assert prepare_messages(messages) == [
        {"role": "assistant", "tool_calls": [{"id": None}]},
        {"role": "user", "content": ""},
    ]
    assert ChatTemplate("{{ messages[0].content is defined }}").render(messages) == "False"


def test_reasoning_has_every_name() -> None:
    for name in ("reasoning_content", "thinking", "reasoning"):
        (message,) = prepare_messages([{"role": "assistant", name: "so"}])
        assert message["reasoning_content"] == message["thinking"] == "so"
    both = prepare_messages([{"thinking": "b", "reasoning_content": "a"}])
    assert both == [{"thinking": "b", "reasoning_content": "a"}]


def test_objects_are_their_fields() -> None:
    template = ChatTemplate("{% for m in messages %}{{ m.role }}{{ m['parts'][0].text }}{{ m.content }}{% endfor %}")
    assert template.render([Model()]) == "assistanta"  # type: ignore[list-item]
    assert shown(Part("text", "a")) == "{'type': 'text', 'text': 'a'}"
    assert shown(UserDict({"a": UserDict({"b": 1})})) == "{'a': {'b': 1}}"


def test_derived_types_are_plain() -> None:
    assert shown([Role.USER, Level.HIGH, (1, None, True)]) == "['user', 3, (1, None, True)]"
    assert shown([np.float32(0.5), np.int64(3), np.bool_(False), np.str_("a")]) == "[0.5, 3, False, 'a']"


def test_anything_else_is_named_by_its_type() -> None:
    assert shown([np.zeros(3), object(), shown, 1j]) == "['<ndarray>', '<object>', '<function>', '<complex>']"


def test_messages_that_are_nested_too_deeply_are_refused() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(TemplateError, match="does not fit these messages: they are nested too deeply"):
        shown(nested)
