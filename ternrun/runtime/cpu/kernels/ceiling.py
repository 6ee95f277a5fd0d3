"""The CPU's peak rates: one instruction repeated in registers, or memory read in order.

`ternrun bench` compares the real kernels with these rates. Each operation of a chain depends on the previous one, so
the compiler cannot remove any; eight chains hide the instruction's latency.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ternrun.runtime.cpu.compile.arithmetic import fma
from ternrun.runtime.cpu.compile.isa import build_target
from ternrun.runtime.cpu.compile.jit import compiled, share
from ternrun.runtime.cpu.compile.lanes import reinterpret, splat
from ternrun.runtime.cpu.compile.memory_access import load, store
from ternrun.runtime.cpu.compile.vectors import VecType, f32x16, i8x32, i16x16, i16x32, i32x16
from ternrun.runtime.cpu.compile.x86 import cycles, dot_bytes, lookup, multiply_add_bytes

CHAINS = 8
floats = f32x16 if build_target() == "avx512" else VecType("f", 32, 8)


@compiled
def _lookup(value: Any, other: Any) -> Any:
    """One table lookup (vpermw)."""
    return lookup(value, other)


@compiled
def _dot(value: Any, other: Any) -> Any:
    """One byte dot product (vpdpbusd)."""
    return dot_bytes(value, value, other)


@compiled
def _bytes(value: Any, other: Any) -> Any:
    """One byte multiply-add (vpmaddubsw)."""
    return multiply_add_bytes(reinterpret(i8x32, value), reinterpret(i8x32, other))


@compiled
def _floats(value: Any, other: Any) -> Any:
    """One fused multiply-add (vfmadd)."""
    return fma(value, other, other)


#: entry -> (the operation of a chain, its vector type)
OPERATIONS = {
    "lookup": (_lookup, i16x32),
    "dot": (_dot, i32x16),
    "bytes": (_bytes, i16x16),
    "floats": (_floats, floats),
}


def _chains(operation: Any, vec: Any) -> Callable[..., Any]:
    """A kernel that runs CHAINS chains of an operation."""

    @compiled
    def chains(args: Any, tid: int, nt: int) -> int:
        """Run CHAINS * rounds operations in every thread, on its 64 bytes of `cells`."""
        at = args.cells + 64 * tid
        v = load(vec, at)
        s = (v, v, v, v, v, v, v, v)
        for _ in range(args.rounds):
            s = (
                operation(s[0], v), operation(s[1], v), operation(s[2], v), operation(s[3], v),
                operation(s[4], v), operation(s[5], v), operation(s[6], v), operation(s[7], v),
            )  # fmt: skip
        store(at, s[0] + s[1] + s[2] + s[3] + s[4] + s[5] + s[6] + s[7])
        return 0

    return chains


@compiled
def _read(args: Any, tid: int, nt: int) -> int:
    """Read memory once, each thread one part; writes 64 bytes a thread to `cells`."""
    first, last = share(args.nbytes // 256, tid, nt)
    z = splat(i32x16, 0)
    a, b, c, d = z, z, z, z
    for at in range(args.source + 256 * first, args.source + 256 * last, 256):
        a = a ^ load(i32x16, at)
        b = b ^ load(i32x16, at + 64)
        c = c ^ load(i32x16, at + 128)
        d = d ^ load(i32x16, at + 192)
    store(args.cells + 64 * tid, (a ^ b) ^ (c ^ d))
    return 0


@compiled
def _clock(args: Any, tid: int, nt: int) -> int:
    """The counter of profiles (`ThreadPool.run`)."""
    return cycles()  # type: ignore[no-any-return]


def build(entry: str) -> Callable[..., Any]:
    """Entries: read, clock, and those of OPERATIONS."""
    if entry in OPERATIONS:
        return _chains(*OPERATIONS[entry])
    return {"read": _read, "clock": _clock}[entry]
