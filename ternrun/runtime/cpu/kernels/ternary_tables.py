"""Tables of the lookup products: the 27 possible sums of every three inputs, as 32 int16 lanes (AVX-512).

Every thread builds the tables for itself, for one chunk and a tile of tokens at a time, and they stay in L1. Sharing
tables between cores costs more cache traffic than building them again.
"""

from __future__ import annotations

from typing import Any

from numba import types

from ternrun.runtime.cpu.compile.jit import compiled
from ternrun.runtime.cpu.compile.lanes import constant, reinterpret, splat
from ternrun.runtime.cpu.compile.memory_access import load_scalar, prefetch, store
from ternrun.runtime.cpu.compile.vectors import i8x64, i16x32
from ternrun.runtime.cpu.compile.x86 import add_byte_products

TILE = 4  # tokens of a full tile: 16 sums, 4 words, and tables of 21 KB, which fit in L1; those of six tokens do not
_TRITS = [(i // 9 - 1, i // 3 % 3 - 1, i % 3 - 1) for i in range(27)] + [(0, 0, 0)] * 5
_first_two = constant(i8x64, tuple(t for a, b, _ in _TRITS for t in (a, b)))
_third_and_all = constant(i8x64, tuple(t for a, b, c in _TRITS for t in (c, -a - b - c)))


@compiled
def tile_width(tokens: int) -> Any:
    """The width of the next tile when `tokens` tokens are left."""
    return tokens if tokens < 3 else TILE


@compiled
def build_tables(q: int, stride: int, groups: int, tables: int, tokens: int, width: int) -> None:
    """Build the tables of `tokens` rows of prepared groups, `stride` bytes apart, as [group][width][32] int16.

    Entry 9 a + 3 b + c of a group is (a-1) q0 + (b-1) q1 + (c-1) q2 (vpmaddubsw). A group's bytes are q + 128, because
    the instruction multiplies unsigned by signed bytes, and 128, which removes what that offset adds.
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
    """Prefetch `count` bytes of some tokens' groups, which other threads have prepared in their caches."""
    for t in range(tokens):
        for i in range(0, count, 64):
            prefetch(q + stride * t + i)
