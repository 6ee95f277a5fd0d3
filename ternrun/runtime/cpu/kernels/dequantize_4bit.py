"""Decode four-bit weights to float32 with AVX-512: a register holds a block's sixteen values, and vpermps selects by
code.

The floats equal those of `dequantize.py` bit for bit, for about half the instructions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from ternrun.runtime.cpu.compile.half import splat_f16
from ternrun.runtime.cpu.compile.jit import compiled
from ternrun.runtime.cpu.compile.lanes import constant, iota, splat, to_float, widen_unsigned
from ternrun.runtime.cpu.compile.memory_access import load, load_scalar, store
from ternrun.runtime.cpu.compile.vectors import f32x16, i8x16, i32x16
from ternrun.runtime.cpu.compile.x86 import permute

IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)  # llama.cpp's kvalues_iq4nl
_eights, _book = constant(i32x16, tuple(range(-8, 8))), constant(i32x16, IQ4)


@compiled
def unsigned_bytes(address: int) -> Any:
    """Load sixteen unsigned bytes as i32x16."""
    return widen_unsigned(i32x16, load(i8x16, address))


@compiled
def scale_and_minimum(at: int, part: int) -> Any:
    """Six-bit scale and negated minimum of part `part` of 8 (Q4_K, Q5_K), each in all lanes.

    `at` is the address of the twelve bytes that hold them.
    """
    a, b = (
        types.int64(load_scalar(types.uint8, at + part % 4)),
        types.int64(load_scalar(types.uint8, at + 4 + part % 4)),
    )
    c = types.int64(load_scalar(types.uint8, at + 4 + part))
    scale, low = (a & 63, b & 63) if part < 4 else ((c & 15) | (a >> 6) << 4, (c >> 4) | (b >> 6) << 4)
    return splat(f32x16, types.float32(scale)), splat(f32x16, -types.float32(low))


@compiled
def iq4_scale(at: int, part: int) -> Any:
    """The scale of part `part` of 8 of an IQ4_XS block, in all lanes."""
    low = types.int64(load_scalar(types.uint8, at + 4 + part // 2)) >> (4 * (part & 1)) & 15
    high = types.int64(load_scalar(types.uint16, at + 2)) >> (2 * part) & 3
    return splat_f16(at) * splat(f32x16, types.float32((low | high << 4) - 32))


@compiled
def _put(dst: int, codes: int, values: Any) -> None:
    """Store the values of the low halves of sixteen bytes, then of the high halves."""
    q = unsigned_bytes(codes)
    store(dst, permute(q, values))
    store(dst + 64, permute(q >> 4, values))


@compiled
def _q4_0(src: int, first: int, n: int, dst: int) -> None:
    """d * (q - 8) of blocks of 32."""
    for b in range(n // 32):
        at = src + (first // 32 + b) * 18
        _put(dst + 128 * b, at + 2, to_float(f32x16, _eights()) * splat_f16(at))


@compiled
def _iq4_nl(src: int, first: int, n: int, dst: int) -> None:
    """d * codebook[q] of blocks of 32."""
    for b in range(n // 32):
        at = src + (first // 32 + b) * 18
        _put(dst + 128 * b, at + 2, to_float(f32x16, _book()) * splat_f16(at))


@compiled
def _iq4_xs(src: int, first: int, n: int, dst: int) -> None:
    """d * scale * codebook[q] of blocks of 256 in 8 parts."""
    for b in range(n // 256):
        at = src + (first // 256 + b) * 136
        for part in range(8):
            values = to_float(f32x16, _book()) * iq4_scale(at, part)
            _put(dst + 1024 * b + 128 * part, at + 8 + 16 * part, values)


@compiled
def _steps(d: Any, m: Any) -> Any:
    """The sixteen values m + d * i."""
    return to_float(f32x16, iota(i32x16)) * d + m


@compiled
def _q4_1(src: int, first: int, n: int, dst: int) -> None:
    """d * q + m of blocks of 32."""
    for b in range(n // 32):
        at = src + (first // 32 + b) * 20
        _put(dst + 128 * b, at + 4, _steps(splat_f16(at), splat_f16(at + 2)))


@compiled
def _q4_k(src: int, first: int, n: int, dst: int) -> None:
    """d * scale * q - m * minimum of blocks of 256 in 8 parts."""
    for b in range(n // 256):
        at = src + (first // 256 + b) * 144
        d, m = splat_f16(at), splat_f16(at + 2)
        for part in range(0, 8, 2):  # the low and the high halves of 32 bytes
            (s0, m0), (s1, m1) = scale_and_minimum(at + 4, part), scale_and_minimum(at + 4, part + 1)
            low, high = _steps(d * s0, m * m0), _steps(d * s1, m * m1)
            for half in range(2):
                q, to = unsigned_bytes(at + 16 + 16 * part + 16 * half), dst + 1024 * b + 128 * part + 64 * half
                store(to, permute(q, low))
                store(to + 128, permute(q >> 4, high))


DEQUANTIZE_4BIT: dict[str, Callable[..., Any]] = {
    "Q4_0": _q4_0, "Q4_1": _q4_1, "Q4_K": _q4_k, "IQ4_NL": _iq4_nl, "IQ4_XS": _iq4_xs,
}  # fmt: skip
