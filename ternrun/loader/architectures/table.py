"""The decoder architectures that ternrun runs: one row each (docs/architecture.md, "Add an architecture").

Wiring follows transformers and llama.cpp where they know the architecture, Microsoft's and the seed project's own code
where they do not (docs/formats.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ternrun.errors import LoadError
from ternrun.loader.architectures.architecture import Architecture, Window

OWN = "ternrun"  # the architecture of files that no other one describes
_ROWS = (
    Architecture(
        name="llama", model_types=("llama",), rope_style="norm",
        optional=("qkv_bias", "output_bias", "ffn_bias", "norm_in"),
    ),
    Architecture(  # GGUF calls it llama, and has no key for its window
        name="llama", model_types=("mistral",), rope_style="norm", window=Window(0),
    ),
    Architecture(name="qwen2", model_types=("qwen2",), required=("qkv_bias",), window=Window(0), gguf_window=False),
    Architecture(
        name="qwen3", model_types=("qwen3",), required=("qk_norm",), optional=("qkv_bias", "output_bias", "norm_in"),
        window=Window(0), gguf_window=False, defaults={"head_dim": 128},
    ),
    Architecture(
        name="gemma3", model_types=("gemma3_text",), multimodal_type="gemma3",
        required=("qk_norm", "post_norm"), optional=("qkv_bias", "output_bias", "norm_in"), norm_offset=1.0,
        activation="gelu", activation_key="hidden_activation", factors=("attention_scale",), scaled_embedding=True,
        wide_layers=62, rope_base=1e6, local_rope_base=10000.0, window=Window(6),
        defaults={
            "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8,
            "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 131_072,
            "query_pre_attn_scalar": 256, "sliding_window": 4096,
        },
    ),
    Architecture(
        name="gemma2", model_types=("gemma2",), required=("post_norm",), optional=("qkv_bias", "output_bias"),
        norm_offset=1.0, activation="gelu", activation_key="hidden_activation", scaled_embedding=True, wide_layers=46,
        factors=("attention_scale", "attention_softcap"), window=Window(2, 4096),
        gguf_factors={"attention_softcap": 50.0, "logit_softcap": 30.0},
        defaults={
            "head_dim": 256, "query_pre_attn_scalar": 256, "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        },
    ),
    Architecture(
        name="phi3", model_types=("phi3",), optional=("qkv_bias", "output_bias"), fused=True, partial_rope=True,
        window=Window(0),
    ),
    Architecture(
        name="granite", model_types=("granite",), rope_style="norm", optional=("qkv_bias", "output_bias", "ffn_bias"),
        factors=("embedding_scale", "attention_scale", "residual_scale", "logit_scale"),
    ),
    Architecture(
        name="smollm3", model_types=("smollm3",), rope_style="norm", optional=("qkv_bias", "output_bias"),
        rope_base=2e6, plain_every=4, window=Window(0), gguf_window=False,
    ),
    Architecture(
        name="olmo2", model_types=("olmo2",), required=("post_norm", "wide_qk_norm"),
        optional=("qkv_bias", "output_bias"), pre_norm=False,
    ),
    Architecture(name="bitnet", class_name="BitnetForCausalLM", required=("sub_norm",), ternary=True),
    Architecture(
        name="bitnet-b1.58", model_types=("bitnet",), required=("sub_norm",), ternary=True,
        activation="relu2", rope_base=500000.0,
    ),
    Architecture(name="bitnet-25", required=("sub_norm",), activation="relu2"),
    Architecture(  # ours: whatever the trainer made, all of it stated in the file
        name=OWN, window=Window(6),
        optional=("qkv_bias", "output_bias", "ffn_bias", "qk_norm", "sub_norm", "post_norm", "norm_in", "mhc"),
    ),
)  # fmt: skip

#: Rows by `general.architecture`: the first one for a name that several model types share.
ARCHITECTURES: dict[str, Architecture] = {row.name: row for row in reversed(_ROWS)}
ARCHITECTURES = {row.name: ARCHITECTURES[row.name] for row in _ROWS}
_BY_MODEL_TYPE = {kind: row for row in _ROWS for kind in row.model_types}


def gguf_architecture(metadata: Mapping[str, Any]) -> Architecture:
    """Return the row for `general.architecture`. Raises LoadError if it is missing or not in the table."""
    name = metadata.get("general.architecture")
    if not isinstance(name, str):
        raise LoadError("metadata key general.architecture is missing: this file holds no language model")
    if name not in ARCHITECTURES:
        raise LoadError(f"architecture {name[:60]!r} is not supported; these are: {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


def hf_architecture(config: Mapping[str, Any]) -> Architecture:
    """Return the row for a language model's config.json. Raises LoadError if its model_type is not in the table."""
    for row in _ROWS:
        if row.class_name and config.get("architectures") == [row.class_name]:
            return row
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in _BY_MODEL_TYPE:
        known = ", ".join(_BY_MODEL_TYPE)
        raise LoadError(f"config.json: model_type {str(kind)[:40]!r} is not supported; these are: {known}")
    return _BY_MODEL_TYPE[kind]


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the language model's part of a config.json: the whole of it, or the text_config of a multimodal model."""
    inner = config.get("text_config")
    multimodal = any(row.multimodal_type and row.multimodal_type == config.get("model_type") for row in _ROWS)
    return inner if multimodal and isinstance(inner, dict) else config
