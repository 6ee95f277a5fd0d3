"""Lines said several times over, of which the repeats are not learned: what comes after them is.

No text shows how to go on after the very same lines twice, so a small model that once repeats itself, which greedy
decoding soon makes it do, copies for ever. Here it meets repeats, and the text that follows them (kin to DITTO,
arXiv 2206.02369).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

IGNORED = -1  # a target that is not learned
LINES = 4  # at most, that are repeated
TIMES = 6  # at most, that they are

Ids = NDArray[np.int64]


def stutter(window: Ids, line_ends: Ids, rng: np.random.Generator) -> tuple[Ids, Ids]:
    """Inputs and targets (n - 1,) of a window (n,) with some of its lines repeated, as many tokens of it as find room.

    `line_ends` are the tokens that a line begins with or ends with (the same, in code: a line end with the indentation
    behind it). A window without two of them stays as it is.
    """
    breaks = np.flatnonzero(np.isin(window, line_ends))
    if len(breaks) < 2:
        return window[:-1], window[1:]
    first = int(rng.integers(0, len(breaks) - 1))
    last = min(first + int(rng.integers(1, LINES + 1)), len(breaks) - 1)
    start, end, times = int(breaks[first]), int(breaks[last]), int(rng.integers(1, TIMES + 1))
    repeats = np.tile(window[start:end], times)
    text = np.concatenate([window[:end], repeats, window[end:]])[: len(window)]
    targets = text[1:].copy()
    targets[end - 1 : end - 1 + len(repeats)] = IGNORED
    return text[:-1], targets
