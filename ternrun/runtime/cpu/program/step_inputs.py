"""The inputs of a step, checked and stored where kernels read them.

Kernels check no bounds, so this module checks every index. Most steps have few tokens, for which Python's lists and
arrays are faster than numpy.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ternrun.runtime.backend.protocol import Batch
from ternrun.runtime.cpu import layout
from ternrun.runtime.cpu.memory import address

(
    TOKENS, OUTPUTS, IDS, POSITIONS, SLOTS, TABLES, STRIDE, OUTPUT_INDICES, TOP_K, STEPS_LEFT, GENERATED, STOP_IDS,
    N_STOP_IDS,
) = (
    layout.STATE[name] // 8
    for name in (
        "tokens", "outputs", "ids", "positions", "slots", "tables", "table_stride", "output_indices", "top_k",
        "steps_left", "generated", "stop_ids", "n_stop_ids",
    )
)  # fmt: skip


class StepInputs:
    """Loads batches of up to `tokens` tokens; `state` (int64) is the block that kernels read.

    Token ids are below `vocabulary`, positions below `positions`, cache blocks (of `layout.KV_BLOCK` tokens) below
    `blocks`.
    """

    def __init__(self, state: NDArray[np.int64], tokens: int, vocabulary: int, positions: int, blocks: int) -> None:
        self._cells = state.data
        self._tokens, self._vocabulary, self._positions, self._blocks = tokens, vocabulary, positions, blocks
        self._numbers = array("i")  # the batch's lists, concatenated
        self._tables = np.empty((0, 0), np.int32)
        self._rows: list[NDArray[np.int32] | None] = []  # rows copied to `_tables`; None: the row can change

    def load(self, batch: Batch) -> int:
        """Store a batch for the next step; returns its largest position.

        Raises ValueError for an index that would make kernels access memory out of bounds.
        """
        tokens, positions, slots, rows, outputs, keep = batch
        n, wanted = len(tokens), len(outputs)
        if not 0 < n <= self._tokens or len(positions) != n or len(slots) != n:
            raise ValueError(f"a step takes 1 to {self._tokens} tokens, got {n}")
        if wanted > n:
            raise ValueError(f"a step of {n} tokens has no {wanted} outputs")
        if keep is not None and len(keep) != wanted:
            raise ValueError(f"top_logits names {len(keep)} of {wanted} outputs")
        check_range(tokens, self._vocabulary, "token id")
        last = check_range(positions, min(self._positions, layout.KV_BLOCK * len(rows[0])), "position")
        check_range(slots, len(rows), "slot")
        if wanted:
            check_range(outputs, n, "output")
        self._load_tables(rows)
        self._numbers = array("i", [*tokens, *positions, *slots, *outputs, *(keep or ())])
        base, _ = self._numbers.buffer_info()
        cells = self._cells
        cells[TOKENS], cells[OUTPUTS] = n, wanted
        cells[IDS], cells[POSITIONS], cells[SLOTS] = base, base + 4 * n, base + 8 * n
        cells[OUTPUT_INDICES], cells[TOP_K] = base + 12 * n, base + 12 * n + 4 * wanted if keep else 0
        return last

    def repeat(self, steps: int, stops: Iterable[int]) -> None:
        """Run `steps` greedy steps from the loaded batch in one call; see `backend.Model.decode`.

        Raises ValueError if a sequence would exceed its block table, or if a token's output is not requested.
        """
        n, cells = self._cells[TOKENS], self._cells
        if cells[OUTPUTS] != n:
            raise ValueError(f"steps cannot follow a step of {n} tokens that wants {cells[OUTPUTS]} results")
        last = max(self._numbers[n : 2 * n]) + steps - 1
        check_range([last], min(self._positions, layout.KV_BLOCK * cells[STRIDE]), "position")
        self._generated, self._stop_ids = array("i", bytes(4 * steps * n)), array("i", stops)
        cells[STEPS_LEFT], cells[GENERATED] = steps, self._generated.buffer_info()[0]
        cells[STOP_IDS], cells[N_STOP_IDS] = self._stop_ids.buffer_info()

    def generated(self) -> list[list[int]]:
        """The tokens that the steps started by `repeat` chose, one list for each sequence."""
        n, end = self._cells[TOKENS], (self._cells[GENERATED] - self._generated.buffer_info()[0]) // 4
        return [self._generated[i:end:n].tolist() for i in range(n)]

    def _load_tables(self, rows: list[NDArray[np.int32]]) -> None:
        """Check and copy the block table rows that differ from the previous step's."""
        known = self._rows
        if len(rows) > len(known) or len(rows[0]) != self._tables.shape[1]:
            self._tables, known = np.empty((len(rows), len(rows[0])), np.int32), [None] * len(rows)
            self._cells[TABLES], self._cells[STRIDE] = address(self._tables), len(rows[0])
            self._rows = known
        for slot, row in enumerate(rows):
            if row is not known[slot]:
                known[slot] = None
                check_range(row.tolist(), self._blocks, "cache block")
                self._tables[slot] = row
                known[slot] = None if row.flags.writeable else row


def check_range(values: list[int], limit: int, what: str) -> int:
    """The largest value. Raises ValueError if a value is outside 0 to limit - 1."""
    low, high = min(values), max(values)
    if low < 0 or high >= limit:
        raise ValueError(f"{what} {low} to {high} is outside 0 to {limit - 1}")
    return high
