"""Whether a dense matrix is ternary in value, and then its trits and scales."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = tuple[NDArray[np.int8], NDArray[np.float32]]


def as_ternary(dense: NDArray[np.float32]) -> Matrix | None:
    """The matrix as trits (rows, cols) and scales (rows or 1, groups), if every weight is -s, 0 or s with one s a
    matrix, a row, or a group of a row; else None.
    """
    rows, cols = dense.shape
    size = np.abs(dense)
    for groups in (size.reshape(1, 1, -1), *(size.reshape(rows, -1, n) for n in (cols, 256, 128, 64) if cols % n == 0)):
        scales = groups.max(axis=2)
        if ((groups == 0) | (groups == scales[:, :, None])).all():
            return np.sign(dense).astype(np.int8), scales
    return None
