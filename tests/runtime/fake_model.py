"""A backend.Model of integer arithmetic: each token's logits hang on every token before it, through the paged cache.

What the cache holds at a position is a hash of its token, its position and the entry before it, so a wrong block, a
block used twice, a stale entry or a token computed out of order changes every logit after it. Blocks start as garbage.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ternrun.runtime.backend.protocol import Batch
from ternrun.runtime.config import EngineConfig, ModelConfig, RopeConfig

MASK = 2**61 - 1


def mix(*values: int) -> int:
    state = 0x9E3779B97F4A7C15
    for value in values:
        state = (state ^ (value + 0x7F4A7C15)) * 0xBF58476D1CE4E5B9 & (2**64 - 1)
        state ^= state >> 29
    return state & MASK


class FakeModel:
    description = "fake"
    cache_blocks = None
    draft_tokens = 3

    def __init__(
        self,
        *,
        vocab: int = 13,
        n_blocks: int = 64,
        block_size: int = 4,
        context: int = 0,
        sharpness: float = 3.0,
        ahead: bool = False,
        **engine: int,
    ) -> None:
        self.config = ModelConfig(
            architecture="fake", vocab_size=vocab, context_length=128, dim=8, n_layers=1, n_heads=1, n_kv_heads=1,
            head_dim=8, ffn_dim=8, norm_eps=1e-5, rope=RopeConfig(dim=8),
        )  # fmt: skip
        self.engine_config = EngineConfig(context=context, **engine)
        self.block_size, self.n_blocks, self.sharpness = block_size, n_blocks, sharpness
        self.cache = [[mix(b, o, 12345) for o in range(block_size)] for b in range(n_blocks)]
        self.batches: list[Batch] = []
        self.ahead = ahead  # whether several steps may go into one call
        self.calls: list[int] = []  # how many steps each such call made
        self.closed = False

    def forward(self, batch: Batch) -> NDArray[np.float32]:
        self.batches.append(batch)
        check(batch, self.n_blocks, self.block_size)
        states = []
        for token, position, slot in zip(batch.tokens, batch.positions, batch.slots, strict=True):
            row = batch.block_tables[slot]
            before = self.cell(row, position - 1) if position else 0
            block, offset = int(row[position // self.block_size]), position % self.block_size
            self.cache[block][offset] = mix(token, position, before)
            states.append(self.cache[block][offset])
        rows = [self.logits(states[i]) for i in batch.outputs] or [np.zeros(0, np.float32)]
        for row, keep in zip(rows, batch.top_logits or [], strict=False):
            if 0 < keep < row.size:
                row[np.argpartition(-row, keep)[keep:]] = -np.inf
        return np.stack(rows)

    def decode(self, batch: Batch, steps: int, stops: frozenset[int]) -> list[list[int]]:
        chosen: list[list[int]] = [[] for _ in batch.tokens]
        made = 0
        while self.ahead and made < steps and not stops & {tokens[-1] for tokens in chosen if tokens}:
            logits = self.forward(batch)
            if not np.isfinite(logits.max(axis=1)).all():
                break
            best = logits.argmax(axis=1).tolist()
            for tokens, token in zip(chosen, best, strict=True):
                tokens.append(token)
            batch = batch._replace(tokens=best, positions=[p + 1 for p in batch.positions])
            made += 1
        self.calls.append(made)
        return chosen

    def cell(self, row: NDArray[np.int32], position: int) -> int:
        return self.cache[int(row[position // self.block_size])][position % self.block_size]

    def logits(self, state: int) -> NDArray[np.float32]:
        return np.random.default_rng(state).normal(0, self.sharpness, self.config.vocab_size).astype(np.float32)

    def embed(self, batch: Batch) -> NDArray[np.float32]:
        raise AssertionError("not asked for here")

    def close(self) -> None:
        self.closed = True

    def reference(self, ids: Sequence[int]) -> list[NDArray[np.float32]]:
        """Logits after each token of `ids`, without any cache."""
        state, rows = 0, []
        for position, token in enumerate(ids):
            state = mix(token, position, state)
            rows.append(self.logits(state))
        return rows


def check(batch: Batch, n_blocks: int, block_size: int) -> None:
    """What `backend.Batch` promises."""
    n = len(batch.tokens)
    assert n
    assert all(row.dtype == np.int32 for row in batch.block_tables)
    assert len(batch.positions) == len(batch.slots) == n
    assert batch.top_logits is None or len(batch.top_logits) == len(batch.outputs)
    outputs = batch.outputs
    assert outputs == sorted(set(outputs))
    assert all(0 <= i < n for i in outputs)
    written = set()
    for slot in range(len(batch.block_tables)):
        positions = [p for p, s in zip(batch.positions, batch.slots, strict=True) if s == slot]
        assert positions == list(range(positions[0], positions[0] + len(positions)))
        for p in positions:
            block = int(batch.block_tables[slot][p // block_size])
            assert 0 <= block < n_blocks
            written.add((block, p % block_size))
    assert len(written) == n, "two tokens were written to one place"
