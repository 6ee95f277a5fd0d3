"""A sentence encoder behind the engine's Model protocol, so that a server batches its texts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import LoadError, UsageError
from ternrun.loader.hf.sentence_pooling import ENGINE_POOLING
from ternrun.loader.onnx.encoder import BATCH_TOKENS, Encoder, batches
from ternrun.runtime.backend.protocol import Batch
from ternrun.runtime.config import EngineConfig, ModelConfig, RopeConfig

BLOCK = 16  # tokens of a cache block; an encoder stores nothing in it
MOST = 4096  # tokens that a text may have: the engine's largest step


def encoder_config(encoder: Encoder) -> ModelConfig:
    """The engine's configuration of an encoder. Raises LoadError for a pooling that the engine does not have."""
    if encoder.pooling not in ENGINE_POOLING:
        raise LoadError(f"{encoder.folder} pools by {encoder.pooling}, which ternrun.Encoder does, but no server")
    return ModelConfig(
        architecture="onnx", vocab_size=encoder.vocab_size, context_length=min(encoder.context, MOST),
        dim=encoder.dim, n_layers=1, n_heads=1, n_kv_heads=1, head_dim=1, ffn_dim=1, norm_eps=0.0,
        rope=RopeConfig(dim=0), causal=False, pooling=ENGINE_POOLING[encoder.pooling],
    )  # fmt: skip


class EncoderModel:
    """See `runtime.backend.Model`: texts come whole, each in one step."""

    draft_tokens = 0

    def __init__(self, encoder: Encoder, config: ModelConfig, engine: EngineConfig) -> None:
        self._encoder, self.config = encoder, config
        self.engine_config = replace(
            engine, prefill_chunk=max(engine.prefill_chunk, config.context_length, BATCH_TOKENS)
        )
        self.block_size = BLOCK
        self.n_blocks = engine.max_batch * -(-config.context_length // BLOCK)
        self.cache_blocks = None
        self.description = "onnx/numpy: an encoder's graph, run operator by operator"

    def forward(self, batch: Batch) -> NDArray[np.float32]:
        """An encoder has no logits."""
        raise UsageError("this model gives embeddings only")

    def decode(self, batch: Batch, steps: int, stops: frozenset[int]) -> list[list[int]]:
        """An encoder has no tokens to go on with."""
        return []

    def embed(self, batch: Batch) -> NDArray[np.float32]:
        """Hidden states (n, dim) of the wanted tokens; every text of the batch stands there whole."""
        out = np.empty((len(batch.tokens), self.config.dim), np.float32)
        tokens, slots = np.array(batch.tokens), np.array(batch.slots)
        places = [np.flatnonzero(slots == s) for s in dict.fromkeys(batch.slots)]
        for some in batches([len(p) for p in places]):
            hidden, _ = self._encoder.hidden([tokens[places[i]].tolist() for i in some])
            for i, states in zip(some, hidden, strict=True):
                out[places[i]] = states[: len(places[i])]
        return out[batch.outputs]

    def close(self) -> None:
        """Nothing to stop."""
