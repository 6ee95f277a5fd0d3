"""Normalizations over the last dimensions, and the fused ones of com.microsoft that add a residual first.

Sums of half types run in float32, as `stash_type` specifies.
"""

from __future__ import annotations

from math import prod

import numpy as np

from ternrun.errors import LoadError
from ternrun.onnx.operators import rowwise
from ternrun.onnx.operators.elementwise import broadcast_room
from ternrun.onnx.operators.gathering import check_indices
from ternrun.onnx.operators.table import MICROSOFT, Array, Kernel, OpKernelInfo, operator, same_type, upcast_half

BOTH = ("", MICROSOFT)  # onnxruntime's own operators can be in either domain


def rms_norm(x: Array, weight: Array | None, eps: float, axes: tuple[int, ...] = (-1,)) -> tuple[Array, Array]:
    """x / rms(x) * weight, and 1 / rms(x); float32 or float64."""
    if axes == (-1,):
        square = np.einsum("...i,...i->...", x, x)[..., None] / x.dtype.type(max(x.shape[-1], 1))
    else:
        square = np.square(x).mean(axes, keepdims=True)
    inverse = 1 / np.sqrt(square + x.dtype.type(eps))
    out = x * inverse
    return (out if weight is None else np.multiply(out, weight, dtype=x.dtype)), inverse


def layer_norm(
    x: Array, weight: Array | None, bias: Array | None, eps: float, axes: tuple[int, ...] = (-1,)
) -> tuple[Array, Array, Array]:
    """(x - mean) / deviation * weight + bias, the mean, and 1 / deviation; float32 or float64."""
    mean = x.mean(axes, keepdims=True)
    out, inverse = rms_norm(x - mean, weight, eps, axes)
    if bias is not None:
        out += bias
    return out, mean, inverse


def _axes(x: Array, axis: int, *vectors: Array | None) -> tuple[int, ...]:
    """The normalized dimensions, which the weights must fit."""
    first = axis + x.ndim if axis < 0 else axis
    if not 0 <= first < x.ndim:
        raise LoadError(f"axis {axis} does not fit a tensor of {x.ndim} dimensions")
    for v in vectors:
        if v is not None and np.broadcast_shapes(v.shape, x.shape) != x.shape:
            raise LoadError(f"weights of shape {list(v.shape)} do not fit {list(x.shape)}")
    return tuple(range(first - x.ndim, 0))


@operator("LayerNormalization", fresh=True)
def layer_normalization(info: OpKernelInfo) -> Kernel:
    """Y, and optionally the mean and the inverse deviation."""
    axis, eps, outputs = info.integer("axis", -1), info.number("epsilon", 1e-5), len(info.node.outputs)

    def kernel(x: Array, weight: Array | None = None, bias: Array | None = None) -> tuple[Array, ...]:
        axes = _axes(x, axis, weight, bias)
        if outputs == 1 and axes == (-1,) and weight is not None and rowwise.fits_layer_norm(x, weight, bias):
            return (rowwise.layer_norm(x, weight, bias, eps),)
        out, *more = layer_norm(upcast_half(x), weight, bias, eps, axes)
        return (out.astype(x.dtype, copy=False), *more)[:outputs]

    return kernel


@operator("RMSNormalization", "SimplifiedLayerNormalization", domains=BOTH, fresh=True)
def rms_normalization(info: OpKernelInfo) -> Kernel:
    """Y, and optionally the inverse root mean square."""
    axis, eps, outputs = info.integer("axis", -1), info.number("epsilon", 1e-5), len(info.node.outputs)

    def kernel(x: Array, weight: Array) -> tuple[Array, ...]:
        out, inverse = rms_norm(upcast_half(x), upcast_half(weight), eps, _axes(x, axis, weight))
        return (out.astype(weight.dtype, copy=False), inverse)[:outputs]

    return kernel


def _skip(x: Array, skip: Array, bias: Array | None) -> Array:
    """x + skip + bias."""
    for other in (skip, bias):
        if other is not None:
            same_type(x, other)
            broadcast_room(x, other)
            x = x + other
    return x


@operator("SkipLayerNormalization", domains=(MICROSOFT,), fresh=True)
def skip_layer_normalization(info: OpKernelInfo) -> Kernel:
    """LayerNorm of the sum. The fourth output is the sum."""
    eps, outputs = info.number("epsilon", 1e-12), len(info.node.outputs)

    def kernel(
        x: Array, skip: Array, weight: Array, beta: Array | None = None, bias: Array | None = None
    ) -> tuple[Array, ...]:
        total = _skip(x, skip, bias)
        _axes(total, -1, weight, beta)
        out, mean, inverse = layer_norm(upcast_half(total), weight, beta, eps)
        return (out.astype(x.dtype, copy=False), mean, inverse, total)[:outputs]

    return kernel


@operator("SkipSimplifiedLayerNormalization", domains=(MICROSOFT,), fresh=True)
def skip_simplified_layer_normalization(info: OpKernelInfo) -> Kernel:
    """RMSNorm of the sum. The fourth output is the sum."""
    eps, outputs = info.number("epsilon", 1e-12), len(info.node.outputs)

    def kernel(x: Array, skip: Array, weight: Array, bias: Array | None = None) -> tuple[Array | None, ...]:
        total = _skip(x, skip, bias)
        _axes(total, -1, weight)
        out, inverse = rms_norm(upcast_half(total), upcast_half(weight), eps)
        return (out.astype(x.dtype, copy=False), None, inverse, total)[:outputs]

    return kernel


@operator("EmbedLayerNormalization", domains=(MICROSOFT,), fresh=True)
def embed_layer_normalization(info: OpKernelInfo) -> Kernel:
    """BERT's input: the normalized sum of word, position and segment rows, and the lengths of the mask."""
    eps, outputs = info.number("epsilon", 1e-12), len(info.node.outputs)

    def kernel(
        ids: Array, segments: Array | None, words: Array, positions: Array, segment_rows: Array | None,
        weight: Array, bias: Array, mask: Array | None = None, at: Array | None = None,
    ) -> tuple[Array, ...]:  # fmt: skip
        if ids.ndim != 2 or max(words.ndim, positions.ndim) != 2:
            raise LoadError("wants ids (batch, tokens) and embedding matrices")
        total = words.take(check_indices(ids), 0) + (
            positions[: ids.shape[1]] if at is None else positions.take(check_indices(at), 0)
        )
        if segments is not None and segment_rows is not None:
            total = total + segment_rows.take(check_indices(segments), 0)
        out, *_ = layer_norm(upcast_half(total), weight, bias, eps)
        lengths = np.zeros(ids.shape[0], np.int32) if mask is None else mask.sum(1, dtype=np.int32)
        return (out.astype(words.dtype, copy=False), lengths, total)[:outputs]

    return kernel


@operator("GroupNormalization", since=21, fresh=True)
def group_normalization(info: OpKernelInfo) -> Kernel:
    """Normalize over the channels of a group and all positions."""
    eps, groups = info.number("epsilon", 1e-5), info.integer("num_groups", 1)

    def kernel(x: Array, weight: Array, bias: Array) -> Array:
        if groups < 1 or x.ndim < 2 or x.shape[1] % groups:
            raise LoadError(f"cannot split {list(x.shape)} into {groups} groups of channels")
        parts = upcast_half(x).reshape(x.shape[0], groups, -1 if x.size else prod(x.shape[1:]) // groups)
        out, *_ = layer_norm(parts, None, None, eps)
        shape = (1, -1) + (1,) * (x.ndim - 2)
        return (out.reshape(x.shape) * weight.reshape(shape) + bias.reshape(shape)).astype(x.dtype, copy=False)

    return kernel
