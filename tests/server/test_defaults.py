"""What a server was started with stands in for what requests leave out, and bounds what they may ask."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ternrun.api import load
from ternrun.commands.serve import add_arguments, settings
from ternrun.errors import UsageError
from ternrun.server.fields.defaults import read_defaults
from ternrun.server.settings import ServerConfig
from tests.fakes import fake_gguf, fake_weights
from tests.server.serving import Server, running

GIVEN = ("temperature=0", "seed=7", 'chat_template_kwargs={"shout": true}', "stop=zzz", "verbose=true", "max_tokens=5")
MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def told(path: Path) -> Iterator[Server]:
    config = ServerConfig(port=0, defaults=read_defaults(GIVEN), max_tokens=9)
    with running(config, lambda: load(path, threads=1)) as it:
        yield it


def test_requests_that_say_nothing_get_them(told: Server) -> None:
    done = told.ask("/v1/completions", {"prompt": "hello"}).json
    assert done["choices"][0]["text"] == told.model.complete("hello", max_tokens=5, temperature=0).text
    answer = told.ask("/completion", {"prompt": "hello"}).json
    found = {name: answer["generation_settings"][name] for name in ("temperature", "seed", "n_predict", "stop")}
    assert found == {"temperature": 0, "seed": 7, "n_predict": 5, "stop": ["zzz"]}
    assert told.ask("/props").json["default_generation_settings"]["params"]["seed"] == 7


def test_requests_that_say_otherwise_do_not(told: Server) -> None:
    answer = told.ask("/completion", {"prompt": "hello", "seed": 3, "max_tokens": 2, "temperature": None}).json
    settings = answer["generation_settings"]
    assert (settings["seed"], settings["n_predict"], settings["temperature"]) == (3, 2, 0)


def test_they_reach_every_api(told: Server) -> None:
    chat = told.ask("/v1/chat/completions", {"messages": MESSAGES}).json
    assert chat["__verbose"]["prompt"].endswith("[user]hi![assistant]")
    assert "__verbose" not in told.ask("/v1/chat/completions", {"messages": MESSAGES, "verbose": False}).json
    assert told.ask("/apply-template", {"messages": MESSAGES}).json["prompt"].endswith("hi![assistant]")
    assert told.ask("/v1/messages", {"messages": MESSAGES}).json["usage"]["output_tokens"] == 5
    lines = [told.ask("/api/generate", {"prompt": "hello", "stream": False}).json["response"] for _ in range(2)]
    assert lines[0] == lines[1]


def test_the_model_s_own_come_after_the_server_s(tmp_path: Path) -> None:
    own = {"general__sampling__temp": 0.3, "general__sampling__top_k": 9}
    model = fake_gguf(tmp_path / "m.gguf", fake_weights(), **own)
    config = ServerConfig(port=0, defaults=read_defaults(["top_k=4"]))
    with running(config, lambda: load(model, threads=1)) as it:
        found = it.ask("/completion", {"prompt": "a", "n_predict": 1}).json["generation_settings"]
        assert (found["top_k"], found["temperature"]) == (4, pytest.approx(0.3))
        found = it.ask("/completion", {"prompt": "a", "n_predict": 1, "temperature": 0}).json["generation_settings"]
        assert found["temperature"] == 0
        body = it.ask("/openapi.json").json["paths"]["/v1/completions"]["post"]["requestBody"]
        assert body["content"]["application/json"]["schema"]["properties"]["temperature"]["default"] == 0.3


@pytest.mark.parametrize(
    ("route", "body", "count"),
    [
        ("/v1/completions", {"prompt": "a", "max_tokens": 400}, ("usage", "completion_tokens")),
        ("/v1/chat/completions", {"messages": MESSAGES, "n_predict": 400}, ("usage", "completion_tokens")),
        ("/completion", {"prompt": "a", "n_predict": -1}, ("generation_settings", "n_predict")),
        ("/api/generate", {"prompt": "a", "stream": False, "options": {"num_predict": -1}}, ("eval_count",)),
    ],
)
def test_no_answer_is_longer_than_the_server_allows(
    told: Server, route: str, body: dict[str, Any], count: tuple[str, ...]
) -> None:
    found = told.ask(route, body).json
    for name in count:
        found = found[name]
    assert found <= 9


def test_the_document_tells_of_them(told: Server) -> None:
    paths = told.ask("/openapi.json").json["paths"]
    body = paths["/v1/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["seed"]["default"] == 7


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("seed", "takes NAME=VALUE"),
        ("prompt=x", "NAME being one of temperature"),
        ("temperature=hot", "--default temperature: must be a number from 0 to 100"),
        ("chat_template_kwargs=3", "--default chat_template_kwargs: must be an object"),
    ],
)
def test_what_cannot_be_a_default_is_refused_at_once(given: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_defaults([given])


def test_flags() -> None:
    import argparse

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    flags = ["--default", "top_k=3", "--default", f"stop={json.dumps(['a', 'b'])}", "--max-tokens", "5", "--no-page"]
    config = settings(parser.parse_args([*flags, "--host", "127.0.0.1, ::1"]))
    assert (dict(config.defaults), config.max_tokens) == ({"top_k": 3, "stop": ("a", "b")}, 5)
    assert not config.page
