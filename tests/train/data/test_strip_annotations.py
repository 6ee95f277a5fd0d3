"""Functions without docstring and annotations: the same code, found by leaving out text."""

from __future__ import annotations

import ast
import inspect
import textwrap
from pathlib import Path

import pytest

from ternrun.train.data.strip_annotations import strip_annotations

SIGNATURE = '''\
async def f(self, é: int, b: "X" = 3, *args: tuple[int, ...], k: dict[str, int] = {}, **kw: Any) -> dict[str,
    int]:
    """What.

    More.
    """

    # Why.
    return a  # so
'''


def test_every_kind_of_parameter_loses_its_annotation() -> None:
    assert (
        strip_annotations(SIGNATURE)
        == "async def f(self, é, b=3, *args, k={}, **kw):\n    # Why.\n    return a  # so\n"
    )


def test_code_without_either_stays_as_it_is() -> None:
    code = "def f(x, y=1):\n    def g(z: int) -> int:\n        '''Inner.'''\n        return z\n    return g(x)\n"
    assert strip_annotations(code) == code


@pytest.mark.parametrize(
    "text",
    [
        'def f():\n    """Nothing else."""\n',
        'def f(): "On the same line"; return 1\n',
        'def f():\n    "Before a semicolon"; return 1\n',
        "x = 1\n",
        "def f(:\n",
        "",
    ],
)
def test_what_cannot_be_done_is_left_out(text: str) -> None:
    assert strip_annotations(text) == ""


def test_the_standard_library_keeps_its_meaning() -> None:
    made: list[str] = []
    for name in ("argparse", "dataclasses", "pathlib", "typing", "statistics", "textwrap"):
        source = Path(inspect.getsourcefile(__import__(name)) or "").read_text(encoding="utf-8")
        made += [
            strip_annotations(textwrap.dedent(ast.get_source_segment(source, node, padded=True) or ""))
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) and len(node.body) > 1
        ]
    assert len(made) > 100
    assert sum(text != "" for text in made) > 0.98 * len(made)
    assert not any(ast.get_docstring(ast.parse(text).body[0]) for text in made if text)  # type: ignore[arg-type]
