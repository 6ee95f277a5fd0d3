"""Repacking of weights at load, in portions: the file's pages are released after each portion is read.

Without the release, the whole file would count as this process's memory in addition to the repacked weights. Released
pages stay in the page cache.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ternrun.runtime.cpu.memory import address, round_up
from ternrun.runtime.cpu.program.program import NEVER, Program
from ternrun.runtime.cpu.signatures import Argument

PORTION = 64 << 20  # bytes read between releases


class Packing:
    """Kernel calls that fill packed weights, in any order."""

    def __init__(self) -> None:
        self._portions: list[tuple[Program, list[NDArray[np.uint8]]]] = []
        self._size = PORTION

    def call(self, kernel: str, reads: NDArray[np.uint8], /, **args: Argument) -> None:
        """Append a call that reads `reads`, bytes of a weight file."""
        if self._size >= PORTION:
            self._portions.append((Program(), []))
            self._size = 0
        program, sources = self._portions[-1]
        program.call(kernel, NEVER, **args)
        sources.append(reads)
        self._size += reads.nbytes

    @property
    def kernels(self) -> set[str]:
        """The names of all kernels called."""
        return set().union(*(program.kernels for program, _ in self._portions))

    def run(self, run: Callable[[Program], None]) -> None:
        """Run all calls."""
        for program, sources in self._portions:
            run(program)
            for source in sources:
                release(source)


def release(data: NDArray[np.uint8]) -> None:
    """Release the pages of a read-only file map. Other memory is left unchanged."""
    base: Any = data
    while isinstance(base, np.ndarray):
        base = base.base
    owner = base.obj if isinstance(base, memoryview) else base
    if not isinstance(owner, mmap.mmap) or not hasattr(owner, "madvise") or not memoryview(owner).readonly:
        return
    offset = address(data) - address(np.frombuffer(owner, np.uint8))
    start, end = round_up(offset, mmap.PAGESIZE), (offset + data.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if start < end:
        owner.madvise(mmap.MADV_DONTNEED, start, end - start)
