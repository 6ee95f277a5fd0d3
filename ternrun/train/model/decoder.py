"""The decoder to train: embedding, blocks, norm, head. Shapes: B sequences, T tokens, C width, V vocabulary."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ternrun.train.config import Shape
from ternrun.train.model.dropout import Dropout, dropped
from ternrun.train.model.layers import Attention, FeedForward, RMSNorm, rope_tables
from ternrun.train.model.loss import Terms, chunk_terms, cross_entropy
from ternrun.train.model.mhc import Mixing

_AFTER = 2**20  # number of the dropout after attention, beyond all blocks of queries inside it
EMBEDDING_STD = 0.02  # a tied head then starts with logits near zero: the initial loss is ln(V)


class Block(nn.Module):
    """Attention, then feed-forward, each added to the residual stream, or to several of them (`mhc.Mixing`)."""

    def __init__(self, shape: Shape, index: int) -> None:
        super().__init__()
        gain = 0.2 / math.sqrt(2 * shape.n_layers)
        self.attention, self.ffn = Attention(shape, gain), FeedForward(shape, gain)
        several = shape.mhc_streams > 1
        self.mhc_attn = Mixing(shape.mhc_streams, 2 * index) if several else None
        self.mhc_ffn = Mixing(shape.mhc_streams, 2 * index + 1) if several else None

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, dropout: Dropout | None) -> Tensor:
        """x (B, T, C), or (S, B, T, C) with S streams; the same shape comes back."""
        x = residual(x, self.mhc_attn, lambda y: dropped(self.attention(y, cos, sin, dropout), dropout, _AFTER))
        return residual(x, self.mhc_ffn, lambda y: dropped(self.ffn(y), dropout, _AFTER + 1))


def residual(x: Tensor, mixing: Mixing | None, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
    """x + sublayer(x), by way of the mixing where there is one."""
    return x + sublayer(x) if mixing is None else mixing.spread(x, sublayer(mixing.combine(x)))


class Decoder(nn.Module):
    """Token ids (B, T) to hidden states, logits or loss."""

    cos: Tensor
    sin: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.loss_terms: Terms = chunk_terms
        self.token_embd = nn.Embedding(shape.vocab_size, shape.dim)
        self.blk = nn.ModuleList(Block(shape, i) for i in range(shape.n_layers))
        self.output_norm = RMSNorm(shape.dim, shape.norm_eps)
        self.output = None if shape.tied else nn.Linear(shape.dim, shape.vocab_size, bias=False)
        nn.init.normal_(self.token_embd.weight, std=EMBEDDING_STD)
        if self.output is not None:
            nn.init.zeros_(self.output.weight)
        cos, sin = rope_tables(shape.context, shape.width, shape.rope_base)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    @property
    def head(self) -> Tensor:
        """(V, C)"""
        return self.token_embd.weight if self.output is None else self.output.weight

    def hidden(self, ids: Tensor, dtype: torch.dtype, dropout: float = 0.0) -> Tensor:
        """Final-norm hidden states (B, T, C) in `dtype`, the precision of all activations."""
        T = ids.shape[1]
        first, *rest = Dropout.drawn(dropout, 1 + len(self.blk), ids.device)
        x = dropped(self.token_embd(ids).to(dtype), first)
        if self.shape.mhc_streams > 1:
            x = x.expand(self.shape.mhc_streams, *x.shape)
        for block, own in zip(self.blk, rest, strict=True):
            x = block(x, self.cos[:T], self.sin[:T], own)
        if self.shape.mhc_streams > 1:
            x = x.mean(0)
        return self.output_norm(x)

    def logits(self, ids: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """(B, T, V) in f32."""
        return (self.hidden(ids, dtype) @ self.head.to(dtype).t()).float()

    def compile_parts(self) -> None:
        """Compile what repeats: the block, and the pointwise part of the loss. Needs a C++ compiler on CPU."""
        for block in self.blk:
            block.compile()
        self.loss_terms = torch.compile(chunk_terms)

    def forward(
        self,
        ids: Tensor,
        targets: Tensor,
        dtype: torch.dtype,
        dropout: float = 0.0,
        z_loss: float = 0.0,
        entropy: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """(objective, loss) as `loss.cross_entropy` gives them, for ids and targets (B, T)."""
        x = self.hidden(ids, dtype, dropout)
        return cross_entropy(x.flatten(0, 1), self.head, targets.flatten(), z_loss, entropy, self.loss_terms)


def flops_per_token(shape: Shape) -> float:
    """Floating-point operations that a training step spends on one token, forward and backward, attention included."""
    inner, kv = shape.n_heads * shape.width, shape.n_kv_heads * shape.width
    block = shape.dim * (2 * inner + 2 * kv) + 3 * shape.dim * shape.ffn_dim
    matrices = shape.n_layers * block + shape.vocab_size * shape.dim
    return 6.0 * matrices + 6.0 * shape.n_layers * inner * shape.context
