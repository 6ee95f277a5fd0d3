"""mHC-lite: several residual streams, mixed by a doubly stochastic matrix around each sublayer (arXiv 2601.05732).

    input   = sum_i read_i * stream_i
    streams = mix @ streams + write (x) sublayer(input)

`mix` is a convex combination of permutation matrices: sigmoid of one number for 2 streams, softmax over all 24
permutations for 4. All streams start as copies of the embedding. Written to alike they would stay equal, and read
alike (as a mean, which no doubly stochastic matrix changes) mixing would do nothing and learn nothing; so each
sublayer starts by reading mostly one stream, in turn, and writes to each stream differently.
"""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor, nn

_IDENTITY_LOGIT = 4.0  # mixing starts near the identity: streams then keep what was written to them


class Mixing(nn.Module):
    """Learned read, write and mixing weights over 2 or 4 streams of sublayer number `turn`."""

    permutations: Tensor

    def __init__(self, streams: int, turn: int) -> None:
        super().__init__()
        orders = list(permutations(range(streams)))  # the first is the identity
        self.register_buffer("permutations", torch.eye(streams)[torch.tensor(orders)], persistent=False)  # (P, S, S)
        logits = torch.zeros(len(orders))
        logits[0] = _IDENTITY_LOGIT
        self.mix = nn.Parameter(logits)
        share = torch.full((streams,), 0.4 / (streams - 1))
        share[turn % streams] = 0.6
        self.read = nn.Parameter(torch.logit(share))
        self.write = nn.Parameter(torch.linspace(-1.5, 1.5, streams).roll(turn))

    def matrices(self) -> tuple[Tensor, Tensor, Tensor]:
        """mix (S, S), doubly stochastic; read (S,) in (0, 1); write (S,) in (0, 2)."""
        mix = torch.einsum("p,pij->ij", torch.softmax(self.mix, 0), self.permutations)
        return mix, torch.sigmoid(self.read), 2 * torch.sigmoid(self.write)

    def table(self) -> Tensor:
        """(S + 2, S) as GGUF holds it: the rows of mix, then read, then write."""
        mix, read, write = self.matrices()
        return torch.cat((mix, read[None], write[None]))

    def combine(self, streams: Tensor) -> Tensor:
        """(S, B, T, C) -> the sublayer's input (B, T, C)."""
        return torch.einsum("s,sbtc->btc", torch.sigmoid(self.read).to(streams.dtype), streams)

    def spread(self, streams: Tensor, output: Tensor) -> Tensor:
        """Mixed streams (S, B, T, C), plus each its share of the sublayer's output (B, T, C)."""
        mix, _, write = (m.to(streams.dtype) for m in self.matrices())
        return torch.einsum("rs,sbtc->rbtc", mix, streams) + write[:, None, None, None] * output
