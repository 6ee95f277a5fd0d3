"""Progress of long work, for people who watch a terminal."""

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
    """The number of characters that a line on standard error may have."""
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):  # not one that the system knows of
        columns = 0
    return (columns or 80) - 1


LONG = 5.0  # seconds after which work is told also where nobody can watch it
ENOUGH = 0.2, 3.0  # the share, and the seconds, after which the time that is left can be estimated


class Progress:
    """One line on standard error that shows the progress of long work.

    Without a terminal, one line is written when announced (`told`) work begins or other work turns out to be long, and
    one when it ends.
    """

    def __init__(self, label: str, unit: str = "", *, told: bool = False) -> None:
        self.label, self.unit, self.told = label, unit, told
        self.start = time.perf_counter()
        self.shown = 0.0  # when; 0 before the first time
        self.done = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if not self.shown:
            return
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")
        elif error is None:
            spent = time.perf_counter() - self.start
            sys.stderr.write(f"ternrun: {self.label}: {self.done:,} {self.unit} in {spent:.0f} s\n")
        sys.stderr.flush()

    def update(self, done: int, total: int, note: str = "") -> None:
        """Show `done` of `total` (0: not known), at most ten times a second."""
        now = time.perf_counter()
        self.done = done
        if sys.stderr.isatty():
            if now - self.shown >= 0.1:
                self.shown = now
                sys.stderr.write(f"\r\x1b[K{self.line(done, total, note)}")
                sys.stderr.flush()
        elif not self.shown and (self.told or now - self.start >= LONG):
            self.shown = now
            sys.stderr.write(f"ternrun: {self.label} ...\n")
            sys.stderr.flush()

    def line(self, done: int, total: int, note: str) -> str:
        """The part of a line that fits the terminal."""
        share, spent = done / total if total else 0.0, time.perf_counter() - self.start
        count = f"{done:,}/{total:,} {self.unit} {note}" if total else f"{done:,} {self.unit} {note}"
        count = count.rstrip()
        if share >= ENOUGH[0] and spent >= ENOUGH[1]:
            count += f", {spent * (1 / share - 1):.0f} s left"
        drawn = f"{bar(share)} {count}" if total else count
        lines = (f"{self.label} {drawn}", f"{self.label} {count}", count)
        columns = room()  # a line that wraps could not be wiped
        return next((line for line in lines if len(line) <= columns), count[:columns])
