"""What people see: colour and progress on a terminal only, plain text anywhere else."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Self, TextIO

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


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


class Progress:
    """One line on stderr that shows how far long work has come; silent where stderr is no terminal."""

    def __init__(self, label: str, unit: str = "") -> None:
        self.label, self.unit = label, unit
        self.start = time.perf_counter()
        self.shown = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def update(self, done: int, total: int, note: str = "") -> None:
        """Show `done` of `total`, at most ten times a second."""
        now = time.perf_counter()
        if not sys.stderr.isatty() or now - self.shown < 0.1:
            return
        self.shown = now
        share = done / max(total, 1)
        left = (now - self.start) * (1 / share - 1) if share else 0.0
        bar = ("█" * round(20 * share)).ljust(20, "·")
        text = f"{self.label} {bar} {done:,}/{total:,} {self.unit} {note}".rstrip()
        sys.stderr.write(f"\r\x1b[K{text}, {left:.0f} s left")
        sys.stderr.flush()
