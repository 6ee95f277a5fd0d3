"""What people see: colour on a terminal only, plain text anywhere else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TextIO

BOLD, DIM, RED, GREEN = "1", "2", "31", "32"
CONTROLS = {c: "\N{REPLACEMENT CHARACTER}" for c in (*range(32), *range(127, 160)) if chr(c) not in "\t\n"}


def coloured(stream: TextIO) -> bool:
    """Whether colour is welcome there (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, code: str, stream: TextIO) -> str:
    """The text in a colour where the stream shows colours."""
    return f"\x1b[{code}m{text}\x1b[0m" if coloured(stream) else text


def safe(text: str) -> str:
    """The text without control characters: neither a model nor a file may drive the user's terminal."""
    return text.translate(CONTROLS)


def shown(text: str, stream: TextIO) -> str:
    """The text as it is written there: safe on a terminal; programs behind a pipe or file get it as it is."""
    return safe(text) if stream.isatty() else text


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns under their heads, each as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) for row in (head, *rows))
    return "\n".join(line.rstrip() for line in lines)
