"""y = W x for ordinary weights: float32 activations, and weights decoded to float32 as they are read.

Each thread takes its rows, a few at a time. The rows are decoded into scratch once and multiplied by all tokens
(`tile.py`), so results do not depend on the number of tokens or threads. float32 rows are read in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from ternrun.runtime.cpu.compile.jit import compiled, share
from ternrun.runtime.cpu.compile.memory_access import load_scalar
from ternrun.runtime.cpu.kernels.dequantize import DEQUANTIZE
from ternrun.runtime.cpu.kernels.tile import FEW, multiply, multiply_few
from ternrun.runtime.cpu.layout import ORDINARY_FLOATS, ORDINARY_PARTIAL, ORDINARY_ROWS


def build(entry: str) -> Callable[..., Any]:
    """One kernel for each encoding: `linear.Q4_K`."""
    decode, floats = DEQUANTIZE[entry], entry == "F32"

    @compiled
    def linear(args: Any, tid: int, nt: int) -> int:
        """out[t] (+)= scale * W x[t]; n columns, padded to the block and to 16."""
        tokens, x, ldx = load_scalar(types.int64, args.count), args.x, 4 * args.ldx
        weights, stride, rows, n = args.weights, args.row_bytes, args.rows, args.n
        add, out, ldo = args.add, args.out, 4 * args.ldo
        scale = args.scale
        scratch = args.scratch + args.scratch_stride * tid
        first, last = share((rows + 3) // 4, tid, nt)
        first, last = 4 * first, min(4 * last, rows)
        few = tokens <= 16 or tokens * n <= FEW
        in_place = floats and (few or not (weights | stride) & 63)  # unaligned vectors take two loads each
        height = 4 if few else max(4, min(ORDINARY_ROWS, ORDINARY_FLOATS // n // 4 * 4))
        for row in range(first, last, height):
            source, count, to = weights + stride * row, min(height, last - row), out + 4 * row
            w, ldw = source, stride
            if not in_place:
                w, ldw = scratch + ORDINARY_PARTIAL, 4 * n
                for r in range(count):
                    decode(source + stride * r, 0, n, w + ldw * r)
            if few:
                multiply_few(w, ldw, count, n, x, ldx, tokens, to, ldo, add, scale, scratch)
            else:
                soon, end = source + stride * height, weights + stride * min(row + 2 * height, last)
                multiply(w, ldw, count, n, x, ldx, tokens, to, ldo, add, scale, scratch, soon, max(soon, end))
        return 0

    return linear
