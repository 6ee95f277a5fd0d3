"""How a decoder appears in a GGUF file: architecture, configuration, tensor names and the row order of q and k."""

from __future__ import annotations

from torch import Tensor

from ternrun.runtime.config import ModelConfig, RopeConfig
from ternrun.train.config import DecoderConfig


def architecture(config: DecoderConfig) -> str:
    """The `general.architecture` under which other programs know this model, or `ternrun` if none matches.

    llama.cpp's `bitnet` is SubLN with SiLU and a tied head; `bitnet-b1.58` is the same with squared ReLU.
    """
    if config.mhc_streams == 1:
        if config.sub_norm and config.tied and not config.qk_norm:
            return "bitnet" if config.activation == "silu" else "bitnet-b1.58"
        if not config.sub_norm and config.activation == "silu":
            return "qwen3" if config.qk_norm else "llama"
    return "ternrun"


def runtime_config(config: DecoderConfig) -> ModelConfig:
    """The configuration that the runtime reads back from the exported file."""
    name = architecture(config)
    return ModelConfig(
        architecture=name,
        vocab_size=config.vocab_size,
        context_length=config.context,
        dim=config.dim,
        n_layers=config.n_layers,
        n_heads=config.n_heads,
        n_kv_heads=config.n_kv_heads,
        head_dim=config.head_width,
        ffn_dim=config.ffn_dim,
        norm_eps=config.norm_eps,
        rope=RopeConfig(dim=config.head_width, base=config.rope_base, style="norm" if name == "llama" else "neox"),
        activation=config.activation,
        mhc_streams=config.mhc_streams,
    )


def gguf_name(name: str) -> str:
    """The GGUF name of a parameter: `blk.0.attention.attn_q.weight` becomes `blk.0.attn_q.weight`."""
    return name.replace(".attention.", ".").replace(".ffn.", ".")


def is_rotary(name: str) -> bool:
    """Whether rotary embedding is applied to the output of this projection (q and k)."""
    return "attn_q." in name or "attn_k." in name


def interleave_halves(weight: Tensor, config: DecoderConfig) -> Tensor:
    """Rows of q or k (rows, cols) in the order of `llama` files: the two halves of a head as adjacent pairs."""
    heads = weight.view(-1, 2, config.head_width // 2, weight.shape[1])
    return heads.transpose(1, 2).reshape(weight.shape)


def deinterleave_halves(weight: Tensor, config: DecoderConfig) -> Tensor:
    """The inverse of `interleave_halves`."""
    pairs = weight.view(-1, config.head_width // 2, 2, weight.shape[1])
    return pairs.transpose(1, 2).reshape(weight.shape)
