"""Look up rows of the embedding table as float32, one kernel for each encoding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from ternrun.runtime.cpu import layout
from ternrun.runtime.cpu.compile.jit import compiled, share
from ternrun.runtime.cpu.compile.lanes import splat
from ternrun.runtime.cpu.compile.memory_access import load, load_scalar, store, store_scalar
from ternrun.runtime.cpu.compile.vectors import f32x16
from ternrun.runtime.cpu.kernels.dequantize import DEQUANTIZE
from ternrun.runtime.cpu.kernels.unpack_ternary import UNPACK

TOKENS, IDS = layout.STATE["tokens"], layout.STATE["ids"]


def build(entry: str) -> Callable[..., Any]:
    """Entries: an ordinary encoding (`embed.Q6_K`), or a ternary one followed by -trits (`embed.TQ2_0-trits`)."""
    encoding, _, trits = entry.partition("-")
    return _ternary(UNPACK[encoding]) if trits else _ordinary(DEQUANTIZE[encoding])


def _ordinary(decode: Any) -> Callable[..., Any]:
    """The kernel for an encoding that `decode` decodes."""

    @compiled
    def embed(args: Any, tid: int, nt: int) -> int:
        """out[t] = scale * W[ids[t]]; n columns, padded to the block and to 16."""
        state, n, scale = args.state, args.n, splat(f32x16, args.scale)
        first, last = share(load_scalar(types.int64, state + TOKENS), tid, nt)
        for t in range(first, last):
            row = types.int64(load_scalar(types.int32, load_scalar(types.int64, state + IDS) + 4 * t))
            out = args.out + 4 * args.ldo * t
            decode(args.weights + args.row_bytes * row, 0, n, out)
            for i in range(0, 4 * n, 64):
                store(out + i, load(f32x16, out + i) * scale)
        return 0

    return embed


def _ternary(unpack: Any) -> Callable[..., Any]:
    """The kernel for an encoding that `unpack` unpacks."""

    @compiled
    def embed(args: Any, tid: int, nt: int) -> int:
        """out[t] = scale * scales * trits of W[ids[t]]; `scales` holds a float32 for each row and `group` columns."""
        state, rows, cols, scale = args.state, args.rows, args.n, args.scale
        group = args.group
        first, last = share(load_scalar(types.int64, state + TOKENS), tid, nt)
        for t in range(first, last):
            row = types.int64(load_scalar(types.int32, load_scalar(types.int64, state + IDS) + 4 * t))
            digits = unpack(args.weights, row, rows, cols, args.scratch + args.scratch_stride * tid)
            out, scales = args.out + 4 * args.ldo * t, args.scales + 4 * (cols // group) * row
            for i in range(cols):
                trit = types.float32(types.int64(load_scalar(types.uint8, digits + i)) - 1)
                store_scalar(out + 4 * i, trit * load_scalar(types.float32, scales + 4 * (i // group)) * scale)
        return 0

    return embed
