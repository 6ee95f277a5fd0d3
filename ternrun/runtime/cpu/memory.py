"""Memory that kernels reach by address: zeroed, aligned to cache lines, with room behind for a whole vector."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LINE = 64
SLACK = 512  # vector loads may run this far past the end
PIECE = 128 << 20  # bytes of an arena's pieces


def round_up(n: int, multiple: int) -> int:
    """The next multiple at or above n."""
    return (n + multiple - 1) // multiple * multiple


def aligned(nbytes: int) -> NDArray[np.uint8]:
    """Zeroed bytes on a cache line; the system gives large ones page by page, when they are first written."""
    raw = np.zeros(nbytes + LINE + SLACK, np.uint8)
    start = -raw.ctypes.data % LINE
    return raw[start : start + nbytes + SLACK]


class Arena:
    """Bytes as of `aligned`, cut one after another from a few large pieces.

    The system backs large pieces with huge pages (numpy asks it to): one page fault in place of 512.
    """

    def __init__(self) -> None:
        self._rest = np.empty(0, np.uint8)

    def take(self, nbytes: int) -> NDArray[np.uint8]:
        """The next `nbytes`, zeroed, with room behind."""
        size = round_up(nbytes + SLACK, LINE)
        if size > self._rest.size:
            self._rest = aligned(max(size, PIECE))  # memory that is never touched costs nothing
        taken, self._rest = self._rest[: nbytes + SLACK], self._rest[size:]
        return taken


def address(array: NDArray[Any]) -> int:
    """Where an array begins. The caller keeps the array alive."""
    return int(array.ctypes.data)


def padded_vector(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """A float32 copy on a cache line with zeros behind."""
    out = aligned(4 * round_up(values.size, 16)).view(np.float32)
    out[: values.size] = values.ravel()
    return out
