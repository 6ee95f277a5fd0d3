"""Elementary functions of f32x16 vectors, and operations on rows that several kernels share."""

from __future__ import annotations

import math
from typing import Any

from numba import types

from ternrun.runtime.cpu.compile.arithmetic import fma, round_even, total, where_less
from ternrun.runtime.cpu.compile.jit import compiled
from ternrun.runtime.cpu.compile.lanes import reinterpret, splat, to_int, zero
from ternrun.runtime.cpu.compile.memory_access import load
from ternrun.runtime.cpu.compile.vectors import f32x16, i32x16

f32 = types.float32
LOG2E = 1.4426950408889634
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4  # Cody and Waite: LN2_HIGH has 9 bits, so n * LN2_HIGH is exact
TAYLOR = tuple(1.0 / math.factorial(n) for n in range(8))
LOWEST = -87.0  # below, exp returns 0: for masked scores (-inf), and to avoid subnormals


@compiled
def exp(x: Any) -> Any:
    """e**x to about 2 units in the last place; 0 below -87, e**88 above 88. NaN stays NaN."""
    high, low = splat(f32x16, 88.0), splat(f32x16, LOWEST)
    bounded = where_less(x, low, low, x)  # one instruction like `maximum`, which would drop NaN
    bounded = where_less(high, bounded, high, bounded)
    n = round_even(bounded * splat(f32x16, LOG2E))
    r = fma(n, splat(f32x16, -LN2_LOW), fma(n, splat(f32x16, -LN2_HIGH), bounded))
    p = splat(f32x16, TAYLOR[7])
    p = fma(p, r, splat(f32x16, TAYLOR[6]))
    p = fma(p, r, splat(f32x16, TAYLOR[5]))
    p = fma(p, r, splat(f32x16, TAYLOR[4]))
    p = fma(p, r, splat(f32x16, TAYLOR[3]))
    p = fma(p, r, splat(f32x16, TAYLOR[2]))
    p = fma(p, r, splat(f32x16, 1.0))
    p = fma(p, r, splat(f32x16, 1.0))
    scaled = reinterpret(f32x16, reinterpret(i32x16, p) + (to_int(i32x16, n) << 23))
    return where_less(x, low, zero(f32x16), scaled)


@compiled
def softcapped(x: Any, cap: Any) -> Any:
    """cap * tanh(x / cap); `cap` is a vector."""
    u, one, two = x / cap, splat(f32x16, 1.0), splat(f32x16, 2.0)
    return cap * (one - two / (exp(u + u) + one))


@compiled
def silu(x: Any) -> Any:
    """x * sigmoid(x)."""
    return x / (splat(f32x16, 1.0) + exp(zero(f32x16) - x))


@compiled
def gelu(x: Any) -> Any:
    """GELU with tanh (arXiv 1606.08415), as Gemma uses it: x * sigmoid(2 u), because (1 + tanh(u)) / 2 would cancel."""
    twice = splat(f32x16, 2 * 0.7978845608028654) * fma(splat(f32x16, 0.044715) * x * x, x, x)
    return x / (splat(f32x16, 1.0) + exp(zero(f32x16) - twice))


@compiled
def relu2(x: Any) -> Any:
    """max(x, 0)**2. NaN stays NaN. The squares can exceed float16."""
    positive = where_less(x, zero(f32x16), zero(f32x16), x)
    return positive * positive


@compiled
def inverse_rms(x: int, n: int, eps: Any) -> Any:
    """1 / sqrt(mean(x**2) + eps) of n floats at x, padded with zeros to a multiple of 16."""
    a, b, c, d = zero(f32x16), zero(f32x16), zero(f32x16), zero(f32x16)
    vectors = (n + 15) // 16
    for i in range(vectors // 4):
        at = x + 256 * i
        v = load(f32x16, at)
        a = fma(v, v, a)
        v = load(f32x16, at + 64)
        b = fma(v, v, b)
        v = load(f32x16, at + 128)
        c = fma(v, v, c)
        v = load(f32x16, at + 192)
        d = fma(v, v, d)
    for i in range(vectors // 4 * 4, vectors):
        v = load(f32x16, x + 64 * i)
        a = fma(v, v, a)
    mean = total((a + b) + (c + d)) / f32(n)
    return f32(1.0) / math.sqrt(mean + eps)


@compiled
def normalized(x: int, inverse: Any, weight: int, i: int) -> Any:
    """Vector i of x * inverse * weight; `weight` 0: no weight."""
    v = load(f32x16, x + 64 * i) * splat(f32x16, inverse)
    if weight:
        v = v * load(f32x16, weight + 64 * i)
    return v
