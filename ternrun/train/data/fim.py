"""Fill in the middle: a window's middle moved behind its suffix (PSM order, arXiv 2207.14255)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def fill_in_middle(window: NDArray[np.int64], ids: tuple[int, int, int], rng: np.random.Generator) -> NDArray[np.int64]:
    """Prefix token, prefix, suffix token, suffix, middle token, middle: `window` (n,) without its last 3 tokens."""
    prefix_id, suffix_id, middle_id = ids
    text = window[: len(window) - 3]
    a, b = np.sort(rng.integers(0, len(text) + 1, 2))
    parts = ([prefix_id], text[:a], [suffix_id], text[b:], [middle_id], text[a:b])
    return np.concatenate([np.asarray(p, np.int64) for p in parts])
