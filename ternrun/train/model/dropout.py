"""Dropout with masks from a hash of the element's index.

On CPUs torch draws random numbers one by one, which took two fifths of a step of `shakespeare-char`. The hash, the
finalizer of MurmurHash3 over a counter, vectorizes when compiled. Its seed is drawn from torch's generator once per
forward pass, so runs stay reproducible.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor


def _int32(n: int) -> int:
    """The low 32 bits of n as a signed number."""
    return (n + 2**31) % 2**32 - 2**31


_GOLDEN = _int32(0x9E3779B1)  # 2**32 / golden ratio
_FIRST, _SECOND = _int32(0x85EBCA6B), _int32(0xC2B2AE35)


class Dropout(NamedTuple):
    """Sets a share `rate` of elements to 0 and divides the others by 1 - rate."""

    rate: float
    seed: Tensor  # scalar int32

    @classmethod
    def draw(cls, rate: float, count: int, device: torch.device) -> list[Self | None]:
        """Draw `count` instances with independent seeds; None instead of each if the rate is 0."""
        if not rate:
            return [None] * count
        seeds = torch.randint(-(2**31), 2**31, (count,), dtype=torch.int32, device=device)
        return [cls(rate, seed) for seed in seeds.unbind()]

    def mask(self, shape: torch.Size, position: int) -> Tensor:
        """The mask of up to 2**31 elements to keep; every `position` in the network has its own mask."""
        counter = torch.arange(shape.numel(), dtype=torch.int32, device=self.seed.device).view(shape)
        h = counter * _GOLDEN ^ (self.seed + _int32(position * _FIRST))
        h = (h ^ (h >> 16 & 0xFFFF)) * _FIRST
        h = (h ^ (h >> 13 & 0x7FFFF)) * _SECOND
        return (h ^ (h >> 16 & 0xFFFF)) >= round(self.rate * 2**32) - 2**31


def apply_dropout(x: Tensor, dropout: Dropout | None, position: int = 0) -> Tensor:
    """Apply dropout to x of any shape; None leaves x unchanged."""
    return x if dropout is None else x * dropout.mask(x.shape, position).to(x.dtype) * (1 / (1 - dropout.rate))
