"""Rotary position embedding with tables of cos and sin (arXiv 2104.09864)."""

from __future__ import annotations

import numpy as np

from ternrun.errors import LoadError
from ternrun.onnx.operators.gathering import check_indices
from ternrun.onnx.operators.table import MICROSOFT, Array, Kernel, OpKernelInfo, operator, same_type, upcast_half


def rotate(x: Array, cos: Array, sin: Array, interleaved: bool) -> Array:
    """Rotate the first 2 * r/2 elements of each head of x (..., d); cos and sin (..., r / 2) broadcast, r <= d."""
    half = cos.shape[-1]
    if cos.shape != sin.shape or 2 * half > x.shape[-1]:
        raise LoadError(f"tables of shape {list(cos.shape)} and {list(sin.shape)} do not fit heads of {x.shape[-1]}")
    first, second = (slice(0, 2 * half, 2), slice(1, 2 * half, 2)) if interleaved else (
        slice(0, half), slice(half, 2 * half)
    )  # fmt: skip
    a, b = x[..., first], x[..., second]
    out = np.empty_like(x)
    out[..., first] = a * cos - b * sin
    out[..., second] = a * sin + b * cos
    out[..., 2 * half :] = x[..., 2 * half :]
    return out


def as_heads(x: Array, heads: int) -> Array:
    """View (B, T, heads * d) as (B, heads, T, d)."""
    if x.ndim != 3 or heads < 1 or x.shape[2] % heads:
        raise LoadError(f"cannot split {list(x.shape)} into {heads} heads")
    return x.reshape(*x.shape[:2], heads, -1 if x.size else x.shape[2] // heads).swapaxes(1, 2)


def as_rows(x: Array) -> Array:
    """(B, heads, T, d) to (B, T, heads * d)."""
    b, heads, t, d = x.shape
    return x.swapaxes(1, 2).reshape(b, t, heads * d)


def look_up(table: Array, positions: Array, tokens: int) -> Array:
    """Rows (B or 1, T, r / 2) of a table (max, r / 2). A single position is that of the first token."""
    if positions.size == 1 and positions.ndim < 2:
        positions = positions.reshape(1, 1) + np.arange(tokens)
    if table.ndim != 2 or positions.ndim != 2 or positions.shape[1] != tokens:
        raise LoadError(f"positions of shape {list(positions.shape)} do not fit {tokens} tokens")
    return table.take(check_indices(positions), 0)


def rotated_heads(x: Array, heads: int, cos: Array, sin: Array, interleaved: bool) -> Array:
    """x, (B, T, heads * d) or (B, heads, T, d), rotated by tables (B or 1, T, r / 2)."""
    split = x if x.ndim == 4 else as_heads(x, heads)
    out = rotate(upcast_half(split), upcast_half(cos)[:, None], upcast_half(sin)[:, None], interleaved).astype(
        x.dtype, copy=False
    )
    return out if x.ndim == 4 else as_rows(out)


@operator("RotaryEmbedding", fresh=True)
def rotary_embedding(info: OpKernelInfo) -> Kernel:
    """ONNX's operator. Positions select rows of the tables; without positions the tables are (B, T, r / 2)."""
    interleaved, heads, dim = (
        bool(info.integer("interleaved")),
        info.integer("num_heads"),
        info.integer("rotary_embedding_dim"),
    )

    def kernel(x: Array, cos: Array, sin: Array, positions: Array | None = None) -> Array:
        same_type(cos, sin)
        if x.ndim not in (3, 4):
            raise LoadError(f"takes three or four dimensions, not {list(x.shape)}")
        if positions is not None:
            tokens = x.shape[-2]
            cos, sin = look_up(cos, positions, tokens), look_up(sin, positions, tokens)
        width = dim or (x.shape[-1] if x.ndim == 4 else x.shape[-1] // max(heads, 1))
        if cos.ndim != 3 or 2 * cos.shape[-1] != width:
            raise LoadError(f"tables of shape {list(cos.shape)} do not rotate {width} elements")
        return rotated_heads(x, heads, cos, sin, interleaved)

    return kernel


@operator("RotaryEmbedding", domains=(MICROSOFT,), fresh=True)
def microsoft_rotary_embedding(info: OpKernelInfo) -> Kernel:
    """onnxruntime's operator. Positions are the second input; a single one is the first token's of every sequence."""
    interleaved, heads = bool(info.integer("interleaved")), info.integer("num_heads")

    def kernel(x: Array, positions: Array, cos: Array, sin: Array) -> Array:
        if x.ndim not in (3, 4):
            raise LoadError(f"takes three or four dimensions, not {list(x.shape)}")
        tokens = x.shape[-2]
        count = heads or (x.shape[-1] // max(2 * cos.shape[-1], 1))
        return rotated_heads(x, count, look_up(cos, positions, tokens), look_up(sin, positions, tokens), interleaved)

    return kernel
