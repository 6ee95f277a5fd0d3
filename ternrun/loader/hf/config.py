"""`config.json` of a Hugging Face model as a `ModelConfig`: llama, qwen2, qwen3, gemma3 and BitNet, as transformers
computes them (modeling_*.py and modeling_rope_utils.py of transformers 4.5x and 5).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import LoadError
from ternrun.loader.architectures.metadata import Keys
from ternrun.loader.architectures.rope import yarn_magnitude
from ternrun.loader.architectures.table import GEMMA_LOCAL_BASE, GEMMA_PATTERN
from ternrun.runtime.config import Activation, ModelConfig, RopeConfig

_ARCHITECTURES = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma3_text": "gemma3",
    "bitnet": "bitnet-b1.58",
}
_ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu", "gelu_new": "gelu", "relu2": "relu2",
}  # fmt: skip
_DEFAULTS: dict[str, dict[str, int]] = {  # what config.json may leave out (gemma3's larger models do)
    "qwen3": {"head_dim": 128},
    "gemma3": {
        "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 131_072, "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
    },
}  # fmt: skip
_BASES = {"bitnet-b1.58": 500000.0, "gemma3": 1e6}
_REFUSED: tuple[tuple[str, object], ...] = (
    ("attn_logit_softcapping", None), ("use_sliding_window", False), ("use_bidirectional_attention", False),
    ("num_local_experts", 0),
)  # fmt: skip


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language model's part of a config.json (gemma3's larger models wrap it)."""
    inner = config.get("text_config")
    return inner if config.get("model_type") == "gemma3" and isinstance(inner, dict) else config


def architecture_of(config: Mapping[str, Any]) -> str:
    """ternrun's name for the architecture. Raises LoadError for one that is not supported."""
    if config.get("architectures") == ["BitnetForCausalLM"]:
        return "bitnet"  # 1bitLLM's reproduction, whose model_type is llama's
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES)
        raise LoadError(f"config.json: model_type {str(kind)[:40]!r} is not supported; these are: {known}")
    return _ARCHITECTURES[kind]


def read_hf_config(config: Mapping[str, Any], vocab_size: int) -> ModelConfig:
    """ModelConfig of a (text) config.json; `vocab_size` is the embedding's rows.

    Raises LoadError or ConfigError naming the key at fault.
    """
    name = architecture_of(config)
    for key, harmless in _REFUSED:
        if config.get(key) not in (None, harmless):
            raise LoadError(f"config.json asks for {key} = {str(config[key])[:40]}, which is not supported")
    config = _DEFAULTS.get(name, {}) | {key: value for key, value in config.items() if value is not None}
    keys = _keys(config)
    dim, heads, n_layers = (keys.integer(k) for k in ("hidden_size", "num_attention_heads", "num_hidden_layers"))
    head_dim = keys.integer("head_dim", dim // heads if heads > 0 else 0)
    window = keys.integer("sliding_window") if name == "gemma3" else 0
    query_scale = keys.integer("query_pre_attn_scalar") if name == "gemma3" else head_dim
    return ModelConfig(
        architecture=name,
        vocab_size=vocab_size,
        context_length=keys.integer("max_position_embeddings"),
        dim=dim,
        n_layers=n_layers,
        n_heads=heads,
        n_kv_heads=keys.integer("num_key_value_heads", heads),
        head_dim=head_dim,
        ffn_dim=keys.integer("intermediate_size"),
        norm_eps=keys.number("rms_norm_eps", 1e-6),
        rope=_rope(config, name, head_dim),
        activation=keys.text("hidden_activation" if name == "gemma3" else "hidden_act", _ACTIVATIONS, _usual(name)),
        embedding_scale=math.sqrt(max(dim, 0)) if name == "gemma3" else 1.0,
        attention_scale=0.0 if query_scale == head_dim else max(query_scale, 1) ** -0.5,
        sliding_window=window,
        sliding_layers=_sliding_layers(keys, n_layers) if window else (),
        logit_softcap=keys.number("final_logit_softcapping", 0.0),
    )


def _keys(table: Mapping[str, Any]) -> Keys:
    return Keys({f"config.json.{key}": value for key, value in table.items()}, "config.json")


def _usual(name: str) -> str:
    return {"gemma3": "gelu_pytorch_tanh", "bitnet-b1.58": "relu2"}.get(name, "silu")


def _sliding_layers(keys: Keys, n_layers: int) -> tuple[bool, ...]:
    kinds = keys.raw("layer_types")
    if isinstance(kinds, list):
        if len(kinds) != n_layers or not set(map(str, kinds)) <= {"sliding_attention", "full_attention"}:
            keys.fail("layer_types", f"{n_layers} of sliding_attention or full_attention", kinds)
        return tuple(kind == "sliding_attention" for kind in kinds)
    period = keys.integer("sliding_window_pattern", GEMMA_PATTERN)
    if not 0 < period <= 1024 or not 0 < n_layers <= 1024:
        keys.fail("sliding_window_pattern", "a number of layers", period)
    return tuple((layer + 1) % period != 0 for layer in range(n_layers))


def _rope(config: Mapping[str, Any], name: str, head_dim: int) -> RopeConfig:
    """Both spellings: `rope_theta` with `rope_scaling`, and transformers 5's `rope_parameters`."""
    keys = _keys(config)
    base, local = keys.number("rope_theta", _BASES.get(name, 10000.0)), GEMMA_LOCAL_BASE if name == "gemma3" else 0.0
    local = keys.number("rope_local_base_freq", local)
    scaling = config.get("rope_parameters", config.get("rope_scaling")) or {}
    if isinstance(scaling, dict) and isinstance(scaling.get("full_attention"), dict):
        local = _keys(scaling.get("sliding_attention") or {}).number("rope_theta", local)
        scaling = scaling["full_attention"]
    if not isinstance(scaling, dict):
        keys.fail("rope_scaling", "a table", scaling)
    inner = _keys(scaling)
    base = inner.number("rope_theta", base)
    part = inner.number("partial_rotary_factor", keys.number("partial_rotary_factor", 1.0))
    if not 0 < part <= 1:
        keys.fail("partial_rotary_factor", "from 0 to 1", part)
    plain: dict[str, Any] = {"dim": int(head_dim * part), "base": base, "local_base": local}
    context = keys.integer("max_position_embeddings")
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return RopeConfig(**plain)
    if kind == "linear":
        return RopeConfig(**plain, scaling="linear", factor=inner.number("factor"))
    if kind == "llama3":
        return RopeConfig(**plain, frequency_factors=_llama3(plain, inner, context))
    if kind == "yarn":
        return RopeConfig(**plain, **_yarn(inner, context))
    raise LoadError(f"config.json: rope scaling {str(kind)[:40]!r} is not supported; linear, llama3 and yarn are")


def _llama3(plain: Mapping[str, Any], keys: Keys, context: int) -> tuple[float, ...]:
    """Divisors of the frequencies: none for short waves, `factor` for long ones, a blend between."""
    original = keys.integer("original_max_position_embeddings", context)
    factor, low, high = (keys.number(k) for k in ("factor", "low_freq_factor", "high_freq_factor"))
    dim, base = plain["dim"], plain["base"]
    if not (0 < dim <= 4096 and base > 1 and factor > 0 and 0 < low < high and original > 0):
        keys.fail("rope_scaling", "a llama3 scaling with positive, ascending factors", factor)
    frequencies: NDArray[np.float64] = base ** (-np.arange(0, dim, 2) / dim)
    waves = original * frequencies / (2 * math.pi)  # how often each turns within the original context
    smooth = np.clip((waves - low) / (high - low), 0, 1)
    return tuple((1 / ((1 - smooth) / factor + smooth)).tolist())


def _yarn(keys: Keys, context: int) -> dict[str, Any]:
    if keys.raw("truncate") is False:
        keys.fail("truncate", "true", False)
    original = keys.integer("original_max_position_embeddings", context)
    factor = keys.number("factor", context / original if original > 0 else 1.0)
    if factor <= 0:
        keys.fail("factor", "positive", factor)
    weight, shared = keys.number("mscale", 0.0), keys.number("mscale_all_dim", 0.0)
    usual = yarn_magnitude(factor)
    if weight and shared:
        usual = yarn_magnitude(factor, weight) / yarn_magnitude(factor, shared)
    kind: Literal["yarn"] = "yarn"
    return {
        "scaling": kind,
        "factor": factor,
        "original_context": original,
        "beta_fast": keys.number("beta_fast", 32.0),
        "beta_slow": keys.number("beta_slow", 1.0),
        "attention_factor": keys.number("attention_factor", usual),
    }
