"""Python source as its parser sees it."""

from __future__ import annotations

import ast
import warnings


def parsed(source: str | bytes) -> ast.Module | None:
    """Its tree, or None where it is no Python that can be parsed. Nothing is said of what it should not do."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def source_lines(text: str) -> list[str]:
    r"""Its lines as line numbers of the tree count them.

    They end at \n, \r\n and \r alone; `str.splitlines` sees more (a form feed before a `def` is one).
    """
    return [line.decode("utf-8", "surrogatepass") for line in text.encode("utf-8", "surrogatepass").splitlines()]
