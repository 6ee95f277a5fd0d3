"""The decoder's two sublayers. Shapes: B sequences, T tokens, C model width, H heads of D elements."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from ternrun.train.config import Shape
from ternrun.train.model.attention import attention
from ternrun.train.model.bitlinear import BitLinear, quantize_activations
from ternrun.train.model.dropout import Dropout


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis, computed in f32 (arXiv 1910.07467)."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)"""
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps) * self.weight).to(x.dtype)


def rope_tables(context: int, width: int, base: float) -> tuple[Tensor, Tensor]:
    """cos and sin (context, width / 2) of rotary embedding (arXiv 2104.09864), f32.

    The angles are computed in double precision, as in the runtime: single would differ by 1e-5 at position 256, and an
    activation near the middle between two int8 values turns that into a step.
    """
    angles = torch.arange(context)[:, None] / base ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
    return angles.cos().float(), angles.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (B, H, T, D) rotated by halves (NEOX); cos and sin (T, D / 2)."""
    a, b = x.float().chunk(2, -1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), -1).to(x.dtype)


class Attention(nn.Module):
    """Causal grouped-query attention; keys and values of one head serve several query heads (arXiv 2305.13245)."""

    def __init__(self, shape: Shape, out_gain: float) -> None:
        super().__init__()
        self.shape = shape
        linear = partial(BitLinear, ternary=shape.ternary, granularity=shape.granularity)
        inner, kv = shape.n_heads * shape.width, shape.n_kv_heads * shape.width
        self.attn_norm = RMSNorm(shape.dim, shape.norm_eps)
        self.attn_q = linear(shape.dim, inner)
        self.attn_k = linear(shape.dim, kv)
        self.attn_v = linear(shape.dim, kv)
        self.attn_q_norm = RMSNorm(shape.width, shape.norm_eps) if shape.qk_norm else nn.Identity()
        self.attn_k_norm = RMSNorm(shape.width, shape.norm_eps) if shape.qk_norm else nn.Identity()
        self.attn_sub_norm = RMSNorm(inner, shape.norm_eps) if shape.sub_norm else nn.Identity()
        self.attn_output = linear(inner, shape.dim, gain=out_gain)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, dropout: Dropout | None) -> Tensor:
        """(B, T, C) -> (B, T, C); cos and sin (T, D / 2)"""
        B, T, _ = x.shape
        shape = self.shape
        x = self.attn_norm(x)
        shared = quantize_activations(x) if shape.ternary else None
        q = self.attn_q(x, shared).view(B, T, shape.n_heads, shape.width).transpose(1, 2)
        k = self.attn_k(x, shared).view(B, T, shape.n_kv_heads, shape.width).transpose(1, 2)
        v = self.attn_v(x, shared).view(B, T, shape.n_kv_heads, shape.width).transpose(1, 2)
        q, k = rotate(self.attn_q_norm(q), cos, sin), rotate(self.attn_k_norm(k), cos, sin)
        y = attention(q, k, v, dropout)
        return self.attn_output(self.attn_sub_norm(y.transpose(1, 2).reshape(B, T, -1)))


class FeedForward(nn.Module):
    """down(norm(act(gate x) * up x)); act is SiLU (arXiv 2002.05202) or relu squared (arXiv 2109.08668)."""

    def __init__(self, shape: Shape, out_gain: float) -> None:
        super().__init__()
        self.shape = shape
        linear = partial(BitLinear, ternary=shape.ternary, granularity=shape.granularity)
        self.ffn_norm = RMSNorm(shape.dim, shape.norm_eps)
        self.ffn_gate = linear(shape.dim, shape.ffn_dim)
        self.ffn_up = linear(shape.dim, shape.ffn_dim)
        self.ffn_sub_norm = RMSNorm(shape.ffn_dim, shape.norm_eps) if shape.sub_norm else nn.Identity()
        self.ffn_down = linear(shape.ffn_dim, shape.dim, gain=out_gain)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)"""
        x = self.ffn_norm(x)
        shared = quantize_activations(x) if self.shape.ternary else None
        gate, up = self.ffn_gate(x, shared), self.ffn_up(x, shared)
        hidden = (functional.silu(gate) if self.shape.activation == "silu" else functional.relu(gate).square()) * up
        return self.ffn_down(self.ffn_sub_norm(hidden))
