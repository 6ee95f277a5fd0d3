"""Rotary embedding settings in config.json (modeling_rope_utils.py of transformers 4.5x and 5)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import LoadError
from ternrun.loader.architectures.architecture import Architecture
from ternrun.loader.architectures.gguf_rope import yarn_magnitude
from ternrun.loader.architectures.metadata import Keys, hf_keys
from ternrun.runtime.config import RopeConfig


def read_hf_rope(config: Mapping[str, Any], row: Architecture, head_dim: int) -> RopeConfig:
    """Return the rotary embedding that a config.json states for an architecture.

    Reads both spellings: `rope_theta` with `rope_scaling`, and transformers 5's `rope_parameters`. Raises LoadError.
    """
    keys = hf_keys(config)
    base = keys.number("rope_theta", row.rope_base)
    local = keys.number("rope_local_base_freq", row.local_rope_base)
    scaling = config.get("rope_parameters", config.get("rope_scaling")) or {}
    local_factor = 1.0
    if isinstance(scaling, dict) and isinstance(scaling.get("full_attention"), dict):
        local, local_factor = _local(scaling.get("sliding_attention") or {}, local)
        scaling = scaling["full_attention"]
    if not isinstance(scaling, dict):
        keys.fail("rope_scaling", "a table", scaling)
    inner = hf_keys(scaling)
    base = inner.number("rope_theta", base)
    part = inner.number("partial_rotary_factor", keys.number("partial_rotary_factor", 1.0)) if row.partial_rope else 1.0
    if not 0 < part <= 1:
        keys.fail("partial_rotary_factor", "from 0 to 1", part)
    plain: dict[str, Any] = {
        "dim": int(head_dim * part), "base": base, "local_base": local, "local_factor": local_factor,
    }  # fmt: skip
    context = keys.integer("max_position_embeddings")
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind in ("default", "dynamic"):  # dynamic scaling begins behind the trained context, which is the limit here
        return RopeConfig(**plain)
    if kind == "linear":
        return RopeConfig(**plain, scaling="linear", factor=inner.number("factor"))
    if kind == "llama3":
        return RopeConfig(**plain, frequency_factors=_llama3(plain, inner, context))
    if kind == "yarn":
        return RopeConfig(**plain, **_yarn(inner, context))
    raise LoadError(f"config.json: rope scaling {str(kind)[:40]!r} is not supported; linear, llama3 and yarn are")


def _local(scaling: Mapping[str, Any], base: float) -> tuple[float, float]:
    """The base and the factor of sliding layers. Raises LoadError for a scaling that is not linear."""
    keys = hf_keys(scaling)
    kind = scaling.get("rope_type", "default")
    if kind not in ("default", "linear"):
        raise LoadError(f"config.json: rope scaling {str(kind)[:40]!r} of sliding layers is not supported; linear is")
    return keys.number("rope_theta", base), keys.number("factor") if kind == "linear" else 1.0


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
