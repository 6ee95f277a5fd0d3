"""Reductions over axes (sums, means, extremes), and softmax, which uses two of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from ternrun.errors import LoadError
from ternrun.onnx.operators import rowwise
from ternrun.onnx.operators.shapes import as_int_list
from ternrun.onnx.operators.table import Array, Kernel, OpKernelInfo, operator, upcast_half

Reduce = Callable[..., Array]


def _mean(x: Array, axis: tuple[int, ...] | None, keepdims: bool) -> Array:
    wide = upcast_half(x)
    return np.mean(wide, axis=axis, keepdims=keepdims, dtype=wide.dtype).astype(x.dtype, copy=False)


def _sum(x: Array, axis: tuple[int, ...] | None, keepdims: bool) -> Array:
    wide = upcast_half(x)
    return np.sum(wide, axis=axis, keepdims=keepdims, dtype=wide.dtype).astype(x.dtype, copy=False)


def _prod(x: Array, axis: tuple[int, ...] | None, keepdims: bool) -> Array:
    return np.asarray(np.prod(x, axis=axis, keepdims=keepdims, dtype=x.dtype))


# operator -> (function, the first opset in which its axes are an input)
REDUCE: dict[str, tuple[Reduce, int]] = {
    "ReduceMean": (_mean, 18), "ReduceSum": (_sum, 13), "ReduceMax": (np.max, 18), "ReduceMin": (np.min, 18),
    "ReduceProd": (_prod, 18),
}  # fmt: skip


def _reduce(function: Reduce, as_input: int, info: OpKernelInfo) -> Kernel:
    keep = bool(info.integer("keepdims", 1))
    stated = info.integers("axes") if info.opset < as_input else None
    nothing = bool(info.integer("noop_with_empty_axes"))

    def kernel(x: Array, axes: Array | None = None) -> Array:
        over = stated if axes is None else tuple(as_int_list(axes))
        if not over:
            if nothing:
                return x.copy()
            over = None
        if (x.size == 0 and function not in (_sum, _prod)) or x.dtype.kind not in "fiu":
            return np.asarray(info.reference()(x, *([] if axes is None else [axes]))[0])
        return np.asarray(function(x, axis=over, keepdims=keep))

    return kernel


for _name, (_function, _since) in REDUCE.items():
    operator(_name, fresh=True)(partial(_reduce, _function, _since))


@operator("CumSum", fresh=True)
def cumulative_sum(info: OpKernelInfo) -> Kernel | None:
    """Cumulative sums along an axis. The reference runs exclusive and reverse sums."""
    if info.integer("exclusive") or info.integer("reverse"):
        return None
    return lambda x, axis: np.cumsum(x, int(axis.reshape(())), dtype=x.dtype)


@operator("TopK", since=10, fresh=True)
def top_k(info: OpKernelInfo) -> Kernel:
    """The k largest (or smallest) along an axis, sorted, and their indices. Equal elements keep their order."""
    axis, largest = info.integer("axis", -1), info.integer("largest", 1)

    def kernel(x: Array, k: Array) -> tuple[Array, Array]:
        (count,) = as_int_list(k)
        if not 0 <= count <= x.shape[axis]:
            raise LoadError(f"asks for {count} of {x.shape[axis]}")
        if largest:  # sorted from the back, so that equal elements keep their order
            order = x.shape[axis] - 1 - np.flip(np.argsort(np.flip(x, axis), axis, kind="stable"), axis)
        else:
            order = np.argsort(x, axis, kind="stable")
        order = order.take(range(count), axis)
        return np.take_along_axis(x, order, axis), order.astype(np.int64)

    return kernel


def softmax(x: Array, axis: int = -1) -> Array:
    """exp(x - max) / sum in x's type (half types in float32); zeros for a row of only -inf."""
    wide = upcast_half(x)
    top = wide.max(axis, keepdims=True, initial=-np.inf)
    np.maximum(top, np.finfo(wide.dtype).min, out=top)
    out: Array = wide - top
    np.exp(out, out=out)
    total = out.sum(axis, keepdims=True)
    total[total == 0] = 1
    out /= total
    return out.astype(x.dtype, copy=False)


@operator("Softmax", fresh=True)
def softmax_operator(info: OpKernelInfo) -> Kernel:
    """Softmax over one axis; before opset 13 over all axes from `axis` on."""
    axis = info.integer("axis", -1 if info.opset >= 13 else 1)

    def kernel(x: Array) -> Array:
        if x.dtype.kind not in "fV":
            raise LoadError(f"takes floats, not {x.dtype}")
        if info.opset >= 13 or axis in (-1, x.ndim - 1):
            return _exact(x, axis)
        at = axis + x.ndim if axis < 0 else axis
        return _exact(x.reshape(*x.shape[:at], -1), -1).reshape(x.shape)

    return kernel


def _exact(x: Array, axis: int) -> Array:
    """Softmax as ONNX defines it: NaN for a row of only -inf."""
    if axis in (-1, x.ndim - 1) and rowwise.is_large(x):
        return rowwise.softmax(x)
    wide = upcast_half(x)
    out: Array = wide - wide.max(axis, keepdims=True, initial=-np.inf)
    np.exp(out, out=out)
    out /= out.sum(axis, keepdims=True)
    return out.astype(x.dtype, copy=False)
