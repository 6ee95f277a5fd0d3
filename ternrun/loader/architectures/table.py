"""What each `general.architecture` means: one line of a table, and the metadata keys that fill a `ModelConfig`.

Wiring follows llama.cpp where it knows the architecture, Microsoft's and the seed project's own code where it does not
(docs/formats.md). Which tensors go with it is in `assemble.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ternrun.errors import LoadError
from ternrun.loader.architectures.metadata import Keys
from ternrun.loader.architectures.rope import read_rope, write_rope
from ternrun.runtime.config import Activation, ModelConfig, RopeStyle

_EVERYTHING = ("qkv_bias", "output_bias", "ffn_bias", "qk_norm", "sub_norm", "post_norm", "norm_in", "mhc")


@dataclass(frozen=True, slots=True)
class Architecture:
    """`required` and `optional` name groups of tensors (`assemble.GROUPS`) beside the plain decoder's."""

    style: RopeStyle = "neox"
    activation: Activation = "silu"
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture("norm", optional=("qkv_bias", "output_bias", "ffn_bias", "norm_in")),
    "qwen2": Architecture(required=("qkv_bias",)),
    "qwen3": Architecture(required=("qk_norm",), optional=("qkv_bias", "norm_in")),
    "gemma3": Architecture(activation="gelu", required=("qk_norm", "post_norm"), optional=("norm_in",)),
    "bitnet": Architecture(required=("sub_norm",)),
    "bitnet-25": Architecture(activation="relu2", required=("sub_norm",)),
    "bitnet-b1.58": Architecture(activation="relu2", required=("sub_norm",)),
    "ternrun": Architecture(optional=_EVERYTHING),  # ours: whatever the trainer made, all of it stated in the file
}

# Keys that change the arithmetic in ways no architecture above has, and the values that change nothing.
_REFUSED: dict[str, tuple[object, ...]] = {
    "expert_count": (0,), "attn_logit_softcapping": (0.0,), "logit_scale": (0.0, 1.0), "residual_scale": (0.0, 1.0),
    "attention.causal": (True,), "attention.clamp_kqv": (0.0,), "attention.max_alibi_bias": (0.0,),
    "use_parallel_residual": (False,),
}  # fmt: skip
_ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu", "swish": "silu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu", "relu2": "relu2",
}  # fmt: skip
_POOLING: dict[int, Any] = {0: "none", 1: "mean", 2: "cls", 3: "last"}
GEMMA_PATTERN = 6  # every sixth layer of gemma3 sees everything
GEMMA_LOCAL_BASE = 10000.0


def architecture_of(metadata: Mapping[str, Any]) -> str:
    """The name in `general.architecture`. Raises LoadError if it is missing or not one of `ARCHITECTURES`."""
    name = metadata.get("general.architecture")
    if not isinstance(name, str):
        raise LoadError("metadata key general.architecture is missing: this file holds no language model")
    if name not in ARCHITECTURES:
        raise LoadError(f"architecture {name[:60]!r} is not supported; these are: {', '.join(ARCHITECTURES)}")
    return name


def read_config(metadata: Mapping[str, Any], vocab_size: int, factors: tuple[float, ...] = ()) -> ModelConfig:
    """ModelConfig of GGUF metadata; `vocab_size` is the embedding's rows, `factors` the values of `rope_freqs.weight`.

    Raises LoadError or ConfigError naming the key at fault.
    """
    name = architecture_of(metadata)
    keys = Keys(metadata, name)
    _refuse(keys, metadata)
    dim, heads = keys.integer("embedding_length"), keys.integer("attention.head_count")
    head_dim = keys.integer("attention.key_length", dim // heads if heads > 0 else 0)
    if keys.integer("attention.value_length", head_dim) != head_dim:
        keys.fail("attention.value_length", f"{head_dim} like the key's", keys.raw("attention.value_length"))
    context, n_layers = keys.integer("context_length"), keys.integer("block_count")
    window = keys.integer("attention.sliding_window", 0) if name in ("gemma3", "ternrun") else 0
    local_base = GEMMA_LOCAL_BASE if name == "gemma3" else 0.0
    return ModelConfig(
        architecture=name,
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
            style=ARCHITECTURES[name].style,
            head_dim=head_dim,
            context=context,
            local_base=keys.number("rope.freq_base_swa", local_base) if window else 0.0,
            factors=factors,
        ),
        activation=keys.text("hidden_activation", _ACTIVATIONS, ARCHITECTURES[name].activation),
        embedding_scale=keys.number("embedding_scale", math.sqrt(max(dim, 0)) if name == "gemma3" else 1.0),
        attention_scale=_attention_scale(keys, name, dim, heads, n_layers),
        sliding_window=window,
        sliding_layers=_sliding_layers(keys, n_layers) if window else (),
        logit_softcap=keys.number("final_logit_softcapping", 0.0),
        mhc_streams=keys.integer("mhc_streams", 1) if name == "ternrun" else 1,
        pooling=_pooling(keys),
    )


def write_config(config: ModelConfig) -> dict[str, Any]:
    """GGUF metadata from which `read_config` makes `config` again (rope's frequency factors are a tensor).

    Raises LoadError for a model whose architecture has no key for one of its settings.
    """
    name = config.architecture
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
    } | write_rope(config.rope)
    if config.embedding_scale != 1.0 and name != "gemma3":
        values["embedding_scale"] = config.embedding_scale
    if config.attention_scale:
        values["attention.scale"] = config.attention_scale
    if config.sliding_window:
        values["attention.sliding_window"] = config.sliding_window
        values["attention.sliding_window_pattern"] = list(config.sliding_layers)
        if config.rope.local_base:
            values["rope.freq_base_swa"] = config.rope.local_base
    if config.logit_softcap:
        values["final_logit_softcapping"] = config.logit_softcap
    if config.mhc_streams > 1:
        values["mhc_streams"] = config.mhc_streams
    if config.pooling != "none":
        values["pooling_type"] = next(i for i, pooling in _POOLING.items() if pooling == config.pooling)
    metadata = {"general.architecture": name} | {f"{name}.{key}": value for key, value in values.items()}
    _check_same(config, read_config(metadata, config.vocab_size, config.rope.frequency_factors))
    return metadata


def _check_same(config: ModelConfig, again: ModelConfig) -> None:
    for field in ModelConfig.__dataclass_fields__:
        kept, meant = getattr(again, field), getattr(config, field)
        if field == "rope":
            kept, meant = kept.style, meant.style
        close = isinstance(meant, float) and math.isclose(kept, meant, rel_tol=1e-6)
        if kept != meant and not close:
            raise LoadError(f"a GGUF file of architecture {config.architecture!r} cannot hold {field}={meant!r}")


def _refuse(keys: Keys, metadata: Mapping[str, Any]) -> None:
    for name, harmless in _REFUSED.items():
        value = keys.raw(name)
        if value is not None and not (isinstance(value, (bool, int, float)) and value in harmless):
            raise LoadError(f"metadata key {keys.prefix}.{name} = {str(value)[:40]} asks for something not supported")
    if any(key.startswith("prism.hadamard") for key in metadata):
        raise LoadError("this file's weights are rotated (keys prism.hadamard.*), which is not supported")


def _attention_scale(keys: Keys, name: str, dim: int, heads: int, n_layers: int) -> float:
    """gemma3's 27B alone scales by the width a head would have if dim were shared out (gemma_pytorch, config.py)."""
    usual = math.sqrt(heads / dim) if name == "gemma3" and n_layers == 62 and dim > 0 and heads > 0 else 0.0
    return keys.number("attention.scale", usual)


def _sliding_layers(keys: Keys, n_layers: int) -> tuple[bool, ...]:
    """Per layer: a list of flags, or a period whose last layer sees everything."""
    pattern = keys.raw("attention.sliding_window_pattern")
    if isinstance(pattern, (list, tuple, np.ndarray)):
        if len(pattern) != n_layers:
            keys.fail("attention.sliding_window_pattern", f"{n_layers} flags", f"{len(pattern)} of them")
        return tuple(bool(flag) for flag in pattern)
    period = keys.integer("attention.sliding_window_pattern", GEMMA_PATTERN)
    if not 0 <= n_layers <= 1024 or period < 0:
        keys.fail("attention.sliding_window_pattern", "a number of layers", period)
    return tuple(period == 0 or layer % period < period - 1 for layer in range(n_layers))


def _pooling(keys: Keys) -> Any:
    kind = keys.integer("pooling_type", 0)
    if kind not in _POOLING:
        keys.fail("pooling_type", "0 (none), 1 (mean), 2 (first) or 3 (last)", kind)
    return _POOLING[kind]
