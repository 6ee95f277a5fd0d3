"""Fill-in-the-middle augmentation: the middle of each text is moved behind its suffix.

The order is prefix, suffix, middle (PSM) at the context level (arXiv 2207.14255). The end token after the middle
teaches the model to stop when the gap is filled.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MIN_TOKENS = 8  # shorter texts are unchanged
_ADDED_TOKENS = 4

Ids = NDArray[np.int64]


def fill_in_middle(window: Ids, ids: tuple[int, int, int, int], rng: np.random.Generator) -> Ids:
    """Rearrange each text of `window` (n,) that fits into n tokens; the last one is shortened first.

    `ids` are the prefix, suffix, middle and end tokens; the end token ends every text. A text becomes prefix token,
    prefix, suffix token, suffix, middle token, middle, end token.
    """
    end, room, parts = ids[3], len(window), []
    for text in np.split(window, np.flatnonzero(window == end) + 1):
        content = text[text != end][: max(0, room - _ADDED_TOKENS)]
        part = _rearrange(content, ids, rng) if len(content) >= _MIN_TOKENS else text[:room]
        parts.append(part)
        room -= len(part)
    return np.concatenate(parts)


def _rearrange(text: Ids, ids: tuple[int, int, int, int], rng: np.random.Generator) -> Ids:
    prefix, suffix, middle, end = ids
    a, b = np.sort(rng.integers(0, len(text) + 1, 2))
    parts = ([prefix], text[:a], [suffix], text[b:], [middle], text[a:b], [end])
    return np.concatenate([np.asarray(p, np.int64) for p in parts])
