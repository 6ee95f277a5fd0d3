"""Make the 8-bit copy of the output matrix that `lm_head_screen.py` reads: codes, steps and the two norms of its
bounds.

Runs once, at load, over four rows at a time in pieces of columns, twice: first for the largest values, then for the
codes. Decoded pieces stay in L1, and the codes of four rows are stored as whole vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from numba import types

from ternrun.runtime.cpu.compile.arithmetic import fma, largest, magnitude, maximum, round_even, total
from ternrun.runtime.cpu.compile.atomic import atomic_add
from ternrun.runtime.cpu.compile.jit import compiled
from ternrun.runtime.cpu.compile.lanes import narrow, shuffler, splat, to_int, zero
from ternrun.runtime.cpu.compile.memory_access import load, store, store_scalar
from ternrun.runtime.cpu.compile.vectors import f32x16, i8x16, i8x32, i8x64, i32x16
from ternrun.runtime.cpu.kernels.dequantize import DEQUANTIZE

f32 = types.float32
BLOCK = 16  # rows that are interleaved
PIECE = 256  # columns
AREA = 4 * PIECE  # bytes of a row's decoded piece
_two = shuffler(i8x16, tuple(range(32)))
# four rows of sixteen bytes to [4 inputs][row][4]
_by_inputs = shuffler(i8x32, tuple(16 * row + 4 * j + i for j in range(4) for row in range(4) for i in range(4)))
_quarters = tuple(shuffler(i8x64, tuple(range(16 * j, 16 * j + 16)), operands=1) for j in range(4))
_first, _second, _third, _fourth = _quarters


@compiled
def _sizes(at: int, n: int, peak: Any, norm: Any) -> Any:
    """Update the largest magnitude and the sum of squares of each lane."""
    for i in range(0, 4 * n, 64):
        v = load(f32x16, at + i)
        peak, norm = maximum(peak, magnitude(v)), fma(v, v, norm)
    return peak, norm


@compiled
def _codes(at: int, inverse: Any, step: Any, error: Any) -> Any:
    """The codes + 128 of sixteen weights, and the updated sum of squared errors."""
    v = load(f32x16, at)
    q = round_even(v * inverse)
    e = v - q * step
    return narrow(i8x16, to_int(i32x16, q) + 128), fma(e, e, error)


@compiled
def _note(args: Any, row: int, step: Any, error: Any, norm: Any) -> None:
    """Store a row's step, its error norm |W - W'| and its norm |W|."""
    store_scalar(args.steps + 4 * row, step)
    store_scalar(args.errors + 4 * row, f32(math.sqrt(total(error))))
    store_scalar(args.norms + 4 * row, f32(math.sqrt(total(norm))))


@compiled
def _step(peak: Any) -> Any:
    """A row's step: its largest magnitude / 127."""
    return max(largest(peak), f32(1e-30)) / f32(127.0)


def _make_four(decode: Any) -> Any:
    """The function for four rows of an encoding that `decode` decodes."""

    @compiled
    def decode_piece(rows: Any, start: int, some: int, w: int) -> None:
        """Decode columns start .. start + some of four rows to w, AREA bytes apart."""
        decode(rows[0], start, some, w)
        decode(rows[1], start, some, w + AREA)
        decode(rows[2], start, some, w + 2 * AREA)
        decode(rows[3], start, some, w + 3 * AREA)

    @compiled
    def four(args: Any, row: int, w: int) -> None:
        """Copy rows row .. row + 3. Rows past the last repeat it, in places that nothing reads."""
        source, stride, rows, n = args.weights, args.row_bytes, args.rows - 1, args.n
        sources = (
            source + stride * min(row, rows), source + stride * min(row + 1, rows),
            source + stride * min(row + 2, rows), source + stride * min(row + 3, rows),
        )  # fmt: skip
        z = zero(f32x16)
        pa, pb, pc, pd = z, z, z, z
        na, nb, nc, nd = z, z, z, z
        for start in range(0, n, PIECE):
            some = min(PIECE, n - start)
            decode_piece(sources, start, some, w)
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
            decode_piece(sources, start, some, w)
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
    """One kernel for each encoding: `lm_head_copy.F16`."""
    four = _make_four(DEQUANTIZE[entry])

    @compiled
    def copy(args: Any, tid: int, nt: int) -> int:
        """Fill codes, steps and norms of all rows. `taken` counts the blocks taken so far."""
        w = args.scratch + args.scratch_stride * tid
        block = atomic_add(args.taken, 1)  # the next free thread takes the next block
        while block < (args.rows + BLOCK - 1) // BLOCK:
            for row in range(BLOCK * block, BLOCK * block + BLOCK, 4):
                four(args, row, w)
            block = atomic_add(args.taken, 1)
        return 0

    return copy
