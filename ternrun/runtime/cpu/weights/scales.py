"""Scales of ternary tensors, read from where each encoding keeps them (docs/formats.md)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import LoadError
from ternrun.runtime.cpu.memory import round_up
from ternrun.runtime.encodings import ENCODINGS, SUPERBLOCK, words
from ternrun.runtime.weights import Tensor

F32 = NDArray[np.float32]

#: Encodings whose blocks carry a float16 scale: its byte within the block.
BLOCK_SCALE = {"TQ1_0": 52, "TQ2_0": 64, "Q2_0": 0, "PQ2_0": 0, "PTQ1_0": 26, "Q1_0": 0}


def block_scales(tensor: Tensor) -> F32:
    """Scales (rows, blocks), at least one a row. Raises LoadError where one is not finite."""
    rows, cols = tensor.shape
    data, encoding = tensor.data, ENCODINGS[tensor.type]
    if tensor.type in BLOCK_SCALE:
        at = BLOCK_SCALE[tensor.type]
        halves = data.reshape(rows, cols // encoding.block, encoding.block_bytes)[:, :, at : at + 2]
        scales = np.ascontiguousarray(halves).view("<f2")[:, :, 0].astype(np.float32)
    elif tensor.type == "I2_S":
        scales = np.broadcast_to(_floats(data[rows * cols // 4 :][:4]), (rows, 1))
    elif tensor.type == "IQ1_BN":
        scales = np.ascontiguousarray(data.reshape(rows, -1)[:, :2]).view("<f2").astype(np.float32)
    elif tensor.type == "IQ2_BN":
        scales = _floats(data.reshape(rows, -1)[:, :4])
    elif tensor.type == "IQ2_BN_R4":
        scales = _floats(data.reshape(rows // 4, -1)[:, :16]).reshape(rows, 1)
    elif encoding.chunk:
        padded = round_up(rows, SUPERBLOCK)
        scales = _floats(data[2 * padded * words(encoding.chunk, cols) :]).reshape(-1, padded)[:, :rows].T
    elif tensor.type == "Q1_58":
        scales = _floats(data[rows * cols // 4 :]).reshape(rows, -1)
    else:  # HF_PACKED carries none
        scales = np.ones((rows, 1), np.float32)
    with np.errstate(all="ignore"):  # what comes of hostile numbers is judged below
        scales = scales * np.float32(tensor.scale)
    if not np.isfinite(scales).all():
        raise LoadError(f"tensor {tensor.name} has a scale that is not a finite number")
    return scales


def row_scales(tensor: Tensor) -> tuple[F32, F32 | None]:
    """Scales (rows, 1) where the blocks of each row agree, else (rows, blocks).

    The second value is None, or the block scales where some are 0: such blocks must be read as zeros, and then do not
    count as disagreeing.
    """
    scales = block_scales(tensor)
    if (scales == scales[:, :1]).all():
        return scales[:, :1], None
    top = np.take_along_axis(scales, np.abs(scales).argmax(axis=1)[:, None], axis=1)
    if ((scales == top) | (scales == 0)).all():
        return top, scales
    return scales, None


def _floats(data: NDArray[np.uint8]) -> F32:
    return np.ascontiguousarray(data).view("<f4")
