"""`ternrun tokenize` and `detokenize`: what complete would feed, and the way back."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import fake_gguf, fake_weights

Run = Callable[..., Any]


@pytest.fixture
def with_bos(tmp_path: Path) -> Path:
    return fake_gguf(tmp_path / "bos.gguf", fake_weights("llama"), tokenizer__ggml__add_bos_token=True)


def test_ids_are_those_of_complete(ternrun: Run, with_bos: Path) -> None:
    for text in ("ab", "ab<|eos|>c", "héllo", "\n "):
        ids = json.loads(ternrun("tokenize", with_bos, text, "--json").out)["ids"]
        assert ids == json.loads(ternrun("complete", "-m", with_bos, "-n", "0", "--json", text).out)["prompt_ids"]
        assert ids[0] == 256


def test_special_tokens_are_plain_text_if_asked(ternrun: Run, tiny: str) -> None:
    assert json.loads(ternrun("tokenize", tiny, "<|eos|>", "--json").out) == {"ids": [257], "pieces": ["<|eos|>"]}
    assert json.loads(ternrun("tokenize", tiny, "<|eos|>", "--json", "--no-special").out)["ids"] == list(b"<|eos|>")


def test_for_people_one_line_a_token(ternrun: Run, tiny: str) -> None:
    lines = ternrun("tokenize", tiny, "a\n").out.splitlines()
    assert [line.split() for line in lines] == [["97", '"a"'], ["10", '"\\n"']]


@pytest.mark.parametrize("text", ["", "ab", "naïve <|eos|> text\n", "\U0001f600"])
def test_the_way_back(ternrun: Run, with_bos: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = json.loads(ternrun("tokenize", with_bos, text, "--json").out)["ids"]
    assert json.loads(ternrun("detokenize", with_bos, "--json", *ids).out) == {"text": text}
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(json.dumps(ids).encode())))
    assert ternrun("detokenize", with_bos).out == text + "\n"
    if ids:
        assert ternrun("detokenize", with_bos, json.dumps(ids)).out == text + "\n"
        assert ternrun("detokenize", with_bos, ",".join(map(str, ids))).out == text + "\n"


def test_text_without_control_characters_on_a_terminal(
    ternrun: Run, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    escape, letter = 27, ord("a")
    assert ternrun("detokenize", tiny, escape, letter).out == "\x1ba\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert ternrun("detokenize", tiny, escape, letter).out == "\ufffda\n"


@pytest.mark.parametrize(
    ("ids", "message"), [(["99999"], "99999 is outside"), (["x"], "a token id is a number"), (["1.5"], "is a number")]
)
def test_wrong_ids_are_one_sentence(ternrun: Run, tiny: str, ids: list[str], message: str) -> None:
    done = ternrun("detokenize", tiny, *ids)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1
