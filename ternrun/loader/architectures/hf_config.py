"""config.json of a Hugging Face model as a `ModelConfig`, as transformers computes it (modeling_*.py of 4.5x and 5)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ternrun.errors import LoadError
from ternrun.loader.architectures.architecture import FACTORS, HF_FACTORS, Architecture, Window
from ternrun.loader.architectures.hf_rope import read_hf_rope
from ternrun.loader.architectures.metadata import Keys, hf_keys
from ternrun.loader.architectures.table import hf_architecture
from ternrun.runtime.config import Activation, ModelConfig

_ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu", "gelu_new": "gelu", "relu2": "relu2",
}  # fmt: skip
_REFUSED: tuple[tuple[str, object], ...] = (  # keys that only some architectures know, and a value that changes nothing
    ("attn_logit_softcapping", None), ("use_bidirectional_attention", False), ("num_local_experts", 0),
)  # fmt: skip


def read_hf_config(config: Mapping[str, Any], vocab_size: int) -> ModelConfig:
    """Return the ModelConfig that a language model's config.json states; `vocab_size` is the embedding's rows.

    Raises LoadError or ConfigError naming the key at fault.
    """
    row = hf_architecture(config)
    _refuse(config, row)
    off = {key for factor in FACTORS for key in factor.hf_keys if key in config and config[key] is None}
    usual = {key: value for key, value in row.defaults.items() if key not in off}
    known = usual | {key: value for key, value in config.items() if value is not None}
    keys = hf_keys(known)
    dim, heads, n_layers = (keys.integer(k) for k in ("hidden_size", "num_attention_heads", "num_hidden_layers"))
    head_dim = keys.integer("head_dim", dim // heads if heads > 0 else 0)
    factors = _factors(keys, row)
    if head_dim > 0 and factors.get("attention_scale") == head_dim**-0.5:
        factors["attention_scale"] = 0.0
    if row.scaled_embedding:
        factors["embedding_scale"] = math.sqrt(max(dim, 0))
    window, sliding = _window(keys, config, row, n_layers)
    return ModelConfig(
        architecture=row.name,
        vocab_size=vocab_size,
        context_length=keys.integer("max_position_embeddings"),
        dim=dim,
        n_layers=n_layers,
        n_heads=heads,
        n_kv_heads=keys.integer("num_key_value_heads", heads),
        head_dim=head_dim,
        ffn_dim=keys.integer("intermediate_size"),
        norm_eps=keys.number("rms_norm_eps", 1e-6),
        rope=read_hf_rope(known, row, head_dim),
        activation=_activation(keys, row),
        sliding_window=window,
        sliding_layers=sliding,
        rope_layers=_rope_layers(keys, row, n_layers),
        wide_qk_norm="wide_qk_norm" in row.required,
        **factors,
    )


def _refuse(config: Mapping[str, Any], row: Architecture) -> None:
    known = {key for factor in FACTORS if factor.field in row.factors for key in factor.hf_keys}
    for key, harmless in _REFUSED:
        if key not in known and config.get(key) not in (None, harmless):
            raise LoadError(f"config.json asks for {key} = {str(config[key])[:40]}, which is not supported")


def _factors(keys: Keys, row: Architecture) -> dict[str, Any]:
    """The factors that this architecture's config.json states, by field of ModelConfig."""
    found = {}
    for factor in FACTORS:
        stated = [key for key in factor.hf_keys if keys.raw(key) is not None]
        if stated and factor.field in (*HF_FACTORS, *row.factors):
            found[factor.field] = _power(keys, stated[0], factor.hf_keys[stated[0]])
    return found


def _power(keys: Keys, key: str, power: float) -> float:
    value = keys.number(key)
    if power == 1:
        return value
    if value <= 0:
        keys.fail(key, "positive", value)
    return float(value**power)


def _activation(keys: Keys, row: Architecture) -> Activation:
    key = row.activation_key
    return row.activation if keys.raw(key) is None else keys.text(key, _ACTIVATIONS)


def _window(
    keys: Keys, config: Mapping[str, Any], row: Architecture, n_layers: int
) -> tuple[int, tuple[bool, ...]]:  # fmt: skip
    """Tokens that a sliding layer attends to, and which layers slide; (0, ()) if none does."""
    usual = row.window.size if row.window and "sliding_window" not in config else 0
    size = keys.integer("sliding_window", usual)
    if not size or config.get("use_sliding_window") is False:
        return 0, ()
    if row.window is None:
        if config.get("use_sliding_window"):
            keys.fail("use_sliding_window", "false", True)
        return 0, ()
    layers = _sliding_layers(keys, row.window, n_layers)
    if keys.raw("layer_types") is None and "use_sliding_window" in config:  # qwen: the first layers see everything
        full = keys.integer("max_window_layers", n_layers)
        layers = tuple(layer >= full for layer in range(n_layers))
    return (size, layers) if any(layers) else (0, ())


def _rope_layers(keys: Keys, row: Architecture, n_layers: int) -> tuple[bool, ...]:
    """Whether each layer rotates: listed (1: it does), or all but every n-th; () if all do."""
    if not row.plain_every:
        return ()
    listed = keys.raw("no_rope_layers")
    if isinstance(listed, list):
        if len(listed) != n_layers or not set(listed) <= {0, 1}:
            keys.fail("no_rope_layers", f"{n_layers} of 0 or 1", listed)
        return () if all(listed) else tuple(bool(flag) for flag in listed)
    every = keys.integer("no_rope_layer_interval", row.plain_every)
    if every < 1:
        keys.fail("no_rope_layer_interval", "a number of layers", every)
    layers = tuple((layer + 1) % every != 0 for layer in range(max(n_layers, 0)))
    return () if all(layers) else layers


def _sliding_layers(keys: Keys, window: Window, n_layers: int) -> tuple[bool, ...]:
    """Per layer whether it slides: the listed kinds of the layers, or a period."""
    kinds = keys.raw("layer_types")
    if isinstance(kinds, list):
        if len(kinds) != n_layers or not set(map(str, kinds)) <= {"sliding_attention", "full_attention"}:
            keys.fail("layer_types", f"{n_layers} of sliding_attention or full_attention", kinds)
        return tuple(kind == "sliding_attention" for kind in kinds)
    period = keys.integer("sliding_window_pattern", window.period)
    if not min(window.period, 1) <= period <= 1024 or not 0 < n_layers <= 1024:
        keys.fail("sliding_window_pattern", "a number of layers", period)
    return window.layers(n_layers, period)
