"""Fill in the middle: each text's middle moved behind its suffix (PSM order, arXiv 2207.14255, at the context's level).

The end token after the middle is what tells a model that a hole is filled: without it, infilling would never end.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LEAST = 8  # tokens of a text that is worth it
_ADDED = 4

Ids = NDArray[np.int64]


def fill_in_middle(window: Ids, ids: tuple[int, int, int, int], rng: np.random.Generator) -> Ids:
    """`window` (n,) with its texts turned, as many as find room in n tokens; the last of them is cut before it is.

    `ids` are the prefix, suffix, middle and end tokens, of which the last ends every text. A text becomes
    prefix token, prefix, suffix token, suffix, middle token, middle, end token.
    """
    end, room, parts = ids[3], len(window), []
    for text in np.split(window, np.flatnonzero(window == end) + 1):
        inside = text[text != end][: max(0, room - _ADDED)]
        part = _turned(inside, ids, rng) if len(inside) >= _LEAST else text[:room]
        parts.append(part)
        room -= len(part)
    return np.concatenate(parts)


def _turned(text: Ids, ids: tuple[int, int, int, int], rng: np.random.Generator) -> Ids:
    prefix, suffix, middle, end = ids
    a, b = np.sort(rng.integers(0, len(text) + 1, 2))
    parts = ([prefix], text[:a], [suffix], text[b:], [middle], text[a:b], [end])
    return np.concatenate([np.asarray(p, np.int64) for p in parts])
