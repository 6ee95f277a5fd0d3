"""Unpack ternary encodings to digits (trit + 1, one a byte); docs/formats.md describes the layouts.

`UNPACK[type]` is a compiled f(src, row, rows, cols, dst) that writes the digits of one row somewhere in the `cols +
512` bytes at dst and returns their address. A code that is not ternary becomes 3, which the caller refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from ternrun.runtime.cpu.compile.jit import compiled
from ternrun.runtime.cpu.compile.lanes import narrow, shuffler, splat, widen_unsigned
from ternrun.runtime.cpu.compile.memory_access import load, load_scalar, store, store_scalar
from ternrun.runtime.cpu.compile.vectors import i8x16, i8x32, i16x32


@compiled
def _fields(q: Any, to: int, width: int) -> None:
    """The four two-bit fields of each byte, from the lowest up: four vectors, `width` bytes apart."""
    store(to, q & 3)
    store(to + width, (q >> 2) & 3)
    store(to + 2 * width, (q >> 4) & 3)
    store(to + 3 * width, (q >> 6) & 3)


@compiled
def _i2_s(src: int, row: int, rows: int, cols: int, dst: int) -> int:
    """I2_S. Blocks of 128 run over row ends, so a row can begin inside a block."""
    first, last = row * cols // 128, (row * cols + cols + 127) // 128
    for b in range(first, last):
        q, to = load(i8x32, src + 32 * b), dst + 128 * (b - first)
        store(to, (q >> 6) & 3)
        store(to + 32, (q >> 4) & 3)
        store(to + 64, (q >> 2) & 3)
        store(to + 96, q & 3)
    return dst + row * cols - 128 * first


@compiled
def _tq2_0(src: int, row: int, rows: int, cols: int, dst: int) -> int:
    """TQ2_0: blocks of 256, four two-bit fields a byte."""
    for h in range(cols // 128):
        _fields(load(i8x32, src + (row * cols // 256 + h // 2) * 66 + 32 * (h & 1)), dst + 128 * h, 32)
    return dst


@compiled
def _digits(q: Any) -> Any:
    """The leading base-3 digit of fixed-point bytes."""
    return narrow(i8x32, (widen_unsigned(i16x32, q) * 3) >> 8)


@compiled
def _tq1_0(src: int, row: int, rows: int, cols: int, dst: int) -> int:
    """TQ1_0: blocks of 256, five base-3 digits a byte."""
    for b in range(cols // 256):
        at, to = src + (row * cols // 256 + b) * 54, dst + 256 * b
        power = 1
        for n in range(5):
            store(to + 32 * n, _digits(load(i8x32, at) * power))
            # only sixteen bytes are digits; the next store overwrites the other sixteen (qh, d and what follows)
            store(to + 160 + 16 * n, _low16(_digits(_two16(load(i8x16, at + 32)) * power)))
            power *= 3
        for i in range(4):
            q = types.int64(load_scalar(types.uint8, at + 48 + i))
            for n in range(4):
                store_scalar(to + 240 + 4 * n + i, types.uint8(((q & 255) * 3) >> 8))
                q *= 3
    return dst


_two16 = shuffler(i8x16, tuple(range(16)) * 2, operands=1)
_low16 = shuffler(i8x32, tuple(range(16)), operands=1)


@compiled
def _ptq1_0(src: int, row: int, rows: int, cols: int, dst: int) -> int:
    """PTQ1_0: blocks of 128, five base-3 digits a byte."""
    for b in range(cols // 128):
        at, to = src + (row * cols // 128 + b) * 28, dst + 128 * b
        power = 1
        for n in range(5):
            store(to + 16 * n, _low16(_digits(_two16(load(i8x16, at)) * power)))
            for i in range(8):
                q = types.int64(load_scalar(types.uint8, at + 16 + i)) * power
                store_scalar(to + 80 + 8 * n + i, types.uint8(((q & 255) * 3) >> 8))
            power *= 3
        for i in range(2):
            q = types.int64(load_scalar(types.uint8, at + 24 + i))
            for n in range(4):
                store_scalar(to + 120 + 2 * n + i, types.uint8(((q & 255) * 3) >> 8))
                q *= 3
    return dst


_zip_low = shuffler(i8x16, tuple(i // 2 + 16 * (i % 2) for i in range(16)))
_zip_high = shuffler(i8x16, tuple(8 + i // 2 + 16 * (i % 2) for i in range(16)))


@compiled
def _spread(q: Any, to: int) -> None:
    """Sixteen bytes of four two-bit codes to 64 bytes, in order."""
    even, odd = _zip_low(q & 3, (q >> 4) & 3), _zip_low((q >> 2) & 3, (q >> 6) & 3)
    store(to, _zip_low(even, odd))
    store(to + 16, _zip_high(even, odd))
    even, odd = _zip_high(q & 3, (q >> 4) & 3), _zip_high((q >> 2) & 3, (q >> 6) & 3)
    store(to + 32, _zip_low(even, odd))
    store(to + 48, _zip_high(even, odd))


def _two_bit(block: int) -> Callable[..., Any]:
    """The function for two-bit blocks of a size."""
    size = block // 4 + 2

    @compiled
    def two_bit(src: int, row: int, rows: int, cols: int, dst: int) -> int:
        """Q2_0, PQ2_0: a scale, then two-bit codes in order."""
        for b in range(cols // block):
            at = src + (row * cols // block + b) * size + 2
            for i in range(0, block, 64):
                _spread(load(i8x16, at + i // 4), dst + block * b + i)
        return dst

    return two_bit


@compiled
def _q1_0(src: int, row: int, rows: int, cols: int, dst: int) -> int:
    """Q1_0: one bit a weight, -1 or 1."""
    for b in range(cols // 128):
        at = src + (row * cols // 128 + b) * 18 + 2
        for j in range(128):
            bit = types.int64(load_scalar(types.uint8, at + j // 8)) >> (j & 7) & 1
            store_scalar(dst + 128 * b + j, types.uint8(2 * bit))
    return dst


@compiled
def _bn_digit(byte: int, j: int) -> Any:
    """Digit j (least significant first) of a byte of IQ1_BN, whose base-3 fraction has its first digit last."""
    power = 81
    for _ in range(j):
        power //= 3
    v = (byte * power) & 255
    return types.uint8((v + (v >> 1)) >> 7)


@compiled
def _iq1_bn(src: int, row: int, rows: int, cols: int, dst: int) -> int:
    """IQ1_BN: blocks of 64, five base-3 digits a byte."""
    base = src + row * (2 + cols // 64 * 13) + 2
    for b in range(cols // 64):
        at, to = base + 13 * b, dst + 64 * b
        extra = types.int64(load_scalar(types.uint8, at + 12))
        for i in range(4):
            for k in range(3):
                byte = types.int64(load_scalar(types.uint8, at + 3 * i + k))
                for j in range(5):
                    store_scalar(to + 16 * i + 5 * k + j, _bn_digit(byte, j))
            store_scalar(to + 16 * i + 15, _bn_digit(extra, i))
    return dst


@compiled
def _iq2_bn(src: int, row: int, rows: int, cols: int, dst: int) -> int:
    """IQ2_BN: blocks of 64, four two-bit fields a byte."""
    base = src + row * (4 + cols // 4) + 4
    for b in range(cols // 64):
        _fields(load(i8x16, base + 16 * b), dst + 64 * b, 16)
    return dst


@compiled
def _iq2_bn_r4(src: int, row: int, rows: int, cols: int, dst: int) -> int:
    """IQ2_BN_R4: blocks of 64 of four interleaved rows."""
    base = src + row // 4 * (16 + cols) + 16 + 4 * (row % 4)
    for b in range(cols // 64):
        for piece in range(4):
            for i in range(4):
                q = load_scalar(types.uint8, base + 64 * b + 16 * piece + i)
                for k in range(4):
                    store_scalar(dst + 64 * b + 16 * piece + i + 4 * k, types.uint8(q >> (2 * k) & 3))
    return dst


@compiled
def _hf_packed(src: int, row: int, rows: int, cols: int, dst: int) -> int:
    """HF_PACKED: a byte holds the codes of one column of four rows, a quarter of the matrix apart."""
    quarter = rows // 4
    shift = splat(i8x16, types.int64(2 * (row // quarter)))
    base = src + row % quarter * cols
    for i in range(0, cols - 15, 16):
        store(dst + i, (load(i8x16, base + i) >> shift) & 3)
    for i in range(cols // 16 * 16, cols):
        store_scalar(dst + i, types.uint8(load_scalar(types.uint8, base + i) >> (2 * (row // quarter)) & 3))
    return dst


@compiled
def _q1_58(src: int, row: int, rows: int, cols: int, dst: int) -> int:
    """Q1_58: two-bit codes 0, 1 and 3 for 0, 1 and -1."""
    for i in range(cols):
        code = types.int64(load_scalar(types.uint8, src + (row * cols + i) // 4)) >> (2 * (i & 3)) & 3
        store_scalar(dst + i, types.uint8(2 if code == 1 else (0 if code == 3 else 1)))
    return dst


def _words(chunk: int) -> Callable[..., Any]:
    """The function for T9 encodings of a chunk size."""

    @compiled
    def unpack_words(src: int, row: int, rows: int, cols: int, dst: int) -> int:
        """T9: columns of 16-bit words, 128 rows side by side. Padding of a chunk must be zeros."""
        blocks = (rows + 127) // 128
        for start in range(0, cols, chunk):
            n = min(chunk, cols - start)
            count = (n + 8) // 9
            at = src + 256 * count * (row // 128) + 2 * (row % 128)
            for i in range(count):
                w = types.int64(load_scalar(types.uint16, at + 256 * i))
                for k in range(3):
                    index = (w >> (5 * k)) & (63 if k == 2 else 31)
                    for j in range(3):
                        power = 9 if j == 0 else (3 if j == 1 else 1)
                        digit = index // power % 3 if index < 27 else 3
                        spot = 9 * i + 3 * k + j
                        if spot < n:
                            store_scalar(dst + start + spot, types.uint8(digit))
                        elif digit != 1:
                            store_scalar(dst + start + n - 1, types.uint8(3))
            src += 256 * count * blocks
        return dst

    return unpack_words


UNPACK: dict[str, Callable[..., Any]] = {
    "I2_S": _i2_s, "TQ1_0": _tq1_0, "TQ2_0": _tq2_0, "Q2_0": _two_bit(64), "PQ2_0": _two_bit(128),
    "PTQ1_0": _ptq1_0, "Q1_0": _q1_0, "IQ1_BN": _iq1_bn, "IQ2_BN": _iq2_bn, "IQ2_BN_R4": _iq2_bn_r4,
    "HF_PACKED": _hf_packed, "Q1_58": _q1_58,
    "T9_ROW": _words(252), "T9_64": _words(64), "T9_128": _words(128), "T9_256": _words(256),
}  # fmt: skip
