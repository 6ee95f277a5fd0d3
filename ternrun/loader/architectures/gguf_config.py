"""GGUF metadata as a `ModelConfig` (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ternrun.errors import LoadError
from ternrun.loader.architectures.architecture import FACTORS, GGUF_FACTORS, Architecture, Window
from ternrun.loader.architectures.gguf_rope import read_rope
from ternrun.loader.architectures.metadata import Keys
from ternrun.loader.architectures.table import gguf_architecture
from ternrun.runtime.config import Activation, ModelConfig

# Keys that change the arithmetic in ways that only some architectures have, and the values that change nothing.
_REFUSED: dict[str, tuple[object, ...]] = {
    "expert_count": (0,), "attn_logit_softcapping": (0.0,), "logit_scale": (0.0, 1.0), "residual_scale": (0.0, 1.0),
    "attention.causal": (True,), "attention.clamp_kqv": (0.0,), "attention.max_alibi_bias": (0.0,),
    "use_parallel_residual": (False,),
}  # fmt: skip
_ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu", "swish": "silu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu", "relu2": "relu2",
}  # fmt: skip
POOLING: dict[int, Any] = {0: "none", 1: "mean", 2: "cls", 3: "last"}


def read_config(metadata: Mapping[str, Any], vocab_size: int, factors: tuple[float, ...] = ()) -> ModelConfig:
    """Return the ModelConfig that GGUF metadata states.

    `vocab_size` is the embedding's rows, `factors` the values of `rope_freqs.weight`. Raises LoadError or ConfigError
    naming the key at fault.
    """
    row = gguf_architecture(metadata)
    keys = Keys(metadata, row.name)
    _refuse(keys, metadata, row)
    dim, heads = keys.integer("embedding_length"), keys.integer("attention.head_count")
    head_dim = keys.integer("attention.key_length", dim // heads if heads > 0 else 0)
    if keys.integer("attention.value_length", head_dim) != head_dim:
        keys.fail("attention.value_length", f"{head_dim} like the key's", keys.raw("attention.value_length"))
    context, n_layers = keys.integer("context_length"), keys.integer("block_count")
    windowed = row.window and (row.gguf_window or keys.raw("attention.sliding_window_pattern") is not None)
    window = keys.integer("attention.sliding_window", row.window.size) if row.window and windowed else 0
    return ModelConfig(
        architecture=row.name,
        vocab_size=vocab_size,
        context_length=context,
        dim=dim,
        n_layers=n_layers,
        n_heads=heads,
        n_kv_heads=keys.integer("attention.head_count_kv", heads),
        head_dim=head_dim,
        ffn_dim=keys.integer("feed_forward_length"),
        norm_eps=keys.number("attention.layer_norm_rms_epsilon"),
        rope=read_rope(
            keys,
            style=row.rope_style,
            head_dim=head_dim,
            context=context,
            local_base=keys.number("rope.freq_base_swa", row.local_rope_base) if window else 0.0,
            factors=factors,
        ),
        activation=keys.text("hidden_activation", _ACTIVATIONS, row.activation),
        sliding_window=window,
        sliding_layers=_sliding_layers(keys, row.window, n_layers) if row.window and window else (),
        rope_layers=row.rope_layers(n_layers),
        wide_qk_norm="wide_qk_norm" in row.required,
        mhc_streams=keys.integer("mhc_streams", 1) if "mhc" in row.optional else 1,
        pooling=_pooling(keys),
        **_factors(keys, row, dim, heads, n_layers),
    )


def _refuse(keys: Keys, metadata: Mapping[str, Any], row: Architecture) -> None:
    known = {factor.gguf_key for factor in FACTORS if factor.field in row.factors}
    for name, harmless in _REFUSED.items():
        value = keys.raw(name)
        if value is not None and name not in known and not _is_one_of(value, harmless):
            raise LoadError(f"metadata key {keys.prefix}.{name} = {str(value)[:40]} asks for something not supported")
    if any(key.startswith("prism.hadamard") for key in metadata):
        raise LoadError("this file's weights are rotated (keys prism.hadamard.*), which is not supported")


def _is_one_of(value: Any, numbers: tuple[object, ...]) -> bool:
    return isinstance(value, (bool, int, float)) and value in numbers


def _factors(keys: Keys, row: Architecture, dim: int, heads: int, n_layers: int) -> dict[str, Any]:
    """The factors that this architecture's files may state, by field of ModelConfig."""
    found = {}
    for factor in FACTORS:
        if factor.field in (*GGUF_FACTORS, *row.factors):
            stated = keys.raw(factor.gguf_key) is not None and keys.number(factor.gguf_key) != 0
            usual = _unstated(row, factor.field, dim, heads, n_layers) or factor.neutral
            found[factor.field] = keys.number(factor.gguf_key) ** factor.gguf_power if stated else usual
    return found


def _unstated(row: Architecture, field: str, dim: int, heads: int, n_layers: int) -> float:
    """The value of a factor that the metadata does not state; 0 for the neutral one."""
    if field == "embedding_scale" and row.scaled_embedding:
        return math.sqrt(max(dim, 0))
    if field == "attention_scale" and n_layers == row.wide_layers and dim > 0 and heads > 0:
        return math.sqrt(heads / dim)  # gemma_pytorch, config.py
    return row.gguf_factors.get(field, 0.0)


def _sliding_layers(keys: Keys, window: Window, n_layers: int) -> tuple[bool, ...]:
    """Per layer: a list of flags, or a period whose last layer attends to all tokens."""
    pattern = keys.raw("attention.sliding_window_pattern")
    if isinstance(pattern, (list, tuple, np.ndarray)):
        if len(pattern) != n_layers:
            keys.fail("attention.sliding_window_pattern", f"{n_layers} flags", f"{len(pattern)} of them")
        return tuple(bool(flag) for flag in pattern)
    period = keys.integer("attention.sliding_window_pattern", window.period)
    if not 0 <= n_layers <= 1024 or period < 0:
        keys.fail("attention.sliding_window_pattern", "a number of layers", period)
    return window.layers(n_layers, period)


def _pooling(keys: Keys) -> Any:
    kind = keys.integer("pooling_type", 0)
    if kind not in POOLING:
        keys.fail("pooling_type", "0 (none), 1 (mean), 2 (first) or 3 (last)", kind)
    return POOLING[kind]
