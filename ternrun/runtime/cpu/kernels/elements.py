"""Row operations of encoders in float32: activations, softmax, LayerNorm and bias on contiguous rows of any length.

Results agree with numpy's. NaN stays NaN. The output may be the input.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from numba import types

from ternrun.runtime.cpu.compile.arithmetic import fma, largest, maximum, total, where_less
from ternrun.runtime.cpu.compile.jit import compiled, share
from ternrun.runtime.cpu.compile.lanes import splat, zero
from ternrun.runtime.cpu.compile.masked import load_some, store_some
from ternrun.runtime.cpu.compile.memory_access import load, load_scalar, store
from ternrun.runtime.cpu.compile.vectors import f32x16
from ternrun.runtime.cpu.kernels.functions import exp, silu

f32 = types.float32
INF = f32(math.inf)
ROOT_HALF = math.sqrt(0.5)
# erf(x) = x P(x^2) / Q(x^2) for |x| < 4, to 2 units in the last place: the minimax approximation of Eigen
# (https://gitlab.com/libeigen/eigen, generic_fast_erf_float)
P = (-2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05, -7.34990630326855e-04,
     -2.95459980854025e-03, -1.60960333262415e-02)  # fmt: skip
Q = (-1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03, -1.42647390514189e-02)


@compiled
def _erf(x: Any) -> Any:
    """The error function of an f32x16."""
    low, high = splat(f32x16, -4.0), splat(f32x16, 4.0)
    x = where_less(x, low, low, where_less(high, x, high, x))
    s = x * x
    p = fma(fma(splat(f32x16, P[0]), s, splat(f32x16, P[1])), s, splat(f32x16, P[2]))
    p = fma(fma(p, s, splat(f32x16, P[3])), s, splat(f32x16, P[4]))
    p = fma(fma(p, s, splat(f32x16, P[5])), s, splat(f32x16, P[6]))
    q = fma(fma(splat(f32x16, Q[0]), s, splat(f32x16, Q[1])), s, splat(f32x16, Q[2]))
    q = fma(fma(q, s, splat(f32x16, Q[3])), s, splat(f32x16, Q[4]))
    return x * p / q


@compiled
def _gelu(x: Any) -> Any:
    """x / 2 (1 + erf(x / sqrt 2))."""
    return (_erf(x * splat(f32x16, ROOT_HALF)) + splat(f32x16, 1.0)) * x * splat(f32x16, 0.5)


def _each(function: Any) -> Callable[..., Any]:
    """A kernel that applies a function to every element."""

    @compiled
    def each(args: Any, tid: int, nt: int) -> int:
        """out = function(x) for n elements."""
        n, x, out = args.n, args.x, args.out
        first, last = share((n + 15) // 16, tid, nt)
        for i in range(16 * first, min(16 * last, n // 16 * 16), 16):
            store(out + 4 * i, function(load(f32x16, x + 4 * i)))
        if 16 * last > n:
            i = n // 16 * 16
            store_some(out + 4 * i, function(load_some(x + 4 * i, n - i, zero(f32x16))), n - i)
        return 0

    return each


@compiled
def _softmax(args: Any, tid: int, nt: int) -> int:
    """out[t] = exp(x[t] - max x[t]) / sum, over n columns."""
    n, lowest = args.n, splat(f32x16, -INF)
    first, last = share(args.rows, tid, nt)
    for t in range(first, last):
        x, out = args.x + 4 * n * t, args.out + 4 * n * t
        peak = lowest
        for i in range(0, n, 16):
            peak = maximum(peak, load_some(x + 4 * i, n - i, lowest))
        top, acc = splat(f32x16, largest(peak)), zero(f32x16)
        for i in range(0, n, 16):
            e = exp(load_some(x + 4 * i, n - i, lowest) - top)  # NaN if the whole row is -inf
            acc = acc + e
            store_some(out + 4 * i, e, n - i)
        whole = splat(f32x16, total(acc))
        for i in range(0, n, 16):
            store_some(out + 4 * i, load_some(out + 4 * i, n - i, zero(f32x16)) / whole, n - i)
    return 0


@compiled
def _layer_norm(args: Any, tid: int, nt: int) -> int:
    """out[t] = (x[t] - mean) / sqrt(variance + eps) * weight + bias, over n columns; `bias` may be 0."""
    n, weight, bias = args.n, args.weight, args.bias
    z, size = zero(f32x16), f32(n)
    first, last = share(args.rows, tid, nt)
    for t in range(first, last):
        x, out, acc = args.x + 4 * n * t, args.out + 4 * n * t, z
        for i in range(0, n, 16):
            acc = acc + load_some(x + 4 * i, n - i, z)
        mean = splat(f32x16, total(acc) / size)
        acc = z
        for i in range(0, n, 16):
            v = load_some(x + 4 * i, n - i, mean) - mean
            acc = fma(v, v, acc)
        inverse = splat(f32x16, f32(1.0) / math.sqrt(total(acc) / size + args.eps))
        for i in range(0, n, 16):
            v = (load_some(x + 4 * i, n - i, z) - mean) * inverse * load_some(weight + 4 * i, n - i, z)
            store_some(out + 4 * i, v + load_some(bias + 4 * i, n - i, z) if bias else v, n - i)
    return 0


@compiled
def _bias(args: Any, tid: int, nt: int) -> int:
    """x[t] += bias, over n columns."""
    n, bias = args.n, args.bias
    first, last = share(load_scalar(types.int64, args.count), tid, nt)
    for t in range(first, last):
        x = args.x + 4 * n * t
        for i in range(0, n, 16):
            v = load_some(x + 4 * i, n - i, zero(f32x16)) + load_some(bias + 4 * i, n - i, zero(f32x16))
            store_some(x + 4 * i, v, n - i)
    return 0


def build(entry: str) -> Callable[..., Any]:
    """Entries: erf, gelu (the exact one), silu, softmax, layer_norm, bias."""
    rows = {"softmax": _softmax, "layer_norm": _layer_norm, "bias": _bias}
    return rows[entry] if entry in rows else _each({"erf": _erf, "gelu": _gelu, "silu": silu}[entry])
