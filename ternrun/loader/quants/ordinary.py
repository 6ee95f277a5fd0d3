"""Ordinary GGUF types in plain numpy: floats, Q8_0, Q4_0..Q5_1, the K types, IQ4_NL, IQ4_XS.

Each decoder takes blocks (n, bytes) uint8 and gives (n, weights) float32; layouts: ggml-common.h of llama.cpp.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]

IQ4_VALUES = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)


def f16(b: U8) -> F32:
    """Little-endian halves (n, 2k) -> (n, k)."""
    return b.view("<f2").astype(np.float32)


def fields(b: U8, bits: int, lanes: int) -> U8:
    """Cut bytes into fields of `bits` bits: (n, g * lanes) -> (n, g * fields a byte * lanes).

    Each `lanes` bytes give first all their lowest fields, then all the next ones, and so on.
    """
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    return ((b.reshape(len(b), -1, 1, lanes) >> shifts) & np.uint8((1 << bits) - 1)).reshape(len(b), -1)


def _scaled(q: NDArray[Any], d: F32, group: int = 0) -> F32:
    """Weights (n, k) times one scale per `group` of them, d (n, groups); group 0: all of a block."""
    group = group or q.shape[1]
    return (d[:, :, None] * q.astype(np.float32).reshape(len(q), -1, group)).reshape(len(q), -1)


def _f32(b: U8) -> F32:
    return b.view("<f4").astype(np.float32)


def _bf16(b: U8) -> F32:
    return (b.view("<u2").astype(np.uint32) << 16).view(np.float32)


def _q8_0(b: U8) -> F32:
    return _scaled(b[:, 2:].view(np.int8), f16(b[:, :2]))


def _q4_0(b: U8) -> F32:
    return _scaled(fields(b[:, 2:], 4, 16).astype(np.int8) - 8, f16(b[:, :2]))


def _q4_1(b: U8) -> F32:
    return _scaled(fields(b[:, 4:], 4, 16), f16(b[:, :2])) + f16(b[:, 2:4])


def _fifth_bit(b: U8) -> U8:
    return np.unpackbits(b, axis=1, bitorder="little") << np.uint8(4)


def _q5_0(b: U8) -> F32:
    q = fields(b[:, 6:], 4, 16) | _fifth_bit(b[:, 2:6])
    return _scaled(q.astype(np.int8) - 16, f16(b[:, :2]))


def _q5_1(b: U8) -> F32:
    q = fields(b[:, 8:], 4, 16) | _fifth_bit(b[:, 4:8])
    return _scaled(q, f16(b[:, :2])) + f16(b[:, 2:4])


def _q2_k(b: U8) -> F32:
    scales, d, least = b[:, :16], f16(b[:, 80:82]), f16(b[:, 82:84])
    q = _scaled(fields(b[:, 16:80], 2, 32), d * (scales & 15).astype(np.float32), 16)
    return q - np.repeat(least * (scales >> 4).astype(np.float32), 16, axis=1)


def _q3_k(b: U8) -> F32:
    low, high = fields(b[:, 96:104], 4, 8), fields(b[:, 104:108], 2, 4)  # 16 scales of 6 bits
    scales = (low | high << np.uint8(4)).astype(np.int8) - 32
    q = fields(b[:, 32:96], 2, 32).astype(np.int8) - 4 * (1 - fields(b[:, :32], 1, 32).astype(np.int8))
    return _scaled(q, f16(b[:, 108:110]) * scales.astype(np.float32), 16)


def _scales_k4(b: U8) -> tuple[F32, F32]:
    """8 scales and 8 minima of 6 bits each in 12 bytes, times d and dmin -> (n, 8) twice."""
    d, least, s = f16(b[:, :2]), f16(b[:, 2:4]), b[:, 4:16]
    low, mid, high = s[:, :4], s[:, 4:8], s[:, 8:]
    scales = np.concatenate([low & 63, (high & 15) | (low >> 6 << 4)], axis=1)
    minima = np.concatenate([mid & 63, (high >> 4) | (mid >> 6 << 4)], axis=1)
    return d * scales.astype(np.float32), least * minima.astype(np.float32)


def _q4_k(b: U8) -> F32:
    scales, minima = _scales_k4(b)
    return _scaled(fields(b[:, 16:], 4, 32), scales, 32) - np.repeat(minima, 32, axis=1)


def _q5_k(b: U8) -> F32:
    scales, minima = _scales_k4(b)
    q = fields(b[:, 48:], 4, 32) | fields(b[:, 16:48], 1, 32) << np.uint8(4)
    return _scaled(q, scales, 32) - np.repeat(minima, 32, axis=1)


def _q6_k(b: U8) -> F32:
    q = fields(b[:, :128], 4, 64) | fields(b[:, 128:192], 2, 32) << np.uint8(4)
    d = f16(b[:, 208:210]) * b[:, 192:208].view(np.int8).astype(np.float32)
    return _scaled(q.astype(np.int8) - 32, d, 16)


def _iq4_nl(b: U8) -> F32:
    return _scaled(IQ4_VALUES[fields(b[:, 2:], 4, 16)], f16(b[:, :2]))


def _iq4_xs(b: U8) -> F32:
    high = (b[:, 2:4].view("<u2") >> np.arange(0, 16, 2, dtype=np.uint16)).astype(np.uint8) & np.uint8(3)
    scales = (fields(b[:, 4:8], 4, 1) | high << np.uint8(4)).astype(np.int8) - 32
    return _scaled(IQ4_VALUES[fields(b[:, 8:], 4, 16)], f16(b[:, :2]) * scales.astype(np.float32), 32)


DECODERS: dict[str, Callable[[U8], F32]] = {
    "F32": _f32, "F16": f16, "BF16": _bf16, "Q8_0": _q8_0, "Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q5_1": _q5_1,
    "Q2_K": _q2_k, "Q3_K": _q3_k, "Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k, "IQ4_NL": _iq4_nl, "IQ4_XS": _iq4_xs,
}  # fmt: skip


def away_from_zero(x: F32) -> F32:
    """Round to the nearest integer, halves away from zero, as C's roundf does."""
    whole = np.floor(np.abs(x))
    rounded: F32 = np.copysign(whole + (np.abs(x) - whole >= 0.5), x)
    return rounded


def reciprocal(d: F32) -> F32:
    """1 / d, and 0 where d is 0."""
    out: F32 = np.divide(np.float32(1), d, out=np.zeros_like(d), where=d != 0)
    return out


def _to_f32(x: F32) -> U8:
    return x.astype("<f4").view(np.uint8)


def to_f16(x: F32) -> U8:
    """Halves, as bytes; infinite where x is too large for one."""
    with np.errstate(over="ignore"):
        return x.astype("<f2").view(np.uint8)


def _to_bf16(x: F32) -> U8:
    n = x.view(np.uint32).astype(np.uint64)
    return ((n + 0x7FFF + (n >> 16 & 1)) >> 16).astype("<u2").view(np.uint8)


def _to_q8_0(x: F32) -> U8:
    d = np.abs(x).max(axis=1, keepdims=True) / np.float32(127)
    q = away_from_zero(x * reciprocal(d)).astype(np.int8)
    return np.concatenate([to_f16(d), q.view(np.uint8)], axis=1)


def _packed(q: NDArray[Any], bits: int, *heads: F32) -> U8:
    """Blocks of 4 or 5 bits a weight (n, 32): halves in front, fifth bits, then the lower four of the two halves."""
    codes = q.clip(0, (1 << bits) - 1).astype(np.uint8)
    fifth = [np.packbits(codes >> 4, axis=1, bitorder="little")] if bits == 5 else []
    low = codes & np.uint8(15)
    return np.concatenate([*map(to_f16, heads), *fifth, low[:, :16] | low[:, 16:] << np.uint8(4)], axis=1)


def _to_symmetric(x: F32, bits: int) -> U8:
    """Q4_0 and Q5_0: the weight of the largest magnitude is the lowest code, which has no positive counterpart."""
    half = 1 << (bits - 1)
    d = np.take_along_axis(x, np.abs(x).argmax(axis=1)[:, None], axis=1) / np.float32(-half)
    return _packed(np.trunc(x * reciprocal(d) + np.float32(half + 0.5)), bits, d)


def _to_affine(x: F32, bits: int) -> U8:
    """Q4_1 and Q5_1: codes from the least weight of a block to its greatest."""
    low = x.min(axis=1, keepdims=True)
    d = (x.max(axis=1, keepdims=True) - low) / np.float32((1 << bits) - 1)
    return _packed(np.trunc((x - low) * reciprocal(d) + np.float32(0.5)), bits, d, low)


# blocks (n, weights) float32 -> (n, bytes)
ENCODERS: dict[str, Callable[[F32], U8]] = {
    "F32": _to_f32, "F16": to_f16, "BF16": _to_bf16, "Q8_0": _to_q8_0, "Q4_0": partial(_to_symmetric, bits=4),
    "Q4_1": partial(_to_affine, bits=4), "Q5_0": partial(_to_symmetric, bits=5), "Q5_1": partial(_to_affine, bits=5),
}  # fmt: skip
