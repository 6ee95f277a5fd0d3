"""T9, the layout that the table-lookup kernels read, in plain numpy: nine weights in 16 bits (docs/formats.md).

What pads a word is a zero weight; anything else there, or an index above 26, is no ternary tensor: it comes out as
code 2. What pads a superblock may be anything, as nobody reads it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ternrun.runtime.encodings import ENCODINGS, SUPERBLOCK

U8 = NDArray[np.uint8]
I8 = NDArray[np.int8]
F32 = NDArray[np.float32]

_NINE = 9
# digits of an index: 9 a + 3 b + c for weights a - 1, b - 1, c - 1; above 26 there are none
_DIGITS = np.array([(i // 9 - 1, i // 3 % 3 - 1, i % 3 - 1) if i < 27 else (2, 2, 2) for i in range(64)], np.int8)


def unpack_words(name: str, data: U8, rows: int, cols: int) -> tuple[I8, F32]:
    """Codes (rows, cols) and scales (rows, groups)."""
    chunk, padded = ENCODINGS[name].chunk, -(-rows // SUPERBLOCK) * SUPERBLOCK
    codes, at = np.empty((padded, cols), np.int8), 0
    for start in range(0, cols, chunk):
        n = min(chunk, cols - start)
        words = -(-n // _NINE)
        part = data[at : at + 2 * words * padded].view("<u2").reshape(-1, words, SUPERBLOCK)
        found = part.swapaxes(1, 2).reshape(padded, words)
        digits = _DIGITS[np.stack([found & 31, found >> 5 & 31, found >> 10], axis=2)].reshape(padded, -1)
        digits[:, n - 1][(digits[:, n:] != 0).any(axis=1)] = 2
        codes[:, start : start + n] = digits[:, :n]
        at += 2 * words * padded
    scales = data[at:].view("<f4").reshape(-1, padded)[:, :rows].T
    return codes[:rows], np.ascontiguousarray(scales, np.float32)


def pack_words(name: str, codes: I8, scales: F32) -> U8:
    """The inverse of `unpack_words`."""
    chunk, (rows, cols) = ENCODINGS[name].chunk, codes.shape
    padded = -(-rows // SUPERBLOCK) * SUPERBLOCK
    parts = []
    for start in range(0, cols, chunk):
        some = codes[:, start : start + chunk]
        words = -(-some.shape[1] // _NINE)
        digits = np.ones((padded, _NINE * words), np.uint16)
        digits[:rows, : some.shape[1]] = some + 1
        index = digits.reshape(padded, words, 3, 3) @ np.array([9, 3, 1], np.uint16)
        found = index[:, :, 0] | index[:, :, 1] << 5 | index[:, :, 2] << 10
        parts.append(found.reshape(-1, SUPERBLOCK, words).swapaxes(1, 2).astype("<u2").ravel().view(np.uint8))
    laid = np.zeros((scales.shape[1], padded), "<f4")
    laid[:, :rows] = scales.T
    return np.concatenate([*parts, laid.ravel().view(np.uint8)])
