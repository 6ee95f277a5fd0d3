"""y = W x for ternary weights by table lookup (AVX-512): three weights are one index into the 27 sums of their inputs.

A word of 16 bits holds three indices; one `vpermw` looks up 32 rows at once and a shift brings up the next index.
int16 sums hold for a chunk of at most 258 inputs, then widen: to int32 where a row has one scale (`rows`), or to
float32 times the chunk's scale where every block has its own (`blocks`). All sums are exact; each output is
float32(sum) * scale, then times the token's step, whatever the tile or the thread. Codes lie as `pack.py` writes them:
[chunk][superblock of 128 rows][word][4][32 rows].

Tables are built by every thread for itself, a chunk and a tile of tokens at a time, and stay in L1: sharing them costs
more in cache traffic between cores than building them again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from ternrun.runtime.cpu import layout
from ternrun.runtime.cpu.jit import compiled, share, word
from ternrun.runtime.cpu.simd import (
    constant,
    f32x16,
    get,
    i8x64,
    i16x32,
    i32x16,
    lane,
    load,
    prefetch,
    prefetch_far,
    put,
    reinterpret,
    shuffler,
    splat,
    store,
    to_float,
    widen,
    zero,
)  # fmt: skip
from ternrun.runtime.cpu.x86 import add_byte_products, add_products, lookup

SUPERBLOCK = 128  # rows: four vectors of 32
TILE = 4  # tokens of a full tile: 16 sums, 4 words, and tables of 21 KB, which stay in L1; those of six tokens do not
BATCH = layout.TERNARY_TOKENS
SEGMENT = 5  # words that describe one matrix: codes, scales, rows, superblocks, output column
_low = shuffler(i16x32, tuple(range(16)), operands=1)
_high = shuffler(i16x32, tuple(range(16, 32)), operands=1)


_TRITS = [(i // 9 - 1, i // 3 % 3 - 1, i % 3 - 1) for i in range(27)] + [(0, 0, 0)] * 5
_first_two = constant(i8x64, tuple(t for a, b, _ in _TRITS for t in (a, b)))
_third_and_all = constant(i8x64, tuple(t for a, b, c in _TRITS for t in (c, -a - b - c)))
_evens, _odds = (constant(i16x32, tuple((i + odd + 1) % 2 for i in range(32))) for odd in (0, 1))
_merge_low = shuffler(i32x16, tuple(i // 2 + 16 * (i % 2) for i in range(16)))
_merge_high = shuffler(i32x16, tuple(8 + i // 2 + 16 * (i % 2) for i in range(16)))


@compiled
def tile_width(tokens: int) -> Any:
    """Tokens that the next tile has room for, when so many are left."""
    return tokens if tokens < 3 else TILE


@compiled
def build_tables(q: int, stride: int, groups: int, tables: int, tokens: int, width: int) -> None:
    """Tables of `tokens` rows of prepared groups, `stride` bytes apart, as [group][width][32].

    Entry 9 a + 3 b + c of a group is (a-1) q0 + (b-1) q1 + (c-1) q2. The group's bytes are q + 128, since the
    instruction multiplies unsigned by signed, and 128, which takes off what that adds.
    """
    for g in range(groups):
        for t in range(tokens):
            at = q + stride * t + 4 * g
            two = reinterpret(i8x64, splat(i16x32, get(types.int16, at)))
            one = reinterpret(i8x64, splat(i16x32, get(types.int16, at + 2)))
            table = add_byte_products(two, _first_two()) + add_byte_products(one, _third_and_all())
            store(tables + 64 * (width * g + t), table)


@compiled
def _fetch_input(q: int, stride: int, count: int, tokens: int) -> None:
    """Ask for `count` bytes of some tokens' groups: other threads prepared them, and their caches answer slowly."""
    for t in range(tokens):
        for i in range(0, count, 64):
            prefetch(q + stride * t + i)


@compiled
def _look(acc: Any, w: Any, table: Any) -> Any:
    """Four row vectors against one table."""
    return (
        acc[0] + lookup(w[0], table),
        acc[1] + lookup(w[1], table),
        acc[2] + lookup(w[2], table),
        acc[3] + lookup(w[3], table),
    )


@compiled
def _next(w: Any) -> Any:
    """Bring up the next index of each word."""
    return (w[0] >> 5, w[1] >> 5, w[2] >> 5, w[3] >> 5)


@compiled
def _load4(at: int) -> Any:
    return (load(i16x32, at), load(i16x32, at + 64), load(i16x32, at + 128), load(i16x32, at + 192))


@compiled
def _group1(sums: Any, w: Any, tables: int) -> Any:
    """128 rows, three inputs, one token."""
    return (_look(sums[0], w, load(i16x32, tables)),)


@compiled
def _group2(sums: Any, w: Any, tables: int) -> Any:
    return _look(sums[0], w, load(i16x32, tables)), _look(sums[1], w, load(i16x32, tables + 64))


@compiled
def _group4(sums: Any, w: Any, tables: int) -> Any:
    return (
        _look(sums[0], w, load(i16x32, tables)),
        _look(sums[1], w, load(i16x32, tables + 64)),
        _look(sums[2], w, load(i16x32, tables + 128)),
        _look(sums[3], w, load(i16x32, tables + 192)),
    )


@compiled
def _fetch0(at: int) -> None:
    """Ask for nothing: one or two tokens read codes in their order, which the CPU foresees."""


@compiled
def _fetch1(at: int) -> None:
    """Ask for a line."""
    prefetch_far(at)


@compiled
def _fetch4(at: int) -> None:
    """Ask for four lines."""
    prefetch_far(at)
    prefetch_far(at + 64)
    prefetch_far(at + 128)
    prefetch_far(at + 192)


def _make_tile(group: Any, width: int, fetch: Any) -> Any:
    @compiled
    def tile(codes: int, tables: int, words: int, zeros: Any, ahead: int, step: int) -> Any:
        """128 rows, one chunk, `width` tokens: for each token four int16 vectors of sums.

        With every word the next `step` bytes from `ahead` on are asked for, long before they are needed: a burst of
        requests would keep the words themselves waiting.
        """
        sums = zeros
        for i in range(words):
            w = _load4(codes + 256 * i)
            fetch(ahead + step * i)
            sums = group(sums, w, tables + 192 * width * i)
            w = _next(w)
            sums = group(sums, w, tables + 192 * width * i + 64 * width)
            sums = group(sums, _next(w), tables + 192 * width * i + 128 * width)
        return sums

    return tile


_tile1, _tile2 = _make_tile(_group1, 1, _fetch0), _make_tile(_group2, 2, _fetch0)
_tile4_of_few, _tile4_of_many = _make_tile(_group4, 4, _fetch4), _make_tile(_group4, 4, _fetch1)


@compiled
def _rows_flush(acc: int, sums: Any, scales: int, fresh: bool) -> None:
    """32 int16 sums to int32: those of even rows, then those of odd ones, as multiplication by 1 and 0 widens them."""
    even, odd = add_products(sums, _evens()), add_products(sums, _odds())
    store(acc, even if fresh else load(i32x16, acc) + even)
    store(acc + 64, odd if fresh else load(i32x16, acc + 64) + odd)


@compiled
def _rows_values(acc: int, scales: int) -> Any:
    even, odd = load(i32x16, acc), load(i32x16, acc + 64)
    low, high = to_float(f32x16, _merge_low(even, odd)), to_float(f32x16, _merge_high(even, odd))
    return low * load(f32x16, scales), high * load(f32x16, scales + 64)


@compiled
def _blocks_flush(acc: int, sums: Any, scales: int, fresh: bool) -> None:
    """32 int16 sums, each times its row's scale for this chunk, to float32."""
    low = to_float(f32x16, widen(i32x16, _low(sums))) * load(f32x16, scales)
    high = to_float(f32x16, widen(i32x16, _high(sums))) * load(f32x16, scales + 64)
    store(acc, low if fresh else load(f32x16, acc) + low)
    store(acc + 64, high if fresh else load(f32x16, acc + 64) + high)


@compiled
def _blocks_values(acc: int, scales: int) -> Any:
    return load(f32x16, acc), load(f32x16, acc + 64)


@compiled
def emit(value: Any, out: int, rows: int, add: int) -> None:
    """Store (or add) up to 16 outputs; lanes beyond `rows` belong to someone else."""
    if rows >= 16:
        store(out, load(f32x16, out) + value if add else value)
        return
    for r in range(rows):
        at = out + 4 * r
        put(at, get(types.float32, at) + lane(value, r) if add else lane(value, r))


def build(entry: str) -> Callable[..., Any]:
    """Entries: rows, blocks."""
    flush = {"rows": _rows_flush, "blocks": _blocks_flush}[entry]
    values_of = {"rows": _rows_values, "blocks": _blocks_values}[entry]
    by_block = entry == "blocks"

    @compiled
    def flush4(acc: int, sums: Any, scales: int, fresh: bool) -> None:
        """Add 128 rows of int16 sums to the accumulator (512 bytes, like the rows' scales)."""
        flush(acc, sums[0], scales, fresh)
        flush(acc + 128, sums[1], scales + 128, fresh)
        flush(acc + 256, sums[2], scales + 256, fresh)
        flush(acc + 384, sums[3], scales + 384, fresh)

    @compiled
    def superblock(
        codes: int, tables: int, words: int, width: int, acc: int, ld: int, scales: int, fresh: bool,
        ahead: int, step: int,
    ) -> None:  # fmt: skip
        """128 rows and one chunk for a tile of `width` tokens."""
        z = zero(i16x32)
        row = (z, z, z, z)
        if width == 1:
            flush4(acc, _tile1(codes, tables, words, (row,), 0, 0)[0], scales, fresh)
        elif width == 2:
            a, b = _tile2(codes, tables, words, (row, row), 0, 0)
            flush4(acc, a, scales, fresh)
            flush4(acc + ld, b, scales, fresh)
        else:
            if step > 64:
                a, b, c, d = _tile4_of_few(codes, tables, words, (row, row, row, row), ahead, step)
            else:
                a, b, c, d = _tile4_of_many(codes, tables, words, (row, row, row, row), ahead, step)
            flush4(acc, a, scales, fresh)
            flush4(acc + ld, b, scales, fresh)
            flush4(acc + 2 * ld, c, scales, fresh)
            flush4(acc + 3 * ld, d, scales, fresh)

    @compiled
    def multiply(
        args: int, segment: int, first: int, last: int, q: int, tokens: int, acc: int, ld: int, tables: int, then: int
    ) -> None:
        """Superblocks first..last of one matrix against up to BATCH tokens; sums to acc[token][row of this part].

        `then` is the superblock that will be the first when these are done.
        """
        stride, n, chunk, words = word(args, 4), word(args, 5), word(args, 6), word(args, 7)
        codes, scales, blocks = word(segment, 0), word(segment, 1), word(segment, 3)
        tiles = (tokens + TILE - 1) // TILE
        for start in range(0, n, chunk):
            count = min(words, (n - start + 8) // 9)
            following = codes + 256 * count * blocks
            after = min(words, (n - start - chunk + 8) // 9)
            ahead = following + 256 * after * first
            if start + chunk >= n:
                after, ahead = min(words, (n + 8) // 9), then
            step = 256 * after // (count * tiles)
            for tile in range(tiles):
                t = TILE * tile
                width, left = tile_width(tokens - t), min(TILE, tokens - t)
                build_tables(q + stride * t, stride, 3 * count, tables, left, width)
                if tile + 1 < tiles:
                    _fetch_input(q + stride * (t + TILE), stride, 12 * count, min(TILE, tokens - t - TILE))
                elif tokens > 1:
                    _fetch_input(q + 12 * words, stride, 12 * words, min(TILE, tokens))
                for s in range(first, last):
                    here = acc + ld * t + 512 * (s - first)
                    superblock(
                        codes + 256 * count * s, tables, count, width, here, ld, scales + 512 * s, start == 0,
                        ahead + 256 * after * (s - first) + step * count * tile, step,
                    )  # fmt: skip
            codes, q = following, q + 12 * words
            if by_block:
                scales += 512 * blocks

    @compiled
    def finish(
        args: int, segment: int, first: int, last: int, steps: int, begin: int, tokens: int, acc: int, ld: int
    ) -> None:
        """Sums to outputs, for the same part and the tokens from `begin` on."""
        ldo, add = 4 * word(args, 9), word(args, 10)
        out, scales, rows = word(args, 8) + ldo * begin, word(segment, 1), word(segment, 2)
        for t in range(tokens):
            step = splat(f32x16, get(types.float32, steps + 4 * (begin + t)))
            for row in range(SUPERBLOCK * first, min(rows, SUPERBLOCK * last), 32):
                low, high = values_of(acc + ld * t + 4 * (row - SUPERBLOCK * first), scales + 4 * row)
                to = out + ldo * t + 4 * (word(segment, 4) + row)
                emit(low * step, to, rows - row, add)
                emit(high * step, to + 64, rows - row - 16, add)

    @compiled
    def ternary(args: int, tid: int, nt: int) -> int:
        """Up to three matrices that read the same input, as one range of superblocks shared out to the threads.

        Arguments: count, prepared input, its bytes a thread, header, bytes a token, n, chunk, words a chunk, out,
        ldo, add,
        accumulators, their bytes a thread, matrices, scratch, scratch bytes a thread, then SEGMENT words for each
        matrix.
        """
        tokens, prepared, segments = get(types.int64, word(args, 0)), word(args, 1), args + 8 * 16
        if tokens == 1:
            prepared += word(args, 2) * tid
        total = 0
        for m in range(word(args, 13)):
            total += word(segments, SEGMENT * m + 3)
        first, last = share(total, tid, nt)
        acc, tables = word(args, 11) + word(args, 12) * tid, word(args, 14) + word(args, 15) * tid
        batch = (min(BATCH, tokens) + TILE - 1) // TILE * TILE
        some = layout.TERNARY_SUMS // (512 * batch)
        first_words = min(word(args, 7), (word(args, 5) + 8) // 9)
        before = 0
        for m in range(word(args, 13)):
            segment = segments + 8 * SEGMENT * m
            low, high = max(first - before, 0), min(last - before, word(segment, 3))
            for s in range(low, high, some):
                end = min(s + some, high)
                for t in range(0, tokens, BATCH):
                    count, q = min(BATCH, tokens - t), prepared + word(args, 3) + word(args, 4) * t
                    then = word(segment, 0) + 256 * first_words * (s if t + BATCH < tokens else end)
                    multiply(args, segment, s, end, q, count, acc, 512 * some, tables, then)
                    finish(args, segment, s, end, prepared, t, count, acc, 512 * some)
            before += word(segment, 3)
        return 0

    return ternary  # type: ignore[no-any-return]
