"""Rows of the embedding table to float32: one kernel for each encoding, ternary ones included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from ternrun.runtime.cpu import layout
from ternrun.runtime.cpu.dequantize import ROWS as ORDINARY
from ternrun.runtime.cpu.jit import compiled, number, share, word
from ternrun.runtime.cpu.simd import f32x16, get, load, put, splat, store
from ternrun.runtime.cpu.unpack import ROWS as TERNARY

TOKENS, IDS = layout.STATE["tokens"], layout.STATE["ids"]


def build(entry: str) -> Callable[..., Any]:
    """One kernel per encoding: `embed.Q6_K`; ternary ones as `embed.TQ2_0-trits`."""
    encoding, _, trits = entry.partition("-")
    return _ternary(TERNARY[encoding]) if trits else _ordinary(ORDINARY[encoding])


def _ordinary(decode: Any) -> Callable[..., Any]:
    @compiled
    def embed(args: int, tid: int, nt: int) -> int:
        """out[t] = scale * W[ids[t]]. Arguments: state, weights, bytes a row, columns (padded to the block and 16),
        scale, out, ldo."""
        state, n, scale = word(args, 0), word(args, 3), splat(f32x16, number(args, 4))
        first, last = share(get(types.int64, state + TOKENS), tid, nt)
        for t in range(first, last):
            row = types.int64(get(types.int32, get(types.int64, state + IDS) + 4 * t))
            out = word(args, 5) + 4 * word(args, 6) * t
            decode(word(args, 1) + word(args, 2) * row, 0, n, out)
            for i in range(0, 4 * n, 64):
                store(out + i, load(f32x16, out + i) * scale)
        return 0

    return embed


def _ternary(unpack: Any) -> Callable[..., Any]:
    @compiled
    def embed(args: int, tid: int, nt: int) -> int:
        """Arguments: state, weights, rows, columns, scale, out, ldo, block scales [rows][columns / group], group,
        scratch,
        scratch bytes a thread."""
        state, rows, cols, scale = word(args, 0), word(args, 2), word(args, 3), number(args, 4)
        group = word(args, 8)
        first, last = share(get(types.int64, state + TOKENS), tid, nt)
        for t in range(first, last):
            row = types.int64(get(types.int32, get(types.int64, state + IDS) + 4 * t))
            digits = unpack(word(args, 1), row, rows, cols, word(args, 9) + word(args, 10) * tid)
            out, scales = word(args, 5) + 4 * word(args, 6) * t, word(args, 7) + 4 * (cols // group) * row
            for i in range(cols):
                trit = types.float32(types.int64(get(types.uint8, digits + i)) - 1)
                put(out + 4 * i, trit * get(types.float32, scales + 4 * (i // group)) * scale)
        return 0

    return embed
