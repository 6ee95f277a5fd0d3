"""A model step as data: the list of kernel calls that every thread runs, built once for a model."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ternrun.runtime.cpu import layout
from ternrun.runtime.cpu.compile.kernel_cache import KernelCache
from ternrun.runtime.cpu.memory import address, aligned, round_up
from ternrun.runtime.cpu.signatures import Argument, signature_of

ALWAYS, NEVER = 0, 2**62


class Records(NamedTuple):
    """An assembled program in the format that the thread pool reads; `base` is the address of `memory`."""

    memory: NDArray[np.uint8]
    base: int
    calls: int


class Program:
    """Kernel calls in order.

    Each call has a barrier: the least number of tokens of a step that needs a barrier after the call, ALWAYS or NEVER.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self._calls: list[tuple[str, int, list[int]]] = []

    def call(
        self, kernel: str, barrier: int = ALWAYS, records: Sequence[Mapping[str, Argument]] = (), /, **args: Argument
    ) -> None:
        """Append a call with keyword arguments and repeated records as the kernel's signature declares them.

        Raises TypeError for arguments that do not match the signature.
        """
        signature = signature_of(kernel)
        if signature is None:
            raise TypeError(f"{kernel} has no signature")
        words = signature.pack(kernel, args, records)
        if len(words) > layout.RECORD_ARGS:
            raise TypeError(f"{kernel} takes too many arguments: {len(words)}")
        self._calls.append((kernel, barrier, words))
        self.names.append(kernel)

    def __add__(self, other: Program) -> Program:
        """A program with the calls of both, in order."""
        both = Program()
        both.names, both._calls = self.names + other.names, self._calls + other._calls
        return both

    @property
    def kernels(self) -> set[str]:
        """The names of all kernels called."""
        return set(self.names)

    def __len__(self) -> int:
        return len(self._calls)

    def assemble(self, kernels: KernelCache) -> Records:
        """Encode the calls with the addresses of the kernels, which must be loaded."""
        out = aligned(layout.RECORD * len(self._calls))
        for i, (name, barrier, words) in enumerate(self._calls):
            record = struct.pack(f"<{2 + len(words)}q", kernels[name], barrier, *words)
            out[layout.RECORD * i : layout.RECORD * i + len(record)] = np.frombuffer(record, np.uint8)
        return Records(out, address(out), len(self._calls))


class Scratch:
    """One scratch area of at least `nbytes` bytes for each thread."""

    def __init__(self, threads: int, nbytes: int) -> None:
        self.stride = round_up(nbytes, 4096) + 64  # an odd number of lines: different cache sets for threads
        self._memory = aligned(self.stride * threads)
        self.base = int(self._memory.ctypes.data)

    @property
    def arguments(self) -> dict[str, int]:
        """The keyword arguments of a kernel that uses scratch memory."""
        return {"scratch": self.base, "scratch_stride": self.stride}
