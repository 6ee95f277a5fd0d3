"""The decoder to train. Shapes: B sequences, T tokens, C model width, S residual streams, V vocabulary size."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ternrun.train.config import DecoderConfig
from ternrun.train.model.dropout import Dropout, apply_dropout
from ternrun.train.model.layers import Attention, FeedForward, RMSNorm, rope_tables
from ternrun.train.model.loss import Terms, chunk_terms, cross_entropy
from ternrun.train.model.mhc import StreamMixing

_AFTER_SUBLAYER = 2**20  # dropout position after a sublayer; positions inside attention are smaller
EMBEDDING_STD = 0.02  # a tied head then starts with logits near zero, and the loss at ln(V)


class Block(nn.Module):
    """Attention and feed-forward sublayers with residual connections, or with several streams (`mhc.StreamMixing`)."""

    def __init__(self, config: DecoderConfig, index: int) -> None:
        super().__init__()
        gain = 0.2 / math.sqrt(2 * config.n_layers)
        self.attention, self.ffn = Attention(config, gain), FeedForward(config, gain)
        multi_stream = config.mhc_streams > 1
        self.mhc_attn = StreamMixing(config.mhc_streams, 2 * index) if multi_stream else None
        self.mhc_ffn = StreamMixing(config.mhc_streams, 2 * index + 1) if multi_stream else None

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, dropout: Dropout | None) -> Tensor:
        """Map x (B, T, C), or (S, B, T, C) with S streams, to the same shape."""
        x = residual(
            x, self.mhc_attn, lambda y: apply_dropout(self.attention(y, cos, sin, dropout), dropout, _AFTER_SUBLAYER)
        )
        return residual(x, self.mhc_ffn, lambda y: apply_dropout(self.ffn(y), dropout, _AFTER_SUBLAYER + 1))


def residual(x: Tensor, mixing: StreamMixing | None, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
    """x + sublayer(x), or the same with stream mixing."""
    return x + sublayer(x) if mixing is None else mixing.spread(x, sublayer(mixing.combine(x)))


class Decoder(nn.Module):
    """Maps token ids (B, T) to hidden states, logits or loss."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.loss_terms: Terms = chunk_terms
        self.token_embd = nn.Embedding(config.vocab_size, config.dim)
        self.blk = nn.ModuleList(Block(config, i) for i in range(config.n_layers))
        self.output_norm = RMSNorm(config.dim, config.norm_eps)
        self.output = None if config.tied else nn.Linear(config.dim, config.vocab_size, bias=False)
        nn.init.normal_(self.token_embd.weight, std=EMBEDDING_STD)
        if self.output is not None:
            nn.init.zeros_(self.output.weight)
        cos, sin = rope_tables(config.context, config.head_width, config.rope_base)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    @property
    def head(self) -> Tensor:
        """Weight of the output head (V, C)."""
        return self.token_embd.weight if self.output is None else self.output.weight

    def hidden(self, ids: Tensor, dtype: torch.dtype, dropout: float = 0.0) -> Tensor:
        """Hidden states (B, T, C) after the final norm; `dtype` is the precision of all activations."""
        T = ids.shape[1]
        first, *rest = Dropout.draw(dropout, 1 + len(self.blk), ids.device)
        x = apply_dropout(self.token_embd(ids).to(dtype), first)
        if self.config.mhc_streams > 1:
            x = x.expand(self.config.mhc_streams, *x.shape)
        for block, block_dropout in zip(self.blk, rest, strict=True):
            x = block(x, self.cos[:T], self.sin[:T], block_dropout)
        if self.config.mhc_streams > 1:
            x = x.mean(0)
        return self.output_norm(x)

    def logits(self, ids: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Logits (B, T, V) in f32."""
        return (self.hidden(ids, dtype) @ self.head.to(dtype).t()).float()

    def compile_parts(self) -> None:
        """Compile the blocks and the pointwise part of the loss. On a CPU this needs a C++ compiler."""
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
        """(objective, loss) of `loss.cross_entropy` for ids and targets (B, T)."""
        x = self.hidden(ids, dtype, dropout)
        return cross_entropy(x.flatten(0, 1), self.head, targets.flatten(), z_loss, entropy, self.loss_terms)


def flops_per_token(config: DecoderConfig) -> float:
    """Floating-point operations per token in a training step: forward, backward, and attention."""
    inner, kv = config.n_heads * config.head_width, config.n_kv_heads * config.head_width
    block = config.dim * (2 * inner + 2 * kv) + 3 * config.dim * config.ffn_dim
    matrices = config.n_layers * block + config.vocab_size * config.dim
    return 6.0 * matrices + 6.0 * config.n_layers * inner * config.context
