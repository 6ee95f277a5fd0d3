"""What this machine can do at best, measured: memory bandwidth, and instructions a second (`kernels/ceiling.py`)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from ternrun.bench.machine import l3_bytes, memory_bytes
from ternrun.bench.timing import Rate, seconds_of
from ternrun.runtime.backend.protocol import ProgressCallback
from ternrun.runtime.cpu.compile.isa import Isa
from ternrun.runtime.cpu.compile.kernel_cache import CompileProgress, KernelCache
from ternrun.runtime.cpu.memory import address, aligned
from ternrun.runtime.cpu.program.program import Program
from ternrun.runtime.cpu.program.thread_pool import ThreadPool

CHAINS = 8  # as in kernels/ceiling.py, which must not be imported: it needs numba
ROUNDS = 1 << 17
RUNS, READS = 25, 9
WINDOWS, PAUSE = 8, 0.02  # of RUNS, and seconds between them, where threads were not undisturbed at once
ALONE = 0.9  # share of one thread's rate that each of several has when nobody disturbs them
BUFFER = 512 << 20  # bytes read for the bandwidth of memory, or four times the last cache
STATE = 64

#: instruction: (multiply-adds that one vector of it stands for, what it is for)
INSTRUCTIONS = {
    "lookup": (96, "vpermw: 32 rows by 3 ternary weights"),
    "dot": (64, "vpdpbusd on 64 bytes, or what stands for it"),
    "bytes": (32, "vpmaddubsw on 32 bytes, or what stands for it"),
    "floats": (0, "fused multiply-add of float32"),  # 16 or 8, as the vectors are
}

TERNARY = {"avx512": "lookup", "avxvnni": "dot"}  # that ternary products rest on; elsewhere "bytes"


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Best cases by thread count: bytes read a second; operations (2 x multiply-adds) a second of each instruction."""

    read: dict[int, Rate]
    operations: dict[str, dict[int, float]]
    ternary: str = "bytes"  # the instruction that ternary products rest on here

    @property
    def json(self) -> dict[str, Any]:
        """As it stands in the JSON object."""
        read = {str(n): rate.json for n, rate in self.read.items()}
        operations = {name: {str(n): v for n, v in found.items()} for name, found in self.operations.items()}
        return {"read_bytes_per_s": read, "ceiling_ops_per_s": operations}


class Probe:
    """Measures with up to `threads` threads; keeps a large buffer while it lives."""

    def __init__(self, isa: Isa, threads: int, progress: ProgressCallback | None = None) -> None:
        self.isa, self.threads = isa, threads
        names = [*instructions(isa), "read", "clock"]
        self._kernels = KernelCache(isa, CompileProgress(progress))
        self._kernels.require([f"ceiling.{name}" for name in names])
        self._size = min(max(BUFFER, 4 * l3_bytes()), (memory_bytes() or BUFFER) // 4) // 4096 * 4096
        self._buffer = aligned(self._size)
        self._buffer[:] = 1  # untouched pages are all one page, in cache
        self._cells = aligned(64 * threads)
        self._state = aligned(STATE)

    def read(self, threads: int, runs: int = READS) -> Rate:
        """Bytes a second out of memory."""
        return Rate.of(self._size, self._run("read", threads, runs, source=address(self._buffer), nbytes=self._size))

    def operations(self, name: str, threads: int, enough: float = 0.0) -> float:
        """Operations a second of one instruction; the best run, since it is a ceiling.

        Less than `enough` is measured again, up to WINDOWS times: on a busy machine all threads rarely run at once.
        """
        macs = INSTRUCTIONS[name][0] or (16 if self.isa.name == "avx512" else 8)
        best = 0.0
        for window in range(WINDOWS):
            time.sleep(PAUSE if window else 0.0)
            best = max(best, 2 * macs * CHAINS * ROUNDS * threads / min(self._run(name, threads, RUNS, rounds=ROUNDS)))
            if best >= enough:
                break
        return best

    def ceilings(self) -> Ceilings:
        """All of them."""
        counts = sorted({1, *(2**i for i in range(10) if 2**i < self.threads), self.threads})
        operations = {}
        for name in instructions(self.isa):
            one = self.operations(name, 1)
            operations[name] = {1: one}
            if self.threads > 1:
                operations[name][self.threads] = self.operations(name, self.threads, ALONE * self.threads * one)
        read = {n: self.read(n) for n in counts}
        return Ceilings(read, operations, TERNARY.get(self.isa.name, "bytes"))

    def cycles_per_second(self, seconds: float = 0.05) -> float:
        """Rate of the counter that profiles are in."""
        clock = self._kernels.function("ceiling.clock")
        start, first = time.perf_counter(), clock(0, 0, 1)
        time.sleep(seconds)
        return (clock(0, 0, 1) - first) / (time.perf_counter() - start)

    def _run(self, name: str, threads: int, runs: int, **args: int) -> list[float]:
        program = Program()
        program.call(f"ceiling.{name}", cells=address(self._cells), **args)
        records, pool = program.assemble(self._kernels), ThreadPool(self._kernels, threads)
        try:
            return seconds_of(lambda: pool.run(records, address(self._state)), runs)
        finally:
            pool.close()


def instructions(isa: Isa) -> list[str]:
    """Those of INSTRUCTIONS that this instruction set has."""
    lacks = {"lookup": isa.name != "avx512", "dot": not isa.has_dot_bytes}
    return [name for name in INSTRUCTIONS if not lacks.get(name)]


def count_cell(tokens: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Memory that holds a number of rows, as kernels read it."""
    cell = aligned(STATE).view(np.int64)
    cell[0] = tokens
    return cell
