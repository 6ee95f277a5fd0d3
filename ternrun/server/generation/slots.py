"""llama.cpp's slots as names: the tokens that ran last in each. All slots share one cache."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ternrun.server.http.errors import ApiError

LIKE = 0.1  # share of a prompt that a slot must hold, so that the prompt is taken to go on there; llama.cpp's


class Slots:
    """Slots on the event loop. Without slots nothing is recorded."""

    def __init__(self, count: int) -> None:
        nothing = np.zeros(0, np.int32)
        self._ids = OrderedDict.fromkeys(range(count), nothing)  # longest unused first

    def __getitem__(self, slot: int) -> list[int]:
        """The tokens of a slot. Raises ApiError for a number out of range."""
        if slot not in self._ids:
            raise ApiError(f"id_slot: there are the slots 0 to {len(self._ids) - 1}", param="id_slot")
        return self._ids[slot].tolist()

    def pick(self, ids: Sequence[int], wanted: int) -> int:
        """The slot for a prompt: the wanted one, or (-1) the one with the longest common prefix.

        If no slot has much in common, the least recently used. Raises ApiError for a number out of range.
        """
        if not self._ids:
            return -1
        if wanted >= 0:
            _ = self[wanted]
            slot = wanted
        else:
            prompt = np.array(ids, np.int32)
            begun = {i: _common(there, prompt) for i, there in self._ids.items()}
            slot = max(begun, key=lambda i: begun[i])
            if begun[slot] <= LIKE * len(ids):
                slot = next(iter(self._ids))
        self._ids.move_to_end(slot)
        return slot

    def note(self, slot: int, ids: Sequence[int], answer: Sequence[int] = ()) -> None:
        """Record the tokens that ran in a slot."""
        if slot >= 0:
            self._ids[slot] = np.array([*ids, *answer], np.int32)


def _common(a: NDArray[np.int32], b: NDArray[np.int32]) -> int:
    """The length of the common prefix."""
    n = min(a.size, b.size)
    other = np.flatnonzero(a[:n] != b[:n])
    return int(other[0]) if other.size else n
