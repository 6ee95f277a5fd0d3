"""Memory that kernels access by address: zeroed, aligned to cache lines, with room for a whole vector at the end."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

LINE = 64
SLACK = 512  # bytes past the end that vector loads may read
HUGE = 2 << 20  # bytes of a huge page
_MADV_COLLAPSE = 25  # madvise(2), since Linux 6.1


def round_up(n: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is at least n."""
    return (n + multiple - 1) // multiple * multiple


def aligned(nbytes: int) -> NDArray[np.uint8]:
    """Zeroed bytes aligned to a cache line. The system commits the pages of large arrays at the first write."""
    raw = np.zeros(nbytes + LINE + SLACK, np.uint8)
    start = -raw.ctypes.data % LINE
    return raw[start : start + nbytes + SLACK]


def small_pages(nbytes: int) -> NDArray[np.uint8]:
    """Like `aligned`, without numpy's advice to use huge pages, for memory that is filled while the user waits.

    Unless memory is untouched, finding huge pages takes the system longer than 512 faults for small ones.
    `collapse_huge_pages` makes the pages huge later.
    """
    if not hasattr(mmap, "MAP_PRIVATE"):
        return aligned(nbytes)
    return np.frombuffer(mmap.mmap(-1, nbytes + SLACK, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)


def collapse_huge_pages(arrays: Iterable[NDArray[np.uint8]]) -> None:
    """Ask Linux to copy small pages into huge ones, which are read a third faster; does nothing on other systems.

    Takes 0.1 to 1 s for 500 MB. Other threads may read and write the bytes during the call.
    """
    if sys.platform != "linux":
        return
    madvise = ctypes.CDLL(None).madvise
    for start, end in huge_page_ranges(arrays):
        # Linux before 6.1, or without free huge pages, returns an error and changes nothing.
        madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_COLLAPSE)


def huge_page_ranges(arrays: Iterable[NDArray[np.uint8]]) -> list[tuple[int, int]]:
    """The ranges [start, end) of whole huge pages within the arrays' pages; adjacent arrays are joined."""
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
    """The address of an array's first element. The caller keeps the array alive."""
    return int(array.ctypes.data)


def padded_vector(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """A float32 copy aligned to a cache line and padded with zeros to a multiple of 16."""
    out = aligned(4 * round_up(values.size, 16)).view(np.float32)
    out[: values.size] = values.ravel()
    return out
