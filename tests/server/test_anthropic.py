"""Anthropic's API, with the official client, against what /v1/chat/completions says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from tests.server.serving import Server

COLD = {"temperature": 0}  # newer clients do not know it
HELLO: Any = [{"role": "user", "content": "hi"}]
CITY = {
    "type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"],
    "additionalProperties": False,
}  # fmt: skip
FORM = {"type": "json_schema", "schema": CITY}
WEATHER: Any = {"name": "weather", "description": "Tells it.", "input_schema": CITY}


@pytest.fixture
def client(server: Server) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="none-at-all", max_retries=0) as client:
        yield client


def chat(server: Server, messages: Any, **fields: Any) -> str:
    answer = server.ask("/v1/chat/completions", {"messages": messages, "temperature": 0, **fields})
    return str(answer.json["choices"][0]["message"]["content"])


def test_messages(client: anthropic.Anthropic, server: Server) -> None:
    asked: Any = {"model": "any", "messages": HELLO, "max_tokens": 12, "extra_body": COLD, "system": "Be brief."}
    done = client.messages.create(**asked)
    told = [{"role": "system", "content": "Be brief."}, *HELLO]
    assert done.content[0].text == chat(server, told, max_tokens=12)
    assert (done.stop_reason, done.role, done.model) == ("max_tokens", "assistant", "tiny")
    assert done.usage.input_tokens + done.usage.cache_read_input_tokens == len("[system]Be brief.[user]hi[assistant]")
    assert done.usage.output_tokens == 12
    with client.messages.stream(**asked) as stream:
        assert "".join(stream.text_stream) == done.content[0].text
        assert stream.get_final_message().stop_reason == "max_tokens"
    counted = client.messages.count_tokens(model="any", messages=HELLO, system="Be brief.")
    assert counted.input_tokens == len("[system]Be brief.[user]hi[assistant]")


def test_a_stop_sequence(client: anthropic.Anthropic, server: Server) -> None:
    whole = chat(server, HELLO, max_tokens=12)
    done = client.messages.create(
        model="any", messages=HELLO, max_tokens=12, extra_body=COLD, stop_sequences=[whole[4:6]]
    )
    assert (done.stop_reason, done.stop_sequence) == ("stop_sequence", whole[4:6])
    assert done.content[0].text == whole[: whole.index(whole[4:6])]


def test_tools(client: anthropic.Anthropic) -> None:
    choice: Any = {"type": "tool", "name": "weather"}
    asked: Any = {"model": "any", "messages": HELLO, "max_tokens": 200, "tools": [WEATHER], "tool_choice": choice}
    done = client.messages.create(**asked)
    (use,) = done.content
    assert (use.type, use.name, done.stop_reason) == ("tool_use", "weather", "tool_use")
    assert use.input["city"] in ("Rome", "Oslo")
    with client.messages.stream(**asked) as stream:
        (streamed,) = stream.get_final_message().content
    assert streamed.input["city"] in ("Rome", "Oslo")


@pytest.mark.parametrize("asked", [{"output_config": {"format": FORM, "effort": "low"}}, {"output_format": FORM}])
def test_an_answer_of_a_form(server: Server, asked: dict[str, Any]) -> None:
    body = {"messages": HELLO, "max_tokens": 200, **asked}
    answer = server.ask("/v1/messages", body)
    assert json.loads(answer.json["content"][0]["text"])["city"] in ("Rome", "Oslo")
    assert answer.headers.get("X-Ternrun-Ignored") == ("output_config.effort" if "output_config" in asked else None)


def test_an_answer_that_is_begun_goes_on(client: anthropic.Anthropic, server: Server) -> None:
    messages: Any = [*HELLO, {"role": "assistant", "content": "Well,"}]
    done = client.messages.create(model="any", messages=messages, max_tokens=8, extra_body=COLD)
    assert done.content[0].text == server.complete("[user]hi[assistant]Well,", max_tokens=8)["choices"][0]["text"]


def test_history(client: anthropic.Anthropic, server: Server) -> None:
    use = {"type": "tool_use", "id": "t1", "name": "f", "input": {"x": 1}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "4"}]}
    messages: Any = [
        *HELLO,
        {"role": "assistant", "content": [{"type": "text", "text": "So."}, use]},
        {"role": "user", "content": [result, {"type": "text", "text": "And?"}]},
    ]
    call = {"id": "t1", "function": {"name": "f", "arguments": '{"x": 1}'}}
    told: Any = [
        *HELLO,
        {"role": "assistant", "content": "So.", "tool_calls": [call]},
        {"role": "tool", "content": "4", "tool_call_id": "t1"},
        {"role": "user", "content": "And?"},
    ]
    prompt = server.ask("/apply-template", {"messages": told}).json["prompt"]
    assert client.messages.count_tokens(model="any", messages=messages).input_tokens == len(prompt)
    done = client.messages.create(model="any", messages=messages, max_tokens=8, extra_body=COLD)
    assert done.content[0].text == chat(server, told, max_tokens=8)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"max_tokens": None}, "max_tokens: it is missing"),
        ({"messages": 3}, "messages: must be a list"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "must be user or assistant"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "type image is not supported"),
        ({"messages": [{"role": "user", "content": [3]}]}, "messages[0].content[0].type: a block"),
        ({"messages": []}, "messages: must be a list of 1"),
        ({"system": 3}, "system: must be a string"),
        ({"tools": [{"name": "a", "input_schema": 3}]}, "tools[0].input_schema: must be a JSON schema"),
        ({"tool_choice": "any"}, "tool_choice.type: must be"),
        ({"output_config": 3}, "output_config: must be an object"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type: must be one of"),
        ({"output_format": {"type": "json_schema"}}, "output_format.json_schema: it is missing"),
        ({"mcp_servers": [{"url": "x"}]}, "mcp_servers: this server does not support it"),
    ],
)
def test_what_cannot_be(server: Server, fields: dict[str, Any], says: str) -> None:
    answer = server.ask("/v1/messages", {"messages": HELLO, "max_tokens": 1} | fields)
    assert answer.status == 400
    assert answer.json["type"] == "error"
    assert says in answer.json["error"]["message"]


def test_the_clients_own_errors(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="temperature"):
        client.messages.create(model="any", messages=HELLO, max_tokens=1, extra_body={"temperature": -1})
