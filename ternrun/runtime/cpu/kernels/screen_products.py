"""Products of the screening copy: sixteen rows of codes against the int8 planes of x (AVX-512 VNNI).

`codes` is a block of 16 rows, `n` the inputs, `x` a row that `screen.prepare` made.
"""

from __future__ import annotations

from typing import Any

from numba import types

from ternrun.runtime.cpu.jit import compiled
from ternrun.runtime.cpu.layout import SCREEN_HEADER
from ternrun.runtime.cpu.simd import get, i32x16, load, prefetch_far, splat, zero
from ternrun.runtime.cpu.x86 import dot_bytes


@compiled
def planes(codes: int, n: int, x: int) -> Any:
    """Sixteen rows against both planes of one x: codes times high, codes times low. Two sums each hide the latency."""
    a, b, c, d = zero(i32x16), zero(i32x16), zero(i32x16), zero(i32x16)
    high, low = x + SCREEN_HEADER, x + SCREEN_HEADER + n
    for i in range(0, n, 8):
        w, v = load(i32x16, codes + 16 * i), load(i32x16, codes + 16 * i + 64)
        a = dot_bytes(a, w, splat(i32x16, get(types.int32, high + i)))
        b = dot_bytes(b, w, splat(i32x16, get(types.int32, low + i)))
        c = dot_bytes(c, v, splat(i32x16, get(types.int32, high + i + 4)))
        d = dot_bytes(d, v, splat(i32x16, get(types.int32, low + i + 4)))
    return a + c, b + d


@compiled
def planes4(codes: int, n: int, x: int, stride: int) -> Any:
    """The same for four x, `stride` bytes apart: four sums of the high planes, four of the low ones."""
    z = zero(i32x16)
    a, b, c, d, e, f, g, h = z, z, z, z, z, z, z, z
    high = x + SCREEN_HEADER
    for i in range(0, n, 4):
        w = load(i32x16, codes + 16 * i)
        a = dot_bytes(a, w, splat(i32x16, get(types.int32, high + i)))
        b = dot_bytes(b, w, splat(i32x16, get(types.int32, high + n + i)))
        c = dot_bytes(c, w, splat(i32x16, get(types.int32, high + stride + i)))
        d = dot_bytes(d, w, splat(i32x16, get(types.int32, high + stride + n + i)))
        e = dot_bytes(e, w, splat(i32x16, get(types.int32, high + 2 * stride + i)))
        f = dot_bytes(f, w, splat(i32x16, get(types.int32, high + 2 * stride + n + i)))
        g = dot_bytes(g, w, splat(i32x16, get(types.int32, high + 3 * stride + i)))
        h = dot_bytes(h, w, splat(i32x16, get(types.int32, high + 3 * stride + n + i)))
    return (a, c, e, g), (b, d, f, h)


@compiled
def high4(codes: int, more: int, n: int, x: int, stride: int, ahead: int, step: int) -> Any:
    """Two blocks of sixteen rows against the high planes of four x: four sums for each block.

    Meanwhile the next blocks are asked for from `ahead` on, `step` bytes with every four inputs.
    """
    z = zero(i32x16)
    a, b, c, d, e, f, g, h = z, z, z, z, z, z, z, z
    high = x + SCREEN_HEADER
    for i in range(0, n, 4):
        w, v = load(i32x16, codes + 16 * i), load(i32x16, more + 16 * i)
        prefetch_far(ahead)
        prefetch_far(ahead + 64)
        ahead += step
        q = splat(i32x16, get(types.int32, high + i))
        a, e = dot_bytes(a, w, q), dot_bytes(e, v, q)
        q = splat(i32x16, get(types.int32, high + stride + i))
        b, f = dot_bytes(b, w, q), dot_bytes(f, v, q)
        q = splat(i32x16, get(types.int32, high + 2 * stride + i))
        c, g = dot_bytes(c, w, q), dot_bytes(g, v, q)
        q = splat(i32x16, get(types.int32, high + 3 * stride + i))
        d, h = dot_bytes(d, w, q), dot_bytes(h, v, q)
    return (a, b, c, d), (e, f, g, h)
