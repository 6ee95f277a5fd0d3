"""The functions and methods of Python files as documents of their own.

In files almost every `def` that takes `self` is indented, and none is followed by the end of the text. Whoever asks for
a completion begins at the left margin and wants it to end: these documents show both. Those that are short and say in a
docstring what they do may be learned from several times over, with and without it: they are what such a completion is.
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
from ternrun.train.data.strip_annotations import bare
from ternrun.train.data.syntax import parsed, source_lines

LINES = range(3, 61)  # shorter ones say nothing, longer ones fill no window
SHORT = 30  # lines


def functions(documents: Sequence[Document], documented: int = 1, bare_times: int = 0) -> list[Document]:
    """Every different function of the documents that are Python, in their order, at the left margin.

    Short ones with a docstring come `documented` times, and `bare_times` times without it and without annotations.
    """
    found: dict[bytes, tuple[Document, bool]] = {}
    with ProcessPoolExecutor() as pool, Progress("functions", "files") as progress:
        listed = pool.map(_of_file, (d.text for d in documents), chunksize=64)
        for number, (document, texts) in enumerate(zip(documents, listed, strict=True), 1):
            progress.update(number, len(documents))
            for text, short in texts:
                found.setdefault(digest(text), (replace(document, text=text), short))
    return [d for document, short in found.values() for d in _times(document, short, documented, bare_times)]


def _times(document: Document, short: bool, documented: int, bare_times: int) -> Iterator[Document]:
    yield from [document] * (documented if short else 1)
    if short and bare_times and (text := bare(document.text)):
        yield from [replace(document, text=text)] * bare_times


def _of_file(text: str) -> list[tuple[str, bool]]:
    """Each function, and whether it is short and has a docstring."""
    tree = parsed(text)
    return [] if tree is None else list(_in_tree(tree, source_lines(text)))


def _in_tree(tree: ast.Module, lines: Sequence[str]) -> Iterator[tuple[str, bool]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        has_docstring, length = ast.get_docstring(node) is not None, (node.end_lineno or 0) - node.lineno + 1
        if len(node.body) > has_docstring and length in LINES:
            text = textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno])) + "\n"
            yield text, has_docstring and length <= SHORT
