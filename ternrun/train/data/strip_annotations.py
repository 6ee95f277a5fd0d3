"""A Python function as people begin one: without docstring and annotations.

Published code has both, so a small model that is given `def gcd(a, b):` writes a docstring before all else and is far
from its prompt when it comes to the body.
"""

from __future__ import annotations

import ast
import re
from itertools import accumulate

from ternrun.train.data.syntax import parsed

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Edit = tuple[int, int, bytes]  # start, end, what stands there instead; offsets in UTF-8


def bare(text: str) -> str:
    """`text`, a function at the left margin, without its docstring and annotations; all else stays, comments too.

    Empty where nothing would be left, or where leaving out text cannot do it (a docstring before a semicolon).
    """
    source = text.encode()
    node = _function(source)
    if node is None or len(node.body) == (ast.get_docstring(node) is not None):
        return ""
    starts = [0, *accumulate(map(len, source.splitlines(keepends=True)))]
    for start, end, instead in sorted(_annotations(node, source, starts) + _docstring(node, source, starts))[::-1]:
        source = source[:start] + instead + source[end:]
    made = _function(source)
    return source.decode() if made is not None and ast.dump(made) == ast.dump(_stripped(node)) else ""


def _annotations(node: _Function, source: bytes, starts: list[int]) -> list[_Edit]:
    edits: list[_Edit] = []
    for argument in _arguments(node):
        if argument.annotation is not None:
            name_end = starts[argument.lineno - 1] + argument.col_offset + len(argument.arg.encode())
            end = _end(argument.annotation, starts)
            spaced = re.compile(rb"\s*=\s*").match(source, end)  # PEP 8: spaces about = beside annotations only
            edits.append((name_end, spaced.end() if spaced else end, b"=" if spaced else b""))
    if node.returns is not None:
        arrow = source.rindex(b"->", 0, starts[node.returns.lineno - 1] + node.returns.col_offset)
        edits.append((len(source[:arrow].rstrip()), _end(node.returns, starts), b""))
    return edits


def _docstring(node: _Function, source: bytes, starts: list[int]) -> list[_Edit]:
    """The docstring's lines, with the empty ones after it."""
    if ast.get_docstring(node) is None:
        return []
    end = starts[node.body[0].end_lineno or 0]
    blank = re.compile(rb"(?:[ \t]*\n)*").match(source, end)
    return [(starts[node.body[0].lineno - 1], blank.end() if blank else end, b"")]


def _stripped(node: _Function) -> _Function:
    """The tree that is wanted; `node` becomes it."""
    if ast.get_docstring(node) is not None:
        node.body = node.body[1:]
    for argument in _arguments(node):
        argument.annotation = None
    node.returns = None
    return node


def _function(source: bytes) -> _Function | None:
    tree = parsed(source)
    first = tree.body[0] if tree and tree.body else None
    return first if isinstance(first, _Function) else None


def _arguments(node: _Function) -> list[ast.arg]:
    given = node.args
    return [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]


def _end(node: ast.expr, starts: list[int]) -> int:
    return starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
