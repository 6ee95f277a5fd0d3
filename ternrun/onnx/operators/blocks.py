"""Encode codes of 2, 4 and 8 bits with scales as blocks that the engine's kernels read: Q4_0, Q4_1, Q8_0.

Codes (rows, cols) are integers. Scales and zero points (rows or 1, groups) are for groups of columns: weight = (code -
zero) * scale. The scales of blocks are float16.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ternrun.runtime.weights import Tensor


def centered(codes: NDArray[Any], zero: NDArray[np.float32]) -> NDArray[np.int8] | None:
    """codes - zero as int8, or None if a zero point is not an integer or a difference exceeds int8."""
    if (zero != np.rint(zero)).any() or np.abs(zero).max() > 255:
        return None
    spread = np.repeat(zero.astype(np.int16), codes.shape[1] // zero.shape[1], axis=1)
    values = codes.astype(np.int16) - spread
    if values.size and (values.min() < -128 or values.max() > 127):
        return None
    return values.astype(np.int8)


def in_blocks(
    name: str, codes: NDArray[Any], values: NDArray[np.int8] | None, scale: NDArray[np.float32],
    zero: NDArray[np.float32], bits: int,
) -> Tensor | None:  # fmt: skip
    """The weights in Q4_0, Q8_0 or Q4_1; `values` are the `centered` codes.

    None if groups of columns are not multiples of 32, or float16 cannot represent the scales to a thousandth.
    """
    if values is not None and (found := _whole(name, values, scale, bits)) is not None:
        return found
    return _shifted(name, codes, scale, zero) if bits <= 4 else None


def _halves(scale: NDArray[np.float32], codes: NDArray[Any]) -> NDArray[np.float16] | None:
    """float16 scales, one for each 32 weights, or None if group sizes or precision do not allow them."""
    rows, cols = codes.shape
    if cols % 32 or (cols // scale.shape[1]) % 32:
        return None
    with np.errstate(all="ignore"):
        half = scale.astype(np.float16)
    if not np.isfinite(half).all() or (np.abs(half - scale) > np.abs(scale) / 1000).any():
        return None
    return np.repeat(np.broadcast_to(half, (rows, half.shape[1])), cols // 32 // half.shape[1], axis=1)


def _whole(name: str, values: NDArray[np.int8], scale: NDArray[np.float32], bits: int) -> Tensor | None:
    """Q4_0 or Q8_0 of integers times scales."""
    halves = _halves(scale, values)
    if halves is None:
        return None
    d = np.ascontiguousarray(halves).reshape(-1, 1).view(np.uint8)
    blocks = values.reshape(-1, 32)
    if bits <= 4 and values.min() >= -8 and values.max() <= 7:
        return _tensor(name, "Q4_0", values.shape, [d, _nibbles(blocks + 8)])
    return _tensor(name, "Q8_0", values.shape, [d, np.ascontiguousarray(blocks).view(np.uint8)])


def _shifted(name: str, codes: NDArray[Any], scale: Any, zero: Any) -> Tensor | None:
    """Q4_1: code * scale + minimum."""
    if codes.dtype != np.uint8:
        return None
    d, m = _halves(scale, codes), _halves(-scale * zero, codes)
    if d is None or m is None:
        return None
    head = [np.ascontiguousarray(a).reshape(-1, 1).view(np.uint8) for a in (d, m)]
    return _tensor(name, "Q4_1", codes.shape, [*head, _nibbles(codes.reshape(-1, 32))])


def _nibbles(blocks: NDArray[Any]) -> NDArray[np.uint8]:
    """Pack codes of 32 into 16 bytes: the first half in the low nibbles."""
    codes = blocks.astype(np.uint8)
    return codes[:, :16] | codes[:, 16:] << np.uint8(4)


def _tensor(name: str, kind: str, shape: tuple[int, ...], parts: list[NDArray[np.uint8]]) -> Tensor:
    """A tensor of blocks from the parts of each block."""
    return Tensor(name, kind, shape, np.concatenate(parts, axis=1).ravel())
