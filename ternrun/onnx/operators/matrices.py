"""Matrix products: constant matrices on the engine's kernels, others by BLAS; exact integers through floats."""

from __future__ import annotations

from math import prod

import numpy as np

from ternrun.errors import LoadError
from ternrun.onnx.format.limits import check_tensor_size, check_work
from ternrun.onnx.operators.constant_cache import ConstantCache
from ternrun.onnx.operators.constant_matmul import of_floats
from ternrun.onnx.operators.elementwise import broadcast_room
from ternrun.onnx.operators.table import MICROSOFT, Array, Kernel, OpKernelInfo, operator, same_type, upcast_half

EXACT = 1 << 24  # largest integer up to which float32 sums are exact


class UpcastHalf:
    """Converts half-precision operands to float32, constant operands only once."""

    def __init__(self) -> None:
        self._cache = ConstantCache(upcast_half)

    def __call__(self, x: Array) -> Array:
        """x, in float32 if it is of a half type."""
        if x.dtype.itemsize != 2 or x.dtype.kind not in "fV":
            return x
        return self._cache(x)


def multiply(a: Array, b: Array) -> Array:
    """a @ b with ONNX's (numpy's) broadcasting. Raises LoadError for a product that is too large."""
    if not a.ndim or not b.ndim:
        raise LoadError("cannot multiply single numbers")
    rows = a.size // max(a.shape[-1], 1)
    columns = b.shape[-1] if b.ndim > 1 else 1
    lead = b.size // max(columns * b.shape[-2 if b.ndim > 1 else -1], 1)  # the number of matrices in b
    if rows * columns * lead * max(a.shape[-1], 1) > 1 << 22:
        matrices = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        dims = (*matrices, a.shape[-2] if a.ndim > 1 else 1, columns)
        check_tensor_size(dims, a.itemsize)
        check_work(prod(dims) * a.shape[-1])
    if b.ndim == 2 and a.ndim > 2 and a.shape[-1] == b.shape[0]:  # one product in place of one for each of a's matrices
        return np.asarray((a.reshape(-1, a.shape[-1]) @ b).reshape(*a.shape[:-1], b.shape[1]))
    return np.asarray(np.matmul(a, b))


def is_bias(x: Array | None, rows: int) -> bool:
    """Whether ConstantMatMul can add x to a product."""
    return x is not None and x.dtype == np.float32 and x.shape == (rows,) and x.flags.c_contiguous


def add(out: Array, other: Array) -> Array:
    """ONNX's Add, in place if `out` has the shape of the sum."""
    same_type(out, other)
    broadcast_room(out, other)
    return np.add(out, other, out=out if np.broadcast_shapes(out.shape, other.shape) == out.shape else None)


@operator("MatMul", fresh=True)
def matmul(info: OpKernelInfo) -> Kernel:
    """MatMul. Halves are multiplied in float32 and rounded once. `plus` is the operand of a fused Add (`fusion.py`)."""
    left, right = UpcastHalf(), UpcastHalf()
    native = of_floats(info.constant(1))

    def kernel(a: Array, b: Array, *, plus: Array | None = None) -> Array:
        same_type(a, b)
        if native is not None and a.ndim > 1 and a.shape[-1] == b.shape[0]:
            if is_bias(plus, b.shape[1]):
                return native(a, plus)
            out = native(a)
        else:
            out = multiply(left(a), right(b)).astype(a.dtype, copy=False)
        return out if plus is None else add(out, plus)

    return kernel


@operator("FusedMatMul", domains=(MICROSOFT,), fresh=True)
def fused_matmul(info: OpKernelInfo) -> Kernel:
    """alpha A B. Either may be transposed, also with its batch dimension moved behind the matrix's first dimension."""
    alpha = info.number("alpha", 1.0)
    turns = [(info.integer(f"trans{m}"), info.integer(f"transBatch{m}")) for m in "AB"]
    left, right = UpcastHalf(), UpcastHalf()

    def turned(x: Array, transpose: int, batch: int) -> Array:
        if batch and x.ndim > 2:
            x = np.moveaxis(x, 0, -2)
        return x.swapaxes(-1, -2) if transpose and x.ndim > 1 else x

    def kernel(a: Array, b: Array) -> Array:
        same_type(a, b)
        product = multiply(turned(left(a), *turns[0]), turned(right(b), *turns[1]))
        if alpha != 1:
            product = product * product.dtype.type(alpha)
        return product.astype(a.dtype, copy=False)

    return kernel


@operator("Gemm", since=7, fresh=True)
def gemm(info: OpKernelInfo) -> Kernel:
    """alpha A B + beta C."""
    alpha, beta = info.number("alpha", 1.0), info.number("beta", 1.0)
    turn_a, turn_b = info.integer("transA"), info.integer("transB")
    left, right = UpcastHalf(), UpcastHalf()
    constant = info.constant(1)
    native = of_floats(constant.T if constant is not None and turn_b else constant)

    def kernel(a: Array, b: Array, c: Array | None = None) -> Array:
        same_type(a, b)
        if a.ndim != 2 or b.ndim != 2:
            raise LoadError(f"wants matrices, not {list(a.shape)} and {list(b.shape)}")
        wide_a, wide_b = left(a), right(b)
        rows, columns = wide_a.T if turn_a else wide_a, wide_b.T if turn_b else wide_b
        if native is not None and rows.shape[1] == len(columns):
            if alpha == beta == 1 and is_bias(c, columns.shape[1]):
                return native(rows, c)
            out = native(rows)
        else:
            out = multiply(rows, columns)
        if alpha != 1:
            out = (out * alpha).astype(out.dtype)
        if c is not None:
            same_type(a, c)
            if np.broadcast_shapes(c.shape, out.shape) != out.shape:
                raise LoadError(f"cannot add {list(c.shape)} to {list(out.shape)}")
            out += upcast_half(c) if beta == 1 else (upcast_half(c) * beta).astype(out.dtype)
        return out.astype(a.dtype, copy=False)

    return kernel


def multiply_integers(a: Array, b: Array) -> Array:
    """The exact product of small integers (with zero points already subtracted), as int32.

    float32 sums are exact up to 2**24, float64 sums up to 2**53. Both use BLAS; numpy's integers do not.
    """
    depth = a.shape[-1] if a.ndim else 0
    wide = np.float32 if depth * 255 * 255 < EXACT else np.float64
    if depth > 1 << 30:
        raise LoadError("sums more numbers than int64 can hold")
    return multiply(a.astype(wide), b.astype(wide)).astype(np.int64).astype(np.int32)


@operator("MatMulInteger", fresh=True)
def matmul_integer(info: OpKernelInfo) -> Kernel:
    """MatMulInteger: bytes to int32. Zero points are for the tensor, or for each row of A and column of B."""

    def kernel(a: Array, b: Array, a_zero: Array | None = None, b_zero: Array | None = None) -> Array:
        return multiply_integers(centered(a, a_zero, rows=True), centered(b, b_zero, rows=False))

    return kernel


def centered(x: Array, zero: Array | None, rows: bool) -> Array:
    """x minus its zero point, as int16."""
    if x.dtype.kind not in "iu" or x.itemsize != 1:
        raise LoadError(f"takes integers of 8 bits, not {x.dtype}")
    wide = x.astype(np.int16)
    if zero is None:
        return wide
    same_type(x, zero)
    if zero.ndim == 1 and zero.size > 1 and rows:
        zero = zero[:, None]
    wide -= zero.astype(np.int16)
    return wide
