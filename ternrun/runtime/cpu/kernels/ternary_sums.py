"""Accumulate a chunk's int16 sums: as int32 if a row has one scale, as float32 times its scale if blocks have scales.

An accumulator holds 32 rows in 128 bytes; scales have the same layout.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from ternrun.runtime.cpu.compile.jit import compiled
from ternrun.runtime.cpu.compile.lanes import constant, lane, shuffler, to_float, widen
from ternrun.runtime.cpu.compile.memory_access import load, load_scalar, store, store_scalar
from ternrun.runtime.cpu.compile.vectors import VecType, f32x16, i16x32, i32x16
from ternrun.runtime.cpu.compile.x86 import add_products

_low = shuffler(i16x32, tuple(range(16)), operands=1)
_high = shuffler(i16x32, tuple(range(16, 32)), operands=1)
_evens, _odds = (constant(i16x32, tuple((i + odd + 1) % 2 for i in range(32))) for odd in (0, 1))
_merge_low = shuffler(i32x16, tuple(i // 2 + 16 * (i % 2) for i in range(16)))
_merge_high = shuffler(i32x16, tuple(8 + i // 2 + 16 * (i % 2) for i in range(16)))


@compiled
def rows_flush(acc: int, sums: Any, scales: int, fresh: bool) -> None:
    """Add 32 int16 sums to int32: even rows, then odd rows. vpmaddwd by 1 and 0 widens them."""
    even, odd = add_products(sums, _evens()), add_products(sums, _odds())
    store(acc, even if fresh else load(i32x16, acc) + even)
    store(acc + 64, odd if fresh else load(i32x16, acc + 64) + odd)


@compiled
def rows_values(acc: int, scales: int) -> Any:
    """The 32 outputs of an accumulator that `rows_flush` filled, as two vectors."""
    even, odd = load(i32x16, acc), load(i32x16, acc + 64)
    low, high = to_float(f32x16, _merge_low(even, odd)), to_float(f32x16, _merge_high(even, odd))
    return low * load(f32x16, scales), high * load(f32x16, scales + 64)


@compiled
def blocks_flush(acc: int, sums: Any, scales: int, fresh: bool) -> None:
    """Add 32 int16 sums, each times its row's scale for this chunk, to float32."""
    low = to_float(f32x16, widen(i32x16, _low(sums))) * load(f32x16, scales)
    high = to_float(f32x16, widen(i32x16, _high(sums))) * load(f32x16, scales + 64)
    store(acc, low if fresh else load(f32x16, acc) + low)
    store(acc + 64, high if fresh else load(f32x16, acc + 64) + high)


@compiled
def blocks_values(acc: int, scales: int) -> Any:
    """The 32 outputs of an accumulator that `blocks_flush` filled, as two vectors."""
    return load(f32x16, acc), load(f32x16, acc + 64)


def emitter(vec: VecType) -> Callable[[Any, int, int, int], None]:
    """The function that stores (or adds) a vector of outputs. Lanes from `rows` on are not written."""
    lanes = vec.lanes

    @compiled
    def emit(value: Any, out: int, rows: int, add: int) -> None:
        """Store the first `rows` lanes to `out`, or add them."""
        if rows >= lanes:
            store(out, load(vec, out) + value if add else value)
            return
        for r in range(rows):
            at = out + 4 * r
            store_scalar(at, load_scalar(types.float32, at) + lane(value, r) if add else lane(value, r))

    return emit


emit = emitter(f32x16)
