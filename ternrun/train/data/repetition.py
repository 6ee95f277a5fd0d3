"""Repetition augmentation: some lines of a window are repeated, and the repeats are not learned.

In ordinary text nothing shows how to continue after the same lines twice. A small model that once repeats itself, which
greedy decoding soon causes, then copies forever. This augmentation shows repeats together with the text that follows
them (similar to DITTO, arXiv 2206.02369).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

IGNORE_INDEX = -1  # a target that is not learned
MAX_LINES = 4  # that are repeated
MAX_REPEATS = 6

Ids = NDArray[np.int64]


def repetition_augment(window: Ids, line_ends: Ids, rng: np.random.Generator) -> tuple[Ids, Ids]:
    """Inputs and targets (n - 1,) of a window (n,) with some lines repeated, cut to the window's length.

    `line_ends` are the tokens that begin or end a line (in code one token can hold a line end and the indentation after
    it). A window with fewer than two of them is unchanged.
    """
    breaks = np.flatnonzero(np.isin(window, line_ends))
    if len(breaks) < 2:
        return window[:-1], window[1:]
    first = int(rng.integers(0, len(breaks) - 1))
    last = min(first + int(rng.integers(1, MAX_LINES + 1)), len(breaks) - 1)
    start, end, times = int(breaks[first]), int(breaks[last]), int(rng.integers(1, MAX_REPEATS + 1))
    repeats = np.tile(window[start:end], times)
    text = np.concatenate([window[:end], repeats, window[end:]])[: len(window)]
    targets = text[1:].copy()
    targets[end - 1 : end - 1 + len(repeats)] = IGNORE_INDEX
    return text[:-1], targets
