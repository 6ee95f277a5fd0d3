"""Answers of a given form: every field that asks for one, on every route, and what is refused."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest

from ternrun.api import load
from ternrun.server.settings import ServerConfig
from tests.server.serving import Server, running

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 5}, "age": {"type": "integer", "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
YES = re.compile(r"(yes|no)!{2}")
GBNF = 'root ::= ("yes" | "no") "!!"'
HELLO = [{"role": "user", "content": "hi"}]


def is_person(text: str) -> bool:
    value = json.loads(text)
    return set(value) == {"name", "age"} and len(value["name"]) <= 5 and value["age"] <= 99


@pytest.mark.parametrize(
    ("fields", "fits"),
    [
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "p", "schema": PERSON}}}, is_person),
        ({"response_format": {"type": "json_schema", "schema": PERSON}}, is_person),
        ({"response_format": {"type": "json_object", "schema": PERSON}}, is_person),
        ({"json_schema": PERSON}, is_person),
        ({"guided_json": json.dumps(PERSON)}, is_person),
        ({"guided_regex": YES.pattern}, YES.fullmatch),
        ({"guided_choice": ['a "b"', "ü"]}, {'a "b"', "ü"}.__contains__),
        ({"guided_grammar": GBNF}, YES.fullmatch),
        ({"structured_outputs": {"regex": YES.pattern}}, YES.fullmatch),
        ({"grammar": GBNF}, YES.fullmatch),
    ],
)
@pytest.mark.parametrize("temperature", [0, 1.5])
def test_openai(server: Server, fields: dict[str, Any], fits: Any, temperature: float) -> None:
    asked = {"max_tokens": 300, "temperature": temperature, "seed": 1, **fields}
    for path, what in (("/v1/completions", {"prompt": "x"}), ("/v1/chat/completions", {"messages": HELLO})):
        (choice,) = server.ask(path, asked | what).json["choices"]
        text = choice["text"] if "text" in choice else choice["message"]["content"]
        assert fits(text), text
        assert choice["finish_reason"] == "stop"
        events = server.ask(path, asked | what | {"stream": True}).events
        pieces = [e["choices"][0].get("text") or e["choices"][0].get("delta", {}).get("content", "") for e in events]
        assert "".join(pieces) == text


def test_llama_and_ollama(server: Server) -> None:
    asked = {"prompt": "x", "n_predict": 300}
    answer = server.ask("/completion", asked | {"json_schema": PERSON}).json
    assert is_person(answer["content"])
    assert answer["stop_type"] == "eos"
    assert YES.fullmatch(server.ask("/completion", asked | {"grammar": GBNF}).json["content"])
    asked = {"prompt": "x", "messages": HELLO, "stream": False, "format": PERSON}
    assert is_person(server.ask("/api/generate", {k: v for k, v in asked.items() if k != "messages"}).json["response"])
    assert is_person(
        server.ask("/api/chat", {k: v for k, v in asked.items() if k != "prompt"}).json["message"]["content"]
    )


def test_choices_keep_to_it_each(server: Server) -> None:
    asked = {"prompt": ["x", "y"], "n": 3, "max_tokens": 50, "temperature": 2, "guided_regex": "[a-c]{4}[0-9]{4}"}
    texts = [c["text"] for c in server.ask("/v1/completions", asked).json["choices"]]
    assert all(re.fullmatch("[a-c]{4}[0-9]{4}", text) for text in texts)
    assert len(set(texts)) == 6


def test_the_end_token_may_be_forbidden(server: Server) -> None:
    """What the grammar ends, ends: also where the end token must not come."""
    answer = server.complete("x", guided_regex="ab", ignore_eos=True, max_tokens=9)
    assert answer["choices"][0]["text"] == "ab"
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_too_few_tokens(server: Server) -> None:
    answer = server.complete("x", json_schema=PERSON, max_tokens=3)
    assert answer["choices"][0]["finish_reason"] == "length"


def test_json_object(server: Server) -> None:
    """An object is begun; a model of noise seldom ends it."""
    asked = {"response_format": {"type": "json_object"}, "max_tokens": 5}
    assert server.complete("x", **asked)["choices"][0]["text"].startswith("{")
    assert server.complete("x", response_format={"type": "text"}, max_tokens=5) is not None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"json_schema": {"type": "objekt"}}, "json_schema"),
        ({"json_schema": "x"}, "json_schema"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": 5}}}},
            "response_format.json_schema.schema",
        ),
        ({"response_format": {"type": "json_object", "value": 3}}, "response_format.value"),
        ({"guided_regex": "("}, "guided_regex"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_json": "{"}, "guided_json"),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"grammar": "root ::= ("}, "grammar"),
        ({"grammar": "root ::= " + "(" * 60_000}, "grammar"),
        ({"grammar": GBNF, "guided_regex": "a"}, "guided_regex"),
    ],
)
def test_what_is_refused(server: Server, fields: dict[str, Any], param: str) -> None:
    answer = server.ask("/v1/completions", {"prompt": "x", **fields})
    assert answer.status == 400
    assert answer.json["error"]["param"] == param
    assert "\n" not in answer.json["error"]["message"]


def test_nothing_is_left_over(path: Path) -> None:
    with running(ServerConfig(port=0), lambda: load(path, threads=1)) as server:
        server.complete("x", guided_regex="ab")
        process = server.model.grammars._process
        assert process is not None
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        end = time.monotonic() + 10
        while children.read_text() and time.monotonic() < end:
            time.sleep(0.02)
        assert not children.read_text(), "grammars end with their requests"
    assert process.poll() is not None


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_the_official_client_parses_into_a_class(client: openai.OpenAI) -> None:
    class Person(pydantic.BaseModel):
        name: str = pydantic.Field(max_length=8)
        happy: bool

    done = client.chat.completions.parse(
        model="tiny", messages=[{"role": "user", "content": "hi"}], response_format=Person, max_tokens=200, seed=3
    )
    assert isinstance(done.choices[0].message.parsed, Person)
