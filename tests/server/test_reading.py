"""How much of a request is read, and where: no more than the context holds, and large ones aside."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from ternrun.loader.tokenizers.tokenizer import Tokenizer
from ternrun.server.generation import prompts, service
from ternrun.server.generation.prompts import ProjectFile
from tests.server.serving import Server

HELLO = [{"role": "user", "content": "a"}]
ROUTES: list[tuple[str, dict[str, Any], str]] = [  # and a field without effect, which makes it large
    ("/v1/completions", {"prompt": "a", "max_tokens": 1}, "user"),
    ("/v1/chat/completions", {"messages": HELLO, "max_tokens": 1}, "user"),
    ("/v1/chat/completions/input_tokens", {"messages": HELLO}, "user"),
    ("/v1/responses", {"input": "a", "max_output_tokens": 1}, "user"),
    ("/v1/messages", {"messages": HELLO, "max_tokens": 1}, "metadata"),
    ("/completion", {"prompt": "a", "n_predict": 1}, "user"),
    ("/embedding", {"content": "a"}, "user"),
    ("/api/generate", {"prompt": "a", "raw": True, "stream": False, "options": {"num_predict": 1}}, "keep_alive"),
    ("/api/chat", {"messages": HELLO, "stream": False, "options": {"num_predict": 1}}, "keep_alive"),
]
LONG = "a" * 400  # of a context of 512 tokens, one each


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which threads encoded a text, one entry for each."""
    threads: list[str] = []
    encode = Tokenizer.encode

    def noted(tokenizer: Tokenizer, text: str, **more: Any) -> list[int]:
        threads.append(threading.current_thread().name)
        return encode(tokenizer, text, **more)

    monkeypatch.setattr(Tokenizer, "encode", noted)
    return threads


@pytest.mark.parametrize(
    ("route", "body", "most"),
    [
        ("/completion", {"prompt": [1, *[LONG] * 1000]}, 2),
        ("/completion", {"prompt": [[1, *[LONG] * 100]] * 10}, 2),
        ("/completion", {"prompt": [LONG * 2] * 100}, 1),
        ("/v1/completions", {"prompt": [LONG * 2] * 100}, 1),
        ("/embedding", {"content": [LONG * 2] * 2000}, 1),
    ],
)
def test_no_more_is_read_than_the_context_holds(
    server: Server, read: list[str], route: str, body: dict[str, Any], most: int
) -> None:
    answer = server.ask(route, body)
    assert (answer.status, answer.json["error"]["code"]) == (400, "context_length_exceeded")
    assert len(read) == most


def test_files_are_read_from_the_end(server: Server, read: list[str]) -> None:
    files = [ProjectFile("a", LONG), ProjectFile("b", "x" * 10)]
    whole = prompts._written(server.model, files, 10_000)
    for room in range(0, len(whole) + 2, 7):
        assert prompts._written(server.model, files, room) == whole[max(0, len(whole) - room) :]
    read.clear()
    prompts._written(server.model, [ProjectFile("a", LONG)] * 1000, 500)
    assert len(read) < 10


@pytest.mark.parametrize(("route", "body", "idle"), ROUTES)
def test_large_requests_are_read_aside(
    server: Server, read: list[str], monkeypatch: pytest.MonkeyPatch, route: str, body: dict[str, Any], idle: str
) -> None:
    assert server.ask(route, body).status in (200, 400)
    large = body | {idle: "x" * (1 << 16)}
    assert server.ask(route, large).status in (200, 400)
    assert [name.rpartition("_")[0] for name in read] == ["ternrun-read", "ternrun-aside"]
    monkeypatch.setattr(service, "MAX_LONG", 0)
    refused = server.ask(route, large)
    assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
    assert server.ask(route, body).status in (200, 400)
    assert len(read) == 3, "what is refused is not read"
