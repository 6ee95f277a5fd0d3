"""The sublayers of a decoder block. Shapes: B sequences, T tokens, C model width, H heads of D elements."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from ternrun.train.config import DecoderConfig
from ternrun.train.model.attention import attention
from ternrun.train.model.bitlinear import BitLinear, quantize_activations
from ternrun.train.model.dropout import Dropout


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis, computed in f32 (arXiv 1910.07467)."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., dim) to (..., dim)."""
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps) * self.weight).to(x.dtype)


def rope_tables(context: int, width: int, base: float) -> tuple[Tensor, Tensor]:
    """Tables cos and sin (context, width / 2) of rotary embedding (arXiv 2104.09864), in f32.

    Angles are computed in double precision, as in the runtime. Single precision would differ by 1e-5 at position 256,
    which can round an activation to another int8 value.
    """
    angles = torch.arange(context)[:, None] / base ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
    return angles.cos().float(), angles.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary embedding to the halves of x (B, H, T, D) (NEOX style); cos and sin are (T, D / 2)."""
    a, b = x.float().chunk(2, -1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), -1).to(x.dtype)


class Attention(nn.Module):
    """Causal grouped-query attention (arXiv 2305.13245)."""

    def __init__(self, config: DecoderConfig, out_gain: float) -> None:
        super().__init__()
        self.config = config
        linear = partial(BitLinear, ternary=config.ternary, granularity=config.granularity)
        inner, kv = config.n_heads * config.head_width, config.n_kv_heads * config.head_width
        self.attn_norm = RMSNorm(config.dim, config.norm_eps)
        self.attn_q = linear(config.dim, inner)
        self.attn_k = linear(config.dim, kv)
        self.attn_v = linear(config.dim, kv)
        self.attn_q_norm = RMSNorm(config.head_width, config.norm_eps) if config.qk_norm else nn.Identity()
        self.attn_k_norm = RMSNorm(config.head_width, config.norm_eps) if config.qk_norm else nn.Identity()
        self.attn_sub_norm = RMSNorm(inner, config.norm_eps) if config.sub_norm else nn.Identity()
        self.attn_output = linear(inner, config.dim, gain=out_gain)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, dropout: Dropout | None) -> Tensor:
        """Map x (B, T, C) to (B, T, C); cos and sin are (T, D / 2)."""
        B, T, _ = x.shape
        config = self.config
        x = self.attn_norm(x)
        shared = quantize_activations(x) if config.ternary else None
        q = self.attn_q(x, shared).view(B, T, config.n_heads, config.head_width).transpose(1, 2)
        k = self.attn_k(x, shared).view(B, T, config.n_kv_heads, config.head_width).transpose(1, 2)
        v = self.attn_v(x, shared).view(B, T, config.n_kv_heads, config.head_width).transpose(1, 2)
        q, k = rotate(self.attn_q_norm(q), cos, sin), rotate(self.attn_k_norm(k), cos, sin)
        y = attention(q, k, v, dropout)
        return self.attn_output(self.attn_sub_norm(y.transpose(1, 2).reshape(B, T, -1)))


class FeedForward(nn.Module):
    """down(norm(act(gate x) * up x)) with SiLU (arXiv 2002.05202) or squared ReLU (arXiv 2109.08668)."""

    def __init__(self, config: DecoderConfig, out_gain: float) -> None:
        super().__init__()
        self.config = config
        linear = partial(BitLinear, ternary=config.ternary, granularity=config.granularity)
        self.ffn_norm = RMSNorm(config.dim, config.norm_eps)
        self.ffn_gate = linear(config.dim, config.ffn_dim)
        self.ffn_up = linear(config.dim, config.ffn_dim)
        self.ffn_sub_norm = RMSNorm(config.ffn_dim, config.norm_eps) if config.sub_norm else nn.Identity()
        self.ffn_down = linear(config.ffn_dim, config.dim, gain=out_gain)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, T, C) to (B, T, C)."""
        x = self.ffn_norm(x)
        shared = quantize_activations(x) if self.config.ternary else None
        gate, up = self.ffn_gate(x, shared), self.ffn_up(x, shared)
        hidden = (functional.silu(gate) if self.config.activation == "silu" else functional.relu(gate).square()) * up
        return self.ffn_down(self.ffn_sub_norm(hidden))
