"""A second backend in plain numpy: it proves that the engine and the server ask for nothing that only the CPU has.

It interprets `runtime/decoder_plan.py` with the arithmetic of `tests/reference.py`. Products are summed in float64 (or
exact integers for ternary weights), so a token's result does not depend on the other tokens of its step.

    python -m pytest tests/runtime tests/server --backend numpy
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ternrun.runtime.backend.protocol import Batch, Idle, ProgressCallback
from ternrun.runtime.config import EngineConfig
from ternrun.runtime.decoder_plan import Attention, FeedForward, Projection, Sublayer, fold_scales, plan_decoder
from ternrun.runtime.limits import limits_for
from ternrun.runtime.rope import RopeTable
from ternrun.runtime.weights import Weights
from tests.reference import ACTIVATIONS, dense, linear, rotate

F32 = NDArray[np.float32]
BLOCK = 16  # tokens of a cache block; tests of saved slots count on it

name = "numpy"


def load(
    weights: Weights, engine: EngineConfig, progress: ProgressCallback | None = None, idle: Idle | None = None
) -> NumpyModel:
    """See `backend.Backend.load`."""
    if idle:
        idle()
    return NumpyModel(weights, engine)


class NumpyCacheBlocks:
    """See `backend.CacheBlocks`."""

    def __init__(self, kv_type: str, data: NDArray[np.uint8]) -> None:
        self.kind = f"{kv_type} numpy"
        self._data = data  # (layers, blocks, bytes)
        self.layers, _, self.block_bytes = data.shape

    def read(self, layer: int, blocks: NDArray[np.int32]) -> NDArray[np.uint8]:
        return self._data[layer, blocks]

    def write(self, layer: int, blocks: NDArray[np.int32], data: NDArray[np.uint8]) -> None:
        self._data[layer, blocks] = data


class NumpyModel:
    """See `backend.Model`."""

    block_size = BLOCK
    draft_tokens = 2

    def __init__(self, weights: Weights, engine: EngineConfig) -> None:
        self.config, self.engine_config, self._tensors = weights.config, engine, fold_scales(weights)
        c = weights.config
        limits = limits_for(c, engine, BLOCK)
        self.n_blocks, self._limits = limits.blocks, limits
        self.description = "numpy: the reference, for tests"
        self._plan = plan_decoder(c, self._tensors)
        self._rope = {n: RopeTable(c.rope, limits.positions, local=n == "local") for n in self._plan.rope_tables}
        shape = (c.n_layers, limits.blocks, BLOCK, 2, c.n_kv_heads, c.head_dim)
        self._cache: F32 = np.full(shape, np.nan, np.float32)
        self.cache_blocks = NumpyCacheBlocks(engine.kv_type, self._cache.reshape(*shape[:2], -1).view(np.uint8))

    def forward(self, batch: Batch) -> F32:
        """Logits (n, vocab_size)."""
        return self._head(self.embed(batch))

    def embed(self, batch: Batch) -> F32:
        """Final-norm hidden states (n, dim)."""
        c, tokens = self.config, np.asarray(batch.tokens)
        check(batch, c.vocab_size, self._limits.positions, self.n_blocks)
        for table in self._rope.values():
            table.reach(max(batch.positions) + 1)
        x = dense(self._tensors[self._plan.embedding])[tokens] * np.float32(c.embedding_scale)
        streams = np.repeat(x[None], c.mhc_streams, axis=0)
        for index, sublayer in enumerate(self._plan.sublayers):
            streams = self._sublayer(streams, index // 2, sublayer, batch)
        return self._norm(self._plan.final_norm, streams.mean(axis=0, dtype=np.float64))[batch.outputs]

    def decode(self, batch: Batch, steps: int, stops: frozenset[int]) -> list[list[int]]:
        """Greedy steps, each of the last one's largest logits."""
        chosen: list[list[int]] = [[] for _ in batch.tokens]
        for _ in range(steps):
            logits = self.forward(batch)
            if not np.isfinite(logits.max(axis=1)).all():
                break
            best = logits.argmax(axis=1).tolist()
            for tokens, token in zip(chosen, best, strict=True):
                tokens.append(token)
            if stops & set(best):
                break
            batch = batch._replace(tokens=best, positions=[p + 1 for p in batch.positions])
        return chosen

    def close(self) -> None:
        """Nothing to stop."""

    def _head(self, x: F32) -> F32:
        logits = self._project(self._plan.head, x)
        if cap := self.config.logit_softcap:
            logits = np.float32(cap) * np.tanh(logits / np.float32(cap))
        return logits

    def _sublayer(self, streams: F32, layer: int, sublayer: Sublayer, batch: Batch) -> F32:
        if not sublayer.mhc_table:
            y = self._body(sublayer, self._maybe(sublayer.norm, streams[0]), layer, batch)
            return (streams[0] + self._maybe(sublayer.post_norm, y))[None]
        n, table = len(streams), dense(self._tensors[sublayer.mhc_table]).astype(np.float64)
        x = np.einsum("s,std->td", table[n], streams.astype(np.float64)).astype(np.float32)
        y = self._body(sublayer, self._maybe(sublayer.norm, x), layer, batch)
        mixed = np.einsum("rs,std->rtd", table[:n], streams.astype(np.float64))
        return np.asarray(mixed + table[n + 1][:, None, None] * y, np.float32)

    def _body(self, sublayer: Sublayer, x: F32, layer: int, batch: Batch) -> F32:
        body = sublayer.body
        if isinstance(body, FeedForward):
            gated = ACTIVATIONS[body.activation](self._project(body.gate, x)) * self._project(body.up, x)
            return self._project(body.down, self._maybe(body.sub_norm, gated))
        mixed = self._attention(body, x, layer, batch)
        return self._project(body.output, self._maybe(body.sub_norm, mixed))

    def _attention(self, body: Attention, x: F32, layer: int, batch: Batch) -> F32:
        c, n, positions = self.config, len(x), np.asarray(batch.positions)
        q, k = self._project(body.q, x), self._project(body.k, x)
        if body.wide_norm:
            q, k = self._maybe(body.q_norm, q), self._maybe(body.k_norm, k)
        q, k = q.reshape(n, c.n_heads, c.head_dim), k.reshape(n, c.n_kv_heads, c.head_dim)
        if not body.wide_norm:
            q, k = self._maybe(body.q_norm, q), self._maybe(body.k_norm, k)
        v = self._project(body.v, x).reshape(n, c.n_kv_heads, c.head_dim)
        if body.rope:
            table = self._rope[body.rope]
            half = c.rope.dim // 2
            cos, sin = (a.reshape(-1, half)[positions][:, None] for a in (table.cos, table.sin))
            q, k = rotate(q, cos, sin, c.rope), rotate(k, cos, sin, c.rope)
        rows = [batch.block_tables[slot] for slot in batch.slots]
        for t, (row, position) in enumerate(zip(rows, positions, strict=True)):
            self._cache[layer, row[position // BLOCK], position % BLOCK] = self._rounded(np.stack([k[t], v[t]]))
        mixed = [self._attend(body, layer, q[t], rows[t], int(positions[t])) for t in range(n)]
        return np.stack(mixed).reshape(n, -1)

    def _attend(self, body: Attention, layer: int, q: F32, row: NDArray[np.int32], position: int) -> F32:
        """One token's heads (n_heads, head_dim) over what the cache holds up to its position."""
        c = self.config
        first = max(0, position - body.window + 1) if body.window else 0
        at = np.arange(first, position + 1)
        kv = self._cache[layer, row[at // BLOCK], at % BLOCK].astype(np.float64)  # (n, 2, kv heads, dim)
        keys, values = (np.repeat(kv[:, i], c.n_heads // c.n_kv_heads, axis=1) for i in (0, 1))
        scores = np.einsum("hd,nhd->hn", q.astype(np.float64), keys) * c.scale
        if cap := c.attention_softcap:
            scores = cap * np.tanh(scores / cap)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        mixed = np.einsum("hn,nhd->hd", weights, values) / weights.sum(axis=1, keepdims=True)
        return np.asarray(mixed, np.float32)

    def _rounded(self, kv: F32) -> F32:
        """Keys and values as the cache's type holds them; int8 with a step for each 16 elements."""
        if self.engine_config.kv_type == "f32":
            return kv
        if self.engine_config.kv_type == "f16":
            return kv.astype(np.float16).astype(np.float32)
        out = kv.copy()
        for i in range(0, kv.shape[-1], 16):
            part = out[..., i : i + 16]
            step = np.maximum(np.abs(part).max(axis=-1, keepdims=True), np.float32(1e-30)) / np.float32(127)
            part[...] = np.rint(part / step) * step
        return out

    def _project(self, projection: Projection, x: F32) -> F32:
        y = linear(self._tensors[projection.weight], self._maybe(projection.input_norm, x))
        return y + dense(self._tensors[projection.bias]) if projection.bias else y

    def _maybe(self, norm: str | None, x: F32) -> F32:
        return self._norm(norm, x) if norm else x

    def _norm(self, norm: str, x: NDArray[np.floating]) -> F32:
        """RMSNorm over the last axis (arXiv 1910.07467)."""
        mean_square = np.mean(np.square(x.astype(np.float64)), axis=-1, keepdims=True)
        scaled = (x * (1 / np.sqrt(mean_square + self.config.norm_eps))).astype(np.float32)
        return scaled * dense(self._tensors[norm])


def check(batch: Batch, vocabulary: int, positions: int, blocks: int) -> None:
    """Raises ValueError for an index out of bounds, as the protocol's backends do."""
    for values, limit in ((batch.tokens, vocabulary), (batch.positions, positions)):
        if min(values) < 0 or max(values) >= limit:
            raise ValueError(f"an index of the batch is outside 0 to {limit - 1}")
    needed = math.ceil((max(batch.positions) + 1) / BLOCK)
    if any(int(row.max()) >= blocks for row in batch.block_tables) or needed > len(batch.block_tables[0]):
        raise ValueError("a block table is too short, or names a block that is not there")
