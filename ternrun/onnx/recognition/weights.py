"""Weights as a graph stores them: floats, or small integers with scales, optionally transposed.

They stay packed until the loader encodes them for the engine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import LoadError
from ternrun.onnx.format.tensors import OnnxTensor, unpack

FLOATS = {"FLOAT": "F32", "FLOAT16": "F16", "BFLOAT16": "BF16", "DOUBLE": "F32"}
INTEGERS = ("INT2", "UINT2", "INT4", "UINT4", "INT8", "UINT8")


@dataclass(frozen=True, slots=True, eq=False)
class Scales:
    """Value = (code - zero) * scale. Both are grids over the stored matrix; each entry covers a rectangle of it."""

    scale: NDArray[np.float32]
    zero: NDArray[np.float32]
    bits: int = 0  # bits of codes packed into uint8 by com.microsoft's operators; 0: those of the tensor's type


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """A stored matrix, or its transpose if `swapped`."""

    tensor: OnnxTensor
    scales: Scales | None = None
    swapped: bool = False
    cols: int = 0  # columns of a matrix packed by MatMulNBits, whose last block may be wider

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in the graph, after the transposition."""
        stored = self.tensor.shape
        if self.scales is not None and self.scales.bits:
            stored = (stored[0], self.cols)
        return stored[::-1] if self.swapped else stored

    @property
    def name(self) -> str:
        """The tensor's name in the file."""
        return self.tensor.name

    def transposed(self) -> Weight:
        """The transpose. Raises LoadError if it is not a matrix."""
        if len(self.shape) != 2:
            raise LoadError(f"tensor {self.name[:80]!r} of shape {list(self.shape)} is not a matrix")
        return replace(self, swapped=not self.swapped)

    def reshaped(self, shape: tuple[int, ...]) -> Weight:
        """The same bytes with another shape."""
        if self.scales is not None or self.swapped:
            raise LoadError(f"tensor {self.name[:80]!r} is reshaped after it was dequantized or transposed")
        empty = np.broadcast_to(np.uint8(0), self.tensor.shape)
        return replace(self, tensor=replace(self.tensor, shape=empty.reshape(shape).shape))

    def array(self) -> NDArray[Any]:
        """The values of a matrix of floats or integers. Raises LoadError for a quantized one."""
        if self.scales is not None:
            raise LoadError(f"tensor {self.name[:80]!r} is quantized, but not used as a weight")
        values = self.floats()
        if self.tensor.dtype == "BFLOAT16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return values.T if self.swapped else values

    def codes(self) -> NDArray[Any]:
        """The stored integers (rows, columns), one a byte."""
        if self.scales is None or not self.scales.bits:
            return self.tensor.integers()
        return unpack(self.tensor.data.reshape(self.tensor.shape[0], -1), self.scales.bits)[:, : self.cols]

    def floats(self) -> NDArray[Any]:
        """The stored floats in their type; bfloat16 as 16-bit patterns."""
        if self.tensor.dtype == "BFLOAT16":
            return self.tensor.data.view("<u2").reshape(self.tensor.shape)
        return self.tensor.array()


def dequantized(weight: Weight, scale: NDArray[Any], zero: NDArray[Any] | None, axis: int, block: int) -> Weight:
    """DequantizeLinear of a weight: one scale for the tensor, for each index along `axis`, or for each block of it.

    Raises LoadError for scales that do not fit the matrix.
    """
    shape = weight.tensor.shape
    if weight.tensor.dtype not in INTEGERS or len(shape) != 2 or weight.scales is not None or weight.swapped:
        raise LoadError(f"tensor {weight.name[:80]!r} of type {weight.tensor.dtype} is not a matrix of small integers")
    axis %= 2
    if scale.size == 1:
        grid = (1, 1)
    elif scale.ndim == 1:
        grid = (scale.size, 1) if axis == 0 else (1, scale.size)
    elif block:
        grid = scale.shape
    else:
        raise LoadError(f"tensor {weight.name[:80]!r} has scales of shape {list(scale.shape)}")
    return replace(weight, scales=_scales(weight.name, scale, zero, grid, shape, 0))


def packed(
    tensor: OnnxTensor, shape: tuple[int, int], bits: int, block: int, scale: NDArray[Any], zero: NDArray[Any] | None
) -> Weight:
    """The matrix of MatMulNBits: uint8 (rows, blocks, bytes); `zero` is packed likewise or floats, by default
    2^(bits-1).

    Raises LoadError for sizes that do not agree.
    """
    rows, cols = shape
    blocks = -(-cols // block)
    if bits not in (2, 4, 8) or tensor.dtype != "UINT8" or tensor.size * 8 != rows * blocks * block * bits:
        raise LoadError(f"tensor {tensor.name[:80]!r} of shape {list(tensor.shape)} does not hold {rows} x {cols}")
    if zero is not None and zero.dtype == np.uint8:
        zero = unpack(zero.reshape(rows, -1), bits)[:, :blocks]
    if zero is None:
        zero = np.full((1, 1), 1 << (bits - 1))
    flat = OnnxTensor(tensor.name, "UINT8", (rows, tensor.size // rows), tensor.data)
    stored = (rows, blocks * block)
    return Weight(flat, _scales(tensor.name, scale, zero, (rows, blocks), stored, bits), cols=cols)


def _scales(
    name: str, scale: NDArray[Any], zero: NDArray[Any] | None, grid: tuple[int, ...], shape: tuple[int, ...], bits: int
) -> Scales:
    zeros = np.zeros((1, 1)) if zero is None else zero.reshape(grid if zero.size > 1 else (1, 1))
    if scale.size != grid[0] * grid[1] or any(n % g for n, g in zip(shape, grid, strict=True)):
        raise LoadError(f"tensor {name[:80]!r} of shape {list(shape)} has scales of shape {list(scale.shape)}")
    values = scale.reshape(grid).astype(np.float32)
    if not np.isfinite(values).all():
        raise LoadError(f"tensor {name[:80]!r} has a scale that is not a finite number")
    return Scales(values, zeros.astype(np.float32), bits)
