"""Rotary embedding settings in GGUF metadata: `<arch>.rope.*` (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).

Meaning as in llama.cpp: `scaling.factor` squeezes positions; YaRN (arXiv 2309.00071) also multiplies cos and sin by
1 + 0.1 ln(factor), which `RopeConfig.attention_factor` holds ready-made.
"""

from __future__ import annotations

import math
from typing import Any

from ternrun.loader.architectures.metadata import Keys
from ternrun.runtime.config import RopeConfig, RopeStyle

_KINDS: dict[str, Any] = {"none": "none", "linear": "linear", "yarn": "yarn"}


def read_rope(
    keys: Keys, *, style: RopeStyle, head_dim: int, context: int, local_base: float, factors: tuple[float, ...]
) -> RopeConfig:
    """Raises LoadError for a key of the wrong type or a scaling that is not supported, ConfigError for a range."""
    kind = keys.text("rope.scaling.type", _KINDS, "linear")
    factor = keys.number("rope.scaling.factor", keys.number("rope.scale_linear", 0.0)) or 1.0
    attention_factor = keys.number("rope.scaling.attn_factor", 1.0)
    if kind == "yarn" and keys.number("rope.scaling.yarn_ext_factor", 1.0) in (1.0, -1.0):
        attention_factor *= yarn_magnitude(factor)
        if log := keys.number("rope.scaling.yarn_log_multiplier", 0.0):
            attention_factor /= yarn_magnitude(factor, log)
    elif kind == "yarn":
        keys.fail("rope.scaling.yarn_ext_factor", "1", keys.raw("rope.scaling.yarn_ext_factor"))
    elif factor == 1.0:
        kind = "none"
    return RopeConfig(
        dim=keys.integer("rope.dimension_count", head_dim),
        base=keys.number("rope.freq_base", 10000.0),
        local_base=local_base,
        style=style,
        scaling=kind,
        factor=1.0 if kind == "none" else factor,
        original_context=keys.integer("rope.scaling.original_context_length", context) if kind == "yarn" else 0,
        beta_fast=keys.number("rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=keys.number("rope.scaling.yarn_beta_slow", 1.0),
        attention_factor=attention_factor,
        frequency_factors=factors,
    )


def write_rope(rope: RopeConfig) -> dict[str, Any]:
    """The keys, without the architecture's prefix, that `read_rope` turns back into `rope`."""
    keys: dict[str, Any] = {"rope.dimension_count": rope.dim, "rope.freq_base": float(rope.base)}
    if rope.scaling != "none":
        keys |= {"rope.scaling.type": rope.scaling, "rope.scaling.factor": float(rope.factor)}
    attention_factor = rope.attention_factor
    if rope.scaling == "yarn":
        attention_factor /= yarn_magnitude(rope.factor)
        keys["rope.scaling.original_context_length"] = rope.original_context
        keys["rope.scaling.yarn_beta_fast"] = float(rope.beta_fast)
        keys["rope.scaling.yarn_beta_slow"] = float(rope.beta_slow)
    if abs(attention_factor - 1) > 1e-6:
        keys["rope.scaling.attn_factor"] = attention_factor
    return keys


def yarn_magnitude(factor: float, weight: float = 1.0) -> float:
    """YaRN's factor on cos and sin (its paper's 1 + 0.1 ln s), never less than a tenth."""
    return 1.0 if factor <= 1 else max(1 + 0.1 * weight * math.log(factor), 0.1)
