"""What changes from step to step, where the kernels look for it: copied to places that never move."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ternrun.runtime.backend import Batch
from ternrun.runtime.cpu import layout
from ternrun.runtime.cpu.memory import address, aligned

FEW = 64  # numbers that Python looks through faster than numpy begins to


class Inputs:
    """Room for the arrays of a batch of up to `tokens` tokens; `state` (int64) is the block that kernels read."""

    def __init__(self, state: NDArray[np.int64], tokens: int) -> None:
        self._cells = state.data
        self._room = {
            name: aligned(4 * tokens).view(np.int32) for name in ("ids", "positions", "slots", "wanted", "keep")
        }
        for name, room in self._room.items():
            self._put(name, address(room))
        self._keep = address(self._room["keep"])
        self._tables = np.empty((0, 0), np.int32)

    def take(self, batch: Batch) -> None:
        """Make this the batch that the next step runs; it has been checked."""
        n, outputs, room = len(batch.tokens), len(batch.outputs), self._room
        self._put("tokens", n)
        self._put("outputs", outputs)
        room["ids"][:n] = batch.tokens
        room["positions"][:n] = batch.positions
        room["slots"][:n] = batch.slots
        room["wanted"][:outputs] = batch.outputs
        self._put("keep", 0 if batch.keep is None else self._keep)
        if batch.keep is not None:
            room["keep"][:outputs] = batch.keep
        if self._tables.shape != batch.block_tables.shape:
            self._tables = np.empty(batch.block_tables.shape, np.int32)
            self._put("tables", address(self._tables))
            self._put("table_stride", batch.block_tables.shape[1])
        self._tables[:] = batch.block_tables

    def _put(self, name: str, value: int) -> None:
        self._cells[layout.STATE[name] // 8] = value


def within(values: NDArray[np.int32], limit: int, what: str) -> int:
    """The largest; raises ValueError where one is outside 0 to limit - 1."""
    if not values.size:
        return -1
    if values.size <= FEW:
        listed = values.ravel().tolist()
        low, high = min(listed), max(listed)
    else:
        low, high = int(values.min()), int(values.max())
    if low < 0 or high >= limit:
        raise ValueError(f"{what} {low} to {high} is outside 0 to {limit - 1}")
    return high
