"""Weights of four bits to float32 by AVX-512: a block's sixteen values stand in one register, and codes pick them.

The floats are those of `dequantize.py`, bit for bit, for about half the instructions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from ternrun.runtime.cpu.compile.half import splat_f16
from ternrun.runtime.cpu.compile.jit import compiled
from ternrun.runtime.cpu.compile.simd import (
    constant,
    f32x16,
    i8x16,
    i32x16,
    iota,
    load,
    load_scalar,
    splat,
    store,
    to_float,
    widen_unsigned,
)
from ternrun.runtime.cpu.compile.x86 import permute

IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)  # llama.cpp's kvalues_iq4nl
_eights, _book = constant(i32x16, tuple(range(-8, 8))), constant(i32x16, IQ4)


@compiled
def unsigned_bytes(address: int) -> Any:
    """Sixteen unsigned bytes as i32x16."""
    return widen_unsigned(i32x16, load(i8x16, address))


@compiled
def scale_and_minimum(at: int, part: int) -> Any:
    """Six-bit scale and minimum, negated, `part` of 8 from the twelve bytes at `at` (Q4_K, Q5_K), each in all lanes."""
    a, b = (
        types.int64(load_scalar(types.uint8, at + part % 4)),
        types.int64(load_scalar(types.uint8, at + 4 + part % 4)),
    )
    c = types.int64(load_scalar(types.uint8, at + 4 + part))
    scale, low = (a & 63, b & 63) if part < 4 else ((c & 15) | (a >> 6) << 4, (c >> 4) | (b >> 6) << 4)
    return splat(f32x16, types.float32(scale)), splat(f32x16, -types.float32(low))


@compiled
def iq4_scale(at: int, part: int) -> Any:
    """Scale `part` of 8 of an IQ4_XS block."""
    low = types.int64(load_scalar(types.uint8, at + 4 + part // 2)) >> (4 * (part & 1)) & 15
    high = types.int64(load_scalar(types.uint16, at + 2)) >> (2 * part) & 3
    return splat_f16(at) * splat(f32x16, types.float32((low | high << 4) - 32))


@compiled
def _put(dst: int, codes: int, values: Any) -> None:
    """Lower halves of sixteen bytes, then the upper ones."""
    q = unsigned_bytes(codes)
    store(dst, permute(q, values))
    store(dst + 64, permute(q >> 4, values))


@compiled
def _q4_0(src: int, first: int, n: int, dst: int) -> None:
    for b in range(n // 32):
        at = src + (first // 32 + b) * 18
        _put(dst + 128 * b, at + 2, to_float(f32x16, _eights()) * splat_f16(at))


@compiled
def _iq4_nl(src: int, first: int, n: int, dst: int) -> None:
    for b in range(n // 32):
        at = src + (first // 32 + b) * 18
        _put(dst + 128 * b, at + 2, to_float(f32x16, _book()) * splat_f16(at))


@compiled
def _iq4_xs(src: int, first: int, n: int, dst: int) -> None:
    for b in range(n // 256):
        at = src + (first // 256 + b) * 136
        for part in range(8):
            values = to_float(f32x16, _book()) * iq4_scale(at, part)
            _put(dst + 1024 * b + 128 * part, at + 8 + 16 * part, values)


@compiled
def _steps(d: Any, m: Any) -> Any:
    """Sixteen values from m on, d apart."""
    return to_float(f32x16, iota(i32x16)) * d + m


@compiled
def _q4_1(src: int, first: int, n: int, dst: int) -> None:
    for b in range(n // 32):
        at = src + (first // 32 + b) * 20
        _put(dst + 128 * b, at + 4, _steps(splat_f16(at), splat_f16(at + 2)))


@compiled
def _q4_k(src: int, first: int, n: int, dst: int) -> None:
    for b in range(n // 256):
        at = src + (first // 256 + b) * 144
        d, m = splat_f16(at), splat_f16(at + 2)
        for part in range(0, 8, 2):  # lower and upper halves of 32 bytes
            (s0, m0), (s1, m1) = scale_and_minimum(at + 4, part), scale_and_minimum(at + 4, part + 1)
            low, high = _steps(d * s0, m * m0), _steps(d * s1, m * m1)
            for half in range(2):
                q, to = unsigned_bytes(at + 16 + 16 * part + 16 * half), dst + 1024 * b + 128 * part + 64 * half
                store(to, permute(q, low))
                store(to + 128, permute(q >> 4, high))


DEQUANTIZE_4BIT: dict[str, Callable[..., Any]] = {
    "Q4_0": _q4_0, "Q4_1": _q4_1, "Q4_K": _q4_k, "IQ4_NL": _iq4_nl, "IQ4_XS": _iq4_xs,
}  # fmt: skip
