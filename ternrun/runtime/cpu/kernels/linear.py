"""y = W x for ordinary weights: float32 activations against weights decoded to float32 as they are read.

Each thread takes its rows, some at a time: decoded once into scratch, then met by all tokens (`tile.py`), so that
results do not depend on how many tokens or threads share the work. float32 is read where it lies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from ternrun.runtime.cpu.dequantize import ROWS
from ternrun.runtime.cpu.jit import compiled, share, word
from ternrun.runtime.cpu.kernels.tile import FEW, multiply, multiply_few
from ternrun.runtime.cpu.layout import PLAIN_FLOATS, PLAIN_PARTIAL, PLAIN_ROWS
from ternrun.runtime.cpu.simd import get


def build(entry: str) -> Callable[..., Any]:
    """One kernel per encoding: `linear.Q4_K`."""
    decode, floats = ROWS[entry], entry == "F32"

    @compiled
    def linear(args: int, tid: int, nt: int) -> int:
        """out[t] (+)= scale * W x[t].

        Arguments: count, x, ldx, weights, bytes a row, rows, columns (padded to the block and 16), add, out, ldo,
        scratch, scratch bytes a thread, scale.
        """
        tokens, x, ldx = get(types.int64, word(args, 0)), word(args, 1), 4 * word(args, 2)
        weights, stride, rows, n = word(args, 3), word(args, 4), word(args, 5), word(args, 6)
        add, out, ldo = word(args, 7), word(args, 8), 4 * word(args, 9)
        scale = types.float32(get(types.float64, args + 96))
        scratch = word(args, 10) + word(args, 11) * tid
        first, last = share((rows + 3) // 4, tid, nt)
        first, last = 4 * first, min(4 * last, rows)
        few = tokens <= 16 or tokens * n <= FEW
        in_place = floats and (few or not (weights | stride) & 63)  # vectors across cache lines take two loads each
        height = 4 if few else max(4, min(PLAIN_ROWS, PLAIN_FLOATS // n // 4 * 4))
        for row in range(first, last, height):
            source, count, to = weights + stride * row, min(height, last - row), out + 4 * row
            w, ldw = source, stride
            if not in_place:
                w, ldw = scratch + PLAIN_PARTIAL, 4 * n
                for r in range(count):
                    decode(source + stride * r, 0, n, w + ldw * r)
            if few:
                multiply_few(w, ldw, count, n, x, ldx, tokens, to, ldo, add, scale, scratch)
            else:
                soon, end = source + stride * height, weights + stride * min(row + 2 * height, last)
                multiply(w, ldw, count, n, x, ldx, tokens, to, ldo, add, scale, scratch, soon, max(soon, end))
        return 0

    return linear
