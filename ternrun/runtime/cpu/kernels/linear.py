"""y = W x for ordinary weights: float32 activations against weights decoded to float32 as they are read.

Every output is one vector of 16 partial sums, filled in the order of the inputs and added by halves; so results do
not depend on how many tokens or threads share the work. Rows are taken four at a time: decoded once into scratch,
then met by all tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from ternrun.runtime.cpu.dequantize import ROWS
from ternrun.runtime.cpu.jit import compiled, share, word
from ternrun.runtime.cpu.simd import f32x16, fma, get, load, put, total, zero

f32 = types.float32


@compiled
def _dot4(w: int, ldw: int, x: int, n: int) -> Any:
    """Four weight rows (ldw bytes apart) against one token: four sums over n floats, a multiple of 16."""
    a, b, c, d = zero(f32x16), zero(f32x16), zero(f32x16), zero(f32x16)
    for i in range(0, 4 * n, 64):
        v = load(f32x16, x + i)
        a = fma(load(f32x16, w + i), v, a)
        b = fma(load(f32x16, w + ldw + i), v, b)
        c = fma(load(f32x16, w + 2 * ldw + i), v, c)
        d = fma(load(f32x16, w + 3 * ldw + i), v, d)
    return total(a), total(b), total(c), total(d)


@compiled
def _tile_row(acc: Any, w: Any, x: int, ldx: int) -> Any:
    """One weight vector against four tokens."""
    return (
        fma(w, load(f32x16, x), acc[0]),
        fma(w, load(f32x16, x + ldx), acc[1]),
        fma(w, load(f32x16, x + 2 * ldx), acc[2]),
        fma(w, load(f32x16, x + 3 * ldx), acc[3]),
    )


@compiled
def _finish(out: int, ldo: int, acc: Any) -> None:
    """Sums of one row for four tokens (ldo bytes apart)."""
    put(out, total(acc[0]))
    put(out + ldo, total(acc[1]))
    put(out + 2 * ldo, total(acc[2]))
    put(out + 3 * ldo, total(acc[3]))


@compiled
def _tile(w: int, ldw: int, x: int, ldx: int, n: int, out: int) -> None:
    """Four rows against four tokens; sums to out[token][row], 16 bytes a token."""
    z = zero(f32x16)
    a, b, c, d = (z, z, z, z), (z, z, z, z), (z, z, z, z), (z, z, z, z)
    for i in range(0, 4 * n, 64):
        a = _tile_row(a, load(f32x16, w + i), x + i, ldx)
        b = _tile_row(b, load(f32x16, w + ldw + i), x + i, ldx)
        c = _tile_row(c, load(f32x16, w + 2 * ldw + i), x + i, ldx)
        d = _tile_row(d, load(f32x16, w + 3 * ldw + i), x + i, ldx)
    _finish(out, 16, a)
    _finish(out + 4, 16, b)
    _finish(out + 8, 16, c)
    _finish(out + 12, 16, d)


@compiled
def _emit(out: int, rows: int, sums: int, add: int, scale: Any) -> None:
    """Store (or add to what is there) the sums of up to four rows of one token."""
    for r in range(rows):
        value = get(types.float32, sums + 4 * r) * scale
        at = out + 4 * r
        put(at, get(types.float32, at) + value if add else value)


def build(entry: str) -> Callable[..., Any]:
    """One kernel per encoding: `linear.Q4_K`."""
    decode = ROWS[entry]

    @compiled
    def linear(args: int, tid: int, nt: int) -> int:
        """out[t] (+)= scale * W x[t].

        Arguments: count, x, ldx, weights, bytes a row, rows, columns (padded to the block and 16), add, out, ldo,
        scratch, scratch bytes a thread, scale.
        """
        tokens, x, ldx = get(types.int64, word(args, 0)), word(args, 1), 4 * word(args, 2)
        weights, stride, rows, n = word(args, 3), word(args, 4), word(args, 5), word(args, 6)
        add, out, ldo = word(args, 7), word(args, 8), 4 * word(args, 9)
        scale = f32(get(types.float64, args + 96))
        w = word(args, 10) + word(args, 11) * tid
        sums = w + 16 * n
        first, last = share((rows + 3) // 4, tid, nt)
        for block in range(first, last):
            row = 4 * block
            for r in range(4):  # a last block that is not full decodes its last row again
                decode(weights + stride * min(row + r, rows - 1), 0, n, w + 4 * n * r)
            count = min(4, rows - row)
            for t in range(0, tokens - 3, 4):
                _tile(w, 4 * n, x + ldx * t, ldx, n, sums)
                for j in range(4):
                    _emit(out + ldo * (t + j) + 4 * row, count, sums + 16 * j, add, scale)
            for t in range(tokens // 4 * 4, tokens):
                a, b, c, d = _dot4(w, 4 * n, x + ldx * t, n)
                put(sums, a)
                put(sums + 4, b)
                put(sums + 8, c)
                put(sums + 12, d)
                _emit(out + ldo * t + 4 * row, count, sums, add, scale)
        return 0

    return linear  # type: ignore[no-any-return]
