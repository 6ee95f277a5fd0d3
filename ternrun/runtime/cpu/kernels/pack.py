"""Repack ternary tensors from their file's encoding to the layouts of `ternary_lut16.py` and `ternary_byte_dot.py`.

Runs once, at load, in all threads. A code that is not ternary sets the status word. Padding of chunks and superblocks
is zero weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from ternrun.runtime.cpu.compile.arithmetic import total
from ternrun.runtime.cpu.compile.atomic import atomic_add
from ternrun.runtime.cpu.compile.jit import compiled
from ternrun.runtime.cpu.compile.lanes import constant, narrow, reinterpret, shuffler, zero
from ternrun.runtime.cpu.compile.memory_access import load, load_scalar, store, store_scalar
from ternrun.runtime.cpu.compile.vectors import i8x64, i16x8, i16x16, i16x32, i32x16
from ternrun.runtime.cpu.kernels import ternary_byte_dot, ternary_lut16
from ternrun.runtime.cpu.kernels.unpack_ternary import UNPACK

ZERO_DIGIT = 1
ROWS_AT_ONCE = 32
SPARE = 704  # bytes after a row's digits that unpacking may write
SWAR = 0x1 | 0x3 << 8 | 0x9 << 16  # three digit bytes a, b, c times this have 9 a + 3 b + c in the third byte


@compiled
def _fault(digits: int, n: int) -> Any:
    """Whether one of n digits is 3."""
    bad = zero(i8x64)
    for i in range(0, n - 63, 64):
        v = load(i8x64, digits + i)
        bad = bad | (v & (v >> 1))
    found = types.int64(total(bad & 1))
    for i in range(n // 64 * 64, n):
        found += load_scalar(types.int8, digits + i) == 3
    return found != 0


@compiled
def _silence(digits: int, cols: int, scales: int, group: int) -> None:
    """Set the digits of blocks whose scale is 0 to zero weights, so that a row with one other scale needs no
    exception.
    """
    for g in range(cols // group):
        if load_scalar(types.float32, scales + 4 * g) == 0:
            for i in range(group):
                store_scalar(digits + g * group + i, types.uint8(ZERO_DIGIT))


@compiled
def _pad(digits: int, n: int) -> None:
    """Write 16 zero digits after a row of n digits."""
    for i in range(16):
        store_scalar(digits + n + i, types.uint8(ZERO_DIGIT))


@compiled
def _word_of(at: int, n: int) -> Any:
    """The word of three indices for n digits, at most nine, padded with zero digits."""
    value, index = types.int64(0), types.int64(0)
    for i in range(9):
        digit = types.int64(load_scalar(types.uint8, at + i)) if i < n else types.int64(ZERO_DIGIT)
        index = 3 * index + digit
        if i % 3 == 2:
            value |= index << (5 * (i // 3))
            index = types.int64(0)
    return types.uint16(value)


def _thirds(first: int) -> tuple[int, ...]:
    """A byte shuffle that makes seven 32-bit lanes: digits first .. first + 2 of each word and a zero byte."""
    return tuple(64 if k == 3 else 9 * w + first + k for w in range(7) for k in range(4)) + (64,) * 4


_first_two = shuffler(i8x64, _thirds(0) + _thirds(3))
_last = shuffler(i8x64, _thirds(6) + (64,) * 32)
_up = constant(i32x16, (0,) * 8 + (5,) * 8)
_low = shuffler(i32x16, tuple(range(8)), operands=1)
_high = shuffler(i32x16, tuple(range(8, 16)), operands=1)


@compiled
def _seven_words(spots: int, row: int, start: int) -> Any:
    """63 digits of a row as seven words, and a word of zeros."""
    digits, nothing = load(i8x64, load_scalar(types.int64, spots + 8 * row) + start), zero(i8x64)
    two = (((reinterpret(i32x16, _first_two(digits, nothing)) * SWAR) >> 16) & 31) << _up()
    one = (((reinterpret(i32x16, _last(digits, nothing)) * SWAR) >> 16) & 31) << 10
    return narrow(i16x8, _low(two) + _high(two) + _low(one))


_join_two = shuffler(i16x8, tuple(range(16)))
_join_four = shuffler(i16x16, tuple(range(32)))


def _of_words(first: int, last: int, rows: int, row: int, word: int) -> Any:
    """A shuffle that selects words first .. last as [word][2 * rows] from two vectors.

    `row` and `word` are the strides of rows and words in lanes.
    """
    lanes = [32 * v + row * r + word * w for w in range(first, last) for v in range(2) for r in range(rows)]
    return shuffler(i16x32, tuple(lanes))


_words_0_3, _words_4_7 = _of_words(0, 4, 4, 8, 1), _of_words(4, 8, 4, 8, 1)
_words_0_1, _words_2_3 = _of_words(0, 2, 8, 1, 8), _of_words(2, 4, 8, 1, 8)
_word_0, _word_1 = _of_words(0, 1, 16, 1, 16), _of_words(1, 2, 16, 1, 16)


@compiled
def _four_rows(spots: int, row: int, start: int) -> Any:
    """Eight words of each of four rows, row by row."""
    a, b = _seven_words(spots, row, start), _seven_words(spots, row + 1, start)
    c, d = _seven_words(spots, row + 2, start), _seven_words(spots, row + 3, start)
    return _join_four(_join_two(a, b), _join_two(c, d))


@compiled
def _sixteen_rows(spots: int, row: int, start: int) -> Any:
    """Words 0 and 1, 2 and 3, 4 and 5, and 6 of sixteen rows, word by word."""
    a, b = _four_rows(spots, row, start), _four_rows(spots, row + 4, start)
    c, d = _four_rows(spots, row + 8, start), _four_rows(spots, row + 12, start)
    low, low_too, high, high_too = _words_0_3(a, b), _words_0_3(c, d), _words_4_7(a, b), _words_4_7(c, d)
    return (
        _words_0_1(low, low_too), _words_2_3(low, low_too), _words_0_1(high, high_too), _words_2_3(high, high_too),
    )  # fmt: skip


@compiled
def _seven_vectors(spots: int, start: int, to: int) -> None:
    """Store 63 digits of 32 rows as seven vectors of words, 256 bytes apart."""
    a, b, c, d = _sixteen_rows(spots, 0, start)
    e, f, g, h = _sixteen_rows(spots, 16, start)
    store(to, _word_0(a, e))
    store(to + 256, _word_1(a, e))
    store(to + 512, _word_0(b, f))
    store(to + 768, _word_1(b, f))
    store(to + 1024, _word_0(c, g))
    store(to + 1280, _word_1(c, g))
    store(to + 1536, _word_0(d, h))


@compiled
def _put_words(spots: int, n: int, chunk: int, words: int, dst: int, blocks: int, row: int) -> None:
    """Store the words of 32 rows as [chunk][superblock][word][128 rows]. Consecutive rows fill whole cache lines."""
    for start in range(0, n, chunk):
        inputs = min(chunk, n - start)
        count = min(words, (inputs + 8) // 9)
        to = dst + 256 * count * (row // ternary_lut16.SUPERBLOCK) + 2 * (row % ternary_lut16.SUPERBLOCK)
        sevens = inputs // 63
        for i in range(0, 7 * sevens, 7):
            _seven_vectors(spots, start + 9 * i, to + 256 * i)
        for i in range(7 * sevens, count):
            for r in range(ROWS_AT_ONCE):
                at = load_scalar(types.int64, spots + 8 * r) + start + 9 * i
                store_scalar(to + 256 * i + 2 * r, _word_of(at, min(9, inputs - 9 * i)))
        dst += 256 * count * blocks


@compiled
def _put_bytes(spots: int, n: int, dst: int, row: int) -> None:
    """Store the codes of 32 rows as [superblock of 32][16 columns][4][8 rows x 4]."""
    width = (n + 15) // 16 * 16
    to = dst + 8 * width * (row // ternary_byte_dot.SUPERBLOCK)
    for k in range(0, width, 16):
        for r in range(ROWS_AT_ONCE):
            digits = load_scalar(types.int64, spots + 8 * r) + k
            for j in range(4):
                code = 0
                for i in range(4):
                    code |= types.int64(load_scalar(types.uint8, digits + 4 * i + j)) << (2 * i)
                store_scalar(to + 8 * k + 4 * r + j, types.uint8(code))


def build(entry: str) -> Callable[..., Any]:
    """One kernel for each encoding and layout: `pack.TQ2_0-lut16`, `pack.TQ2_0-byte_dot`."""
    encoding, _, layout = entry.partition("-")
    unpack = UNPACK[encoding]
    lut16 = layout == "lut16"
    groups = (ternary_lut16.SUPERBLOCK if lut16 else ternary_byte_dot.SUPERBLOCK) // ROWS_AT_ONCE

    @compiled
    def row_digits(args: Any, row: int, to: int) -> Any:
        """Unpack the digits of one row, padded with zero digits; returns their address.

        A row past the matrix is all zeros.
        """
        rows, cols, scales, group = args.rows, args.n, args.scales, args.group
        if row >= rows:
            for i in range(cols):
                store_scalar(to + i, types.uint8(ZERO_DIGIT))
            _pad(to, cols)
            return to
        digits = unpack(args.source, row, rows, cols, to)
        if _fault(digits, cols):
            store_scalar(args.status, types.int64(1))
        if scales:
            _silence(digits, cols, scales + 4 * (cols // group) * row, group)
        _pad(digits, cols)
        return digits

    @compiled
    def pack(args: Any, tid: int, nt: int) -> int:
        """Repack rows of n columns to `out`. status[1] counts the parts taken so far.

        `scales` holds one scale for each `group` columns; it is 0 unless a block can have the scale 0.
        """
        cols, dst, blocks = args.n, args.out, args.superblocks
        spots = args.scratch + args.scratch_stride * tid
        room = (cols + SPARE) // 128 * 128 + 64  # an odd number of cache lines: different cache sets
        part = atomic_add(args.status + 8, 1)  # the next free thread: other work runs at load, too
        while part < groups * blocks:
            row = ROWS_AT_ONCE * part
            for r in range(ROWS_AT_ONCE):
                store_scalar(spots + 8 * r, row_digits(args, row + r, spots + 256 + room * r))
            if lut16:
                _put_words(spots, cols, args.chunk, args.chunk_words, dst, blocks, row)
            else:
                _put_bytes(spots, cols, dst, row)
            part = atomic_add(args.status + 8, 1)
        return 0

    return pack
