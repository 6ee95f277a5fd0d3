"""Functions and methods of Python files as separate documents.

In files, methods are indented, and functions are rarely followed by the end of the text. A prompt for completion starts
at the left margin, and its completion should end: these documents show both. Short functions with a docstring resemble
such completions most, so they can be included several times, with and without docstring.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

from ternrun.progress import Progress
from ternrun.train.data.dedup import digest
from ternrun.train.data.document import Document
from ternrun.train.data.strip_annotations import strip_annotations
from ternrun.train.data.syntax import parse, source_lines

LINES = range(3, 61)  # of functions that are included
SHORT = 30  # lines of a short function, at most


def functions(documents: Sequence[Document], documented: int = 1, stripped: int = 0) -> list[Document]:
    """All distinct functions of the documents that are valid Python, in order, at the left margin.

    Short functions with a docstring are repeated `documented` times, and `stripped` times without docstring and
    annotations.
    """
    found: dict[bytes, tuple[Document, bool]] = {}
    with ProcessPoolExecutor() as pool, Progress("functions", "files") as progress:
        listed = pool.map(_of_file, (d.text for d in documents), chunksize=64)
        for number, (document, texts) in enumerate(zip(documents, listed, strict=True), 1):
            progress.update(number, len(documents))
            for text, short in texts:
                found.setdefault(digest(text), (replace(document, text=text), short))
    return [d for document, short in found.values() for d in _repeat(document, short, documented, stripped)]


def _repeat(document: Document, short: bool, documented: int, stripped: int) -> Iterator[Document]:
    yield from [document] * (documented if short else 1)
    if short and stripped and (text := strip_annotations(document.text)):
        yield from [replace(document, text=text)] * stripped


def _of_file(text: str) -> list[tuple[str, bool]]:
    """Each function of a file, and whether it is short and has a docstring."""
    tree = parse(text)
    return [] if tree is None else list(_in_tree(tree, source_lines(text)))


def _in_tree(tree: ast.Module, lines: Sequence[str]) -> Iterator[tuple[str, bool]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        has_docstring, length = ast.get_docstring(node) is not None, (node.end_lineno or 0) - node.lineno + 1
        if len(node.body) > has_docstring and length in LINES:
            text = textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno])) + "\n"
            yield text, has_docstring and length <= SHORT
