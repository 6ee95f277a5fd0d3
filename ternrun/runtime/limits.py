"""Sizes that are fixed when a model loads: tokens of a step, positions of a sequence, blocks of the cache."""

from __future__ import annotations

from dataclasses import dataclass

from ternrun.runtime.config import DEFAULT_CONTEXT, EngineConfig, KvType, ModelConfig


@dataclass(frozen=True, slots=True)
class Limits:
    """`tokens` of a step, `positions` of a sequence, `blocks` of the cache and the type of its elements."""

    tokens: int
    positions: int
    blocks: int
    kv_type: KvType


def limits_for(config: ModelConfig, engine: EngineConfig, block_size: int) -> Limits:
    """Limits from the settings. The cache has room for one full context unless more is asked for.

    Positions are whole blocks of `block_size` tokens.
    """
    positions = min(engine.context or min(config.context_length, DEFAULT_CONTEXT), config.context_length)
    kv_tokens = max(engine.kv_tokens or positions, block_size)
    whole = -(-positions // block_size) * block_size
    return Limits(engine.prefill_chunk + engine.max_batch, whole, -(-kv_tokens // block_size), engine.kv_type)
