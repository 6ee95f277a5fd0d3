"""The 8-bit copy that `screen.py` reads, made once, at load: codes, steps, and the two norms of its bounds.

Four rows at a time, a piece of their columns after the other, twice: first for their sizes, then for their codes. So
decoded pieces stay in L1, and codes of four rows leave in whole vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from numba import types

from ternrun.runtime.cpu.compile.atomic import atomic_add
from ternrun.runtime.cpu.compile.jit import compiled
from ternrun.runtime.cpu.compile.simd import (
    f32x16,
    fma,
    i8x16,
    i32x16,
    largest,
    load,
    magnitude,
    maximum,
    narrow,
    round_even,
    shuffler,
    splat,
    store,
    store_scalar,
    to_int,
    total,
    zero,
)  # fmt: skip
from ternrun.runtime.cpu.compile.vectors import i8x32, i8x64
from ternrun.runtime.cpu.kernels.dequantize import ROWS

f32 = types.float32
BLOCK = 16  # rows that lie together
PIECE = 256  # columns
AREA = 4 * PIECE  # bytes of a decoded piece of a row
_two = shuffler(i8x16, tuple(range(32)))
# four rows of sixteen bytes to [4 inputs][row][4]
_by_inputs = shuffler(i8x32, tuple(16 * row + 4 * j + i for j in range(4) for row in range(4) for i in range(4)))
_quarters = tuple(shuffler(i8x64, tuple(range(16 * j, 16 * j + 16)), operands=1) for j in range(4))
_first, _second, _third, _fourth = _quarters


@compiled
def _sizes(at: int, n: int, peak: Any, norm: Any) -> Any:
    """The largest magnitude and the sum of squares so far, lane by lane."""
    for i in range(0, 4 * n, 64):
        v = load(f32x16, at + i)
        peak, norm = maximum(peak, magnitude(v)), fma(v, v, norm)
    return peak, norm


@compiled
def _codes(at: int, inverse: Any, step: Any, error: Any) -> Any:
    """Codes + 128 of sixteen weights, and the sum of squared errors so far."""
    v = load(f32x16, at)
    q = round_even(v * inverse)
    e = v - q * step
    return narrow(i8x16, to_int(i32x16, q) + 128), fma(e, e, error)


@compiled
def _note(args: Any, row: int, step: Any, error: Any, norm: Any) -> None:
    store_scalar(args.steps + 4 * row, step)
    store_scalar(args.errors + 4 * row, f32(math.sqrt(total(error))))
    store_scalar(args.norms + 4 * row, f32(math.sqrt(total(norm))))


@compiled
def _step(peak: Any) -> Any:
    return max(largest(peak), f32(1e-30)) / f32(127.0)


def _make_four(decode: Any) -> Any:
    @compiled
    def four(args: Any, row: int, w: int) -> None:
        """Rows row .. row + 3; a last block that is not full repeats its last row, in places that nobody reads."""
        source, stride, rows, n = args.weights, args.row_bytes, args.rows - 1, args.n
        at, next_at = source + stride * min(row, rows), source + stride * min(row + 1, rows)
        third, fourth = source + stride * min(row + 2, rows), source + stride * min(row + 3, rows)
        z = zero(f32x16)
        pa, pb, pc, pd = z, z, z, z
        na, nb, nc, nd = z, z, z, z
        for start in range(0, n, PIECE):
            some = min(PIECE, n - start)
            decode(at, start, some, w)
            decode(next_at, start, some, w + AREA)
            decode(third, start, some, w + 2 * AREA)
            decode(fourth, start, some, w + 3 * AREA)
            pa, na = _sizes(w, some, pa, na)
            pb, nb = _sizes(w + AREA, some, pb, nb)
            pc, nc = _sizes(w + 2 * AREA, some, pc, nc)
            pd, nd = _sizes(w + 3 * AREA, some, pd, nd)
        sa, sb, sc, sd = _step(pa), _step(pb), _step(pc), _step(pd)
        ia, ib = splat(f32x16, f32(1.0) / sa), splat(f32x16, f32(1.0) / sb)
        ic, id_ = splat(f32x16, f32(1.0) / sc), splat(f32x16, f32(1.0) / sd)
        wa, wb, wc, wd = splat(f32x16, sa), splat(f32x16, sb), splat(f32x16, sc), splat(f32x16, sd)
        ea, eb, ec, ed = z, z, z, z
        to = args.codes + BLOCK * n * (row // BLOCK) + 4 * (row % BLOCK)
        for start in range(0, n, PIECE):
            some = min(PIECE, n - start)
            decode(at, start, some, w)
            decode(next_at, start, some, w + AREA)
            decode(third, start, some, w + 2 * AREA)
            decode(fourth, start, some, w + 3 * AREA)
            for i in range(0, some, 16):
                here = w + 4 * i
                a, ea = _codes(here, ia, wa, ea)
                b, eb = _codes(here + AREA, ib, wb, eb)
                c, ec = _codes(here + 2 * AREA, ic, wc, ec)
                d, ed = _codes(here + 3 * AREA, id_, wd, ed)
                mixed = _by_inputs(_two(a, b), _two(c, d))
                spot = to + 16 * (start + i)
                store(spot, _first(mixed))
                store(spot + 64, _second(mixed))
                store(spot + 128, _third(mixed))
                store(spot + 192, _fourth(mixed))
        _note(args, row, sa, ea, na)
        _note(args, row + 1, sb, eb, nb)
        _note(args, row + 2, sc, ec, nc)
        _note(args, row + 3, sd, ed, nd)

    return four


def build(entry: str) -> Callable[..., Any]:
    """One kernel per encoding: `screen_copy.F16`."""
    four = _make_four(ROWS[entry])

    @compiled
    def copy(args: Any, tid: int, nt: int) -> int:
        """Codes, steps and bounds of all rows; `taken` counts the blocks taken so far."""
        w = args.scratch + args.scratch_stride * tid
        block = atomic_add(args.taken, 1)  # whoever is free
        while block < (args.rows + BLOCK - 1) // BLOCK:
            for row in range(BLOCK * block, BLOCK * block + BLOCK, 4):
                four(args, row, w)
            block = atomic_add(args.taken, 1)
        return 0

    return copy
