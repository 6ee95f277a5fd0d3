"""Causal attention: PyTorch's own kernel, and on CPUs in training a product of blocks that is over twice as fast."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from ternrun.train.model.dropout import Dropout, dropped

BLOCK = 64  # queries at a time: their scores stay in the cache
_MOST_BLOCKS = 16  # each is a piece of the compiled program


def attention(q: Tensor, k: Tensor, v: Tensor, dropout: Dropout | None = None) -> Tensor:
    """q (B, H, T, D), k and v (B, G, T, D) with G dividing H -> (B, H, T, D); scores are q k / sqrt(D).

    Only with gradients does a length get a program of its own: generated text grows by one token a step.
    """
    if (q.device.type == "cpu" and torch.is_grad_enabled()) or dropout:
        return blockwise(q, k, v, dropout)
    grouped = q.shape[1] != k.shape[1]
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)


def blockwise(q: Tensor, k: Tensor, v: Tensor, dropout: Dropout | None = None) -> Tensor:
    """The same, queries block by block, each block against the keys it may see.

    The heads that share keys make one matrix of more rows. Scores are rounded to q's dtype, the softmax is f32.
    """
    B, H, T, D = q.shape
    groups, size = B * k.shape[1], max(BLOCK, -(-T // _MOST_BLOCKS))
    q, k, v = q.reshape(groups, -1, T, D) / math.sqrt(D), k.reshape(groups, T, D), v.reshape(groups, T, D)
    parts = []
    for start in range(0, T, size):
        rows = q[:, :, start : start + size]
        end = start + rows.shape[2]
        scores = (rows.flatten(1, 2) @ k[:, :end].mT).view(*rows.shape[:3], end).float()
        later = torch.arange(end, device=q.device) > torch.arange(start, end, device=q.device)[:, None]
        shares = dropped(scores.masked_fill(later, -math.inf).softmax(-1).to(v.dtype), dropout, start)
        parts.append((shares.flatten(1, 2) @ v[:, :end]).view_as(rows))
    return torch.cat(parts, 2).reshape(B, H, T, D)
