"""Multiply some rows of float32 weights by all tokens: the inner part of `linear.*`.

Every output is one vector of 16 partial sums, filled in the order of the inputs and reduced by halves (as `total`
does), so it has the same bits in every tile, wherever the inputs are cut.

A tile is four rows by some tokens. 4 x 6 sums, four vectors of weights and one of inputs fill the registers of AVX-512:
24 multiply-adds for ten loads. Other CPUs have a quarter of the registers, and take one token. Inputs are cut so that a
tile's rows and tokens stay in L1; partial sums are stored in memory between cuts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from ternrun.runtime.cpu.compile.arithmetic import fma
from ternrun.runtime.cpu.compile.isa import build_target
from ternrun.runtime.cpu.compile.jit import compiled
from ternrun.runtime.cpu.compile.lanes import shuffler, splat, zero
from ternrun.runtime.cpu.compile.memory_access import load, load_scalar, prefetch, prefetch_far, store, store_scalar
from ternrun.runtime.cpu.compile.vectors import VecType, f32x16
from ternrun.runtime.cpu.layout import ORDINARY_TOKENS

WIDE = ORDINARY_TOKENS if build_target() == "avx512" else 1  # tokens of a tile
FEW = 1 << 15 if WIDE > 1 else 1 << 62  # floats of all tokens up to which four rows at a time are multiplied
CHUNK = 640  # inputs between two cuts
SPARE = 16 * ORDINARY_TOKENS + 32  # bytes of outputs of a tile with fewer than four rows
f32x4 = VecType("f", 32, 4)

_by_two = shuffler(f32x16, tuple(i ^ 2 for i in range(16)), operands=1)
_by_one = shuffler(f32x16, tuple(i ^ 1 for i in range(16)), operands=1)


def _make_fold(step: int) -> Callable[..., Any]:
    """f(x, y): sums of lanes `step` apart, of x where the lane's bit `step` is 0, and of y where it is 1.

    Two vectors are reduced by halves (as `total` does) with the shuffles of one.
    """
    own = shuffler(f32x16, tuple(i + 16 * (i // step % 2) for i in range(16)))
    other = shuffler(f32x16, tuple((i ^ step) + 16 * (i // step % 2) for i in range(16)))
    return compiled(lambda x, y: own(x, y) + other(x, y))


_fold8, _fold4, _fold2, _fold1 = _make_fold(8), _make_fold(4), _make_fold(2), _make_fold(1)
_quarter0 = shuffler(f32x16, tuple(range(4)), operands=1)
_quarter1 = shuffler(f32x16, tuple(range(4, 8)), operands=1)
_quarter2 = shuffler(f32x16, tuple(range(8, 12)), operands=1)
_quarter3 = shuffler(f32x16, tuple(range(12, 16)), operands=1)
_quarters = shuffler(f32x16, (0, 4, 8, 12), operands=1)
_low_eighths = shuffler(f32x16, (0, 4, 2, 6), operands=1)
_high_eighths = shuffler(f32x16, (8, 12, 10, 14), operands=1)


@compiled
def _put4(out: int, add: int, value: Any) -> None:
    """Store four outputs, or add them."""
    store(out, load(f32x4, out) + value if add else value)


@compiled
def _finish1(out: int, ldo: int, add: int, scale: Any, a: Any, b: Any, c: Any, d: Any) -> None:
    """Store the totals of four rows for one token, times `scale`."""
    fours = _fold4(_fold8(a[0], c[0]), _fold8(b[0], d[0]))
    twos = fours + _by_two(fours)
    _put4(out, add, _quarters(twos + _by_one(twos)) * splat(f32x4, scale))


@compiled
def _finish2(out: int, ldo: int, add: int, scale: Any, a: Any, b: Any, c: Any, d: Any) -> None:
    """The same for two tokens, `ldo` bytes apart."""
    ab, cd = _fold4(_fold8(a[0], a[1]), _fold8(b[0], b[1])), _fold4(_fold8(c[0], c[1]), _fold8(d[0], d[1]))
    twos = _fold2(ab, cd)
    value = (twos + _by_one(twos)) * splat(f32x16, scale)
    _put4(out, add, _low_eighths(value))
    _put4(out + ldo, add, _high_eighths(value))


@compiled
def _lanes(a: Any) -> Any:
    """Fold four vectors into one: a quarter for each."""
    return _fold4(_fold8(a[0], a[2]), _fold8(a[1], a[3]))


@compiled
def _finish4(out: int, ldo: int, add: int, scale: Any, a: Any, b: Any, c: Any, d: Any) -> None:
    """The same for four tokens."""
    value = _fold1(_fold2(_lanes(a), _lanes(c)), _fold2(_lanes(b), _lanes(d))) * splat(f32x16, scale)
    _put4(out, add, _quarter0(value))
    _put4(out + ldo, add, _quarter1(value))
    _put4(out + 2 * ldo, add, _quarter2(value))
    _put4(out + 3 * ldo, add, _quarter3(value))


# The following functions process each vector of a tuple, unrolled at compile time: the function for n processes the
# first vector, and calls the function for n - 1 with the rest.


def _zeros(n: int) -> Callable[..., Any]:
    """A function that returns n zero vectors."""
    if n == 1:
        return compiled(lambda: (zero(f32x16),))
    rest = _zeros(n - 1)
    return compiled(lambda: (zero(f32x16), *rest()))


def _loads(n: int) -> Callable[..., Any]:
    """A function that loads n vectors."""
    if n == 1:
        return compiled(lambda at: (load(f32x16, at),))
    rest = _loads(n - 1)
    return compiled(lambda at: (load(f32x16, at), *rest(at + 64)))


def _stores(n: int) -> Callable[..., Any]:
    """A function that stores n vectors."""
    if n == 1:
        return compiled(lambda at, values: store(at, values[0]))
    rest = _stores(n - 1)

    @compiled
    def stores(at: int, values: Any) -> None:
        store(at, values[0])
        rest(at + 64, values[1:])

    return stores


def _accumulate(n: int) -> Callable[..., Any]:
    """A function that multiplies a vector of weights by n tokens, ldx bytes apart, and adds to their sums."""
    if n == 1:
        return compiled(lambda sums, w, x, ldx: (fma(w, load(f32x16, x), sums[0]),))
    rest = _accumulate(n - 1)
    return compiled(lambda sums, w, x, ldx: (fma(w, load(f32x16, x), sums[0]), *rest(sums[1:], w, x + ldx, ldx)))


def _finish(n: int) -> Callable[..., Any]:
    """A function that stores the totals of four rows for n tokens: four, two or one at a time."""
    many = 4 if n >= 4 else min(n, 2)
    some = {1: _finish1, 2: _finish2, 4: _finish4}[many]
    if n == many:
        return some
    rest = _finish(n - many)

    @compiled
    def finish(out: int, ldo: int, add: int, scale: Any, a: Any, b: Any, c: Any, d: Any) -> None:
        some(out, ldo, add, scale, a[:many], b[:many], c[:many], d[:many])
        rest(out + many * ldo, ldo, add, scale, a[many:], b[many:], c[many:], d[many:])

    return finish


def _fetch(n: int) -> Callable[..., Any]:
    """A function that prefetches what the next tile reads.

    Few tokens read their weights sequentially, which the CPU prefetches.
    """

    @compiled
    def nothing(w: Any, x: int, i: int) -> None:
        pass

    @compiled
    def lines(w: Any, x: int, i: int) -> None:
        prefetch(w[0] + i)
        prefetch(w[1] + i)
        prefetch(w[2] + i)
        prefetch(w[3] + i)
        prefetch(x + i)

    return lines if n >= 4 else nothing


def _tile(n: int) -> Callable[..., Any]:
    """A function for four rows (addresses w) by n tokens, `inputs` floats of each.

    `first` and `last` begin and end the sums.
    """
    zeros, loads, stores, accumulate, finish, fetch = (
        _zeros(n),
        _loads(n),
        _stores(n),
        _accumulate(n),
        _finish(n),
        _fetch(n),
    )
    size = 64 * n

    @compiled
    def tile(
        w: Any, x: int, ldx: int, inputs: int, next_w: Any, next_x: int, partial: int, first: bool, last: bool,
        out: int, ldo: int, add: int, scale: Any,
    ) -> None:  # fmt: skip
        if first:
            a, b, c, d = zeros(), zeros(), zeros(), zeros()
        else:
            a, b, c, d = loads(partial), loads(partial + size), loads(partial + 2 * size), loads(partial + 3 * size)
        for i in range(0, 4 * inputs, 64):
            fetch(next_w, next_x, i)
            a = accumulate(a, load(f32x16, w[0] + i), x + i, ldx)
            b = accumulate(b, load(f32x16, w[1] + i), x + i, ldx)
            c = accumulate(c, load(f32x16, w[2] + i), x + i, ldx)
            d = accumulate(d, load(f32x16, w[3] + i), x + i, ldx)
        if last:
            finish(out, ldo, add, scale, a, b, c, d)
        else:
            stores(partial, a)
            stores(partial + size, b)
            stores(partial + 2 * size, c)
            stores(partial + 3 * size, d)

    return tile


_wide, _two, _one = _tile(WIDE), _tile(min(WIDE, 2)), _tile(1)


@compiled
def _four(w: int, ldw: int, row: int, rows: int) -> Any:
    """The addresses of four rows from `row` on. Rows past the last repeat it."""
    end = rows - 1
    return w + ldw * row, w + ldw * min(row + 1, end), w + ldw * min(row + 2, end), w + ldw * min(row + 3, end)


@compiled
def _copy(spare: int, tokens: int, rows: int, out: int, ldo: int, add: int) -> None:
    """Copy the outputs of fewer than four rows to their place."""
    for t in range(tokens):
        for r in range(rows):
            value, at = load_scalar(types.float32, spare + 16 * t + 4 * r), out + ldo * t + 4 * r
            store_scalar(at, load_scalar(types.float32, at) + value if add else value)


@compiled
def _any(
    many: int, w: Any, x: int, ldx: int, inputs: int, next_w: Any, next_x: int, partial: int, first: bool, last: bool,
    rows: int, out: int, ldo: int, add: int, scale: Any, spare: int,
) -> None:  # fmt: skip
    """Compute a tile of WIDE, two or one tokens, and store `rows` of its rows."""
    to, ldt, plus = (out, ldo, add) if rows >= 4 else (spare, 16, 0)
    if many == WIDE:
        _wide(w, x, ldx, inputs, next_w, next_x, partial, first, last, to, ldt, plus, scale)
    elif many == 2:
        _two(w, x, ldx, inputs, next_w, next_x, partial, first, last, to, ldt, plus, scale)
    else:
        _one(w, x, ldx, inputs, next_w, next_x, partial, first, last, to, ldt, plus, scale)
    if last and rows < 4:
        _copy(spare, many, rows, out, ldo, add)


@compiled
def multiply_few(
    w: int, ldw: int, rows: int, n: int, x: int, ldx: int, tokens: int, out: int, ldo: int, add: int, scale: Any,
    scratch: int,
) -> None:  # fmt: skip
    """`multiply` for at most four rows, which stay in L1 while a few tokens are multiplied."""
    four, t = _four(w, ldw, 0, rows), 0
    while t < tokens:
        many, at = _many(tokens - t), x + ldx * t
        _any(many, four, at, ldx, n, four, at, 0, True, True, rows, out + ldo * t, ldo, add, scale, scratch)
        t += many


@compiled
def _many(left: int) -> int:
    """The number of tokens of the next tile."""
    return WIDE if left >= WIDE else min(left, 2)


@compiled
def multiply(
    w: int, ldw: int, rows: int, n: int, x: int, ldx: int, tokens: int, out: int, ldo: int, add: int, scale: Any,
    scratch: int, soon: int, end: int,
) -> None:  # fmt: skip
    """out[t][r] (+)= scale * w[r] x[t], for rows of n floats (a multiple of 16).

    ldw, ldx and ldo are the bytes between rows. `scratch` has ORDINARY_PARTIAL bytes. The bytes from `soon` to `end`
    are prefetched from memory meanwhile.
    """
    cuts = (n + CHUNK - 1) // CHUNK
    chunk = 16 * ((n // 16 + cuts - 1) // cuts)
    partial, portion = scratch + SPARE, ((end - soon) // max(1, tokens // WIDE * cuts * (rows // 4)) + 64) // 64 * 64
    t = 0
    while t < tokens:
        many = _many(tokens - t)
        for k in range(0, n, chunk):
            first, last = k == 0, k + chunk >= n
            cut, inputs, at = w + 4 * k, min(chunk, n - k), x + ldx * t + 4 * k
            for r in range(0, rows, 4):
                for line in range(soon, min(soon + portion, end), 64):
                    prefetch_far(line)
                soon += portion
                if r + 4 < rows:
                    following = _four(cut, ldw, r + 4, rows)
                else:
                    following = _four(w if last else cut + 4 * chunk, ldw, 0, rows)
                later = at + ldx * (WIDE + min(r // 4, WIDE - 1)) if tokens - t >= 2 * WIDE else at
                _any(
                    many, _four(cut, ldw, r, rows), at, ldx, inputs, following, later, partial + 64 * WIDE * r, first,
                    last, rows - r, out + ldo * t + 4 * r, ldo, add, scale, scratch,
                )  # fmt: skip
        t += many
