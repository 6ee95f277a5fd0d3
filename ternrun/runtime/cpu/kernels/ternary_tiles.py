"""The inner loops of the lookup products: 128 rows and one chunk of inputs, with the tables of one to four tokens.

One vpermw looks up 32 rows. Sums are int16, which cannot overflow within a chunk.
"""

from __future__ import annotations

from typing import Any

from ternrun.runtime.cpu.compile.jit import compiled
from ternrun.runtime.cpu.compile.memory_access import load, prefetch_far
from ternrun.runtime.cpu.compile.vectors import i16x32
from ternrun.runtime.cpu.compile.x86 import lookup


@compiled
def _look(acc: Any, w: Any, table: Any) -> Any:
    """Add the lookups of four row vectors in one table."""
    return (
        acc[0] + lookup(w[0], table),
        acc[1] + lookup(w[1], table),
        acc[2] + lookup(w[2], table),
        acc[3] + lookup(w[3], table),
    )


@compiled
def _next(w: Any) -> Any:
    """Shift the next index of each word into place."""
    return (w[0] >> 5, w[1] >> 5, w[2] >> 5, w[3] >> 5)


@compiled
def _load4(at: int) -> Any:
    """Load one word of 128 rows."""
    return (load(i16x32, at), load(i16x32, at + 64), load(i16x32, at + 128), load(i16x32, at + 192))


@compiled
def _group1(sums: Any, w: Any, tables: int) -> Any:
    """Add the lookups of 128 rows and three inputs for one token."""
    return (_look(sums[0], w, load(i16x32, tables)),)


@compiled
def _group2(sums: Any, w: Any, tables: int) -> Any:
    """The same for two tokens."""
    return _look(sums[0], w, load(i16x32, tables)), _look(sums[1], w, load(i16x32, tables + 64))


@compiled
def _group4(sums: Any, w: Any, tables: int) -> Any:
    """The same for four tokens."""
    return (
        _look(sums[0], w, load(i16x32, tables)),
        _look(sums[1], w, load(i16x32, tables + 64)),
        _look(sums[2], w, load(i16x32, tables + 128)),
        _look(sums[3], w, load(i16x32, tables + 192)),
    )


@compiled
def _fetch0(at: int) -> None:
    """Prefetch nothing: one or two tokens read codes sequentially, which the CPU prefetches."""


@compiled
def _fetch1(at: int) -> None:
    """Prefetch one cache line."""
    prefetch_far(at)


@compiled
def _fetch4(at: int) -> None:
    """Prefetch four cache lines."""
    prefetch_far(at)
    prefetch_far(at + 64)
    prefetch_far(at + 128)
    prefetch_far(at + 192)


def _make_tile(group: Any, width: int, fetch: Any) -> Any:
    """The function for a tile of `width` tokens."""

    @compiled
    def tile(codes: int, tables: int, words: int, zeros: Any, ahead: int, step: int) -> Any:
        """The sums of 128 rows and one chunk for `width` tokens: four i16x32 for each token.

        With every word, the next `step` bytes from `ahead` on are prefetched, long before they are needed: a burst of
        requests would delay the words themselves.
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


tile1, tile2 = _make_tile(_group1, 1, _fetch0), _make_tile(_group2, 2, _fetch0)
tile4_of_few, tile4_of_many = _make_tile(_group4, 4, _fetch4), _make_tile(_group4, 4, _fetch1)
