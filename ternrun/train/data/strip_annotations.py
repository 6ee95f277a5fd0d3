"""Removal of the docstring and annotations of a Python function.

People begin functions without them, but published code has both. A small model trained on published code only answers
`def gcd(a, b):` with a docstring first, and has lost its prompt when it comes to the body.
"""

from __future__ import annotations

import ast
import re
from itertools import accumulate

from ternrun.train.data.syntax import parse

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Edit = tuple[int, int, bytes]  # start and end (UTF-8 offsets) of the replaced text, and its replacement


def strip_annotations(text: str) -> str:
    """Remove docstring and annotations from `text`, a function at the left margin; comments and layout are kept.

    Returns "" if no body would be left, or if removing text is not enough (a docstring before a semicolon).
    """
    source = text.encode()
    node = _function(source)
    if node is None or len(node.body) == (ast.get_docstring(node) is not None):
        return ""
    starts = [0, *accumulate(map(len, source.splitlines(keepends=True)))]
    for start, end, replacement in sorted(_annotations(node, source, starts) + _docstring(node, source, starts))[::-1]:
        source = source[:start] + replacement + source[end:]
    made = _function(source)
    return source.decode() if made is not None and ast.dump(made) == ast.dump(_stripped(node)) else ""


def _annotations(node: _Function, source: bytes, starts: list[int]) -> list[_Edit]:
    edits: list[_Edit] = []
    for argument in _arguments(node):
        if argument.annotation is not None:
            name_end = starts[argument.lineno - 1] + argument.col_offset + len(argument.arg.encode())
            end = _end(argument.annotation, starts)
            spaced = re.compile(rb"\s*=\s*").match(source, end)  # PEP 8: spaces around = only with annotations
            edits.append((name_end, spaced.end() if spaced else end, b"=" if spaced else b""))
    if node.returns is not None:
        arrow = source.rindex(b"->", 0, starts[node.returns.lineno - 1] + node.returns.col_offset)
        edits.append((len(source[:arrow].rstrip()), _end(node.returns, starts), b""))
    return edits


def _docstring(node: _Function, source: bytes, starts: list[int]) -> list[_Edit]:
    """The edit that removes the docstring's lines and the empty lines after it."""
    if ast.get_docstring(node) is None:
        return []
    end = starts[node.body[0].end_lineno or 0]
    blank = re.compile(rb"(?:[ \t]*\n)*").match(source, end)
    return [(starts[node.body[0].lineno - 1], blank.end() if blank else end, b"")]


def _stripped(node: _Function) -> _Function:
    """`node` without docstring and annotations, changed in place: the tree that the edited text must have."""
    if ast.get_docstring(node) is not None:
        node.body = node.body[1:]
    for argument in _arguments(node):
        argument.annotation = None
    node.returns = None
    return node


def _function(source: bytes) -> _Function | None:
    tree = parse(source)
    first = tree.body[0] if tree and tree.body else None
    return first if isinstance(first, _Function) else None


def _arguments(node: _Function) -> list[ast.arg]:
    given = node.args
    return [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]


def _end(node: ast.expr, starts: list[int]) -> int:
    return starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
