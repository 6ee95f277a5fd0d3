from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ternrun.errors import LoadError
from ternrun.train.evaluate.code_tasks import (
    Problem,
    bodies,
    body_of,
    completions,
    function_headers,
    has_body,
    human_eval,
    line_share,
    read_problems,
)
from ternrun.train.evaluate.sandbox import network_is_cut, succeeds

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
    """Answers every prompt with the same text; a byte is a token."""

    context = 200

    def __init__(self, text: str, finish: str = "stop") -> None:
        self.text, self.finish = text, finish
        self.tokenizer = SimpleNamespace(encode=lambda prompt: list(prompt.encode()))
        self.prompts: list[Any] = []

    def complete(self, prompt: Any, **_: Any) -> SimpleNamespace:
        self.prompts.append(prompt)
        return SimpleNamespace(text=self.text, finish_reason=self.finish)


def test_headers_are_those_with_docstring_and_body() -> None:
    assert function_headers([SOURCE, "not python ("], 10) == ['def f(self, x):\n    """Doc."""']
    assert len(function_headers([SOURCE, SOURCE], 10)) == 1  # the same header once
    undedentable = 'class A:\n    def f(self):\n        """Doc\nat the margin."""\n        return 1\n'
    assert function_headers([undedentable], 10) == []


def test_a_form_feed_ends_no_line() -> None:
    assert function_headers([f"x = 1\n\f\n{SOURCE}"], 10) == ['def f(self, x):\n    """Doc."""']


def test_headers_are_drawn_from_all_texts() -> None:
    texts = [f'def f{i}(x):\n    """Doc."""\n    return x\n' for i in range(60)]
    drawn = function_headers(texts, 20)
    assert len(set(drawn)) == 20
    assert drawn != sorted(drawn)
    assert function_headers(texts, 20, seed=1) != drawn


def test_a_prompt_too_long_loses_its_beginning() -> None:
    writer = Writer("x")
    completions(writer, ["short", "a" * 100 + "b" * 90], 110)  # type: ignore[arg-type]
    assert writer.prompts == ["short", list(b"b" * 90)]


def test_body_ends_at_the_first_dedent() -> None:
    assert body_of("\n    return 1\n\nx = 2\n", finished=True) == "\n    return 1\n\n"
    assert body_of("\n    a = 1\n    retur", finished=False) == "\n    a = 1\n"


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("\n    return x\n\ny", True), ("\n    return (\n\ny", False), ("\ny = 1\n", False), ("\n  return x", False),
        ("\n    # only a comment\n", False), ("", False), ("\n    if x:\n", False),
    ],
)  # fmt: skip
def test_bodies_count_where_they_parse_and_do_something(text: str, good: bool) -> None:
    (header,) = function_headers([SOURCE], 10)
    (body,) = bodies(Writer(text), [header])  # type: ignore[arg-type]
    assert has_body(header + body) == good


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
        "raise SystemExit",  # before its checks
        "import os; os._exit(0)",
        "import os; os.fork()",
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


def test_generated_programs_have_no_network_where_the_machine_allows_that() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        reached = succeeds(f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)")
    assert reached is not network_is_cut()
