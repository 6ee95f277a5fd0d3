"""Operators on float32 rows that are large enough for the engine's threads (`kernels/elements.py`)."""

from __future__ import annotations

import numpy as np

from ternrun.onnx.operators.cpu import workers
from ternrun.onnx.operators.table import Array

LEAST = 1 << 12  # elements of the smallest array for which the threads are faster than numpy


def is_large(x: Array) -> bool:
    """Whether x is for these kernels."""
    return x.dtype == np.float32 and x.size >= LEAST


def elementwise(kernel: str, x: Array, out: Array | None = None) -> Array:
    """`erf`, `gelu` or `silu` of every element; `out` may be x."""
    x = np.ascontiguousarray(x)
    if out is None or not out.flags.c_contiguous:
        out = np.empty_like(x)
    workers().call(f"elements.{kernel}", n=x.size, x=x, out=out)
    return out


def softmax(x: Array) -> Array:
    """Softmax over the last dimension as ONNX defines it: NaN for a row of only -inf."""
    x = np.ascontiguousarray(x)
    out, n = np.empty_like(x), x.shape[-1]
    workers().call("elements.softmax", rows=x.size // n, n=n, x=x, out=out)
    return out


def layer_norm(x: Array, weight: Array, bias: Array | None, eps: float) -> Array:
    """(x - mean) / deviation * weight + bias over the last dimension; weight and bias have its length."""
    x, weight = np.ascontiguousarray(x), np.ascontiguousarray(weight)
    plus = None if bias is None else np.ascontiguousarray(bias)
    out, n = np.empty_like(x), x.shape[-1]
    workers().call(
        "elements.layer_norm", rows=x.size // n, n=n, x=x, weight=weight, bias=0 if plus is None else plus,
        eps=float(eps), out=out,
    )  # fmt: skip
    return out


def fits_layer_norm(x: Array, *vectors: Array | None) -> bool:
    """Whether x is for `layer_norm` with these vectors."""
    shape = x.shape[-1:]
    return is_large(x) and all(v is None or (v.dtype == np.float32 and v.shape == shape) for v in vectors)
