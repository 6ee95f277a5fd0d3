"""`--context-shift`: an answer goes on where its context is full, and says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ternrun.api import load
from ternrun.server.generation import submission
from ternrun.server.settings import ServerConfig
from tests.server.serving import Server, running

CONTEXT = 64


@pytest.fixture(scope="module")
def shifting(path: Path) -> Iterator[Server]:
    config = ServerConfig(port=0, context_shift=True)
    with running(config, lambda: load(path, threads=1, context=CONTEXT)) as it:
        yield it


def complete(server: Server, n: int, **fields: Any) -> Any:
    asked = {"prompt": "a" * 40, "temperature": 0, "ignore_eos": True, "return_tokens": True, "n_predict": n}
    answer = server.ask("/completion", asked | fields)
    assert answer.status == 200, answer.body
    return answer.json


def test_it_goes_on_from_what_is_kept(shifting: Server) -> None:
    """The tokens behind a shift are those of a prompt that is what was kept."""
    done = complete(shifting, 60, n_keep=8, n_discard=20)
    assert (done["tokens_predicted"], done["truncated"], done["stop_type"]) == (60, True, "limit")
    ids = shifting.model.tokenizer.encode("a" * 40) + done["tokens"][:24]
    kept = ids[:8] + ids[28:]
    after = complete(shifting, 20, prompt=kept)
    assert after["tokens"] == done["tokens"][24:44]
    assert not after["truncated"]


def test_what_fits_is_not_touched(shifting: Server, server: Server) -> None:
    done = complete(shifting, 24)
    assert (done["tokens"], done["truncated"]) == (complete(server, 24)["tokens"], False)
    refused = shifting.ask("/completion", {"prompt": "a" * CONTEXT})
    assert refused.status == 400
    assert "context holds 64" in refused.json["error"]["message"]
    for wrong in ({"n_discard": -1}, {"n_keep": -2}):
        assert shifting.ask("/completion", {"prompt": "a"} | wrong).status == 400


def test_other_routes_go_on_too(shifting: Server) -> None:
    choice = shifting.complete("a" * 40, max_tokens=50, ignore_eos=True)["choices"][0]
    assert choice["finish_reason"] == "length"
    assert shifting.complete("a" * 40, max_tokens=50, ignore_eos=True)["usage"]["completion_tokens"] == 50


def test_no_answer_is_endless(shifting: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "MAX_SHIFTED", 100)
    assert complete(shifting, -1)["tokens_predicted"] == 100
    refused = shifting.ask("/completion", {"prompt": "a", "n_probs": 100, "n_predict": 2**22})
    assert refused.status == 200
    monkeypatch.setattr(submission, "MAX_SHIFTED", 2**22)
    refused = shifting.ask("/completion", {"prompt": "a", "n_probs": 100, "n_predict": 2**22})
    assert refused.status == 400
    assert "numbers" in refused.json["error"]["message"]
