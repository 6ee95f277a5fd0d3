"""Weights of a graph in the engine's encodings.

Ternary weights go to the ternary kernels. Floats keep their type; a matrix that needs no transposition stays in the
file. Codes of 2, 4 and 8 bits become Q4_0, Q4_1 or Q8_0, which have fp16 scales; weights that do not fit blocks of 32
are dequantized to F32.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import LoadError
from ternrun.loader.quants.detect_ternary import as_ternary
from ternrun.loader.quants.table import encode_trits
from ternrun.onnx.operators.blocks import centered, in_blocks
from ternrun.onnx.recognition.decoder import Projection
from ternrun.onnx.recognition.weights import FLOATS, Scales, Weight
from ternrun.runtime.encodings import nbytes
from ternrun.runtime.weights import Tensor

_GROUPS = {64: "Q2_0", 128: "PQ2_0", 256: "TQ2_0"}  # weights that share an fp16 scale -> encoding


class Encoded(NamedTuple):
    """A tensor, and its form in the graph in words."""

    tensor: Tensor
    was: str


def vector(name: str, values: NDArray[Any]) -> Tensor:
    """A norm or bias as F32."""
    return Tensor(name, "F32", values.shape, np.ascontiguousarray(values, "<f4").view(np.uint8))


@np.errstate(all="ignore")  # hostile scales may be infinite or no numbers
def matrix(name: str, projection: Projection) -> Encoded:
    """Raises LoadError naming the tensor that cannot be encoded."""
    weight = projection.weight
    rows = slice(projection.first, projection.first + projection.rows)
    factor = np.full((1, 1), projection.scale, np.float32)
    if projection.factor is not None:
        factor = factor * projection.factor[:, None]
    if weight.scales is not None:
        return _quantized(name, weight, rows, factor)
    if weight.tensor.dtype not in FLOATS or len(weight.shape) != 2:
        raise LoadError(f"tensor {weight.name[:80]!r} of type {weight.tensor.dtype} is not a matrix of floats")
    return _dense(name, weight, rows, factor)


def _dense(name: str, weight: Weight, rows: slice, factor: NDArray[np.float32]) -> Encoded:
    kind, stored = FLOATS[weight.tensor.dtype], weight.floats()
    values = (stored.T if weight.swapped else stored)[rows]
    was = weight.tensor.dtype.lower()
    if _may_be_ternary(kind, values[0, :64]):
        found = as_ternary(_floats(kind, values))
        if found is not None:
            encoded = _ternary(name, found[0], found[1] * factor)
            if encoded is not None:
                return Encoded(encoded, f"{was}, ternary in value")
    if factor.size > 1 or weight.tensor.dtype == "DOUBLE":
        return Encoded(_plain(name, _floats(kind, values) * factor), was)
    data = np.ascontiguousarray(values).view(np.uint8).ravel()
    return Encoded(Tensor(name, kind, values.shape, data, float(factor[0, 0])), was)


def _floats(kind: str, values: NDArray[Any]) -> NDArray[np.float32]:
    if kind == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


def _may_be_ternary(kind: str, some: NDArray[Any]) -> bool:
    """Whether the first weights of a row have one magnitude, as in a ternary matrix."""
    sizes = np.abs(_floats(kind, some))
    return len(np.unique(sizes[sizes > 0])) <= 1


def _plain(name: str, values: NDArray[np.float32]) -> Tensor:
    if not np.isfinite(values).all():
        raise LoadError(f"tensor {name!r} holds weights that are not finite numbers")
    return Tensor(name, "F32", values.shape, np.ascontiguousarray(values, "<f4").view(np.uint8).ravel())


def _ternary(name: str, codes: NDArray[np.int8], scales: NDArray[np.float32]) -> Tensor | None:
    """Trits (rows, cols) with scales (rows or 1, groups) in the encoding that holds them exactly; None if none does."""
    count, cols = codes.shape
    scales = _coarsest(np.broadcast_to(scales, (count, scales.shape[1])))
    if scales.size == 1 and count % 4 == 0:
        data = encode_trits("HF_PACKED", codes, np.ones((1, 1), np.float32))
        return Tensor(name, "HF_PACKED", codes.shape, data, float(scales[0, 0]))
    if scales.shape[1] == 1 and nbytes("IQ2_BN", codes.shape) is not None:
        rows = np.broadcast_to(scales, (count, 1))
        return Tensor(name, "IQ2_BN", codes.shape, encode_trits("IQ2_BN", codes, rows))
    group = cols // scales.shape[1]
    fine = max((g for g in _GROUPS if group % g == 0 and cols % g == 0), default=0)
    if fine and (scales.astype(np.float16) == scales).all():
        return Tensor(name, _GROUPS[fine], codes.shape, encode_trits(_GROUPS[fine], codes, scales))
    if group % 128 == 0 and cols % 128 == 0:
        return Tensor(name, "Q1_58", codes.shape, encode_trits("Q1_58", codes, scales))
    return None


def _coarsest(scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same scales as one for all, or one a row, if they are equal."""
    if (scales == scales[0, 0]).all():
        return scales[:1, :1]
    return scales[:, :1] if (scales == scales[:, :1]).all() else scales


def _quantized(name: str, weight: Weight, rows: slice, factor: NDArray[np.float32]) -> Encoded:
    assert weight.scales is not None
    codes = weight.codes()
    scale, zero = _grids(weight.scales, codes.shape)
    if weight.swapped:
        codes, scale, zero = codes.T, scale.T, zero.T
    count = codes.shape[0]
    codes = codes[rows]
    scale, zero = (_rows(a, count)[rows if a.shape[0] > 1 else slice(None)] for a in (scale, zero))
    scale = scale * factor
    bits = weight.scales.bits or int(weight.tensor.dtype.lstrip("UINT"))
    was = f"{bits}-bit codes in blocks of {codes.shape[1] // scale.shape[1]}"
    values = centered(codes, zero)
    if values is not None and np.abs(values).max(initial=0) <= 1:
        encoded = _ternary(name, values, scale)
        if encoded is not None:
            return Encoded(encoded, f"{was}, ternary in value")
    blocks = in_blocks(name, codes, values, scale, zero, bits)
    if blocks is not None:
        return Encoded(blocks, was)
    spread = [np.repeat(a, codes.shape[1] // a.shape[1], axis=1) for a in (zero, scale)]
    return Encoded(_plain(name, (codes.astype(np.float32) - spread[0]) * spread[1]), was)


def _grids(scales: Scales, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Scales and zero points, whose blocks divide the matrix. Raises LoadError if the last block is cut."""
    for grid in (scales.scale, scales.zero):
        if shape[1] % grid.shape[1] or shape[0] % grid.shape[0]:
            raise LoadError(f"blocks of a quantized weight of shape {list(shape)} do not divide it evenly")
    return scales.scale, scales.zero


def _rows(grid: Any, count: int) -> Any:
    """One row of the grid for each row of the matrix, or one for all."""
    return grid if grid.shape[0] == 1 else np.repeat(grid, count // grid.shape[0], axis=0)
