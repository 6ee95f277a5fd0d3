"""llama.cpp's `prompt_progress`: a stream that asks hears of every step of its prompt, in llama.cpp's words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ternrun.api import load
from ternrun.server.settings import ServerConfig
from tests.server.serving import Server, running

STEP = 32  # prompt tokens a step
ASKED = {"temperature": 0, "max_tokens": 4, "stream": True, "return_progress": True}


@pytest.fixture(scope="module")
def slow(path: Path) -> Iterator[Server]:
    with running(ServerConfig(port=0), lambda: load(path, threads=1, prefill_chunk=STEP)) as it:
        yield it


def events(server: Server, path: str, body: dict[str, Any]) -> list[Any]:
    answer = server.ask(path, body)
    assert answer.status == 200, answer.body
    *parts, rest = answer.body.decode().split("\n\n")
    assert rest == ""
    return [json.loads(part.removeprefix("data: ")) for part in parts if part != "data: [DONE]"]


def told(chunks: list[Any]) -> list[tuple[int, int, int]]:
    """(total, cache, processed) of each report, in order; nothing else stands between or before them."""
    reports = [chunk["prompt_progress"] for chunk in chunks if "prompt_progress" in chunk]
    assert all("prompt_progress" in chunk for chunk in chunks[: len(reports)])
    times = [report["time_ms"] for report in reports]
    assert times == sorted(times)
    return [(report["total"], report["cache"], report["processed"]) for report in reports]


def test_completion(slow: Server) -> None:
    prompt = "b" * 70
    chunks = events(slow, "/completion", ASKED | {"prompt": prompt})
    assert told(chunks) == [(70, 0, n) for n in (0, 32, 64, 70)]
    assert chunks[0] | {"prompt_progress": None} == {
        "index": 0, "content": "", "tokens": [], "stop": False, "prompt_progress": None,
    }  # fmt: skip
    plain = slow.ask("/completion", {"prompt": prompt, "temperature": 0, "max_tokens": 4}).json
    assert "".join(chunk["content"] for chunk in chunks) == plain["content"]
    assert told(events(slow, "/completion", ASKED | {"prompt": prompt})) == [(70, 64, 64), (70, 64, 70)]


def test_openai(slow: Server) -> None:
    chunks = events(slow, "/v1/completions", ASKED | {"prompt": ["c" * 40, "d" * 33], "echo": True})
    for i, length in enumerate((40, 33)):
        own = [chunk for chunk in chunks if chunk["choices"][0]["index"] == i]
        counts = [processed for _, _, processed in told(own)]  # the two share the steps
        assert (counts[0], counts[-1]) == (0, length)
        assert counts == sorted(set(counts))
        reports = [chunk["choices"][0] for chunk in own if "prompt_progress" in chunk]
        assert all((choice["text"], choice["finish_reason"]) == ("", None) for choice in reports)


def test_chat(slow: Server) -> None:
    messages = [{"role": "user", "content": "e" * 50}]
    chunks = events(slow, "/v1/chat/completions", ASKED | {"messages": messages})
    total = told(chunks)[0][0]
    assert told(chunks) == [(total, 0, n) for n in (0, *range(STEP, total, STEP), total)]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert [delta for delta in deltas if "role" in delta] == [{"role": "assistant", "content": ""}] == deltas[:1]


@pytest.mark.parametrize("fields", [{"stream": False}, {"return_progress": False}])
def test_nobody_else_hears_of_it(slow: Server, fields: dict[str, bool]) -> None:
    assert b"prompt_progress" not in slow.ask("/completion", ASKED | {"prompt": "f" * 40} | fields).body
