"""ONNX operators in numpy, for values that do not depend on the tokens: shapes, masks, tables of angles.

Each takes the node's attributes and inputs; an input that is left out is None. Sizes are bounded before anything is
made, for a graph may ask for a range of a million million numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import LoadError
from ternrun.loader.onnx.tensors import DTYPES

Array = NDArray[Any]
Attributes = Mapping[str, Any]
Operator = Callable[..., Any]

MAX_ELEMENTS = 1 << 24


def bounded(*shape: int) -> tuple[int, ...]:
    """The shape, if what has it may be made here. Raises LoadError."""
    if any(n < 0 for n in shape) or prod(shape) > MAX_ELEMENTS:
        raise LoadError(f"it makes an array of shape {str(list(shape))[:80]}")
    return shape


def _each(function: Callable[..., Array]) -> Operator:
    """An operator that works element by element."""

    def run(_: Attributes, *args: Array) -> Array:
        bounded(*np.broadcast_shapes(*(a.shape for a in args)))
        return np.asarray(function(*args))

    return run


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind in "iu":
        quotient = np.abs(a) // np.where(b == 0, 1, np.abs(b))  # ONNX truncates
        return (quotient * np.sign(a) * np.sign(b)).astype(a.dtype)
    return np.asarray(a / b)


def _fold(function: Callable[[Array, Array], Array]) -> Operator:
    """Max, Min, Sum: any number of inputs."""

    def run(_: Attributes, first: Array, *others: Array) -> Array:
        for other in others:
            bounded(*np.broadcast_shapes(first.shape, other.shape))
            first = np.asarray(function(first, other))
        return first

    return run


def cast(attributes: Attributes, x: Array) -> Array:
    """To the type with the code `to`; types that numpy lacks become float32."""
    kind = DTYPES[attributes["to"]].numpy
    return x.astype(kind or np.float32)


def _axes(attributes: Attributes, given: Array | None) -> tuple[int, ...] | None:
    axes = attributes.get("axes") if given is None else np.atleast_1d(given).tolist()
    return tuple(axes) if axes else None


def _reduce(function: Callable[..., Array]) -> Operator:
    def run(attributes: Attributes, x: Array, axes: Array | None = None) -> Array:
        which = _axes(attributes, axes)
        if which is None and attributes.get("noop_with_empty_axes"):
            return x
        return np.asarray(function(x, axis=which, keepdims=bool(attributes.get("keepdims", 1))))

    return run


def _shape(attributes: Attributes, x: Array) -> Array:
    start, end = attributes.get("start", 0), attributes.get("end", len(x.shape))
    return np.array(x.shape[slice(start, end)], np.int64)


def reshape(attributes: Attributes, x: Array, shape: Array) -> Array:
    """Zeros keep a dimension unless `allowzero`."""
    wanted = [int(n) for n in shape]
    if not attributes.get("allowzero"):
        wanted = [x.shape[i] if n == 0 else n for i, n in enumerate(wanted)]
    return x.reshape(wanted)


def unsqueeze(attributes: Attributes, x: Array, axes: Array | None = None) -> Array:
    """New dimensions of one."""
    return np.expand_dims(x, _axes(attributes, axes) or ())


def squeeze(attributes: Attributes, x: Array, axes: Array | None = None) -> Array:
    """Dimensions of one left out."""
    return np.squeeze(x, _axes(attributes, axes))


def transpose(attributes: Attributes, x: Array) -> Array:
    """Dimensions in the order `perm`, by default reversed."""
    return np.transpose(x, attributes.get("perm"))


def flatten(attributes: Attributes, x: Array) -> Array:
    """A matrix, split before `axis`."""
    axis = attributes.get("axis", 1)
    return x.reshape(prod(x.shape[: axis if axis >= 0 else axis + x.ndim]), -1)


def expand(_: Attributes, x: Array, shape: Array) -> Array:
    """Broadcast with a shape."""
    return np.broadcast_to(x, bounded(*np.broadcast_shapes(x.shape, tuple(int(n) for n in shape))))


def tile(_: Attributes, x: Array, repeats: Array) -> Array:
    """Repeated along each dimension."""
    bounded(*(n * int(r) for n, r in zip(x.shape, repeats, strict=True)))
    return np.tile(x, tuple(int(r) for r in repeats))


def slice_(
    attributes: Attributes, x: Array, starts: Array | None = None, ends: Array | None = None,
    axes: Array | None = None, steps: Array | None = None,
) -> Array:  # fmt: skip
    """A part of each of some dimensions."""
    given = [attributes.get(k) if a is None else a.tolist() for k, a in (("starts", starts), ("ends", ends))]
    first, last = given[0] or [], given[1] or []
    which = _axes(attributes, axes) or range(len(first))
    stride = [1] * len(first) if steps is None else steps.tolist()
    parts = [slice(None)] * x.ndim
    for axis, start, end, step in zip(which, first, last, stride, strict=True):
        below = step < 0 and end < -x.shape[axis]
        parts[axis] = slice(start, None if below else end, step)
    return x[tuple(parts)]


def gather(attributes: Attributes, x: Array, indices: Array) -> Array:
    """Rows along `axis`."""
    axis = attributes.get("axis", 0)
    bounded(indices.size, x.size // max(x.shape[axis], 1))
    if indices.size and not -x.shape[axis] <= indices.min() <= indices.max() < x.shape[axis]:
        raise LoadError(f"an index from {indices.min()} to {indices.max()} is outside {x.shape[axis]}")
    return np.take(x, indices, axis)


def split(attributes: Attributes, x: Array, sizes: Array | None = None) -> tuple[Array, ...]:
    """Parts of the stated sizes; without any, `num_outputs` equal ones."""
    axis = attributes.get("axis", 0)
    parts = attributes.get("split") if sizes is None else sizes.tolist()
    if parts is None:
        count = attributes["num_outputs"]
        each = -(-x.shape[axis] // bounded(count)[0])
        parts = [each] * (count - 1) + [x.shape[axis] - each * (count - 1)]
    if sum(parts) != x.shape[axis]:
        raise LoadError(f"parts of {parts} do not make up {x.shape[axis]}")
    return tuple(np.split(x, np.cumsum(parts)[:-1], axis))


def _gather_nd(attributes: Attributes, x: Array, indices: Array) -> Array:
    if attributes.get("batch_dims", 0):
        raise LoadError("it gathers by batch")
    bounded(*indices.shape[:-1], *x.shape[indices.shape[-1] :])
    return np.asarray(x[tuple(np.moveaxis(indices, -1, 0))])


def _range(_: Attributes, start: Array, stop: Array, step: Array) -> Array:
    bounded(max(0, int(np.ceil((stop.item() - start.item()) / step.item()))))
    return np.arange(start.item(), stop.item(), step.item(), dtype=start.dtype)


def _constant_of_shape(attributes: Attributes, shape: Array) -> Array:
    value = attributes["value"].array() if "value" in attributes else np.zeros(1, np.float32)
    return np.full(bounded(*(int(n) for n in shape)), value.reshape(-1)[0])


def _constant(attributes: Attributes) -> Array:
    for key, kind in (("value_float", np.float32), ("value_floats", np.float32), ("value_int", np.int64)):
        if key in attributes:
            return np.array(attributes[key], kind)
    return np.array(attributes["value_ints"], np.int64) if "value_ints" in attributes else attributes["value"].array()


def _trilu(attributes: Attributes, x: Array, k: Array | None = None) -> Array:
    by = 0 if k is None else int(k.item())
    return np.asarray(np.triu(x, by) if attributes.get("upper", 1) else np.tril(x, by))


def _matmul(_: Attributes, a: Array, b: Array) -> Array:
    bounded(*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), *a.shape[-2:-1], *b.shape[-1:], a.shape[-1])
    return np.asarray(a @ b)


def _cumsum(attributes: Attributes, x: Array, axis: Array) -> Array:
    if attributes.get("exclusive") or attributes.get("reverse"):
        raise LoadError("it adds up in an unusual order")
    return np.asarray(np.cumsum(x, int(axis.item()), dtype=x.dtype))


def _scatter_nd(attributes: Attributes, x: Array, indices: Array, updates: Array) -> Array:
    if attributes.get("reduction", "none") != "none":
        raise LoadError("it scatters with a reduction")
    result = x.copy()
    result[tuple(np.moveaxis(indices, -1, 0))] = updates
    return result


def _softmax(attributes: Attributes, x: Array) -> Array:
    e = np.exp(x - x.max(attributes.get("axis", -1), keepdims=True))
    return np.asarray(e / e.sum(attributes.get("axis", -1), keepdims=True))


def _clip(_: Attributes, x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    return np.asarray(np.clip(x, low, high))


def _concat(attributes: Attributes, *parts: Array) -> Array:
    bounded(sum(p.size for p in parts))
    return np.concatenate(parts, attributes["axis"])


VIEWS: dict[str, Operator] = {  # what moves elements about and changes none of them
    "Identity": lambda _, x: x, "Dropout": lambda _, x, *rest: x, "Reshape": reshape, "Transpose": transpose,
    "Unsqueeze": unsqueeze, "Squeeze": squeeze, "Flatten": flatten, "Expand": expand, "Tile": tile, "Slice": slice_,
    "Gather": gather, "Split": split,
}  # fmt: skip
OPERATORS: dict[str, Operator] = VIEWS | {
    "Abs": _each(np.abs), "Add": _each(np.add), "And": _each(np.logical_and), "BitwiseAnd": _each(np.bitwise_and),
    "BitwiseOr": _each(np.bitwise_or), "Ceil": _each(np.ceil), "Cos": _each(np.cos), "Div": _each(_divide),
    "Equal": _each(np.equal), "Exp": _each(np.exp), "Floor": _each(np.floor), "Greater": _each(np.greater),
    "GreaterOrEqual": _each(np.greater_equal), "IsNaN": _each(np.isnan), "Less": _each(np.less),
    "LessOrEqual": _each(np.less_equal), "Log": _each(np.log), "Mod": _each(np.mod), "Mul": _each(np.multiply),
    "Neg": _each(np.negative), "Not": _each(np.logical_not), "Or": _each(np.logical_or), "Pow": _each(np.power),
    "Reciprocal": _each(np.reciprocal), "Relu": _each(lambda x: np.maximum(x, 0)), "Round": _each(np.rint),
    "Sigmoid": _each(lambda x: 1 / (1 + np.exp(-x))), "Sign": _each(np.sign), "Sin": _each(np.sin),
    "Sqrt": _each(np.sqrt), "Sub": _each(np.subtract), "Tanh": _each(np.tanh), "Where": _each(np.where),
    "Xor": _each(np.logical_xor), "Max": _fold(np.maximum), "Min": _fold(np.minimum), "Sum": _fold(np.add),
    "Cast": cast, "CastLike": lambda _, x, like: x.astype(like.dtype), "Clip": _clip, "Concat": _concat,
    "Constant": _constant, "ConstantOfShape": _constant_of_shape, "CumSum": _cumsum, "GatherND": _gather_nd,
    "MatMul": _matmul, "Range": _range, "ReduceMax": _reduce(np.max), "ReduceMean": _reduce(np.mean),
    "ReduceMin": _reduce(np.min), "ReduceProd": _reduce(np.prod), "ReduceSum": _reduce(np.sum),
    "ScatterND": _scatter_nd, "Shape": _shape, "Size": lambda _, x: np.array(prod(x.shape), np.int64),
    "Softmax": _softmax, "Trilu": _trilu,
}  # fmt: skip
