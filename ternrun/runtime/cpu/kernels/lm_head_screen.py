"""The exact largest logits for half the memory traffic: an 8-bit copy of the output matrix screens all rows, and
only rows that can matter are computed exactly.

For row i with codes W'_i (one step a row) and error norm |W_i - W'_i|, Cauchy-Schwarz bounds the copy's error: |W_i x -
W'_i x'| <= |W_i - W'_i| |x| + |W_i| |x - x'|, plus the rounding of both sums. A row whose upper bound is below the k-th
largest lower bound is not among the k largest. Every other row is computed as `linear.*` computes it.

x' has 15 bits in two int8 planes, 128 high + low. If many tokens share a pass, arithmetic and not memory limits its
speed; then the high plane alone is used for tokens that it represents well enough.

Rows are interleaved by sixteen, [block][4 columns][16 rows][4], as codes + 128, because vpdpbusd (AVX-512 VNNI)
multiplies unsigned by signed bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from numba import types

from ternrun.runtime.cpu import layout
from ternrun.runtime.cpu.compile.arithmetic import fma, largest, magnitude, maximum, round_even, total, where_less
from ternrun.runtime.cpu.compile.jit import compiled, noinline, share
from ternrun.runtime.cpu.compile.lanes import iota, lane, narrow, splat, to_float, to_int, zero
from ternrun.runtime.cpu.compile.memory_access import load, load_scalar, store, store_scalar
from ternrun.runtime.cpu.compile.vectors import f32x16, i8x16, i32x16
from ternrun.runtime.cpu.kernels.dequantize import DEQUANTIZE
from ternrun.runtime.cpu.kernels.lm_head_products import high4, planes, planes4

f32 = types.float32
BLOCK = 16
HEADER, COUNTS = layout.SCREEN_HEADER, layout.SCREEN_COUNTS
#: Offsets in a prepared row. x' = STEP * (128 high + low), NORM = |x|, LOSS = |x - x'|; COARSE: x' = STEP * 128 high.
STEP, NORM, LOSS, HIGH_SUM, LOW_SUM, COARSE = range(0, 24, 4)
MANY, FINE = 4, 0.01  # least number of tokens for a coarse x', and its largest loss as a share of |x|
ROUNDING = 2.0**-22  # relative, for each column: both sums round once a column, and the bounds a few times


@compiled
def _square_norm(x: int, n: int) -> Any:
    """|x|**2 of n floats."""
    acc = zero(f32x16)
    for i in range(0, 4 * n, 64):
        v = load(f32x16, x + i)
        acc = fma(v, v, acc)
    return total(acc)


@compiled
def _peak(x: int, n: int) -> Any:
    """max|x| of n floats, at least 1e-30."""
    peak = zero(f32x16)
    for i in range(0, 4 * n, 64):
        peak = maximum(peak, magnitude(load(f32x16, x + i)))
    return max(largest(peak), f32(1e-30))


@compiled
def _prepare(args: Any, tid: int, nt: int) -> int:
    """Split rows of x into two int8 planes.

    A prepared row is HEADER bytes, the high plane, and the low plane.
    """
    n = args.n
    first, last = share(load_scalar(types.int64, args.count), tid, nt)
    for t in range(first, last):
        x, out = args.x + 4 * args.ldx * t, args.out + args.out_stride * t
        step = _peak(x, n) / f32(16256.0)
        inverse, wide = splat(f32x16, f32(1.0) / step), splat(f32x16, step)
        loss, coarse_loss = zero(f32x16), zero(f32x16)
        high_sum, low_sum = zero(i32x16), zero(i32x16)
        for i in range(0, n, 16):
            v = load(f32x16, x + 4 * i)
            rounded = round_even(v * inverse)
            e = v - rounded * wide
            loss = fma(e, e, loss)
            q = to_int(i32x16, rounded)
            high = ((q + (64 + (1 << 20))) >> 7) - (1 << 13)  # shifts are logical, so numbers are made positive first
            low = q - (high << 7)
            e = v - to_float(f32x16, high << 7) * wide
            coarse_loss = fma(e, e, coarse_loss)
            store(out + HEADER + i, narrow(i8x16, high))
            store(out + HEADER + n + i, narrow(i8x16, low))
            high_sum, low_sum = high_sum + high, low_sum + low
        store_scalar(out + STEP, step)
        norm, coarser = f32(math.sqrt(_square_norm(x, n))), f32(math.sqrt(total(coarse_loss)))
        coarse = load_scalar(types.int64, args.count) >= MANY and coarser <= f32(FINE) * norm
        store_scalar(out + NORM, norm)
        store_scalar(out + LOSS, coarser if coarse else f32(math.sqrt(total(loss))))
        store_scalar(out + COARSE, types.int32(coarse))
        store_scalar(out + HIGH_SUM, types.int32(128 * total(high_sum)))
        store_scalar(out + LOW_SUM, types.int32(128 * total(low_sum)))
    return 0


@compiled
def _all_coarse(x: int, stride: int) -> Any:
    """Whether the high plane is enough for each of four x."""
    a, b = load_scalar(types.int32, x + COARSE), load_scalar(types.int32, x + stride + COARSE)
    return a & b & load_scalar(types.int32, x + 2 * stride + COARSE) & load_scalar(types.int32, x + 3 * stride + COARSE)


@compiled
def _no_low4(x: int, stride: int) -> Any:
    """The sums of low planes that are zero, for four x."""
    return (
        splat(i32x16, load_scalar(types.int32, x + LOW_SUM)),
        splat(i32x16, load_scalar(types.int32, x + stride + LOW_SUM)),
        splat(i32x16, load_scalar(types.int32, x + 2 * stride + LOW_SUM)),
        splat(i32x16, load_scalar(types.int32, x + 3 * stride + LOW_SUM)),
    )


@compiled
def _bound(args: Any, row: int, x: int) -> Any:
    """The error bounds of sixteen rows' copies for this x."""
    norm, loss = load_scalar(types.float32, x + NORM), load_scalar(types.float32, x + LOSS)
    slack = loss + norm * f32(ROUNDING) * f32(args.n)
    errors, norms = load(f32x16, args.errors + 4 * row), load(f32x16, args.norms + 4 * row)
    return (errors * splat(f32x16, norm) + norms * splat(f32x16, slack)) * splat(f32x16, f32(1.0001))


@compiled
def _note(args: Any, t: int, block: int, x: int, high: Any, low: Any) -> None:
    """Store sixteen approximate logits, and the largest of their lower bounds."""
    row = BLOCK * block
    high = to_float(f32x16, high - splat(i32x16, load_scalar(types.int32, x + HIGH_SUM)))
    low = to_float(f32x16, low - splat(i32x16, load_scalar(types.int32, x + LOW_SUM)))
    scale = load(f32x16, args.steps + 4 * row) * splat(f32x16, load_scalar(types.float32, x + STEP) * args.scale)
    value = fma(high, splat(f32x16, f32(128.0)), low) * scale
    store(args.logits + 4 * (args.ldl * t + row), value)
    lower = value - _bound(args, row, x) * splat(f32x16, abs(args.scale))
    valid = splat(i32x16, args.rows - row)
    lower = where_less(iota(i32x16), valid, lower, splat(f32x16, f32(-math.inf)))
    store_scalar(args.block_bounds + 4 * (args.ldb * t + block), largest(lower))


@noinline
def _note4(args: Any, t: int, block: int, x: int, stride: int, high: Any, low: Any) -> None:
    """The same for four tokens."""
    _note(args, t, block, x, high[0], low[0])
    _note(args, t + 1, block, x + stride, high[1], low[1])
    _note(args, t + 2, block, x + 2 * stride, high[2], low[2])
    _note(args, t + 3, block, x + 3 * stride, high[3], low[3])


@compiled
def _scan(args: Any, tid: int, nt: int) -> int:
    """Store the approximate logits of all rows, and the largest lower bound of each block."""
    tokens, stride, n = load_scalar(types.int64, args.count), args.prepared_stride, args.n
    first, last = share((args.rows + BLOCK - 1) // BLOCK, tid, nt)
    size = BLOCK * n
    step = 2 * size // (n // 4 * max(1, tokens // 4))
    for block in range(first, last, 2):
        codes, other = args.codes + size * block, min(block + 1, last - 1)
        more, ahead = args.codes + size * other, codes + 2 * size
        for t in range(0, tokens - 3, 4):
            x = args.prepared + stride * t
            if _all_coarse(x, stride):
                here, there = high4(codes, more, n, x, stride, ahead + step * (n // 4) * (t // 4), step)
                _note4(args, t, block, x, stride, here, _no_low4(x, stride))
                _note4(args, t, other, x, stride, there, _no_low4(x, stride))
            else:
                for i in range(block, other + 1):
                    high, low = planes4(args.codes + size * i, n, x, stride)
                    _note4(args, t, i, x, stride, high, low)
        for i in range(block, other + 1):
            for t in range(tokens // 4 * 4, tokens):
                x = args.prepared + stride * t
                upper, lower = planes(args.codes + size * i, n, x)
                _note(args, t, i, x, upper, lower)
    return 0


@compiled
def _kth_largest(peaks: int, n: int, k: int, heap: int) -> Any:
    """The k-th largest of n floats, or -inf if n < k. `heap` has room for the k largest so far, sorted."""
    lowest = f32(-math.inf)
    for i in range(k):
        store_scalar(heap + 4 * i, lowest)
    for i in range(n):
        value = load_scalar(types.float32, peaks + 4 * i)
        if value > load_scalar(types.float32, heap + 4 * (k - 1)):
            j = k - 1
            while j > 0 and load_scalar(types.float32, heap + 4 * (j - 1)) < value:
                store_scalar(heap + 4 * j, load_scalar(types.float32, heap + 4 * (j - 1)))
                j -= 1
            store_scalar(heap + 4 * j, value)
    return load_scalar(types.float32, heap + 4 * (k - 1))


@compiled
def _select(args: Any, tid: int, nt: int) -> int:
    """thresholds[t] = the k-th largest lower bound, k = top_k[t]. The k largest logits reach it."""
    for t in range(tid, load_scalar(types.int64, args.count), nt):
        keep, blocks = types.int64(load_scalar(types.int32, load_scalar(types.int64, args.top_k) + 4 * t)), args.blocks
        threshold = f32(-math.inf)
        if 0 < keep < blocks and keep <= layout.SCREEN_MAX_TOP_K:
            heap = args.scratch + args.scratch_stride * tid
            threshold = _kth_largest(args.block_bounds + 4 * args.ldb * t, blocks, keep, heap)
        store_scalar(args.thresholds + 4 * t, threshold)
    return 0


@compiled
def _dot(w: int, x: int, n: int) -> Any:
    """One logit, summed in the same order as `linear.*` sums it."""
    acc = zero(f32x16)
    for i in range(0, 4 * n, 64):
        acc = fma(load(f32x16, w + i), load(f32x16, x + i), acc)
    return total(acc)


def _make_exact(decode: Any) -> Callable[..., Any]:
    """The kernel for an encoding that `decode` decodes."""

    @compiled
    def exact(args: Any, tid: int, nt: int) -> int:
        """Compute the rows whose upper bound reaches the threshold.

        Their ids and logits replace the approximate logits, from where the thread's share begins; counts[2 + thread]
        gets their number.
        """
        rows, n, scale = args.rows, args.n, args.scale
        scratch = args.scratch + args.scratch_stride * tid
        first, last = share((rows + BLOCK - 1) // BLOCK, tid, nt)
        for t in range(load_scalar(types.int64, args.count)):
            x, prepared = args.x + 4 * args.ldx * t, args.prepared + args.prepared_stride * t
            threshold, start = load_scalar(types.float32, args.thresholds + 4 * t), args.ldl * t
            found = start + BLOCK * first  # writes never overtake the approximate logits that are still to be read
            for block in range(first, last):
                row = BLOCK * block
                upper = load(f32x16, args.logits + 4 * (start + row))
                upper = upper + _bound(args, row, prepared) * splat(f32x16, abs(scale))
                reached = where_less(upper, splat(f32x16, threshold), zero(f32x16), splat(f32x16, 1.0))  # also for NaN
                if largest(reached) == 0:
                    continue
                for r in range(min(BLOCK, rows - row)):
                    if not lane(upper, r) < threshold:
                        decode(args.weights + args.row_bytes * (row + r), 0, n, scratch)
                        store_scalar(args.logits + 4 * found, _dot(scratch, x, n) * scale)
                        store_scalar(args.row_ids + 4 * found, types.int32(row + r))
                        found += 1
            store_scalar(args.counts + COUNTS * t + 8 * (2 + tid), found - start - BLOCK * first)
        return 0

    return exact


@compiled
def _gather(args: Any, tid: int, nt: int) -> int:
    """Move the logits that all threads found together.

    counts[0] gets their number, and counts[1] the id of the largest, or -1 if that is not finite.
    """
    for t in range(tid, load_scalar(types.int64, args.count), nt):
        counts, start = args.counts + COUNTS * t, 4 * args.ldl * t
        found, best, peak = 0, -1, f32(-math.inf)
        for thread in range(nt):
            first, _ = share((args.rows + BLOCK - 1) // BLOCK, thread, nt)
            for i in range(load_scalar(types.int64, counts + 8 * (2 + thread))):
                at, to = start + 4 * (BLOCK * first + i), start + 4 * found
                value, row = load_scalar(types.float32, args.logits + at), load_scalar(types.int32, args.row_ids + at)
                store_scalar(args.logits + to, value)
                store_scalar(args.row_ids + to, row)
                if value > peak or value != value:  # a NaN stays the peak
                    best, peak = types.int64(row), value
                found += 1
        store_scalar(counts, found)
        store_scalar(counts + 8, best if math.isfinite(peak) else -1)
    return 0


def build(entry: str) -> Callable[..., Any]:
    """Entries: prepare, scan, select, exact-X for each encoding X, gather."""
    what, _, encoding = entry.partition("-")
    if encoding:
        return _make_exact(DEQUANTIZE[encoding])
    return {"prepare": _prepare, "scan": _scan, "select": _select, "gather": _gather}[what]
