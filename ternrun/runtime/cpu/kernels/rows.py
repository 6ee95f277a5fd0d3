"""Kernels on rows of activations: RMSNorm, bias, softcap and gated activations.

Rows are float32, padded with zeros to a multiple of 16. Leading dimensions count floats.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from ternrun.runtime.cpu import layout
from ternrun.runtime.cpu.compile.jit import compiled, share
from ternrun.runtime.cpu.compile.lanes import splat
from ternrun.runtime.cpu.compile.memory_access import load, load_scalar, store, store_scalar
from ternrun.runtime.cpu.compile.vectors import f32x16
from ternrun.runtime.cpu.kernels import functions

OUTPUTS, OUTPUT_INDICES = layout.STATE["outputs"], layout.STATE["output_indices"]


def build(entry: str) -> Callable[..., Any]:
    """Entries: norm, norm_add, norm_outputs, bias, softcap, silu, gelu, relu2."""
    if entry in ("norm", "norm_add"):
        return _make_norm(entry == "norm_add")
    plain = {"norm_outputs": _norm_outputs, "softcap": _softcap, "bias": _bias}
    return plain[entry] if entry in plain else _gated(getattr(functions, entry))


def _make_norm(add: bool) -> Callable[..., Any]:
    """The kernel norm, or norm_add."""

    @compiled
    def norm(args: Any, tid: int, nt: int) -> int:
        """out[t] (+)= x[t] / rms(x[t]) * weight; `weight` may be 0."""
        x, ldx, n, weight = args.x, args.ldx, args.n, args.weight
        out, ldo = args.out, args.ldo
        first, last = share(load_scalar(types.int64, args.count), tid, nt)
        for t in range(first, last):
            row = x + 4 * ldx * t
            inverse = functions.inverse_rms(row, n, args.eps)
            for i in range((n + 15) // 16):
                at, value = out + 4 * ldo * t + 64 * i, functions.normalized(row, inverse, weight, i)
                store(at, load(f32x16, at) + value if add else value)
        return 0

    return norm


@compiled
def _norm_outputs(args: Any, tid: int, nt: int) -> int:
    """out[i] = x[t] / rms(x[t]) * weight for t = output_indices[i]; `weight` may be 0."""
    state, x, ldx, n, weight = args.state, args.x, args.ldx, args.n, args.weight
    out, ldo = args.out, args.ldo
    indices = load_scalar(types.int64, state + OUTPUT_INDICES)
    first, last = share(load_scalar(types.int64, state + OUTPUTS), tid, nt)
    for i in range(first, last):
        row = x + 4 * ldx * load_scalar(types.int32, indices + 4 * i)
        inverse = functions.inverse_rms(row, n, args.eps)
        for j in range((n + 15) // 16):
            store(out + 4 * ldo * i + 64 * j, functions.normalized(row, inverse, weight, j))
    return 0


@compiled
def _bias(args: Any, tid: int, nt: int) -> int:
    """x[t] += bias."""
    x, ldx, n, bias = args.x, args.ldx, args.n, args.bias
    first, last = share(load_scalar(types.int64, args.count), tid, nt)
    for t in range(first, last):
        for i in range(n):
            at = x + 4 * (ldx * t + i)
            store_scalar(at, load_scalar(types.float32, at) + load_scalar(types.float32, bias + 4 * i))
    return 0


@compiled
def _softcap(args: Any, tid: int, nt: int) -> int:
    """x = cap * tanh(x / cap)."""
    x, ldx, n, cap = args.x, args.ldx, args.n, args.cap
    first, last = share((n + 15) // 16, tid, nt)
    for t in range(load_scalar(types.int64, args.count)):
        for i in range(first, last):
            at = x + 4 * ldx * t + 64 * i
            store(at, functions.softcapped(load(f32x16, at), splat(f32x16, cap)))
    return 0


def _gated(activation: Any) -> Callable[..., Any]:
    """The kernel of a gated activation."""

    @compiled
    def gated(args: Any, tid: int, nt: int) -> int:
        """out[t] = activation(x[t, :n]) * x[t, offset : offset + n]."""
        x, ldx, n, offset, out, ldo = (
            args.x, args.ldx, args.n, args.offset, args.out, args.ldo,
        )  # fmt: skip
        first, last = share((n + 15) // 16, tid, nt)
        for t in range(load_scalar(types.int64, args.count)):
            row = x + 4 * ldx * t
            for i in range(first, last):
                gate, up = load(f32x16, row + 64 * i), load(f32x16, row + 4 * offset + 64 * i)
                store(out + 4 * ldo * t + 64 * i, activation(gate) * up)
        return 0

    return gated
