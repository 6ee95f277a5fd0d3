"""Element-wise operators with numpy's broadcasting."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from ternrun.errors import LoadError
from ternrun.onnx.format.limits import check_tensor_size
from ternrun.onnx.operators.table import Array, Kernel, OpKernelInfo, operator, same_type, upcast_half

SMALL = 1 << 22  # no check if the product of the inputs' sizes is at most this, which bounds the result's size
Function = Callable[..., Array]

ARITHMETIC: dict[str, Function] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "BitwiseAnd": np.bitwise_and,
    "BitwiseOr": np.bitwise_or, "BitwiseXor": np.bitwise_xor,
}  # fmt: skip
COMPARISON: dict[str, Function] = {
    "And": np.logical_and, "Or": np.logical_or, "Xor": np.logical_xor, "Equal": np.equal, "Greater": np.greater,
    "Less": np.less, "GreaterOrEqual": np.greater_equal, "LessOrEqual": np.less_equal,
}  # fmt: skip
UNARY: dict[str, Function] = {
    "Abs": np.abs, "Neg": np.negative, "Sqrt": np.sqrt, "Exp": np.exp, "Log": np.log, "Floor": np.floor,
    "Ceil": np.ceil, "Sin": np.sin, "Cos": np.cos, "Tanh": np.tanh, "Round": np.rint, "Not": np.logical_not,
    "BitwiseNot": np.invert, "Sign": np.sign,
}  # fmt: skip


def broadcast_room(*arrays: Array) -> None:
    """Raises LoadError for arrays that do not broadcast, or whose result is too large."""
    product = 1
    for a in arrays:
        product *= a.size
    if product > SMALL:
        check_tensor_size(np.broadcast_shapes(*(a.shape for a in arrays)), max(a.itemsize for a in arrays))


def _binary(function: Function, info: OpKernelInfo) -> Kernel:
    legacy = info.opset < 7 and info.integer("broadcast")
    axis = info.integer("axis", -1)

    def kernel(a: Array, b: Array, out: Array | None = None) -> Array:
        same_type(a, b)
        if legacy:
            b = aligned(a, b, axis)
        broadcast_room(a, b)
        return function(a, b) if out is None else function(a, b, out=out)

    return kernel


def aligned(a: Array, b: Array, axis: int) -> Array:
    """b with dimensions of 1 appended, so that its first dimension matches a's `axis` (broadcasting before opset 7)."""
    if axis < 0:
        return b
    if axis + b.ndim > a.ndim:
        raise LoadError(f"axis {axis} does not fit shapes {list(a.shape)} and {list(b.shape)}")
    return b.reshape(b.shape + (1,) * (a.ndim - axis - b.ndim))


def divide(a: Array, b: Array, out: Array | None = None) -> Array:
    """Division. Integer division rounds towards zero, and division by zero gives zero."""
    if a.dtype.kind not in "iu":
        return np.divide(a, b, out=out)
    quotient = np.floor_divide(a, b)
    if a.dtype.kind == "i":
        quotient += (quotient < 0) & (quotient * b != a)
    return np.asarray(quotient, a.dtype)


for _name, _function in (ARITHMETIC | {"Div": divide}).items():
    operator(_name, reuse=True)(partial(_binary, _function))
for _name, _function in COMPARISON.items():
    operator(_name, fresh=True)(partial(_binary, _function))


def _unary(function: Function, info: OpKernelInfo) -> Kernel:
    def kernel(x: Array, out: Array | None = None) -> Array:
        return function(x) if out is None else function(x, out=out)

    return kernel


for _name, _function in UNARY.items():
    operator(_name, reuse=True)(partial(_unary, _function))


@operator("Relu", reuse=True)
def relu(info: OpKernelInfo) -> Kernel:
    """max(x, 0)."""
    return lambda x, out=None: np.maximum(x, x.dtype.type(0), out=out)


@operator("Reciprocal", reuse=True)
def reciprocal(info: OpKernelInfo) -> Kernel:
    """1 / x."""
    return lambda x, out=None: np.divide(x.dtype.type(1), x, out=out)


@operator("Pow", since=7, fresh=True)
def power(info: OpKernelInfo) -> Kernel:
    """Pow. The result has the base's type."""

    def kernel(a: Array, b: Array) -> Array:
        broadcast_room(a, b)
        if b.size == 1 and b.ndim <= a.ndim and a.dtype.kind == "f":
            exponent = float(b.reshape(()))
            if exponent == 2:
                return np.square(a)
            if exponent == 0.5:
                return np.sqrt(a)
        return np.power(a, b).astype(a.dtype, copy=False)

    return kernel


@operator("Where", fresh=True)
def where(info: OpKernelInfo) -> Kernel:
    """Where: elements of a where the condition holds, otherwise of b."""

    def kernel(condition: Array, a: Array, b: Array) -> Array:
        same_type(a, b)
        broadcast_room(condition, a, b)
        return np.where(condition, a, b)

    return kernel


def _variadic(function: Function, mean: bool, info: OpKernelInfo) -> Kernel | None:
    if info.opset < 8:
        return None

    def kernel(first: Array, *others: Array) -> Array:
        total = first.copy() if not others else first
        for other in others:
            same_type(total, other)
            broadcast_room(total, other)
            total = function(total, other)
        return np.divide(total, total.dtype.type(1 + len(others))) if mean else total

    return kernel


for _name, _function in {"Sum": np.add, "Min": np.minimum, "Max": np.maximum}.items():
    operator(_name, fresh=True)(partial(_variadic, _function, False))
operator("Mean", fresh=True)(partial(_variadic, np.add, True))


@operator("Clip", since=11, fresh=True)
def clip(info: OpKernelInfo) -> Kernel:
    """Clip between two scalars; either may be omitted."""

    def kernel(x: Array, low: Array | None = None, high: Array | None = None) -> Array:
        out = x if low is None else np.maximum(x, low.reshape(()))
        out = out if high is None else np.minimum(out, high.reshape(()))
        return out.copy() if out is x else out

    return kernel


@operator("LeakyRelu", since=6, fresh=True)
def leaky_relu(info: OpKernelInfo) -> Kernel:
    """x, or alpha x for negative x."""
    alpha = info.number("alpha", 0.01)
    return lambda x: np.where(x < 0, x * x.dtype.type(alpha), x)


@operator("Cast", since=6)
def cast(info: OpKernelInfo) -> Kernel | None:
    """Cast to a numeric type of numpy. The reference converts strings and small floats."""
    target = _CAST.get(info.integer("to", -1))
    if target is None:
        return None
    dtype = np.dtype(target)

    def kernel(x: Array) -> Array:
        if x.dtype.kind not in "fiub":
            return np.asarray(info.reference()(x)[0])
        return x.astype(dtype, copy=False)

    return kernel


_CAST = {1: "f4", 2: "u1", 3: "i1", 4: "u2", 5: "i2", 6: "i4", 7: "i8", 9: "?", 10: "f2", 11: "f8", 12: "u4", 13: "u8"}


@operator("CastLike", fresh=True)
def cast_like(info: OpKernelInfo) -> Kernel:
    """Cast to the type of the second input. The reference converts strings and small floats."""

    def kernel(x: Array, like: Array) -> Array:
        own = like.dtype.isbuiltin == 1  # ml_dtypes' float8_e5m2 is also of kind "f"
        if x.dtype.kind not in "fiub" or like.dtype.kind not in "fiub" or not own:
            return np.asarray(info.reference()(x, like)[0])
        return x.astype(like.dtype)

    return kernel


@operator("Mod", since=10, fresh=True)
def mod(info: OpKernelInfo) -> Kernel | None:
    """The remainder of integers, with the sign of the divisor. The reference runs other forms."""
    if info.integer("fmod"):
        return None

    def kernel(a: Array, b: Array) -> Array:
        if a.dtype.kind not in "iu":
            return np.asarray(info.reference()(a, b)[0])
        same_type(a, b)
        broadcast_room(a, b)
        return np.asarray(np.mod(a, b))

    return kernel


@operator("IsNaN", fresh=True)
def is_nan(info: OpKernelInfo) -> Kernel:
    """True for NaN elements."""
    return np.isnan


@operator("Sigmoid", fresh=True)
def sigmoid(info: OpKernelInfo) -> Kernel:
    """1 / (1 + exp(-x)), computed in float32 or wider."""
    return lambda x: logistic(upcast_half(x)).astype(x.dtype, copy=False)


def logistic(x: Array) -> Array:
    """1 / (1 + exp(-x)) in a new buffer. An exponential that overflows gives 0."""
    out = np.negative(x)
    np.exp(out, out=out)
    out += 1
    return np.reciprocal(out, out=out)
