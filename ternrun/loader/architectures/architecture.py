"""The record of one decoder architecture: all that its files leave unsaid, and the names that both worlds give it.

"Both worlds" are GGUF's metadata (llama.cpp's `convert_hf_to_gguf.py` and `src/models`) and config.json beside
safetensors (`configuration_*.py` and `modeling_*.py` of transformers).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ternrun.runtime.config import Activation, RopeStyle


class Factor(NamedTuple):
    """A number of `ModelConfig` that files state under a key of their own, if the architecture uses it."""

    field: str
    gguf_key: str
    hf_keys: Mapping[str, float]  # key of config.json -> the power of its value that the field is
    neutral: float  # the value that changes nothing
    gguf_power: float = 1.0  # the power of GGUF's value that the field is


FACTORS = (
    Factor("embedding_scale", "embedding_scale", {"embedding_multiplier": 1}, 1.0),
    Factor("attention_scale", "attention.scale", {"attention_multiplier": 1, "query_pre_attn_scalar": -0.5}, 0.0),
    Factor("logit_softcap", "final_logit_softcapping", {"final_logit_softcapping": 1}, 0.0),
    Factor("attention_softcap", "attn_logit_softcapping", {"attn_logit_softcapping": 1}, 0.0),
    Factor("residual_scale", "residual_scale", {"residual_multiplier": 1}, 1.0),
    Factor("logit_scale", "logit_scale", {"logits_scaling": -1}, 1.0, gguf_power=-1.0),
)
#: Factors that every architecture may state in GGUF metadata, and in config.json.
GGUF_FACTORS = ("embedding_scale", "attention_scale", "logit_softcap")
HF_FACTORS = ("logit_softcap",)


class Window(NamedTuple):
    """Sliding-window attention of an architecture, as far as a file does not state it."""

    period: int  # every period-th layer attends to all tokens; 0: each layer slides, 1: none does
    size: int = 0  # tokens that a sliding layer attends to; 0: without a stated size no layer slides

    def layers(self, n_layers: int, period: int | None = None) -> tuple[bool, ...]:
        """Whether each layer slides, with the stated `period` or else the architecture's own."""
        period = self.period if period is None else period
        return tuple(period == 0 or (layer + 1) % period != 0 for layer in range(n_layers))


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """One row of the table of architectures. A field at its default means: like a plain decoder (llama).

    `required` and `optional` name groups of tensors (`tensor_names.GROUPS`) beside the plain decoder's.
    """

    name: str  # general.architecture of GGUF files
    model_types: tuple[str, ...] = ()  # model_type of config.json
    class_name: str = ""  # the entry of `architectures` in config.json that tells it from others of its model_type
    multimodal_type: str = ""  # model_type of a config.json that wraps the language model's as text_config

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    norm_offset: float = 0.0  # what the model adds to the norm weights of safetensors (GGUF files hold the sum)
    pre_norm: bool = True  # whether sublayers norm their input
    fused: bool = False  # q, k and v are one tensor, and so are gate and up (`fused.py`)
    ternary: bool = False  # without a quantization_config, weights of config.json's world are masters to be rounded

    activation: Activation = "silu"
    activation_key: str = "hidden_act"  # in config.json
    factors: tuple[str, ...] = ()  # fields of FACTORS that its files may state, beside those that all may
    gguf_factors: Mapping[str, float] = field(default_factory=dict)  # of GGUF files that do not state them
    scaled_embedding: bool = False  # embeddings are multiplied by sqrt(dim), unless GGUF metadata states a factor
    wide_layers: int = 0  # GGUF models of so many layers scale attention by the root of dim / heads, not of head_dim

    rope_style: RopeStyle = "neox"  # in GGUF files; safetensors always rotate halves
    rope_base: float = 10000.0  # in config.json, where it is not stated
    local_rope_base: float = 0.0  # of sliding layers, where it is not stated; 0: the same
    partial_rope: bool = False  # whether config.json's partial_rotary_factor counts
    plain_every: int = 0  # every n-th layer does not rotate (GGUF files imply it); 0: all layers rotate
    gguf_window: bool = True  # whether a window counts in GGUF files that list no sliding layers
    window: Window | None = None  # None: a sliding window is not read

    defaults: Mapping[str, Any] = field(default_factory=dict)  # of keys that config.json may leave out

    def rope_layers(self, n_layers: int) -> tuple[bool, ...]:
        """Whether each layer rotates, if some do not."""
        every = self.plain_every
        return tuple((layer + 1) % every != 0 for layer in range(n_layers)) if every and n_layers >= every else ()

    @property
    def implicit(self) -> bool:
        """Whether its GGUF files imply arithmetic that no key of them states."""
        return self.scaled_embedding
