"""Products with a constant matrix on the engine's kernels.

Weights of few bits stay packed, and floats are multiplied faster than by numpy's BLAS.
"""

from __future__ import annotations

import numpy as np

from ternrun.onnx.format.limits import check_tensor_size, check_work
from ternrun.onnx.operators.cpu import workers
from ternrun.onnx.operators.table import Array
from ternrun.runtime.weights import Tensor

LEAST = 1 << 16  # weights of the smallest matrix that is worth the engine's threads


class ConstantMatMul:
    """y = x W^T in float32. Any number of threads may call it at the same time; they take turns."""

    def __init__(self, tensor: Tensor) -> None:
        """`tensor` is (rows, cols) in an ordinary encoding whose blocks, and 16, divide the columns."""
        self._workers = workers()
        self._product = self._workers.prepare(tensor)
        self._rows, self._cols = tensor.shape

    def __call__(self, x: Array, bias: Array | None = None) -> Array:
        """(..., cols) -> (..., rows), plus `bias` (rows,). Raises LoadError for a result that is too large."""
        rows = np.ascontiguousarray(x, np.float32).reshape(-1, self._cols)
        check_tensor_size((len(rows), self._rows))
        check_work(len(rows) * self._rows * self._cols)
        out = np.empty((*x.shape[:-1], self._rows), np.float32)  # new memory, because the plan may overwrite it
        if len(rows):
            self._workers.multiply(self._product, rows, out, bias)
        return out


def of_floats(weights: Array | None) -> ConstantMatMul | None:
    """The product with a constant float32 matrix (cols, rows), or None if numpy multiplies it as fast.

    A matrix that the exporter transposed is transposed back without a copy.
    """
    if weights is None or weights.dtype != np.float32 or weights.ndim != 2 or weights.size < LEAST:
        return None
    if weights.shape[0] % 16:
        return None
    turned = np.ascontiguousarray(weights.T)
    return ConstantMatMul(Tensor("weights", "F32", turned.shape, turned.reshape(-1).view(np.uint8)))
