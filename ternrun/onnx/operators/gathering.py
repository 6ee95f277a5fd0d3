"""Gather and scatter operators. Indices may be negative; indices out of bounds are errors."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from ternrun.errors import LoadError
from ternrun.onnx.format.limits import check_tensor_size
from ternrun.onnx.operators.table import Array, Kernel, OpKernelInfo, operator, same_type

REDUCTIONS: dict[str, Callable[..., Any]] = {
    "add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum,
}  # fmt: skip


def check_indices(indices: Array) -> Array:
    """Return the indices. Raises LoadError if they are not integers."""
    if indices.dtype.kind not in "iu":
        raise LoadError(f"wants indices of an integer type, not {indices.dtype}")
    return indices


@operator("Gather", fresh=True)
def gather(info: OpKernelInfo) -> Kernel:
    """Rows of an axis by index."""
    axis = info.integer("axis")

    def kernel(x: Array, indices: Array) -> Array:
        check_tensor_size([x.size // max(x.shape[axis], 1), indices.size], x.itemsize)
        if indices.ndim == 0 and x.ndim == 1 and indices.dtype.kind in "iu":
            return np.array(x[int(indices)])
        if indices.ndim and not x.flags.c_contiguous:  # `take` would first copy a transposed table
            return np.asarray(x[(slice(None),) * (axis % x.ndim) + (check_indices(indices),)])
        return x.take(check_indices(indices), axis)

    return kernel


@operator("GatherElements", fresh=True)
def gather_elements(info: OpKernelInfo) -> Kernel:
    """Elements by index along an axis."""
    axis = info.integer("axis")

    def kernel(x: Array, indices: Array) -> Array:
        return x[_grid(x, check_indices(indices), axis)]

    return kernel


def _grid(x: Array, indices: Array, axis: int) -> tuple[Array, ...]:
    """The index arrays of each element, where `indices` index `axis`."""
    if indices.ndim != x.ndim or any(
        i > n for k, (i, n) in enumerate(zip(indices.shape, x.shape, strict=True)) if k != axis % x.ndim
    ):
        raise LoadError(f"indices of shape {list(indices.shape)} do not fit {list(x.shape)}")
    grid = list(np.ogrid[tuple(slice(n) for n in indices.shape)])
    grid[axis] = indices
    return tuple(grid)


@operator("GatherND", fresh=True)
def gather_nd(info: OpKernelInfo) -> Kernel:
    """Slices by the index vectors in the last dimension; the first `batch_dims` dimensions are shared."""
    batch = info.integer("batch_dims")

    def kernel(x: Array, indices: Array) -> Array:
        depth = check_indices(indices).shape[-1]
        if (
            not 0 <= batch < min(x.ndim, indices.ndim)
            or batch + depth > x.ndim
            or (x.shape[:batch] != indices.shape[:batch])
        ):
            raise LoadError(f"indices of shape {list(indices.shape)} do not fit {list(x.shape)}")
        count = indices.size // max(depth, 1)
        check_tensor_size([count, prod(x.shape[batch + depth :])], x.itemsize)
        lead = np.ogrid[tuple(slice(n) for n in x.shape[:batch])] if batch else []
        lead = [g.reshape(g.shape + (1,) * (indices.ndim - 1 - batch)) for g in lead]
        return np.array(x[(*lead, *np.moveaxis(indices, -1, 0))])

    return kernel


@operator("ScatterElements", "Scatter", fresh=True)
def scatter_elements(info: OpKernelInfo) -> Kernel:
    """A copy of x with elements along an axis replaced, or combined by a reduction."""
    axis, reduction = info.integer("axis"), info.text("reduction", "none")

    def kernel(x: Array, indices: Array, updates: Array) -> Array:
        same_type(x, updates)
        if indices.shape != updates.shape:
            raise LoadError(f"{list(indices.shape)} indices and {list(updates.shape)} updates do not match")
        return scattered(x, _grid(x, check_indices(indices), axis), updates, reduction)

    return kernel


@operator("ScatterND", fresh=True)
def scatter_nd(info: OpKernelInfo) -> Kernel:
    """A copy of x with the indexed slices replaced, or combined by a reduction."""
    reduction = info.text("reduction", "none")

    def kernel(x: Array, indices: Array, updates: Array) -> Array:
        same_type(x, updates)
        depth = check_indices(indices).shape[-1]
        if depth > x.ndim or updates.shape != indices.shape[:-1] + x.shape[depth:]:
            raise LoadError(f"updates of shape {list(updates.shape)} do not fit")
        return scattered(x, tuple(np.moveaxis(indices, -1, 0)), updates, reduction)

    return kernel


def scattered(x: Array, index: tuple[Array, ...], updates: Array, reduction: str) -> Array:
    """A copy of x, changed at `index`."""
    out = x.copy()
    if reduction == "none":
        out[index] = updates
    elif reduction in REDUCTIONS:
        REDUCTIONS[reduction].at(out, index, updates)  # type: ignore[attr-defined]
    else:
        raise LoadError(f"knows no reduction {reduction[:40]!r}")
    return out


@operator("OneHot", since=9, fresh=True)
def one_hot(info: OpKernelInfo) -> Kernel:
    """A new dimension of size `depth` with the second value at the index and the first value elsewhere."""
    axis = info.integer("axis", -1)

    def kernel(indices: Array, depth: Array, values: Array) -> Array:
        n = int(depth.reshape(()))
        if depth.size != 1 or values.shape != (2,):
            raise LoadError("wants one depth and two values")
        check_tensor_size([max(n, 0), indices.size], values.itemsize)
        whole = np.expand_dims(indices.astype(np.int64), axis)
        shape = [1] * whole.ndim
        shape[axis] = n
        hit = whole % n == np.arange(n).reshape(shape) if n else np.zeros(shape, bool)
        hit &= (whole >= -n) & (whole < n)
        return np.asarray(np.where(hit, values[1], values[0]))

    return kernel
