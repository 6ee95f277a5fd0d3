"""Limits on memory and work: a file of 50 bytes can name a tensor of a billion elements, or an endless loop.

An operator whose result can be larger than its inputs calls `check_tensor_size` first. A run counts its operators and
the bytes that it holds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from math import prod

from ternrun.errors import LoadError


def _memory() -> int:
    """The size of this machine's memory in bytes; 4 GiB if the system does not report it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 1 << 32


MEMORY = _memory()
MAX_STEPS = 2_000_000  # operators of one run, including those of loops and functions
MAX_WORK = 1 << 42  # multiplications of one operator, which take minutes
BIG = 1 << 20  # bytes of the smallest tensor that is counted
_LARGEST: ContextVar[int] = ContextVar("largest", default=MEMORY // 8)  # bytes of one tensor
_MOST_WORK: ContextVar[int] = ContextVar("most_work", default=MAX_WORK)  # multiplications of one operator


def check_tensor_size(shape: Sequence[int], itemsize: int = 4) -> None:
    """Raises LoadError for a result of this shape that is larger than any one tensor may be."""
    if min(shape, default=0) < 0:
        raise LoadError(f"asks for a tensor of the impossible shape {str([int(n) for n in shape])[:80]}")
    nbytes = prod(int(n) for n in shape) * itemsize
    if nbytes > _LARGEST.get():
        raise LoadError(
            f"asks for a tensor of shape {str([int(n) for n in shape])[:80]}, which takes {nbytes} bytes; "
            f"the most here is {_LARGEST.get()}"
        )


def check_work(multiplications: int) -> None:
    """Raises LoadError for an operator that would take minutes."""
    if multiplications > _MOST_WORK.get():
        raise LoadError(f"asks for {multiplications} multiplications; the most here is {_MOST_WORK.get()}")


@contextmanager
def limited_to(nbytes: int, multiplications: int = MAX_WORK) -> Iterator[None]:
    """Within the context, one tensor takes at most `nbytes` and one operator at most `multiplications`."""
    largest = _LARGEST.set(min(nbytes, _LARGEST.get()))
    most_work = _MOST_WORK.set(min(multiplications, _MOST_WORK.get()))
    try:
        yield
    finally:
        _LARGEST.reset(largest)
        _MOST_WORK.reset(most_work)


class Budget:
    """The operators and bytes that remain for one run."""

    def __init__(self, steps: int, nbytes: int = MEMORY // 2) -> None:
        self._steps, self._most, self._held = steps, nbytes, 0

    def spend(self, steps: int) -> None:
        """Count operators before they run. Raises LoadError when none remain."""
        self._steps -= steps
        if self._steps < 0:
            raise LoadError("the graph runs too many operators: a loop does not end, or runs too long")

    def hold(self, nbytes: int) -> None:
        """Count the bytes of a result; a negative number releases bytes. Raises LoadError when too many are held."""
        self._held += nbytes
        if self._held > self._most:
            raise LoadError(f"the graph holds more than {self._most} bytes of results, half of this machine's memory")

    def release(self, nbytes: int) -> None:
        """Release the bytes that a plan holds at its end."""
        self._held -= nbytes
