"""The main job, end to end, on a real model: SmolLM2-135M."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.smollm2 import smollm2

Run = Callable[..., Any]
README = Path(__file__).parents[2] / "README.md"
PROMPT = "def fibonacci(n):"


def test_complete_prints_python() -> None:
    command = [sys.executable, "-m", "ternrun", "complete", "-m", str(smollm2()), PROMPT, "-n", "64", "--stop", "\n#"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    (function,) = ast.parse(PROMPT + answer["text"]).body
    assert isinstance(function, ast.FunctionDef)
    assert any(isinstance(node, ast.Return) for node in ast.walk(function))
    streamed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert streamed.rstrip("\n") == answer["text"].rstrip("\n")
    print({name: round(value, 3) for name, value in answer["timings"].items()}, answer["backend_reason"])


def test_a_folder_with_one_model_does(ternrun: Run) -> None:
    folder = smollm2().parent
    seen = json.loads(ternrun("inspect", folder, "--json").out)
    assert seen["format"] == "GGUF v3"
    assert seen["refusals"] == []
    assert json.loads(ternrun("tokenize", folder, PROMPT, "--json").out)["ids"] == [1604, 3987, 46477, 24, 94, 727]


def test_perplexity_of_plain_english_is_low(ternrun: Run, tmp_path: Path) -> None:
    text = "The quick brown fox jumps over the lazy dog. It was the best of times, it was the worst of times."
    (tmp_path / "plain.txt").write_text(text)
    (tmp_path / "noise.txt").write_text(text[::-1])
    plain, noise = (
        json.loads(ternrun("eval", smollm2(), "--text", tmp_path / name, "--json").out)["bits_per_byte"]
        for name in ("plain.txt", "noise.txt")
    )
    assert plain < 1 < 3 < noise


def test_chat_answers(ternrun: Run) -> None:
    done = ternrun("complete", "-m", smollm2(), "--chat", "-n", "40", "--json", "What is the capital of France?")
    assert "Paris" in json.loads(done.out)["text"]


def transcripts() -> list[tuple[str, str]]:
    """Commands of the README's transcript with what it shows below them."""
    block = next(b for b in re.findall(r"```console\n(.*?)```", README.read_text(), re.S) if "tail" in b)
    return re.findall(r"^\$ ternrun (.*)\n((?:(?!\$ ).*\n)+)", block, re.M)


@pytest.mark.parametrize(("call", "shown"), transcripts())
def test_the_readme_shows_what_is_printed(ternrun: Run, call: str, shown: str) -> None:
    words = [str(smollm2().parent) if "/" in word else word for word in shlex.split(call.split(" | ")[0])]
    printed, expected = " ".join(ternrun(*words).out.split()), " ".join(shown.split())
    assert printed
    assert printed.endswith(expected.removeprefix(PROMPT).strip())
