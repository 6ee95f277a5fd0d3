"""Tables of the lookup products: the 27 sums of every three inputs, as 32 int16 lanes (AVX-512).

Every thread builds them for itself, a chunk and a tile of tokens at a time, and they stay in L1: sharing them costs
more in cache traffic between cores than building them again.
"""

from __future__ import annotations

from typing import Any

from numba import types

from ternrun.runtime.cpu.compile.jit import compiled
from ternrun.runtime.cpu.compile.simd import constant, i8x64, i16x32, load_scalar, prefetch, reinterpret, splat, store
from ternrun.runtime.cpu.compile.x86 import add_byte_products

TILE = 4  # tokens of a full tile: 16 sums, 4 words, and tables of 21 KB, which stay in L1; those of six tokens do not
_TRITS = [(i // 9 - 1, i // 3 % 3 - 1, i % 3 - 1) for i in range(27)] + [(0, 0, 0)] * 5
_first_two = constant(i8x64, tuple(t for a, b, _ in _TRITS for t in (a, b)))
_third_and_all = constant(i8x64, tuple(t for a, b, c in _TRITS for t in (c, -a - b - c)))


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
            two = reinterpret(i8x64, splat(i16x32, load_scalar(types.int16, at)))
            one = reinterpret(i8x64, splat(i16x32, load_scalar(types.int16, at + 2)))
            table = add_byte_products(two, _first_two()) + add_byte_products(one, _third_and_all())
            store(tables + 64 * (width * g + t), table)


@compiled
def fetch_inputs(q: int, stride: int, count: int, tokens: int) -> None:
    """Ask for `count` bytes of some tokens' groups: other threads prepared them, and their caches answer slowly."""
    for t in range(tokens):
        for i in range(0, count, 64):
            prefetch(q + stride * t + i)
