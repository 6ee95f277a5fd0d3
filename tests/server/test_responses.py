"""OpenAI's /v1/responses, with the official client, against what /v1/chat/completions says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.server.serving import Server

HELLO: Any = [{"role": "user", "content": "hi"}]
CITY = {
    "type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"],
    "additionalProperties": False,
}  # fmt: skip
WEATHER: Any = {"type": "function", "name": "weather", "parameters": CITY, "strict": True}


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def chat(server: Server, messages: Any, **fields: Any) -> str:
    answer = server.ask("/v1/chat/completions", {"messages": messages, "temperature": 0, **fields})
    return str(answer.json["choices"][0]["message"]["content"])


def test_responses(client: openai.OpenAI, server: Server) -> None:
    asked: Any = {"model": "any", "input": "hi", "instructions": "Be brief.", "max_output_tokens": 12, "temperature": 0}
    done = client.responses.create(**asked)
    told = [{"role": "system", "content": "Be brief."}, *HELLO]
    assert done.output_text == chat(server, told, max_tokens=12)
    assert (done.status, done.incomplete_details.reason, done.model) == ("incomplete", "max_output_tokens", "tiny")
    assert done.usage.output_tokens == 12
    assert done.usage.input_tokens == len("[system]Be brief.[user]hi[assistant]")
    with client.responses.create(**asked, stream=True) as stream:
        events = list(stream)
    assert [e.sequence_number for e in events] == list(range(len(events)))
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == done.output_text
    assert [events[0].type, events[1].type, events[-1].type] == [
        "response.created", "response.in_progress", "response.incomplete",
    ]  # fmt: skip
    assert events[-1].response.output_text == done.output_text


def test_a_form(client: openai.OpenAI) -> None:
    form: Any = {"format": {"type": "json_schema", "name": "city", "schema": CITY, "strict": True}}
    done = client.responses.create(model="any", input="hi", text=form, max_output_tokens=100)
    assert json.loads(done.output_text)["city"] in ("Rome", "Oslo")
    assert done.status == "completed"


def test_functions(client: openai.OpenAI) -> None:
    asked: Any = {"model": "any", "input": "hi", "tools": [WEATHER], "max_output_tokens": 200}
    for choice in ("required", {"type": "function", "name": "weather"}):
        done = client.responses.create(**asked, tool_choice=choice, parallel_tool_calls=False)
        (call,) = done.output
        assert (call.type, call.name) == ("function_call", "weather")
        assert json.loads(call.arguments)["city"] in ("Rome", "Oslo")
    with client.responses.stream(**asked, tool_choice="required", parallel_tool_calls=False) as stream:
        (streamed,) = stream.until_done().get_final_response().output
    assert json.loads(streamed.arguments)["city"] in ("Rome", "Oslo")


def test_history(client: openai.OpenAI, server: Server) -> None:
    items: Any = [
        *HELLO,
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "So."}]},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"x": 1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "4"},
        {"role": "user", "content": [{"type": "input_text", "text": "And?"}]},
    ]
    call = {"id": "c1", "function": {"name": "f", "arguments": '{"x": 1}'}}
    told: Any = [
        *HELLO,
        {"role": "assistant", "content": "So.", "tool_calls": [call]},
        {"role": "tool", "content": "4", "tool_call_id": "c1"},
        {"role": "user", "content": "And?"},
    ]
    done = client.responses.create(model="any", input=items, max_output_tokens=8, temperature=0)
    assert done.output_text == chat(server, told, max_tokens=8)
    assert done.usage.input_tokens == len(server.ask("/apply-template", {"messages": told}).json["prompt"])


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"input": None}, "input: it is missing"),
        ({"input": 3}, "input: must be a string"),
        ({"input": [3]}, "input[0]: must be an object"),
        ({"input": [{"type": "item_reference"}]}, "input[0].type: an item of type item_reference"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "parts of type input_text only"),
        ({"input": [{"role": "robot", "content": "a"}]}, "role: must be one of"),
        ({"input": []}, "input: must be a string or a list"),
        ({"input": [{"type": "reasoning"}]}, "input: must be a string or a list"),
        ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "there are no functions"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type: must be"),
        ({"text": 3}, "text: must be"),
        ({"previous_response_id": "resp_1"}, "previous_response_id: this server does not support it"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.json_schema: it is missing"),
    ],
)
def test_what_cannot_be(server: Server, fields: dict[str, Any], says: str) -> None:
    answer = server.ask("/v1/responses", {"input": "a", "max_output_tokens": 1} | fields)
    assert answer.status == 400
    assert says in answer.json["error"]["message"]
