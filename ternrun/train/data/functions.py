"""The functions and methods of Python files as documents of their own.

In files almost every `def` that takes `self` is indented, and none is followed by the end of the text. Whoever asks for
a completion begins at the left margin and wants it to end: these documents show both. Those that are short and say in a
docstring what they do may be learned from several times over: they are what such a completion is.
"""

from __future__ import annotations

import ast
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

from ternrun.progress import Progress
from ternrun.train.data.dedup import digest
from ternrun.train.data.document import Document

LINES = range(3, 61)  # shorter ones say nothing, longer ones fill no window
SHORT = 30  # lines


def functions(documents: Sequence[Document], documented: int = 1) -> list[Document]:
    """Every different function of the documents that are Python, in their order, at the left margin.

    Short ones with a docstring come `documented` times.
    """
    found: dict[bytes, Document] = {}
    with ProcessPoolExecutor() as pool, Progress("functions", "files") as progress:
        listed = pool.map(_of_file, (d.text for d in documents), chunksize=64)
        for number, (document, texts) in enumerate(zip(documents, listed, strict=True), 1):
            progress.update(number, len(documents))
            for text in texts:
                found.setdefault(digest(text), replace(document, text=text))
    return [d for d in found.values() for _ in range(documented if documented > 1 and _is_documented(d.text) else 1)]


def _is_documented(text: str) -> bool:
    """Whether a function is short and has a docstring."""
    if text.count("\n") > SHORT:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            first = ast.parse(text).body[0]
    except SyntaxError:  # text within it stood further left than itself
        return False
    return isinstance(first, ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(first) is not None


def _of_file(text: str) -> list[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return list(_in_tree(ast.parse(text), text.splitlines()))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def _in_tree(tree: ast.Module, lines: Sequence[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        says_more = len(node.body) > (ast.get_docstring(node) is not None)
        if says_more and (node.end_lineno or 0) - node.lineno + 1 in LINES:
            yield textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno])) + "\n"
