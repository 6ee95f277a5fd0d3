"""A `ModelConfig` as GGUF metadata."""

from __future__ import annotations

import math
from typing import Any

from ternrun.errors import LoadError
from ternrun.loader.architectures.architecture import FACTORS, Architecture
from ternrun.loader.architectures.gguf_config import POOLING, read_config
from ternrun.loader.architectures.gguf_rope import write_rope
from ternrun.loader.architectures.table import gguf_architecture
from ternrun.runtime.config import ModelConfig


def write_config(config: ModelConfig) -> dict[str, Any]:
    """Return metadata from which `read_config` makes `config` again (rope's frequency factors are a tensor).

    Raises LoadError for a model whose architecture has no key for one of its settings.
    """
    values: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "context_length": config.context_length,
        "embedding_length": config.dim,
        "block_count": config.n_layers,
        "feed_forward_length": config.ffn_dim,
        "attention.head_count": config.n_heads,
        "attention.head_count_kv": config.n_kv_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": config.norm_eps,
        "hidden_activation": config.activation,
    }
    name = config.architecture
    row = gguf_architecture({"general.architecture": name})
    values |= write_rope(config.rope) | _factors(config, row) | _window(config)
    if config.mhc_streams > 1:
        values["mhc_streams"] = config.mhc_streams
    if config.pooling != "none":
        values["pooling_type"] = next(i for i, pooling in POOLING.items() if pooling == config.pooling)
    metadata = {"general.architecture": name} | {f"{name}.{key}": value for key, value in values.items()}
    _check_same(config, read_config(metadata, config.vocab_size, config.rope.frequency_factors))
    return metadata


def _factors(config: ModelConfig, row: Architecture) -> dict[str, float]:
    found = {}
    for factor in FACTORS:
        value = getattr(config, factor.field)
        if value != factor.neutral and not (factor.field == "embedding_scale" and row.scaled_embedding):
            found[factor.gguf_key] = value**factor.gguf_power
    return found


def _window(config: ModelConfig) -> dict[str, Any]:
    if not config.sliding_window:
        return {}
    base = {"rope.freq_base_swa": config.rope.local_base} if config.rope.local_base else {}
    return base | {
        "attention.sliding_window": config.sliding_window,
        "attention.sliding_window_pattern": list(config.sliding_layers),
    }


def _check_same(config: ModelConfig, again: ModelConfig) -> None:
    for field in ModelConfig.__dataclass_fields__:
        kept, meant = getattr(again, field), getattr(config, field)
        if field == "rope":
            kept, meant = (kept.style, kept.local_factor), (meant.style, meant.local_factor)
        close = isinstance(meant, float) and math.isclose(kept, meant, rel_tol=1e-6)
        if kept != meant and not close:
            raise LoadError(f"a GGUF file of architecture {config.architecture!r} cannot hold {field}={meant!r}")
