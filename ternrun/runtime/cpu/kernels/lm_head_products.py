"""Products of the screening copy: sixteen rows of 8-bit codes and the int8 planes of x (vpdpbusd, AVX-512 VNNI).

`codes` is the address of a block of 16 rows, `n` the number of columns, `x` a row that `lm_head_screen.prepare` made.
"""

from __future__ import annotations

from typing import Any

from numba import types

from ternrun.runtime.cpu.compile.jit import compiled
from ternrun.runtime.cpu.compile.lanes import splat, zero
from ternrun.runtime.cpu.compile.memory_access import load, load_scalar, prefetch_far
from ternrun.runtime.cpu.compile.vectors import i32x16
from ternrun.runtime.cpu.compile.x86 import dot_bytes
from ternrun.runtime.cpu.layout import SCREEN_HEADER


@compiled
def planes(codes: int, n: int, x: int) -> Any:
    """codes x high and codes x low of one x: two i32x16 for sixteen rows. Two sums each hide the latency."""
    a, b, c, d = zero(i32x16), zero(i32x16), zero(i32x16), zero(i32x16)
    high, low = x + SCREEN_HEADER, x + SCREEN_HEADER + n
    for i in range(0, n, 8):
        w, v = load(i32x16, codes + 16 * i), load(i32x16, codes + 16 * i + 64)
        a = dot_bytes(a, w, splat(i32x16, load_scalar(types.int32, high + i)))
        b = dot_bytes(b, w, splat(i32x16, load_scalar(types.int32, low + i)))
        c = dot_bytes(c, v, splat(i32x16, load_scalar(types.int32, high + i + 4)))
        d = dot_bytes(d, v, splat(i32x16, load_scalar(types.int32, low + i + 4)))
    return a + c, b + d


@compiled
def planes4(codes: int, n: int, x: int, stride: int) -> Any:
    """The same for four x, `stride` bytes apart: four sums of the high planes, four of the low ones."""
    z = zero(i32x16)
    a, b, c, d, e, f, g, h = z, z, z, z, z, z, z, z
    high = x + SCREEN_HEADER
    for i in range(0, n, 4):
        w = load(i32x16, codes + 16 * i)
        a = dot_bytes(a, w, splat(i32x16, load_scalar(types.int32, high + i)))
        b = dot_bytes(b, w, splat(i32x16, load_scalar(types.int32, high + n + i)))
        c = dot_bytes(c, w, splat(i32x16, load_scalar(types.int32, high + stride + i)))
        d = dot_bytes(d, w, splat(i32x16, load_scalar(types.int32, high + stride + n + i)))
        e = dot_bytes(e, w, splat(i32x16, load_scalar(types.int32, high + 2 * stride + i)))
        f = dot_bytes(f, w, splat(i32x16, load_scalar(types.int32, high + 2 * stride + n + i)))
        g = dot_bytes(g, w, splat(i32x16, load_scalar(types.int32, high + 3 * stride + i)))
        h = dot_bytes(h, w, splat(i32x16, load_scalar(types.int32, high + 3 * stride + n + i)))
    return (a, c, e, g), (b, d, f, h)


@compiled
def _four_inputs(here: Any, there: Any, codes: int, more: int, high: int, stride: int) -> Any:
    """Add the products of four columns of four x to the sums of two blocks of sixteen rows."""
    w, v = load(i32x16, codes), load(i32x16, more)
    p, q = splat(i32x16, load_scalar(types.int32, high)), splat(i32x16, load_scalar(types.int32, high + stride))
    r, s = (
        splat(i32x16, load_scalar(types.int32, high + 2 * stride)),
        splat(i32x16, load_scalar(types.int32, high + 3 * stride)),
    )
    return (
        (dot_bytes(here[0], w, p), dot_bytes(here[1], w, q), dot_bytes(here[2], w, r), dot_bytes(here[3], w, s)),
        (dot_bytes(there[0], v, p), dot_bytes(there[1], v, q), dot_bytes(there[2], v, r), dot_bytes(there[3], v, s)),
    )


@compiled
def high4(codes: int, more: int, n: int, x: int, stride: int, ahead: int, step: int) -> Any:
    """codes x high of four x for two blocks of sixteen rows: four sums for each block.

    Prefetches the next blocks from `ahead` on, `step` bytes with every four columns. A round takes eight columns,
    because LLVM does not unroll this loop by itself.
    """
    z = zero(i32x16)
    here, there = (z, z, z, z), (z, z, z, z)
    high = x + SCREEN_HEADER
    for i in range(0, n, 8):
        prefetch_far(ahead)
        prefetch_far(ahead + 64)
        here, there = _four_inputs(here, there, codes + 16 * i, more + 16 * i, high + i, stride)
        prefetch_far(ahead + step)
        prefetch_far(ahead + step + 64)
        here, there = _four_inputs(here, there, codes + 16 * i + 64, more + 16 * i + 64, high + i + 4, stride)
        ahead += 2 * step
    return here, there
