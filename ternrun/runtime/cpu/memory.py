"""Memory that kernels reach by address: zeroed, aligned to cache lines, with room behind for a whole vector."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

LINE = 64
SLACK = 512  # vector loads may run this far past the end


def round_up(n: int, multiple: int) -> int:
    """The next multiple at or above n."""
    return (n + multiple - 1) // multiple * multiple


def aligned(nbytes: int) -> NDArray[np.uint8]:
    """Zeroed bytes on a cache line; the system gives large ones page by page, when they are first written."""
    raw = np.zeros(nbytes + LINE + SLACK, np.uint8)
    start = -raw.ctypes.data % LINE
    return raw[start : start + nbytes + SLACK]


def small_pages(nbytes: int) -> NDArray[np.uint8]:
    """Bytes as of `aligned`, for what is filled while somebody waits: without numpy's advice to use huge pages.

    Finding room for huge pages takes the system longer than 512 faults for small ones, unless its memory is untouched.
    """
    if not hasattr(mmap, "MAP_PRIVATE"):
        return aligned(nbytes)
    return np.frombuffer(mmap.mmap(-1, nbytes + SLACK, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)


def address(array: NDArray[Any]) -> int:
    """Where an array begins. The caller keeps the array alive."""
    return int(array.ctypes.data)


def padded_vector(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """A float32 copy on a cache line with zeros behind."""
    out = aligned(4 * round_up(values.size, 16)).view(np.float32)
    out[: values.size] = values.ravel()
    return out
