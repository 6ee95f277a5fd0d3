"""Dropout whose mask is a hash of the element's number: torch draws numbers one by one, which on CPUs took two fifths
of a step of `shakespeare-char`.

The hash is MurmurHash3's finaliser over a counter; it vectorises when compiled. What it begins with is drawn from
torch's generator once a forward pass, so a seed still decides everything.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor


def _int32(n: int) -> int:
    """n's low 32 bits as a signed number."""
    return (n + 2**31) % 2**32 - 2**31


_GOLDEN = _int32(0x9E3779B1)  # 2**32 / golden ratio
_FIRST, _SECOND = _int32(0x85EBCA6B), _int32(0xC2B2AE35)


class Dropout(NamedTuple):
    """`rate` is the share of elements that become 0; the others are divided by 1 - rate."""

    rate: float
    seed: Tensor  # () int32

    @classmethod
    def drawn(cls, rate: float, count: int, device: torch.device) -> list[Self | None]:
        """As many with seeds of their own; None where nothing is dropped."""
        if not rate:
            return [None] * count
        seeds = torch.randint(-(2**31), 2**31, (count,), dtype=torch.int32, device=device)
        return [cls(rate, seed) for seed in seeds.unbind()]

    def kept(self, shape: torch.Size, place: int) -> Tensor:
        """Mask of `shape`, up to 2**31 elements; each `place` of the network has one of its own."""
        counter = torch.arange(shape.numel(), dtype=torch.int32, device=self.seed.device).view(shape)
        h = counter * _GOLDEN ^ (self.seed + _int32(place * _FIRST))
        h = (h ^ (h >> 16 & 0xFFFF)) * _FIRST
        h = (h ^ (h >> 13 & 0x7FFFF)) * _SECOND
        return (h ^ (h >> 16 & 0xFFFF)) >= round(self.rate * 2**32) - 2**31


def dropped(x: Tensor, dropout: Dropout | None, place: int = 0) -> Tensor:
    """x (any shape) with the mask of that place applied."""
    return x if dropout is None else x * dropout.kept(x.shape, place).to(x.dtype) * (1 / (1 - dropout.rate))
