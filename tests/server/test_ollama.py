"""Ollama's routes, as its clients use them."""

from __future__ import annotations

import json
from typing import Any

import ollama
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


def test_a_last_message_of_the_assistants_goes_on(server: Server) -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "So "}]
    (whole,) = ask(server, "/api/chat", messages=messages, stream=False)
    assert whole["message"]["content"] == server.model.complete("[user]hi[assistant]So ", max_tokens=8).text


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


def test_without_a_prompt_it_says_that_the_model_is_loaded(server: Server) -> None:
    """Clients ask so before a user's first message."""
    for path, fields in (("/api/generate", {}), ("/api/chat", {"messages": []})):
        (answer,) = ask(server, path, **fields)
        assert (answer["done"], answer["done_reason"]) == (True, "load")


def test_the_official_client(server: Server) -> None:
    with ollama.Client(server.url) as client:
        talk_with(client, server)


def talk_with(client: ollama.Client, server: Server) -> None:
    (listed,) = client.list().models
    (running,) = client.ps().models
    assert listed.model == running.model == "tiny"
    assert running.context_length == server.model.context
    shown = client.show("tiny")
    assert shown.details
    assert (shown.details.family, shown.details.format, shown.details.quantization_level) == ("llama", "gguf", "TQ2_0")
    assert shown.modelinfo
    assert shown.modelinfo["llama.embedding_length"] == server.model.config.dim
    assert shown.modelinfo["general.parameter_count"] == server.model.parameters > 0
    assert shown.capabilities
    assert "completion" in shown.capabilities
    assert server.model.chat_template
    assert shown.template == server.model.chat_template.source
    assert client.generate("tiny", "hello", raw=True, options=OPTIONS).response
    pieces = list(client.chat("tiny", [{"role": "user", "content": "hi"}], stream=True, options=OPTIONS))
    assert (
        "".join(piece.message.content or "" for piece in pieces)
        == server.model.chat([{"role": "user", "content": "hi"}], max_tokens=8).text
    )
    with pytest.raises(ollama.ResponseError, match="no such route"):
        client.pull("other")


def test_a_conversation_with_a_tool_in_ollamas_words(server: Server) -> None:
    messages = [
        {"role": "user", "content": "hi", "images": []},
        {"role": "assistant", "thinking": "hm", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
        {"role": "tool", "tool_name": "f", "content": "2"},
    ]
    (answer,) = ask(server, "/api/chat", messages=messages, stream=False)
    assert answer["message"]["content"]
    refused = server.ask("/api/chat", {"messages": [{"role": "user", "content": "hi", "images": ["aGk="]}]})
    assert (refused.status, "messages[0].images: this model reads text only" in refused.json["error"]) == (400, True)


def test_get_goes_without_its_body_too(server: Server) -> None:
    for path in ("/", "/api/tags", "/api/version"):
        answer = server.ask(path, method="HEAD")
        assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"format": "xml"}, "format: must be"),
        ({"options": {"mirostat": 3}}, "options.mirostat: must be a whole number"),
        ({"template": "{{ .Prompt }}"}, "template: this server does not support it"),
        ({"options": 3}, "must be a JSON object"),
        ({"suffix": "x"}, "filling in the middle"),
        ({"suffix": "x", "system": "Be brief."}, "system: this text goes on without a template"),
        ({"raw": True, "system": "Be brief."}, "system: this text goes on without a template"),
    ],
)
def test_refusals_have_ollamas_shape(server: Server, fields: dict[str, Any], says: str) -> None:
    answer = server.ask("/api/generate", {"prompt": "a"} | fields)
    assert answer.status == 400
    assert says in answer.json["error"]
