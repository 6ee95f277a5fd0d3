"""mHC-lite: several residual streams, mixed by a doubly stochastic matrix (arXiv 2601.05732).

Rows of x hold `streams` vectors of `ld` floats. The table is (streams + 2, streams) float32: the mixing matrix, the
weights that read the streams for a sublayer, and the weights that write its result to them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from ternrun.runtime.cpu.compile.jit import compiled, share
from ternrun.runtime.cpu.compile.lanes import splat, zero
from ternrun.runtime.cpu.compile.memory_access import load, load_scalar, store
from ternrun.runtime.cpu.compile.vectors import f32x16

MAX_STREAMS = 4


@compiled
def _weight(table: int, i: int) -> Any:
    """Entry i of the table in all lanes."""
    return splat(f32x16, load_scalar(types.float32, table + 4 * i))


@compiled
def _spread(args: Any, tid: int, nt: int) -> int:
    """Copy the first stream to the others."""
    x, ld, streams = args.x, 4 * args.ld, args.streams
    first, last = share(load_scalar(types.int64, args.count), tid, nt)
    for t in range(first, last):
        row = x + ld * streams * t
        for i in range(0, ld, 64):
            for s in range(1, streams):
                store(row + ld * s + i, load(f32x16, row + i))
    return 0


@compiled
def _read(args: Any, tid: int, nt: int) -> int:
    """out[t] = sum over streams s of table[streams, s] * x[t, s]."""
    x, ld, streams, table, out = args.x, 4 * args.ld, args.streams, args.table, args.out
    first, last = share(load_scalar(types.int64, args.count), tid, nt)
    for t in range(first, last):
        for i in range(0, ld, 64):
            acc = zero(f32x16)
            for s in range(streams):
                acc = acc + _weight(table, streams * streams + s) * load(f32x16, x + ld * (streams * t + s) + i)
            store(out + ld * t + i, acc)
    return 0


@compiled
def _write(args: Any, tid: int, nt: int) -> int:
    """x[t, r] = sum over s of table[r, s] * x[t, s] + table[streams + 1, r] * y[t]."""
    x, ld, streams, table, y = args.x, 4 * args.ld, args.streams, args.table, args.y
    old = args.scratch + args.scratch_stride * tid
    first, last = share(load_scalar(types.int64, args.count), tid, nt)
    for t in range(first, last):
        row = x + ld * streams * t
        for i in range(0, ld, 64):
            result = load(f32x16, y + ld * t + i)
            for s in range(streams):
                store(old + 64 * s, load(f32x16, row + ld * s + i))
            for r in range(streams):
                acc = zero(f32x16)
                for s in range(streams):
                    acc = acc + _weight(table, streams * r + s) * load(f32x16, old + 64 * s)
                store(row + ld * r + i, acc + _weight(table, streams * (streams + 1) + r) * result)
    return 0


@compiled
def _mean(args: Any, tid: int, nt: int) -> int:
    """x[t, 0] = mean over s of x[t, s]."""
    x, ld, streams = args.x, 4 * args.ld, args.streams
    share_of_one = splat(f32x16, types.float32(1.0) / types.float32(streams))
    first, last = share(load_scalar(types.int64, args.count), tid, nt)
    for t in range(first, last):
        row = x + ld * streams * t
        for i in range(0, ld, 64):
            acc = zero(f32x16)
            for s in range(streams):
                acc = acc + load(f32x16, row + ld * s + i)
            store(row + i, acc * share_of_one)
    return 0


def build(entry: str) -> Callable[..., Any]:
    """Entries: spread, read, write, mean."""
    return {"spread": _spread, "read": _read, "write": _write, "mean": _mean}[entry]
