"""Elementary functions of f32x16 vectors, and the row operations that several kernels share."""

from __future__ import annotations

import math
from typing import Any

from numba import types

from ternrun.runtime.cpu.compile.jit import compiled
from ternrun.runtime.cpu.compile.simd import (
    f32x16,
    fma,
    i32x16,
    load,
    reinterpret,
    round_even,
    splat,
    to_int,
    total,
    where_less,
    zero,
)  # fmt: skip

f32 = types.float32
LOG2E = 1.4426950408889634
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4  # Cody and Waite: high has 9 bits, so n * high is exact
TAYLOR = tuple(1.0 / math.factorial(n) for n in range(8))
LOWEST = -87.0  # below, exp is 0: keeps masked scores (-inf) and subnormals out


@compiled
def exp(x: Any) -> Any:
    """e**x to about 2 units in the last place; 0 below -87, capped at e**88. NaN stays NaN."""
    high, low = splat(f32x16, 88.0), splat(f32x16, LOWEST)
    bounded = where_less(x, low, low, x)  # one instruction, as `maximum` is, which would make a number of NaN
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
def silu(x: Any) -> Any:
    """x * sigmoid(x)."""
    return x / (splat(f32x16, 1.0) + exp(zero(f32x16) - x))


@compiled
def gelu(x: Any) -> Any:
    """GELU, tanh form (arXiv 1606.08415), as Gemma uses it: (1 + tanh(u)) / 2 = sigmoid(2 u), which cancels nothing."""
    twice = splat(f32x16, 2 * 0.7978845608028654) * fma(splat(f32x16, 0.044715) * x * x, x, x)
    return x / (splat(f32x16, 1.0) + exp(zero(f32x16) - twice))


@compiled
def relu2(x: Any) -> Any:
    """max(x, 0) squared; overflows fp16, so it stays float32. NaN stays NaN."""
    positive = where_less(x, zero(f32x16), zero(f32x16), x)
    return positive * positive


@compiled
def inverse_rms(x: int, n: int, eps: Any) -> Any:
    """1 / sqrt(mean(x**2) + eps) of n floats at x, zero-padded to whole vectors."""
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
    """Vector i of x * inverse, times the weight vector where there is one (address 0: none)."""
    v = load(f32x16, x + 64 * i) * splat(f32x16, inverse)
    if weight:
        v = v * load(f32x16, weight + 64 * i)
    return v
