"""Causal attention: PyTorch's kernel, or for training on CPUs a blockwise product that is over twice as fast."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from ternrun.train.model.dropout import Dropout, apply_dropout

BLOCK = 64  # queries per block, whose scores fit in the CPU's cache
_MAX_BLOCKS = 16  # every block makes the compiled program longer


def attention(q: Tensor, k: Tensor, v: Tensor, dropout: Dropout | None = None) -> Tensor:
    """Attention of q (B, H, T, D) to k and v (B, G, T, D), where G divides H; returns (B, H, T, D).

    Scores are q k / sqrt(D). The blockwise product is used with gradients only: compiled, it is specialized for T, and
    text generation has a new T at every step.
    """
    if (q.device.type == "cpu" and torch.is_grad_enabled()) or dropout:
        return blockwise(q, k, v, dropout)
    grouped = q.shape[1] != k.shape[1]
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)


def blockwise(q: Tensor, k: Tensor, v: Tensor, dropout: Dropout | None = None) -> Tensor:
    """The same as `attention`, computed per block of queries with only the keys that the block can see.

    The query heads that share keys form one taller matrix. Scores are rounded to q's dtype; the softmax is in f32.
    """
    B, H, T, D = q.shape
    groups, size = B * k.shape[1], max(BLOCK, -(-T // _MAX_BLOCKS))
    q, k, v = q.reshape(groups, -1, T, D) / math.sqrt(D), k.reshape(groups, T, D), v.reshape(groups, T, D)
    parts = []
    for start in range(0, T, size):
        rows = q[:, :, start : start + size]
        end = start + rows.shape[2]
        scores = (rows.flatten(1, 2) @ k[:, :end].mT).view(*rows.shape[:3], end).float()
        later = torch.arange(end, device=q.device) > torch.arange(start, end, device=q.device)[:, None]
        shares = apply_dropout(scores.masked_fill(later, -math.inf).softmax(-1).to(v.dtype), dropout, start)
        parts.append((shares.flatten(1, 2) @ v[:, :end]).view_as(rows))
    return torch.cat(parts, 2).reshape(B, H, T, D)
