"""Operators that read shapes or move elements. Most of them return views."""

from __future__ import annotations

from math import prod

import numpy as np

from ternrun.errors import LoadError
from ternrun.onnx.format.limits import check_tensor_size
from ternrun.onnx.format.tensors import OnnxTensor
from ternrun.onnx.operators.table import Array, Kernel, OpKernelInfo, operator


def as_int_list(x: Array | None) -> list[int]:
    """The elements of a one-dimensional or scalar integer tensor. Raises LoadError."""
    if x is None:
        return []
    if x.dtype.kind not in "iu" or x.ndim > 1 or x.size > 1 << 16:
        raise LoadError(f"wants a list of integers, not a tensor of {x.dtype} {list(x.shape)}")
    return list(x.reshape(-1).tolist())


@operator("Identity")
def identity(info: OpKernelInfo) -> Kernel:
    """The input, not a copy."""
    return lambda x: x


@operator("Constant")
def constant(info: OpKernelInfo) -> Kernel | None:
    """The value of an attribute."""
    for name, value in info.attributes.items():
        if isinstance(value, OnnxTensor):
            array = value.array()
        elif name in ("value_float", "value_floats"):
            array = np.array(value, np.float32)
        elif name in ("value_int", "value_ints"):
            array = np.array(value, np.int64)
        elif name in ("value_string", "value_strings"):
            array = np.array(value, dtype=object)
        else:
            return None
        return lambda: array
    return None


@operator("ConstantOfShape", fresh=True)
def constant_of_shape(info: OpKernelInfo) -> Kernel:
    """A tensor filled with one element."""
    value = info.tensor("value")
    value = np.zeros(1, np.float32) if value is None else value
    if value.size != 1:
        raise LoadError("its value is not a single element")
    element = value.reshape(())

    def kernel(shape: Array) -> Array:
        dims = as_int_list(shape)
        check_tensor_size(dims, element.itemsize)
        return np.full(dims, element, element.dtype)

    return kernel


@operator("Shape", fresh=True)
def shape_of(info: OpKernelInfo) -> Kernel:
    """All dimensions, or those from `start` to `end`."""
    part = slice(info.integer("start"), info.integer("end") if "end" in info.attributes else None)
    return lambda x: np.array(x.shape[part], np.int64)


@operator("Size", fresh=True)
def size_of(info: OpKernelInfo) -> Kernel:
    """The number of elements."""
    return lambda x: np.array(x.size, np.int64)


@operator("Dropout", since=12)
def dropout(info: OpKernelInfo) -> Kernel:
    """The input and a mask of ones. The reference runs dropout in training."""
    outputs = len(info.node.outputs)

    def kernel(x: Array, ratio: Array | None = None, training: Array | None = None) -> tuple[Array, ...]:
        if training is not None and training.any():
            return tuple(info.reference()(x, ratio, training))
        return (x, np.ones(x.shape, bool))[:outputs] if outputs > 1 else (x,)

    return kernel


@operator("Reshape", since=5)
def reshape(info: OpKernelInfo) -> Kernel:
    """Reshape: 0 takes the dimension from the input, -1 the remaining elements."""
    keep_zeros = bool(info.integer("allowzero"))

    def kernel(x: Array, shape: Array) -> Array:
        dims = as_int_list(shape)
        if not keep_zeros:
            dims = [x.shape[i] if n == 0 else n for i, n in enumerate(dims)]
        return x.reshape(dims)

    return kernel


@operator("Flatten")
def flatten(info: OpKernelInfo) -> Kernel:
    """A matrix: the dimensions before `axis`, and the dimensions from it on."""
    axis = info.integer("axis", 1)

    def kernel(x: Array) -> Array:
        at = axis + x.ndim if axis < 0 else axis
        return x.reshape(prod(x.shape[:at]), prod(x.shape[at:]))

    return kernel


@operator("Transpose")
def transpose(info: OpKernelInfo) -> Kernel:
    """Reversed dimensions, or those of `perm`."""
    perm = info.integers("perm")
    return lambda x: x.transpose(perm)


def _axes_of(info: OpKernelInfo, axes: Array | None) -> tuple[int, ...] | None:
    if info.opset < 13:
        return info.integers("axes")
    return None if axes is None else tuple(as_int_list(axes))


@operator("Squeeze")
def squeeze(info: OpKernelInfo) -> Kernel:
    """Remove dimensions of 1."""

    def kernel(x: Array, axes: Array | None = None) -> Array:
        return x.squeeze(_axes_of(info, axes))

    return kernel


@operator("Unsqueeze")
def unsqueeze(info: OpKernelInfo) -> Kernel:
    """Insert dimensions of 1."""

    def kernel(x: Array, axes: Array | None = None) -> Array:
        where = _axes_of(info, axes)
        if where is None:
            raise LoadError("states no axes")
        rank = x.ndim + len(where)
        added = {a % rank for a in where if -rank <= a < rank}
        if len(added) != len(where):
            raise LoadError(f"axes {list(where)} do not fit {list(x.shape)}")
        dims = iter(x.shape)
        return x.reshape([1 if i in added else next(dims) for i in range(rank)])

    return kernel


@operator("Concat", since=4, fresh=True)
def concat(info: OpKernelInfo) -> Kernel:
    """Concatenate all inputs along an axis."""
    if "axis" not in info.attributes:
        raise LoadError("states no axis")
    axis = info.integer("axis")

    def kernel(*arrays: Array) -> Array:
        if len({a.dtype for a in arrays}) != 1:
            raise LoadError(f"its inputs are of the types {sorted({str(a.dtype) for a in arrays})}")
        check_tensor_size([sum(a.size for a in arrays)], arrays[0].itemsize)
        return np.concatenate(arrays, axis)

    return kernel


@operator("Split")
def split(info: OpKernelInfo) -> Kernel:
    """Split along an axis into stated sizes, or into parts that are as equal as possible."""
    axis, parts = info.integer("axis"), info.integer("num_outputs") or len(info.node.outputs)

    def kernel(x: Array, sizes: Array | None = None) -> tuple[Array, ...]:
        length = x.shape[axis]
        stated = info.integers("split") if info.opset < 13 else None
        each = list(stated or ()) if sizes is None else as_int_list(sizes)
        if not each:
            most = -(-length // parts)
            each = [min(most, length - i * most) for i in range(parts)]
        if min(each) < 0 or sum(each) != length or len(each) < len(info.node.outputs):
            raise LoadError(f"cannot split a dimension of {length} into {str(each)[:80]}")
        ends = np.cumsum(each)
        before = (slice(None),) * (axis % x.ndim)
        return tuple(x[(*before, slice(end - n, end))] for end, n in zip(ends.tolist(), each, strict=True))

    return kernel


@operator("Slice")
def slice_operator(info: OpKernelInfo) -> Kernel:
    """Ranges of some axes, clipped to the tensor as in Python. Before opset 10 attributes state them."""
    stated = [info.integers(name) for name in ("starts", "ends", "axes")] if info.opset < 10 else [None] * 3

    def kernel(
        x: Array, starts: Array | None = None, ends: Array | None = None, axes: Array | None = None,
        steps: Array | None = None,
    ) -> Array:  # fmt: skip
        begin, end, over = (list(s or as_int_list(a)) for s, a in zip(stated, (starts, ends, axes), strict=True))
        over = over or list(range(len(begin)))
        by = as_int_list(steps) if steps is not None else [1] * len(begin)
        if not len(begin) == len(end) == len(over) == len(by):
            raise LoadError(f"states {len(begin)} starts, {len(end)} ends, {len(over)} axes and {len(by)} steps")
        index = [slice(None)] * x.ndim
        for b, e, a, s in zip(begin, end, over, by, strict=True):
            n = x.shape[a]
            if s < 0 and e < -n:  # backwards to the first element: None is the only end that means this
                index[a] = slice(b, None, s)
            else:
                index[a] = slice(b, e, s)
        return x[tuple(index)]

    return kernel


@operator("Expand")
def expand(info: OpKernelInfo) -> Kernel:
    """Broadcast to a shape; a view."""

    def kernel(x: Array, shape: Array) -> Array:
        dims = np.broadcast_shapes(x.shape, tuple(as_int_list(shape)))
        check_tensor_size(dims, x.itemsize)
        return np.broadcast_to(x, dims)

    return kernel


@operator("Tile", since=6, fresh=True)
def tile(info: OpKernelInfo) -> Kernel:
    """Repeat along each dimension."""

    def kernel(x: Array, repeats: Array) -> Array:
        times = as_int_list(repeats)
        if len(times) != x.ndim:
            raise LoadError(f"states {len(times)} repeats for {x.ndim} dimensions")
        check_tensor_size([n * t for n, t in zip(x.shape, times, strict=True)], x.itemsize)
        return np.tile(x, times)

    return kernel


@operator("Range", fresh=True)
def range_operator(info: OpKernelInfo) -> Kernel:
    """Numbers from start to limit (exclusive), as many as the specification's formula gives."""

    def kernel(start: Array, limit: Array, delta: Array) -> Array:
        if not start.dtype == limit.dtype == delta.dtype or start.size * limit.size * delta.size != 1:
            raise LoadError("wants three single numbers of one type")
        whole = start.dtype.kind in "iu"
        first, last, step = ((int if whole else float)(v.reshape(()).item()) for v in (start, limit, delta))
        if step == 0:
            raise LoadError("has a step of 0")
        count = -((first - last) // step) if whole else np.ceil((last - first) / step)
        if not np.isfinite(count):
            raise LoadError("asks for an infinite range")
        n = max(0, int(count))
        check_tensor_size([n], start.itemsize)
        steps: Array = np.arange(n, dtype=np.int64 if whole else np.float64)
        return np.asarray(steps * step + first).astype(start.dtype)

    return kernel


@operator("Trilu", fresh=True)
def trilu(info: OpKernelInfo) -> Kernel:
    """The upper or lower triangle."""
    upper = info.integer("upper", 1)

    def kernel(x: Array, k: Array | None = None) -> Array:
        diagonal = 0 if k is None else max(-(1 << 40), min(1 << 40, int(k.reshape(()))))
        rows, columns = np.ogrid[: x.shape[-2], : x.shape[-1]]
        keep = columns - rows >= diagonal if upper else columns - rows <= diagonal
        return np.where(keep, x, np.zeros((), x.dtype))

    return kernel
