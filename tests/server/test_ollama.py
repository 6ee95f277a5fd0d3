"""Ollama's routes, as its clients use them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.server.serving import Server

OPTIONS = {"temperature": 0, "num_predict": 8, "repeat_penalty": 1.0}


def ask(server: Server, path: str, **fields: Any) -> list[Any]:
    answer = server.ask(path, {"model": "tiny", "options": OPTIONS, **fields})
    assert answer.status == 200, answer.body
    return [json.loads(line) for line in answer.body.splitlines()]


def test_chat_streams_json_lines(server: Server) -> None:
    messages = [{"role": "user", "content": "hi"}]
    same = server.model.chat(messages, max_tokens=8)
    *pieces, last = ask(server, "/api/chat", messages=messages)
    assert "".join(piece["message"]["content"] for piece in pieces) == same.text
    assert not any(piece["done"] for piece in pieces)
    assert (last["done"], last["done_reason"], last["eval_count"]) == (True, same.finish_reason, len(same.ids))
    (whole,) = ask(server, "/api/chat", messages=messages, stream=False)
    assert whole["message"] == {"role": "assistant", "content": same.text}
    assert whole["prompt_eval_count"] == len(same.prompt_ids)


def test_generate_uses_the_template_unless_raw(server: Server) -> None:
    (raw,) = ask(server, "/api/generate", prompt="hello", raw=True, stream=False, keep_alive="5m")
    assert raw["response"] == server.model.complete("hello", max_tokens=8).text
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    (told,) = ask(server, "/api/generate", prompt="hello", system="be brief", stream=False)
    assert told["response"] == server.model.chat(messages, max_tokens=8).text


def test_it_tells_of_itself(server: Server) -> None:
    (model,) = server.ask("/api/tags").json["models"]
    assert model["name"] == "tiny"
    assert server.ask("/api/version").json["version"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"format": "xml"}, "format: must be"),
        ({"options": {"mirostat": 2}}, "mirostat: this server does not support it"),
        ({"options": {"temperture": 2}}, "did you mean 'temperature'?"),
        ({"options": 3}, "must be a JSON object"),
        ({"suffix": "x"}, "filling in the middle"),
    ],
)
def test_refusals_have_ollamas_shape(server: Server, fields: dict[str, Any], says: str) -> None:
    answer = server.ask("/api/generate", {"prompt": "a"} | fields)
    assert answer.status == 400
    assert says in answer.json["error"]
