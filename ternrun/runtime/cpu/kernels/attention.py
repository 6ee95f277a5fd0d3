"""Attention over a paged cache: `store` normalizes, rotates and caches; `attend` mixes. One kernel for each cache type.

A cache block holds 16 tokens of one layer: for each key/value head K as [element][16 tokens], so that a vector of
scores needs no sum across lanes, then V as [16 tokens][elements padded to 16]. Each query head is computed on its own,
its sums in the order of positions: neither the batch nor the threads change a bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from numba import types

from ternrun.runtime.cpu import layout
from ternrun.runtime.cpu.functions import exp, inverse_rms
from ternrun.runtime.cpu.half import f16_bits, load_f16
from ternrun.runtime.cpu.jit import compiled, number, share, word
from ternrun.runtime.cpu.kernels.ternary import emit
from ternrun.runtime.cpu.simd import (
    f32x16,
    fma,
    get,
    i32x16,
    iota,
    lane,
    largest,
    load,
    maximum,
    put,
    shuffler,
    splat,
    store,
    total,
    where_less,
    zero,
)  # fmt: skip

f32 = types.float32
BLOCK = layout.KV_BLOCK
TOKENS, POSITIONS, SLOTS, TABLES, TABLE_STRIDE = (
    layout.STATE[name] for name in ("tokens", "positions", "slots", "tables", "table_stride")
)
_even = shuffler(f32x16, tuple(range(0, 32, 2)))
_odd = shuffler(f32x16, tuple(range(1, 32, 2)))
_zip_low = shuffler(f32x16, tuple(i // 2 + 16 * (i % 2) for i in range(16)))
_zip_high = shuffler(f32x16, tuple(8 + i // 2 + 16 * (i % 2) for i in range(16)))


@compiled
def _load_f32(address: int) -> Any:
    return load(f32x16, address)


@compiled
def _same_f32(value: Any) -> Any:
    return value


@compiled
def block_of(state: int, t: int, position: int) -> Any:
    """Number of the cache block that holds `position` of token t's sequence."""
    slot = types.int64(get(types.int32, get(types.int64, state + SLOTS) + 4 * t))
    row = get(types.int64, state + TABLES) + 4 * slot * get(types.int64, state + TABLE_STRIDE)
    return types.int64(get(types.int32, row + 4 * (position // BLOCK)))


@compiled
def _copy_head(src: int, n: int, dst: int) -> None:
    """n floats to dst, zero-padded to whole vectors."""
    for i in range(0, n - 15, 16):
        store(dst + 4 * i, load(f32x16, src + 4 * i))
    if n % 16:
        store(dst + 4 * (n // 16 * 16), zero(f32x16))
        for i in range(n // 16 * 16, n):
            put(dst + 4 * i, get(types.float32, src + 4 * i))


@compiled
def _normalize(x: int, n: int, weight: int, eps: Any) -> None:
    inverse = splat(f32x16, inverse_rms(x, n, eps))
    for i in range((n + 15) // 16):
        store(x + 64 * i, load(f32x16, x + 64 * i) * inverse * load(f32x16, weight + 64 * i))


@compiled
def _rotate(x: int, half: int, interleaved: int, cos: int, sin: int) -> None:
    """Rotate pairs (i, i + half), or (2i, 2i + 1) where interleaved, by the angles of one position."""
    whole = half // 16 * 16
    for i in range(0, whole, 16):
        c, s = load(f32x16, cos + 4 * i), load(f32x16, sin + 4 * i)
        low, high = (x + 8 * i, x + 8 * i + 64) if interleaved else (x + 4 * i, x + 4 * (i + half))
        a, b = load(f32x16, low), load(f32x16, high)
        if interleaved:
            a, b = _even(a, b), _odd(a, b)
        p, q = a * c - b * s, a * s + b * c
        if interleaved:
            p, q = _zip_low(p, q), _zip_high(p, q)
        store(low, p)
        store(high, q)
    for i in range(whole, half):
        low, high = (x + 8 * i, x + 8 * i + 4) if interleaved else (x + 4 * i, x + 4 * (i + half))
        a, b = get(types.float32, low), get(types.float32, high)
        c, s = get(types.float32, cos + 4 * i), get(types.float32, sin + 4 * i)
        put(low, a * c - b * s)
        put(high, a * s + b * c)


def _store_f16(x: int, n: int, at: int, stride: int) -> None:
    """n floats to float16 elements `stride` bytes apart."""
    for i in range(0, n, 16):
        bits = f16_bits(load(f32x16, x + 4 * i))
        if stride == 2:
            store(at + 2 * i, bits)
        else:
            for j in range(min(16, n - i)):
                put(at + stride * (i + j), lane(bits, j))


def _store_f32(x: int, n: int, at: int, stride: int) -> None:
    """n floats to elements `stride` bytes apart."""
    for i in range(0, n, 16):
        value = load(f32x16, x + 4 * i)
        if stride == 4:
            store(at + 4 * i, value)
        else:
            for j in range(min(16, n - i)):
                put(at + stride * (i + j), lane(value, j))


def _make_store(kv: str) -> Callable[..., Any]:
    size = {"f16": 2, "f32": 4}[kv]
    put_row = compiled(_store_f16 if kv == "f16" else _store_f32)

    @compiled
    def store_tokens(args: int, tid: int, nt: int) -> int:
        """q to a buffer of padded heads, k and v to the cache.

        Arguments: state, qkv, ldq, cos, sin, heads, kv heads, head dim, rope dim, interleaved, q norm or 0, k norm
        or 0, eps,
        cache of the layer, bytes a block, bytes a head, scratch, scratch bytes a thread, q out, ldo.
        """
        state, heads, kv_heads, dim, half = (
            word(args, 0),
            word(args, 5),
            word(args, 6),
            word(args, 7),
            word(args, 8) // 2,
        )
        eps, x, padded = number(args, 12), word(args, 16) + word(args, 17) * tid, (dim + 15) // 16 * 16
        per_token = heads + 2 * kv_heads
        first, last = share(get(types.int64, state + TOKENS) * per_token, tid, nt)
        for task in range(first, last):
            t, head = task // per_token, task % per_token
            position = types.int64(get(types.int32, get(types.int64, state + POSITIONS) + 4 * t))
            _copy_head(word(args, 1) + 4 * (word(args, 2) * t + dim * head), dim, x)
            if head < heads + kv_heads:
                norm = word(args, 10 if head < heads else 11)
                if norm:
                    _normalize(x, dim, norm, eps)
                angles = 4 * half * position
                _rotate(x, half, word(args, 9), word(args, 3) + angles, word(args, 4) + angles)
            if head < heads:
                _copy_head(x, padded, word(args, 18) + 4 * (word(args, 19) * t + padded * head))
                continue
            block = word(args, 13) + word(args, 14) * block_of(state, t, position)
            if head < heads + kv_heads:
                put_row(x, dim, block + word(args, 15) * (head - heads) + size * (position % BLOCK), size * BLOCK)
            else:
                values = block + word(args, 15) * (head - heads - kv_heads) + size * BLOCK * dim
                put_row(x, padded, values + size * padded * (position % BLOCK), size)
        return 0

    return store_tokens  # type: ignore[no-any-return]


def _make_attend(kv: str) -> Callable[..., Any]:
    size = {"f16": 2, "f32": 4}[kv]
    read = load_f16 if kv == "f16" else _load_f32

    @compiled
    def scores_of(q: int, dim: int, keys: int) -> Any:
        """One query against the 16 keys of a block; four sums in turn hide the latency."""
        a, b, c, d = zero(f32x16), zero(f32x16), zero(f32x16), zero(f32x16)
        for i in range(0, dim - 3, 4):
            a = fma(read(keys + 16 * size * i), splat(f32x16, get(types.float32, q + 4 * i)), a)
            b = fma(read(keys + 16 * size * (i + 1)), splat(f32x16, get(types.float32, q + 4 * i + 4)), b)
            c = fma(read(keys + 16 * size * (i + 2)), splat(f32x16, get(types.float32, q + 4 * i + 8)), c)
            d = fma(read(keys + 16 * size * (i + 3)), splat(f32x16, get(types.float32, q + 4 * i + 12)), d)
        for i in range(dim // 4 * 4, dim):
            a = fma(read(keys + 16 * size * i), splat(f32x16, get(types.float32, q + 4 * i)), a)
        return (a + b) + (c + d)

    @compiled
    def mix(
        args: int, state: int, t: int, start: int, position: int, cache: int, values: int, padded: int, p: int
    ) -> Any:
        """Sum over positions of probability times value, for 64 elements from `values` on."""
        a, b, c, d = zero(f32x16), zero(f32x16), zero(f32x16), zero(f32x16)
        for first in range(start, position + 1, BLOCK):
            at = cache + word(args, 9) * block_of(state, t, first) + values
            for j in range(min(BLOCK, position + 1 - first)):
                weight = splat(f32x16, get(types.float32, p + 4 * (first - start + j)))
                row = at + size * padded * j
                a = fma(weight, read(row), a)
                b = fma(weight, read(row + 16 * size), b)
                c = fma(weight, read(row + 32 * size), c)
                d = fma(weight, read(row + 48 * size), d)
        return a, b, c, d

    @compiled
    def softmax(p: int, n: int) -> Any:
        """Exponentials of n scores (padded with -inf) in place, less their peak; returns their sum."""
        peak = load(f32x16, p)
        for i in range(16, n, 16):
            peak = maximum(peak, load(f32x16, p + 4 * i))
        top, acc = splat(f32x16, largest(peak)), zero(f32x16)
        for i in range(0, n, 16):
            e = exp(load(f32x16, p + 4 * i) - top)
            store(p + 4 * i, e)
            acc = acc + e
        return total(acc)

    @compiled
    def head_of(args: int, t: int, head: int, p: int) -> None:
        """One query head of one token."""
        state, heads, kv_heads, dim, window = word(args, 0), word(args, 3), word(args, 4), word(args, 5), word(args, 7)
        padded = (dim + 15) // 16 * 16
        position = types.int64(get(types.int32, get(types.int64, state + POSITIONS) + 4 * t))
        oldest = max(0, position - window + 1) if window else 0
        start = oldest // BLOCK * BLOCK
        q = word(args, 1) + 4 * (word(args, 2) * t + padded * head)
        cache = word(args, 8) + word(args, 10) * (head // (heads // kv_heads))
        scale, lowest = splat(f32x16, number(args, 6)), splat(f32x16, f32(-math.inf))
        for first in range(start, position + 1, BLOCK):
            s = scores_of(q, dim, cache + word(args, 9) * block_of(state, t, first)) * scale
            at = iota(i32x16) + first
            s = where_less(at, splat(i32x16, position + 1), s, lowest)
            s = where_less(at, splat(i32x16, oldest), lowest, s)
            store(p + 4 * (first - start), s)
        inverse = splat(f32x16, f32(1.0) / softmax(p, position + 1 - start))
        for i in range(0, dim, 64):
            values = size * (BLOCK * dim + i)
            a, b, c, d = mix(args, state, t, start, position, cache, values, padded, p)
            out = word(args, 11) + 4 * (word(args, 12) * t + dim * head + i)
            emit(a * inverse, out, dim - i, 0)
            emit(b * inverse, out + 64, dim - i - 16, 0)
            emit(c * inverse, out + 128, dim - i - 32, 0)
            emit(d * inverse, out + 192, dim - i - 48, 0)

    @compiled
    def attend(args: int, tid: int, nt: int) -> int:
        """Arguments: state, q, ldq, heads, kv heads, head dim, scale, window or 0, cache of the layer, bytes a
        block, bytes a
        head, out, ldo, scratch (scores), scratch bytes a thread."""
        tokens, heads = get(types.int64, word(args, 0) + TOKENS), word(args, 3)
        p = word(args, 13) + word(args, 14) * tid
        if tokens == 1:
            first, last = share(heads, tid, nt)
            for head in range(first, last):
                head_of(args, 0, head, p)
        else:
            for t in range(tid, tokens, nt):  # later tokens see more: deal them out in turn
                for head in range(heads):
                    head_of(args, t, head, p)
        return 0

    return attend  # type: ignore[no-any-return]


def build(entry: str) -> Callable[..., Any]:
    """Entries: store-f16, store-f32, attend-f16, attend-f32."""
    what, _, kv = entry.partition("-")
    return _make_store(kv) if what == "store" else _make_attend(kv)
