"""A step as data: the list of kernel calls that every worker runs, built once for a model."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ternrun.runtime.cpu import layout
from ternrun.runtime.cpu.memory import address, aligned, round_up
from ternrun.runtime.cpu.objects import Kernels

Argument = int | float
ALWAYS, NEVER = 0, 2**62


class Records(NamedTuple):
    """A program as the team reads it; `base` is where its memory begins."""

    memory: NDArray[np.uint8]
    base: int
    calls: int


class Program:
    """Kernel calls in order, each with the fewest tokens of a step that need a barrier after it: ALWAYS, NEVER, or a
    number."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._calls: list[tuple[str, int, Sequence[Argument]]] = []

    def call(self, kernel: str, *args: Argument, barrier: int = ALWAYS) -> None:
        """Append a call; floats go as doubles."""
        if len(args) > layout.RECORD_ARGS:
            raise AssertionError(f"{kernel} takes too many arguments: {len(args)}")
        self._calls.append((kernel, barrier, args))
        self.names.append(kernel)

    def __add__(self, other: Program) -> Program:
        """The calls of both, in order."""
        both = Program()
        both.names, both._calls = self.names + other.names, self._calls + other._calls
        return both

    @property
    def kernels(self) -> set[str]:
        """Names of all kernels called."""
        return set(self.names)

    def __len__(self) -> int:
        return len(self._calls)

    def assemble(self, kernels: Kernels) -> Records:
        """With the addresses of the kernels, which must be there."""
        out = aligned(layout.RECORD * len(self._calls))
        for i, (name, barrier, args) in enumerate(self._calls):
            record = struct.pack(f"<{2 + len(args)}q", kernels[name], barrier, *words(args))
            out[layout.RECORD * i : layout.RECORD * i + len(record)] = np.frombuffer(record, np.uint8)
        return Records(out, address(out), len(self._calls))


def words(args: Sequence[Argument]) -> list[int]:
    """Arguments as a record holds them: integers, and of doubles the bits."""
    return [a if isinstance(a, int) else int(struct.unpack("<q", struct.pack("<d", a))[0]) for a in args]


class Scratch:
    """One private area for each thread, as large as the kernel that needs most; reserve first, then take the
    address."""

    def __init__(self, threads: int, nbytes: int) -> None:
        self.stride = round_up(nbytes, 4096) + 64  # the odd line keeps threads off each other's cache sets
        self._memory = aligned(self.stride * threads)
        self.base = int(self._memory.ctypes.data)
