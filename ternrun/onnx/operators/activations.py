"""Erf, GELU and related activations, with the fused forms of com.microsoft.

Large tensors are processed in pieces that fit the processor's cache, because each piece passes a dozen numpy functions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from ternrun.errors import LoadError
from ternrun.onnx.operators import rowwise
from ternrun.onnx.operators.elementwise import broadcast_room, logistic
from ternrun.onnx.operators.table import MICROSOFT, Array, Kernel, OpKernelInfo, operator, same_type, upcast_half

PIECE = 1 << 15  # elements
# erf(x) = x P(x^2) / Q(x^2) for |x| < 4 in float32, to 2 units in the last place: Eigen's minimax approximation
# (https://gitlab.com/libeigen/eigen, generic_fast_erf_float)
_P = (-2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05, -7.34990630326855e-04,
      -2.95459980854025e-03, -1.60960333262415e-02)  # fmt: skip
_Q = (-1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03, -1.42647390514189e-02)
ROOT_HALF = float(np.sqrt(0.5))


def erf(x: Array) -> Array:
    """The error function of float32, with the approximation of `kernels/elements.py`."""
    x = np.clip(x, np.float32(-4), np.float32(4))
    square = x * x
    above, below = _horner(_P, square), _horner(_Q, square)
    above *= x
    above /= below
    return above


def _horner(coefficients: tuple[float, ...], x: Array) -> Array:
    """Evaluate a polynomial."""
    out = x * np.float32(coefficients[0])
    for c in coefficients[1:-1]:
        out += np.float32(c)
        out *= x
    out += np.float32(coefficients[-1])
    return out


def exact_gelu(x: Array, out: Array | None = None) -> Array:
    """x / 2 (1 + erf(x / sqrt 2)) for any shape; `out` may be x."""
    return rowwise.elementwise("gelu", x, out) if rowwise.is_large(x) else in_pieces(gelu, x)


def gelu(x: Array) -> Array:
    """x / 2 (1 + erf(x / sqrt 2)) of a piece, in float32."""
    out = erf(x * np.float32(ROOT_HALF))
    out += np.float32(1)
    out *= x
    out *= np.float32(0.5)
    return out


def gelu_tanh(x: Array) -> Array:
    """x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))."""
    inner = x * x
    inner *= np.float32(0.044715)
    inner += np.float32(1)
    inner *= x
    inner *= np.float32(np.sqrt(2 / np.pi))
    np.tanh(inner, out=inner)
    inner += np.float32(1)
    inner *= x
    inner *= np.float32(0.5)
    return inner


def scaled_silu(alpha: float) -> Callable[[Array], Array]:
    """A function that computes x sigmoid(alpha x)."""

    def silu(x: Array) -> Array:
        out = logistic(x * np.float32(alpha))
        out *= x
        return out

    return silu


def in_pieces(function: Callable[[Array], Array], x: Array) -> Array:
    """Apply a function to every element, in float32, and round to x's type."""
    if x.dtype == np.float64 or x.dtype.kind not in "fV":
        raise LoadError(f"takes floats of 32 or 16 bits here, not {x.dtype}")
    flat = np.ascontiguousarray(x).reshape(-1)
    if flat.size <= PIECE:
        return function(upcast_half(flat)).astype(x.dtype, copy=False).reshape(x.shape)
    out = np.empty(flat.size, x.dtype)
    for i in range(0, flat.size, PIECE):
        out[i : i + PIECE] = function(upcast_half(flat[i : i + PIECE]))
    return out.reshape(x.shape)


def _kernel(function: Callable[[Array], Array], bias: bool = False) -> Kernel:
    """A kernel that applies a function to x, or to x + b if `bias`."""

    def kernel(x: Array, b: Array | None = None) -> Array:
        if b is not None:
            if not bias:
                raise LoadError("has an input too many")
            same_type(x, b)
            broadcast_room(x, b)
            x = x + b
        return function(x)

    return kernel


@operator("Erf", fresh=True)
def erf_operator(info: OpKernelInfo) -> Kernel:
    """Erf. Types other than float32 use the reference, element by element."""

    def kernel(x: Array) -> Array:
        if rowwise.is_large(x):
            return rowwise.elementwise("erf", x)
        return in_pieces(erf, x) if x.dtype == np.float32 else np.asarray(info.reference()(x)[0])

    return kernel


@operator("Gelu")
def gelu_operator(info: OpKernelInfo) -> Kernel:
    """Gelu, exact or with tanh."""
    function = partial(in_pieces, gelu_tanh) if info.text("approximate", "none") == "tanh" else exact_gelu

    def kernel(x: Array) -> Array:
        if x.dtype == np.float64:
            return np.asarray(info.reference()(x)[0])
        return function(x)

    return kernel


@operator("Gelu", domains=(MICROSOFT,), fresh=True)
def microsoft_gelu(info: OpKernelInfo) -> Kernel:
    """Gelu of com.microsoft, the exact one."""
    return _kernel(exact_gelu)


@operator("BiasGelu", domains=(MICROSOFT,), fresh=True)
def bias_gelu(info: OpKernelInfo) -> Kernel:
    """The exact GELU of x + bias."""
    return _kernel(exact_gelu, bias=True)


@operator("FastGelu", domains=(MICROSOFT,), fresh=True)
def fast_gelu(info: OpKernelInfo) -> Kernel:
    """GELU with tanh of x + bias, which is optional."""
    return _kernel(partial(in_pieces, gelu_tanh), bias=True)


@operator("QuickGelu", domains=(MICROSOFT,), fresh=True)
def quick_gelu(info: OpKernelInfo) -> Kernel:
    """x sigmoid(alpha x)."""
    return _kernel(partial(in_pieces, scaled_silu(info.number("alpha", 1.702))))
