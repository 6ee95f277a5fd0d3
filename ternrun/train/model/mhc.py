"""mHC-lite: several residual streams, mixed by a doubly stochastic matrix at each sublayer (arXiv 2601.05732).

    input   = sum_i read_i * stream_i
    streams = mix @ streams + write (x) sublayer(input)

`mix` is a convex combination of all permutation matrices (2 for 2 streams, 24 for 4) with softmax weights. All streams
start as copies of the embedding. With equal write weights they would stay equal. With equal read weights a sublayer
would read the mean, which no doubly stochastic matrix changes, so mixing would have no gradient. Therefore sublayers
start by reading mostly one stream, in turn, and write to each stream with a different weight.
"""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor, nn

_IDENTITY_LOGIT = 4.0  # mixing starts near the identity, so streams keep their content


class StreamMixing(nn.Module):
    """Learned read, write and mixing weights over 2 or 4 streams, for sublayer number `turn`."""

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
        """The matrices mix (S, S), doubly stochastic, read (S,) in (0, 1) and write (S,) in (0, 2)."""
        mix = torch.einsum("p,pij->ij", torch.softmax(self.mix, 0), self.permutations)
        return mix, torch.sigmoid(self.read), 2 * torch.sigmoid(self.write)

    def table(self) -> Tensor:
        """The matrix (S + 2, S) that GGUF files store: the rows of mix, then read, then write."""
        mix, read, write = self.matrices()
        return torch.cat((mix, read[None], write[None]))

    def combine(self, streams: Tensor) -> Tensor:
        """The sublayer's input (B, T, C) from streams (S, B, T, C)."""
        return torch.einsum("s,sbtc->btc", torch.sigmoid(self.read).to(streams.dtype), streams)

    def spread(self, streams: Tensor, output: Tensor) -> Tensor:
        """The mixed streams (S, B, T, C) plus the weighted output (B, T, C) of the sublayer."""
        mix, _, write = (m.to(streams.dtype) for m in self.matrices())
        return torch.einsum("rs,sbtc->rbtc", mix, streams) + write[:, None, None, None] * output
