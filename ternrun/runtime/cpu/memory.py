"""Memory that kernels reach by address: zeroed, aligned to cache lines, with room behind for a whole vector."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

LINE = 64
SLACK = 512  # vector loads may run this far past the end
HUGE = 2 << 20  # bytes of a huge page
_MADV_COLLAPSE = 25  # madvise(2), since Linux 6.1


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

    Finding room for huge pages takes the system longer than 512 faults for small ones, unless its memory is untouched;
    `gather` makes them huge later.
    """
    if not hasattr(mmap, "MAP_PRIVATE"):
        return aligned(nbytes)
    return np.frombuffer(mmap.mmap(-1, nbytes + SLACK, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)


def collapse_huge_pages(arrays: Iterable[NDArray[np.uint8]]) -> None:
    """Have Linux copy small pages together into huge ones, which are read a third faster; elsewhere nothing happens.

    It takes 0.1 to 1 s for 500 MB. Others may read and write the bytes meanwhile.
    """
    if sys.platform != "linux":
        return
    madvise = ctypes.CDLL(None).madvise
    for start, end in huge_page_ranges(arrays):
        # a kernel that knows no such advice, or finds no room, leaves all as it is
        madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_COLLAPSE)


def huge_page_ranges(arrays: Iterable[NDArray[np.uint8]]) -> list[tuple[int, int]]:
    """The huge pages that lie within the arrays' pages, neighbouring arrays taken as one: [start, end) of each run."""
    runs: list[tuple[int, int]] = []
    for array in sorted(arrays, key=address):
        start = address(array) // mmap.PAGESIZE * mmap.PAGESIZE
        end = round_up(address(array) + array.nbytes, mmap.PAGESIZE)
        if runs and start <= runs[-1][1]:
            start = runs.pop()[0]
        runs.append((start, end))
    inner = [(round_up(start, HUGE), end // HUGE * HUGE) for start, end in runs]
    return [(start, end) for start, end in inner if start < end]


def address(array: NDArray[Any]) -> int:
    """Where an array begins. The caller keeps the array alive."""
    return int(array.ctypes.data)


def padded_vector(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """A float32 copy on a cache line with zeros behind."""
    out = aligned(4 * round_up(values.size, 16)).view(np.float32)
    out[: values.size] = values.ravel()
    return out
