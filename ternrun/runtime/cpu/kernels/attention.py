"""Attention over the paged KV cache (layout: `kv_block.py`), one kernel for each cache type.

out = softmax(scale q k^T) v for each query head, in float32. Queries that read the same keys and values (the heads of a
group, consecutive tokens of a sequence) are computed four or two at a time if there are enough registers
(`queries.py`), so that each load of keys or values serves all of them. The sums of a query run in the order of
positions, whether it is computed alone or not, so neither the batch nor the number of threads changes a bit.

A block is a few kilobytes, and the next block lies anywhere in memory, so blocks are prefetched.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from numba import types

from ternrun.runtime.cpu import layout
from ternrun.runtime.cpu.compile.arithmetic import largest, maximum, total, where_less
from ternrun.runtime.cpu.compile.isa import build_target
from ternrun.runtime.cpu.compile.jit import compiled, noinline, share
from ternrun.runtime.cpu.compile.lanes import iota, splat, zero
from ternrun.runtime.cpu.compile.memory_access import load, load_scalar, prefetch_far, store, store_scalar
from ternrun.runtime.cpu.compile.vectors import f32x16, i32x16
from ternrun.runtime.cpu.kernels.functions import exp, softcapped
from ternrun.runtime.cpu.kernels.kv_block import BLOCK, GROUP, READ, block_of, key_steps_bytes, position_of, run_end
from ternrun.runtime.cpu.kernels.queries import (
    DESCRIBED,
    INVERSE,
    OUT,
    POSITION,
    QUERY,
    TILES,
    TOKEN,
    blend_one,
    number_at,
)  # fmt: skip
from ternrun.runtime.cpu.kernels.ternary_sums import emit

f32 = types.float32
TILE = 4 if build_target() == "avx512" else 1  # queries: with four sums each, sixteen vectors
AHEAD = 8 * BLOCK  # positions prefetched ahead: computing them takes longer than a memory access
SCORES = 64 * ((DESCRIBED * TILE + 63) // 64)
TOKENS = layout.STATE["tokens"]


@compiled
def _softmax(p: int, n: int) -> Any:
    """Replace n scores (padded with -inf) by exp(score - max); returns their sum."""
    peak = load(f32x16, p)
    for i in range(16, n, 16):
        peak = maximum(peak, load(f32x16, p + 4 * i))
    top, acc = splat(f32x16, largest(peak)), zero(f32x16)
    for i in range(0, n, 16):
        e = exp(load(f32x16, p + 4 * i) - top)
        store(p + 4 * i, e)
        acc = acc + e
    return total(acc)


def _make_parts(kv: str, *, softcap: bool) -> Any:
    """The functions for one query of a tile: store scores, turn them into weights, and write 64 outputs."""
    size, stepped = layout.KV_SIZE[kv], kv == "int8"
    read = READ[kv]

    @compiled
    def value_at(row: int) -> Any:
        """Load 64 elements of a value row."""
        return read(row), read(row + 16 * size), read(row + 32 * size), read(row + 48 * size)

    @compiled
    def store_scores(args: Any, query: int, s: Any, first: int, p: int) -> None:
        """Store the scores of the 16 keys from position `first` on; -inf for keys that the query does not see."""
        position, window = load_scalar(types.int64, query + POSITION), args.window
        if softcap:
            s = softcapped(s, splat(f32x16, args.softcap))
        oldest = max(0, position - window + 1) if window else 0
        at, lowest = iota(i32x16) + first, splat(f32x16, f32(-math.inf))
        s = where_less(at, splat(i32x16, position + 1), s, lowest)
        store(p, where_less(at, splat(i32x16, oldest), lowest, s))

    @compiled
    def weigh(args: Any, query: int, start: int, steps: int, p: int) -> None:
        """Turn scores into weights and store the inverse of their sum; int8: multiply by the steps of the values."""
        position, t = load_scalar(types.int64, query + POSITION), load_scalar(types.int64, query + TOKEN)
        store_scalar(query + INVERSE, f32(1.0) / _softmax(p, position + 1 - start))
        if stepped:
            for first in range(start, position + 1, BLOCK):
                at = p + 4 * (first - start)
                step = load(f32x16, steps + args.block_bytes * block_of(args.state, t, first))
                store(at, load(f32x16, at) * step)

    @compiled
    def finish(args: Any, query: int, acc: Any, at: Any, i: int, p: int) -> None:
        """Add the positions after `seen`, which the tile's first query does not see, and write outputs i to i + 63.

        `at` is (the first position of `p`, `seen`, the address of value elements from i on).
        """
        dim, t, (start, seen, values) = args.head_dim, load_scalar(types.int64, query + TOKEN), at
        for j in range(seen + 1, load_scalar(types.int64, query + POSITION) + 1):
            row = args.block_bytes * block_of(args.state, t, j) + size * ((dim + 15) // 16 * 16) * (j % BLOCK)
            acc = blend_one(acc, p + 4 * (j - start), value_at(values + row))
        inverse, out = number_at(query + INVERSE), load_scalar(types.int64, query + OUT) + 4 * i
        emit(acc[0] * inverse, out, dim - i, 0)
        emit(acc[1] * inverse, out + 64, dim - i - 16, 0)
        emit(acc[2] * inverse, out + 128, dim - i - 32, 0)
        emit(acc[3] * inverse, out + 192, dim - i - 48, 0)

    return store_scores, weigh, finish, value_at


def _make_tile_parts(store_scores: Any, finish: Any, width: int) -> Any:
    """`store_scores` and `finish` for every query of a tile, whose scores are `row` bytes apart."""

    @compiled
    def store_scores1(args: Any, queries: int, s: Any, factor: Any, first: int, p: int, row: int) -> None:
        store_scores(args, queries, s[0] * factor, first, p)

    @compiled
    def store_scores2(args: Any, queries: int, s: Any, factor: Any, first: int, p: int, row: int) -> None:
        store_scores1(args, queries, s, factor, first, p, row)
        store_scores(args, queries + DESCRIBED, s[1] * factor, first, p + row)

    @compiled
    def store_scores4(args: Any, queries: int, s: Any, factor: Any, first: int, p: int, row: int) -> None:
        store_scores2(args, queries, s, factor, first, p, row)
        store_scores(args, queries + 2 * DESCRIBED, s[2] * factor, first, p + 2 * row)
        store_scores(args, queries + 3 * DESCRIBED, s[3] * factor, first, p + 3 * row)

    @compiled
    def finish1(args: Any, queries: int, acc: Any, at: Any, i: int, p: int, row: int) -> None:
        finish(args, queries, acc[0], at, i, p)

    @compiled
    def finish2(args: Any, queries: int, acc: Any, at: Any, i: int, p: int, row: int) -> None:
        finish1(args, queries, acc, at, i, p, row)
        finish(args, queries + DESCRIBED, acc[1], at, i, p + row)

    @compiled
    def finish4(args: Any, queries: int, acc: Any, at: Any, i: int, p: int, row: int) -> None:
        finish2(args, queries, acc, at, i, p, row)
        finish(args, queries + 2 * DESCRIBED, acc[2], at, i, p + 2 * row)
        finish(args, queries + 3 * DESCRIBED, acc[3], at, i, p + 3 * row)

    return {1: (store_scores1, finish1), 2: (store_scores2, finish2), 4: (store_scores4, finish4)}[width]


def _make_streams(kv: str, width: int, value_at: Any, *, fetch: bool) -> Any:
    """The two passes over the cache for `width` queries: scores of a block, and weighted sums of values over blocks.

    `fetch`: prefetch the following blocks.
    """
    size, stepped, read = layout.KV_SIZE[kv], kv == "int8", READ[kv]
    accumulate, blend, sums, _, broadcast, add_scaled = TILES[width]

    @compiled
    def prefetch_block(ahead: int) -> None:
        """Prefetch 64 elements of a following block."""
        if fetch:
            for line in range(0, 64 * size, 64):
                prefetch_far(ahead + line)

    @compiled
    def products(q: Any, begin: int, end: int, keys: int, ahead: int) -> Any:
        """Sums over elements `begin` to `end` of the queries times 16 keys: four in turn, by element index modulo 4."""
        zeros = broadcast(zero(f32x16))
        a, b, c, d = zeros, zeros, zeros, zeros
        for i in range(begin, end - 3, 4):
            prefetch_block(ahead + 16 * size * i)
            a = accumulate(a, read(keys + 16 * size * i), q, 4 * i)
            b = accumulate(b, read(keys + 16 * size * (i + 1)), q, 4 * i + 4)
            c = accumulate(c, read(keys + 16 * size * (i + 2)), q, 4 * i + 8)
            d = accumulate(d, read(keys + 16 * size * (i + 3)), q, 4 * i + 12)
        for i in range(begin + (end - begin) // 4 * 4, end):
            a = accumulate(a, read(keys + 16 * size * i), q, 4 * i)
        return sums(a, b, c, d)

    @compiled
    def scores_of(q: Any, dim: int, keys: int, ahead: int, steps: int) -> Any:
        """The products of the queries and the 16 keys of a block. `steps`: bytes from int8 keys to their steps."""
        if not stepped:
            return products(q, 0, dim, keys, ahead)
        acc = broadcast(zero(f32x16))
        for begin in range(0, dim, GROUP):
            at = steps + 4 * BLOCK * (begin // GROUP)
            if fetch:
                prefetch_far(ahead + at)
            group = products(q, begin, min(begin + GROUP, dim), keys, ahead)
            acc = add_scaled(acc, group, load(f32x16, keys + at))
        return acc

    @compiled
    def mix(args: Any, t: int, start: int, position: int, values: int, p: int, row: int) -> Any:
        """Sums over positions start..position of weight times value, for 64 elements from `values` on."""
        padded, z = (args.head_dim + 15) // 16 * 16, zero(f32x16)
        acc = broadcast((z, z, z, z))
        for first in range(start, position + 1, BLOCK):
            at = values + args.block_bytes * block_of(args.state, t, first)
            ahead = values + args.block_bytes * block_of(args.state, t, min(first + AHEAD, position))
            for j in range(min(BLOCK, position + 1 - first)):
                prefetch_block(ahead + size * padded * j)
                acc = blend(acc, p + 4 * (first - start + j), row, value_at(at + size * padded * j))
        return acc

    return scores_of, mix


def _make_tile(kv: str, width: int, *, softcap: bool, fetch: bool = True) -> Any:
    """Attention of `width` queries that share a key/value head. `fetch`: its keys and values are not in a cache yet."""
    size, stepped, queries_at = layout.KV_SIZE[kv], kv == "int8", TILES[width][3]
    store_scores, weigh, finish, value_at = _make_parts(kv, softcap=softcap)
    store_scores, finish = _make_tile_parts(store_scores, finish, width)
    scores_of, mix = _make_streams(kv, width, value_at, fetch=fetch)

    @compiled
    def score(args: Any, queries: int, cache: int, span: Any, p: int, row: int) -> None:
        """Store the scaled scores of all queries for positions span[0] to span[1]."""
        dim, t, (start, last) = args.head_dim, load_scalar(types.int64, queries + TOKEN), span
        q, scale = queries_at(queries), splat(f32x16, args.scale)
        steps = size * BLOCK * (dim + (dim + 15) // 16 * 16)
        for first in range(start, last + 1, BLOCK):
            keys = cache + args.block_bytes * block_of(args.state, t, first)
            ahead = cache + args.block_bytes * block_of(args.state, t, min(first + AHEAD, last))
            if stepped and fetch:
                prefetch_far(ahead + steps + key_steps_bytes(dim))  # the steps of values, for `weigh`
            s = scores_of(q, dim, keys, ahead, steps)
            store_scores(args, queries, s, scale, first, p + 4 * (first - start), row)

    @noinline
    def tile(args: Any, queries: int, head: int) -> None:
        """Compute the described queries, which are in the order of their tokens; scores follow the descriptions."""
        dim, window, cache = args.head_dim, args.window, args.cache + args.head_bytes * head
        seen, t = load_scalar(types.int64, queries + POSITION), load_scalar(types.int64, queries + TOKEN)
        last = load_scalar(types.int64, queries + DESCRIBED * (width - 1) + POSITION)
        start = (max(0, seen - window + 1) if window else 0) // BLOCK * BLOCK
        row, p = 4 * ((last - start) // BLOCK + 1) * BLOCK, queries + SCORES
        score(args, queries, cache, (start, last), p, row)
        steps = cache + size * BLOCK * (dim + (dim + 15) // 16 * 16) + key_steps_bytes(dim)
        for i in range(width):
            weigh(args, queries + DESCRIBED * i, start, steps, p + row * i)
        for i in range(0, dim, 64):
            values = cache + size * (BLOCK * dim + i)
            acc = mix(args, t, start, seen, values, p, row)
            finish(args, queries, acc, (start, seen, values), i, p, row)

    return tile


def build(entry: str) -> Callable[..., Any]:
    """Entries: f16, f32, int8."""
    return build_attention(entry, softcap=False)


def build_attention(kv: str, *, softcap: bool) -> Callable[..., Any]:
    """The kernel for one cache type; with `softcap`, scores become softcap * tanh(score / softcap)."""
    kernel: Callable[..., Any] = _make_attend(_make_dispatch(kv, softcap=softcap))
    return kernel


def _make_dispatch(kv: str, *, softcap: bool) -> Any:
    """The function that computes some queries of a key/value head with the tile that fits their number."""
    make = partial(_make_tile, kv, softcap=softcap)
    one = make(1)
    two, full = (make(2), make(TILE)) if TILE > 1 else (one, one)
    cached = make(TILE, fetch=False)

    @compiled
    def tile(args: Any, t: int, head: int, first: int, last: int, queries: int, alone: Any) -> None:
        """Compute queries first..last (at most TILE) of key/value head `head`, whose group is heads of token t, t +
        1, ...

        `alone`: token t is the only one of its sequence. Otherwise other tiles read the same keys and values from
        caches, where prefetching costs a fifth of the time.
        """
        group, dim = args.heads // args.kv_heads, args.head_dim
        for i in range(TILE):
            query = min(first + i, last - 1)  # a tile that is not full computes its last query again
            token, h, at = t + query // group, group * head + query % group, queries + DESCRIBED * i
            store_scalar(at + QUERY, args.q + 4 * (args.ldq * token + (dim + 15) // 16 * 16 * h))
            store_scalar(at + POSITION, position_of(args.state, token))
            store_scalar(at + OUT, args.out + 4 * (args.ldo * token + dim * h))
            store_scalar(at + TOKEN, token)
        if not alone:
            cached(args, queries, head)
        elif last - first == 1:
            one(args, queries, head)
        elif last - first == 2:
            two(args, queries, head)
        else:
            full(args, queries, head)

    return tile


def _make_attend(tile: Any) -> Any:
    """The kernel: deals tiles of queries out to the threads."""

    @compiled
    def attend(args: Any, tid: int, nt: int) -> int:
        """out = softmax(scale q k^T) v for all tokens and heads.

        `window` 0: all earlier positions. The scratch area holds the descriptions and scores of TILE queries.
        """
        tokens, heads, kv_heads = load_scalar(types.int64, args.state + TOKENS), args.heads, args.kv_heads
        queries, group = args.scratch + args.scratch_stride * tid, heads // kv_heads
        if tokens == 1:
            first, last = share(heads, tid, nt)
            low_head, high_head = first // group, (last + group - 1) // group
            for i in range(low_head, high_head):
                # neighboring threads that share a group read it at the same time, so one of them reads it from a cache
                head = i if tid % 2 else low_head + high_head - 1 - i
                low, high = max(first - group * head, 0), min(last - group * head, group)
                for query in range(low, high, TILE):
                    tile(args, 0, head, query, min(query + TILE, high), queries, True)
            return 0
        t, number = 0, 0
        while t < tokens:
            end = run_end(args.state, args.window, t, tokens)
            for head in range(kv_heads):
                for query in range(0, group * (end - t), TILE):  # dealt out in turn, because later ones see more
                    if number % nt == tid:
                        tile(args, t, head, query, min(query + TILE, group * (end - t)), queries, end - t == 1)
                    number += 1
            t = end
        return 0

    return attend
