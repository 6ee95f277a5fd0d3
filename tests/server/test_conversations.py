"""What holds for conversations on every route that has them, whatever its words for messages are."""

from __future__ import annotations

import threading
from types import ModuleType
from typing import Any

import pytest

from ternrun.server.anthropic import messages as anthropic_messages
from ternrun.server.conversation import messages
from ternrun.server.ollama import generate
from ternrun.server.openai import responses
from tests.server.serving import Server

HELLO = {"role": "user", "content": "hi"}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}


@pytest.mark.parametrize(
    ("route", "field", "one", "module", "name"),
    [
        ("/v1/chat/completions", "messages", HELLO, messages, "_message"),
        ("/v1/messages", "messages", HELLO, anthropic_messages, "_worded"),
        ("/v1/messages/count_tokens", "messages", HELLO, anthropic_messages, "_worded"),
        ("/v1/responses", "input", HELLO, responses, "_worded"),
        ("/v1/responses", "input", CALL, responses, "_worded"),
        ("/api/chat", "messages", HELLO, generate, "_openai"),
    ],
)
def test_too_many_messages_are_not_looked_at(
    server: Server, monkeypatch: pytest.MonkeyPatch, route: str, field: str, one: Any, module: ModuleType, name: str
) -> None:
    looked: list[str] = []
    read = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *given: looked.append(threading.current_thread().name) or read(*given))
    more = {"max_tokens": 1} if route == "/v1/messages" else {}
    answer = server.ask(route, {field: [one] * 4097, **more})
    assert answer.status == 400
    assert f"{field}: must be a list of 1 to 4096 messages" in answer.body.decode()
    assert looked == []
    server.ask(route, {field: [one] * 3, **more})
    assert len(looked) == 3
    assert all(name.startswith("ternrun-read") for name in looked), "on the event loop, others would wait"
