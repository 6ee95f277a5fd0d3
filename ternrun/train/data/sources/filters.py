"""Quality filter for Python files: generated, minified and data-like files are left out.

The rules are simple versions of those of code corpora (The Stack, arXiv 2211.15533; phi-1, arXiv 2306.11644).
"""

from __future__ import annotations

import ast
import re

from ternrun.train.data.syntax import parse

MIN_BYTES, MAX_BYTES = 300, 200_000
_GENERATED = re.compile(
    r"generated (by|from|using|automatically)|auto-?generated|automatically generated|@generated|"
    r"this file was generated|do not (edit|modify)",
    re.I,
)
_WORD = re.compile(r"[A-Za-z_]")


def reason_to_skip(text: str) -> str | None:
    """Why a Python source should be left out of a corpus, or None to include it."""
    if not MIN_BYTES <= len(text) <= MAX_BYTES:
        return "too short or too long"
    if "\0" in text or "\ufffd" in text:
        return "not text"
    if _GENERATED.search(text[:2000]):
        return "generated"
    lines = text.splitlines()
    if max(map(len, lines)) > 1000 or len(text) / len(lines) > 100:
        return "lines too long"
    if len(_WORD.findall(text)) < 0.35 * len(text):
        return "data-like"
    return _parsed_reason(text)


def _parsed_reason(text: str) -> str | None:
    tree = parse(text)
    if tree is None:
        return "does not parse"
    nodes = literals = 0
    for node in ast.walk(tree):
        nodes += 1
        literals += isinstance(node, ast.Constant)
    return "data-like" if literals > 0.45 * nodes and literals > 200 else None
