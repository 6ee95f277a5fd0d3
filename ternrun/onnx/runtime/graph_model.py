"""A decoder graph as an engine model (`runtime.backend.Model`).

Runs graphs that recognition does not know, slower than the engine's kernels, one sequence at a time. Keys and values
are stored twice: in the engine's blocks, which sequences may share, and as the graph returned them, so that a sequence
continues without a copy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import UsageError
from ternrun.onnx.runtime.graph_decoder import Array, GraphDecoder
from ternrun.runtime.backend.protocol import Batch
from ternrun.runtime.config import DEFAULT_CONTEXT, EngineConfig

BLOCK = 16  # tokens of a cache block


@dataclass(slots=True)
class Recent:
    """The graph's last caches, of `tokens` tokens, for the sequence in these blocks."""

    blocks: tuple[int, ...]
    tokens: int
    caches: list[Array]


class GraphModel:
    """See `runtime.backend.Model`."""

    draft_tokens = 3

    def __init__(self, decoder: GraphDecoder, engine: EngineConfig, *, reason: str = "") -> None:
        """`reason`: why the graph was not recognized."""
        self._decoder, self.config, self.engine_config, self.block_size = decoder, decoder.config, engine, BLOCK
        reach = min(engine.context or DEFAULT_CONTEXT, self.config.context_length)
        self.n_blocks = -(-max(engine.kv_tokens, reach) // BLOCK)
        self.description = f"onnx/numpy: run operator by operator, because {reason or 'ternrun does not recognize it'}"
        self.cache_blocks = None  # blocks that others write would not reach `_recent`
        self._pools = [np.zeros((self.n_blocks, BLOCK, p.heads, p.width), p.dtype) for p in decoder.pairs]
        self._recent: list[Recent] = []

    def forward(self, batch: Batch) -> NDArray[np.float32]:
        """Logits (n, vocab_size) of the requested outputs."""
        out = np.empty((len(batch.outputs), self.config.vocab_size), np.float32)
        tokens, slots, outputs = np.array(batch.tokens), np.array(batch.slots), np.array(batch.outputs, np.int64)
        for slot in dict.fromkeys(batch.slots):
            at = np.flatnonzero(slots == slot)
            logits = self._continue(tokens[at], batch.positions[at[0]], batch.block_tables[slot])
            wanted = np.flatnonzero(np.isin(outputs, at))
            out[wanted] = logits[np.searchsorted(at, outputs[wanted])]
        return out

    def decode(self, batch: Batch, steps: int, stops: frozenset[int]) -> list[list[int]]:
        """Returns nothing, so the caller runs each step by itself."""
        return []

    def embed(self, batch: Batch) -> NDArray[np.float32]:
        """Raises UsageError: the graph does not return hidden states."""
        raise UsageError("this ONNX decoder gives logits only, no embeddings")

    def close(self) -> None:
        """Free the cache."""
        self._recent.clear()
        self._pools.clear()

    def _continue(self, tokens: Array, start: int, table: Array) -> Array:
        """Logits (T, vocab_size) of a sequence's tokens from position `start` on."""
        blocks = tuple(table[: -(-(start + len(tokens)) // BLOCK)].tolist())
        caches = self._past(blocks, start)
        rows = []
        for some in self._decoder.portions(tokens, start):
            logits, caches = self._decoder.run(some.astype(np.int64), start, caches)
            for pool, cache in zip(self._pools, caches, strict=True):
                place = np.arange(start, start + len(some))
                rows_of = cache[0, :, start:].swapaxes(0, 1)
                pool[np.array(blocks)[place // BLOCK], place % BLOCK] = rows_of
            start += len(some)
            rows.append(logits)
        written = set(blocks[(start - len(tokens)) // BLOCK :])
        others = [r for r in self._recent if written.isdisjoint(r.blocks)]
        self._recent = [*others[-self.engine_config.max_batch + 1 :], Recent(blocks, start, caches)]
        return rows[0] if len(rows) == 1 else np.concatenate(rows)

    def _past(self, blocks: tuple[int, ...], start: int) -> list[Array]:
        """The caches of the first `start` tokens: as the graph returned them, or gathered from the blocks."""
        if not start:
            return self._decoder.empty()
        known = blocks[: -(-start // BLOCK)]
        for recent in self._recent:
            if recent.tokens >= start and recent.blocks[: len(known)] == known:
                return [c[:, :, :start] for c in recent.caches]
        rows = [pool[list(known)].reshape(-1, *pool.shape[2:])[:start] for pool in self._pools]
        return [np.ascontiguousarray(r.swapaxes(0, 1))[None] for r in rows]
