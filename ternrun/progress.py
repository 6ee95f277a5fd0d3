"""How far long work has come, for people who watch a terminal."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Self


def bar(share: float) -> str:
    """A bar of 20 characters, filled by `share` (0 to 1)."""
    return ("█" * round(20 * share)).ljust(20, "·")


def room() -> int:
    """Characters that a line on stderr may have."""
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):  # not one that the system knows of
        columns = 0
    return (columns or 80) - 1


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
        count = f"{done:,}/{total:,} {self.unit} {note}".rstrip() + f", {left:.0f} s left"
        lines = (f"{self.label} {bar(share)} {count}", f"{self.label} {count}", count)
        columns = room()  # a line that wraps could not be wiped
        fitting = next((line for line in lines if len(line) <= columns), count[:columns])
        sys.stderr.write(f"\r\x1b[K{fitting}")
        sys.stderr.flush()
