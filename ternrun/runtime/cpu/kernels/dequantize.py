"""Decode ordinary weight encodings to float32, bit for bit like `loader/quants`.

`DEQUANTIZE[type]` is a compiled f(src, first, n, dst) that decodes elements first .. first + n of the row at `src` to
`dst`. Both counts are multiples of the encoding's block (of 16 for plain floats). docs/formats.md describes the
layouts, which are llama.cpp's (ggml-quants.c).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from ternrun.runtime.cpu.compile.arithmetic import where_less
from ternrun.runtime.cpu.compile.half import load_bf16, load_f16, splat_f16
from ternrun.runtime.cpu.compile.isa import build_target
from ternrun.runtime.cpu.compile.jit import compiled
from ternrun.runtime.cpu.compile.lanes import iota, narrow, splat, to_float, widen, widen_unsigned
from ternrun.runtime.cpu.compile.memory_access import load, load_scalar, store
from ternrun.runtime.cpu.compile.vectors import VecType, f32x16, i8x16, i32x16
from ternrun.runtime.cpu.kernels.dequantize_4bit import (
    DEQUANTIZE_4BIT,
    IQ4,
    iq4_scale,
    scale_and_minimum,
    unsigned_bytes,
)

i64x16 = VecType("i", 64, 16)
IQ4_LOW = int.from_bytes(bytes(v & 255 for v in IQ4[:8]), "little", signed=True)
IQ4_HIGH = int.from_bytes(bytes(v & 255 for v in IQ4[8:]), "little", signed=True)


@compiled
def _put(dst: int, codes: Any, d: Any) -> None:
    """Store codes * d."""
    store(dst, to_float(f32x16, codes) * d)


@compiled
def _put_min(dst: int, codes: Any, d: Any, m: Any) -> None:
    """Store codes * d + m."""
    store(dst, to_float(f32x16, codes) * d + m)


@compiled
def _f32(src: int, first: int, n: int, dst: int) -> None:
    """Copy float32."""
    for i in range(0, n, 16):
        store(dst + 4 * i, load(f32x16, src + 4 * (first + i)))


@compiled
def _f16(src: int, first: int, n: int, dst: int) -> None:
    """float16 to float32."""
    for i in range(0, n, 16):
        store(dst + 4 * i, load_f16(src + 2 * (first + i)))


@compiled
def _bf16(src: int, first: int, n: int, dst: int) -> None:
    """bfloat16 to float32."""
    for i in range(0, n, 16):
        store(dst + 4 * i, load_bf16(src + 2 * (first + i)))


@compiled
def _q8_0(src: int, first: int, n: int, dst: int) -> None:
    """d * q of blocks of 32."""
    for b in range(n // 32):
        at, to = src + (first // 32 + b) * 34, dst + 128 * b
        d = splat_f16(at)
        _put(to, widen(i32x16, load(i8x16, at + 2)), d)
        _put(to + 64, widen(i32x16, load(i8x16, at + 18)), d)


@compiled
def _q4_0(src: int, first: int, n: int, dst: int) -> None:
    """d * (q - 8) of blocks of 32."""
    for b in range(n // 32):
        at, to = src + (first // 32 + b) * 18, dst + 128 * b
        d, q = splat_f16(at), unsigned_bytes(at + 2)
        _put(to, (q & 15) - 8, d)
        _put(to + 64, (q >> 4) - 8, d)


@compiled
def _q4_1(src: int, first: int, n: int, dst: int) -> None:
    """d * q + m of blocks of 32."""
    for b in range(n // 32):
        at, to = src + (first // 32 + b) * 20, dst + 128 * b
        d, m, q = splat_f16(at), splat_f16(at + 2), unsigned_bytes(at + 4)
        _put_min(to, q & 15, d, m)
        _put_min(to + 64, q >> 4, d, m)


@compiled
def _fifth(high: int) -> Any:
    """Bits 0..15 of `high`, one in each lane, times 16."""
    return ((splat(i32x16, high) >> iota(i32x16)) & 1) << 4


@compiled
def _q5_0(src: int, first: int, n: int, dst: int) -> None:
    """d * (q - 16) of blocks of 32, with the fifth bits stored apart."""
    for b in range(n // 32):
        at, to = src + (first // 32 + b) * 22, dst + 128 * b
        d, high, q = splat_f16(at), types.int64(load_scalar(types.uint32, at + 2)), unsigned_bytes(at + 6)
        _put(to, ((q & 15) | _fifth(high)) - 16, d)
        _put(to + 64, ((q >> 4) | _fifth(high >> 16)) - 16, d)


@compiled
def _q5_1(src: int, first: int, n: int, dst: int) -> None:
    """d * q + m of blocks of 32, with the fifth bits stored apart."""
    for b in range(n // 32):
        at, to = src + (first // 32 + b) * 24, dst + 128 * b
        d, m, high, q = (
            splat_f16(at),
            splat_f16(at + 2),
            types.int64(load_scalar(types.uint32, at + 4)),
            unsigned_bytes(at + 8),
        )
        _put_min(to, (q & 15) | _fifth(high), d, m)
        _put_min(to + 64, (q >> 4) | _fifth(high >> 16), d, m)


@compiled
def _q2_k(src: int, first: int, n: int, dst: int) -> None:
    """d * scale * q - m * minimum of blocks of 256 in 16 parts."""
    for b in range(n // 256):
        at, to = src + (first // 256 + b) * 84, dst + 1024 * b
        d, m = splat_f16(at + 80), splat_f16(at + 82)
        for part in range(16):  # 16 elements, a four-bit scale and a four-bit minimum
            pair = types.int64(load_scalar(types.uint8, at + part))
            q = unsigned_bytes(at + 16 + 32 * (part // 8) + 16 * (part & 1))
            shift = splat(i32x16, types.int64(2 * (part // 2 % 4)))
            scale, low = splat(f32x16, types.float32(pair & 15)), splat(f32x16, -types.float32(pair >> 4))
            _put_min(to + 64 * part, (q >> shift) & 3, d * scale, m * low)


@compiled
def _q3_scale(at: int, part: int) -> Any:
    """Six-bit scale `part` of 16 from the twelve bytes at `at`, minus 32."""
    low = types.int64(load_scalar(types.uint8, at + part % 8)) >> (4 * (part // 8)) & 15
    high = types.int64(load_scalar(types.uint8, at + 8 + part % 4)) >> (2 * (part // 4)) & 3
    return splat(f32x16, types.float32((low | high << 4) - 32))


@compiled
def _q3_k(src: int, first: int, n: int, dst: int) -> None:
    """d * scale * (q - 4) of blocks of 256 in 16 parts."""
    for b in range(n // 256):
        at, to = src + (first // 256 + b) * 110, dst + 1024 * b
        d = splat_f16(at + 108)
        for part in range(16):
            half = 16 * (part & 1)
            q = unsigned_bytes(at + 32 + 32 * (part // 8) + half) >> splat(i32x16, types.int64(2 * (part // 2 % 4)))
            third = (unsigned_bytes(at + half) >> splat(i32x16, types.int64(part // 2))) & 1
            _put(to + 64 * part, (q & 3) - 4 + (third << 2), d * _q3_scale(at + 96, part))


@compiled
def _q4_k(src: int, first: int, n: int, dst: int) -> None:
    """d * scale * q - m * minimum of blocks of 256 in 8 parts."""
    for b in range(n // 256):
        at, to = src + (first // 256 + b) * 144, dst + 1024 * b
        d, m = splat_f16(at), splat_f16(at + 2)
        for part in range(8):
            scale, low = scale_and_minimum(at + 4, part)
            shift = splat(i32x16, types.int64(4 * (part & 1)))
            for half in range(2):
                q = (unsigned_bytes(at + 16 + 32 * (part // 2) + 16 * half) >> shift) & 15
                _put_min(to + 128 * part + 64 * half, q, d * scale, m * low)


@compiled
def _q5_k(src: int, first: int, n: int, dst: int) -> None:
    """d * scale * q - m * minimum of blocks of 256 in 8 parts, with the fifth bits stored apart."""
    for b in range(n // 256):
        at, to = src + (first // 256 + b) * 176, dst + 1024 * b
        d, m = splat_f16(at), splat_f16(at + 2)
        for part in range(8):
            scale, low = scale_and_minimum(at + 4, part)
            shift, bit = splat(i32x16, types.int64(4 * (part & 1))), splat(i32x16, types.int64(part))
            for half in range(2):
                q = (unsigned_bytes(at + 48 + 32 * (part // 2) + 16 * half) >> shift) & 15
                fifth = ((unsigned_bytes(at + 16 + 16 * half) >> bit) & 1) << 4
                _put_min(to + 128 * part + 64 * half, q | fifth, d * scale, m * low)


@compiled
def _q6_k(src: int, first: int, n: int, dst: int) -> None:
    """d * scale * (q - 32) of blocks of 256 in 16 parts."""
    for b in range(n // 256):
        at, to = src + (first // 256 + b) * 210, dst + 1024 * b
        d = splat_f16(at + 208)
        for part in range(16):  # 128 elements = 4 runs of 32 = 8 parts
            big, run, half = part // 8, part // 2 % 4, part & 1
            low = unsigned_bytes(at + 64 * big + 32 * (run & 1) + 16 * half) >> splat(
                i32x16, types.int64(4 * (run // 2))
            )
            high = unsigned_bytes(at + 128 + 32 * big + 16 * half) >> splat(i32x16, types.int64(2 * run))
            scale = splat(f32x16, types.float32(load_scalar(types.int8, at + 192 + part)))
            _put(to + 64 * part, ((low & 15) | (high & 3) << 4) - 32, d * scale)


@compiled
def _iq4_values(index: Any) -> Any:
    """The nonlinear four-bit code book: a byte of two 64-bit constants, selected by shifts."""
    wide = widen_unsigned(i64x16, index)
    eight = splat(i64x16, types.int64(8))
    table = where_less(wide, eight, splat(i64x16, types.int64(IQ4_LOW)), splat(i64x16, types.int64(IQ4_HIGH)))
    return widen(i32x16, narrow(i8x16, table >> ((wide & 7) << 3)))


@compiled
def _iq4_nl(src: int, first: int, n: int, dst: int) -> None:
    """d * codebook[q] of blocks of 32."""
    for b in range(n // 32):
        at, to = src + (first // 32 + b) * 18, dst + 128 * b
        d, q = splat_f16(at), unsigned_bytes(at + 2)
        _put(to, _iq4_values(q & 15), d)
        _put(to + 64, _iq4_values(q >> 4), d)


@compiled
def _iq4_xs(src: int, first: int, n: int, dst: int) -> None:
    """d * scale * codebook[q] of blocks of 256 in 8 parts."""
    for b in range(n // 256):
        at, to = src + (first // 256 + b) * 136, dst + 1024 * b
        for part in range(8):
            scale, q = iq4_scale(at, part), unsigned_bytes(at + 8 + 16 * part)
            _put(to + 128 * part, _iq4_values(q & 15), scale)
            _put(to + 128 * part + 64, _iq4_values(q >> 4), scale)


def _two_bit(block: int) -> Any:
    """The function for two-bit blocks of a size."""
    size = block // 4 + 2

    @compiled
    def two_bit(src: int, first: int, n: int, dst: int) -> None:
        """d * (q - 1): Q2_0 tensors that use the fourth code, 2d, and so are not ternary."""
        for b in range(n // block):
            at, to = src + (first // block + b) * size, dst + 4 * block * b
            d = splat_f16(at)
            for i in range(0, block, 16):
                word = splat(i32x16, types.int64(load_scalar(types.uint32, at + 2 + i // 4)))
                _put(to + 4 * i, ((word >> (iota(i32x16) << 1)) & 3) - 1, d)

    return two_bit


DEQUANTIZE: dict[str, Callable[..., Any]] = {
    "F32": _f32, "F16": _f16, "BF16": _bf16, "Q8_0": _q8_0, "Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0,
    "Q5_1": _q5_1, "Q2_K": _q2_k, "Q3_K": _q3_k, "Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k, "IQ4_NL": _iq4_nl,
    "IQ4_XS": _iq4_xs, "Q2_0": _two_bit(64), "PQ2_0": _two_bit(128),
} | (DEQUANTIZE_4BIT if build_target() == "avx512" else {})  # fmt: skip
