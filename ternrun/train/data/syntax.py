"""Parsing Python source that may be invalid."""

from __future__ import annotations

import ast
import warnings


def parse(source: str | bytes) -> ast.Module | None:
    """The syntax tree, or None if the source cannot be parsed. Syntax warnings are suppressed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def source_lines(text: str) -> list[str]:
    r"""The lines of `text`, numbered as in its syntax tree.

    Lines end at \n, \r\n and \r only. `str.splitlines` also splits at other characters, such as a form feed.
    """
    return [line.decode("utf-8", "surrogatepass") for line in text.encode("utf-8", "surrogatepass").splitlines()]
