from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ternrun.errors import LoadError
from ternrun.train.codetasks import (
    Problem,
    body_of,
    function_headers,
    human_eval,
    line_share,
    parse_share,
    read_problems,
)
from ternrun.train.sandbox import succeeds

SOURCE = '''
class A:
    def f(self, x):
        """Doc."""
        return x


def g():
    return 1


def h():
    """Only a docstring."""
'''


class Writer:
    """Answers every prompt with the same text."""

    def __init__(self, text: str, finish: str = "stop") -> None:
        self.text, self.finish = text, finish

    def complete(self, prompt: str, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(text=self.text, finish_reason=self.finish)


def test_headers_are_those_with_docstring_and_body() -> None:
    assert function_headers([SOURCE, "not python ("], 10) == ['def f(self, x):\n    """Doc."""']


def test_body_ends_at_the_first_dedent() -> None:
    assert body_of("\n    return 1\n\nx = 2\n", finished=True) == "\n    return 1\n\n"
    assert body_of("\n    a = 1\n    retur", finished=False) == "\n    a = 1\n"


@pytest.mark.parametrize(
    ("text", "share"),
    [("\n    return x\n\ny", 1.0), ("\n    return (\n\ny", 0.0), ("\ny = 1\n", 0.0), ("\n  return x", 0.0)],
)
def test_share_of_bodies_that_parse(text: str, share: float) -> None:
    assert parse_share(Writer(text), function_headers([SOURCE], 10)) == share  # type: ignore[arg-type]


def test_share_of_exact_lines() -> None:
    text = "\n".join(f"line {i}" for i in range(6)) + "\n    same = 1\n"
    assert line_share(Writer("\n    same = 1\nmore"), [text], 5) == 1.0  # type: ignore[arg-type]
    assert line_share(Writer("\n    same = 2\nmore"), [text], 5) == 0.0  # type: ignore[arg-type]


def test_human_eval_counts_what_passes() -> None:
    problem = Problem("t/0", "def f(x):\n", "f", "def check(f):\n    assert f(2) == 4")
    assert human_eval(Writer("\n    return x * 2"), [problem]) == 1.0  # type: ignore[arg-type]
    assert human_eval(Writer("\n    return x * 3"), [problem]) == 0.0  # type: ignore[arg-type]


def test_problems_of_another_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(LoadError, match=r"not HumanEval.jsonl"):
        read_problems(tmp_path / "x.jsonl")


@pytest.mark.parametrize(
    "program",
    [
        "raise SystemExit(3)",
        "while True: pass",
        "x = bytearray(2 << 30)",
        "print('x', file=open('f', 'w'), flush=True)",
        "import time; time.sleep(60)",
    ],
)
def test_generated_programs_are_kept_within_limits(program: str) -> None:
    assert not succeeds(program, seconds=1)


def test_a_good_program_succeeds() -> None:
    assert succeeds("assert sum(range(4)) == 6")
