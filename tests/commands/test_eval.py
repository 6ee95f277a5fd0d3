"""`ternrun eval`: figures that follow from the log-probabilities, whichever way they are asked for."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
TEXT = "To be, or not to be, that is the quéstion.\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_positions_hold_the_next_token(ternrun: Run, tiny: str, tmp_path: Path) -> None:
    sequences = [list(b"hello"), [7], []]
    file = write(tmp_path / "ids.json", json.dumps(sequences))
    done = ternrun("eval", tiny, "--ids", file, "--top-logprobs", "5", "--json")
    assert done.code == 0, done.err
    scored = json.loads(done.out)["sequences"]
    assert [len(s["positions"]) for s in scored] == [4, 0, 0]
    for token, position in zip(b"ello", scored[0]["positions"], strict=True):
        assert position["id"] == token
        assert len(position["top"]) == 5
        values = [entry["logprob"] for entry in position["top"]]
        assert values == sorted(values, reverse=True)
        assert all(entry["logprob"] == position["logprob"] for entry in position["top"] if entry["id"] == token)


def test_greedy_text_is_its_own_likeliest(ternrun: Run, tiny: str, tmp_path: Path) -> None:
    made = json.loads(
        ternrun("complete", "-m", tiny, "-n", "12", "--ignore-eos", "--json", "--logprobs", "0", "ab").out
    )
    file = write(tmp_path / "ids.json", json.dumps([made["prompt_ids"] + made["ids"]]))
    scored = json.loads(ternrun("eval", tiny, "--ids", file, "--json").out)["sequences"][0]["positions"]
    for mine, entry in zip(scored[1:], made["logprobs"], strict=True):
        assert mine["id"] == entry["id"]
        assert mine["logprob"] == pytest.approx(entry["logprob"], abs=1e-4)


def test_perplexity_follows_from_the_log_probabilities(ternrun: Run, tiny: str, tmp_path: Path) -> None:
    figures = json.loads(ternrun("eval", tiny, "--text", write(tmp_path / "a.txt", TEXT), "--json").out)
    ids = json.loads(ternrun("tokenize", tiny, TEXT, "--json").out)["ids"]
    file = write(tmp_path / "ids.json", json.dumps([ids]))
    positions = json.loads(ternrun("eval", tiny, "--ids", file, "--json").out)["sequences"][0]["positions"]
    nats = -sum(p["logprob"] for p in positions)
    assert set(figures) == {"perplexity", "bits_per_byte", "tokens", "bytes"}
    assert figures["tokens"] == len(positions) == len(ids) - 1
    assert figures["bytes"] == len(TEXT.encode()) - 1  # nothing predicts the first byte of this vocabulary
    assert figures["perplexity"] == pytest.approx(math.exp(nats / len(positions)), rel=1e-6)
    assert figures["bits_per_byte"] == pytest.approx(nats / math.log(2) / figures["bytes"], rel=1e-6)


def test_for_people(ternrun: Run, tiny: str, tmp_path: Path) -> None:
    done = ternrun("eval", tiny, "--text", write(tmp_path / "a.txt", TEXT * 5), "--window", "32")
    assert done.out.startswith("perplexity ")
    assert "windows of 32 tokens" in done.out
    done = ternrun("eval", tiny, "--ids", write(tmp_path / "ids.json", "[[1, 2, 3]]"))
    assert done.out.startswith("sequence 0: 2 tokens, log-probability -")


@pytest.mark.parametrize(
    ("content", "argv", "message"),
    [
        ("", ["--text"], "too short"),
        ("a", ["--text"], "too short"),
        ("hello", ["--window", "1", "--text"], "window must hold at least"),
        ("hello", ["--top-logprobs", "2", "--text"], "--top-logprobs needs --ids"),
        ("[[1, 2]]", ["--window", "9", "--ids"], "--window needs --text"),
        ("{}", ["--ids"], "must be a JSON list"),
        ("[[1, 99999]]", ["--ids"], "99999"),
        ("[[1, -2]]", ["--ids"], "-2"),
        ("[[1, 2]]", ["--top-logprobs", "-1", "--ids"], "from 0 to 1000"),
        (json.dumps([[1] * 5000]), ["--ids"], "context"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    ternrun: Run, tiny: str, tmp_path: Path, content: str, argv: list[str], message: str
) -> None:
    done = ternrun("eval", tiny, *argv, write(tmp_path / "in", content))
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1


def test_a_file_that_is_not_there(ternrun: Run, tiny: str) -> None:
    done = ternrun("eval", tiny, "--text", "nowhere.txt")
    assert (done.code, done.err) == (2, "ternrun: error: nowhere.txt: No such file or directory\n")
