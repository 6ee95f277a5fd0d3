"""A step as data: the list of kernel calls that every worker runs, built once for a model."""

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
    """A program as the team reads it; `base` is where its memory begins."""

    memory: NDArray[np.uint8]
    base: int
    calls: int


class Program:
    """Kernel calls in order, each with the fewest tokens of a step that need a barrier after it: ALWAYS, NEVER, or a
    number."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._calls: list[tuple[str, int, list[int]]] = []

    def call(
        self, kernel: str, barrier: int = ALWAYS, records: Sequence[Mapping[str, Argument]] = (), /, **args: Argument
    ) -> None:
        """Append a call with the arguments, and the repeated records, that the kernel's signature names.

        Raises TypeError for arguments that the signature does not allow.
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

    def assemble(self, kernels: KernelCache) -> Records:
        """With the addresses of the kernels, which must be there."""
        out = aligned(layout.RECORD * len(self._calls))
        for i, (name, barrier, words) in enumerate(self._calls):
            record = struct.pack(f"<{2 + len(words)}q", kernels[name], barrier, *words)
            out[layout.RECORD * i : layout.RECORD * i + len(record)] = np.frombuffer(record, np.uint8)
        return Records(out, address(out), len(self._calls))


class Scratch:
    """One private area for each thread, as large as the kernel that needs most; reserve first, then take the
    address."""

    def __init__(self, threads: int, nbytes: int) -> None:
        self.stride = round_up(nbytes, 4096) + 64  # the odd line keeps threads off each other's cache sets
        self._memory = aligned(self.stride * threads)
        self.base = int(self._memory.ctypes.data)

    @property
    def arguments(self) -> dict[str, int]:
        """The arguments of a kernel that uses it."""
        return {"scratch": self.base, "scratch_stride": self.stride}
