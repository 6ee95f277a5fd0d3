"""Validation: loss, bits per byte, next-token accuracy over the whole of a held-out part."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from ternrun.train.data.windows import Batch
from ternrun.train.model.decoder import Decoder

_BATCH_TOKENS = 8192


@dataclass(frozen=True, slots=True)
class Score:
    """`loss` in nats a token; `accuracy` is the share of positions whose likeliest token is the next one."""

    loss: float
    accuracy: float
    tokens: int

    def bits_per_byte(self, bytes_per_token: float) -> float:
        """Independent of the vocabulary, so models with different tokenizers compare."""
        return self.loss / math.log(2) / bytes_per_token


def windows_at_once(context: int) -> int:
    """How many windows a validation batch holds."""
    return max(1, _BATCH_TOKENS // context)


@torch.no_grad()
def validate(model: Decoder, batches: Iterable[Batch], dtype: torch.dtype) -> Score:
    """Score every position of `batches` (inputs and targets (n, T)) without dropout."""
    device = model.token_embd.weight.device
    total = correct = count = 0.0
    for ids, targets in batches:
        hidden = model.hidden(torch.from_numpy(ids).to(device), dtype).flatten(0, 1)
        wanted = torch.from_numpy(targets).to(device).flatten()
        for part, goal in zip(hidden.split(1024), wanted.split(1024), strict=True):
            logits = (part @ model.head.to(dtype).t()).float()
            total += torch.nn.functional.cross_entropy(logits, goal, reduction="sum").item()
            correct += (logits.argmax(-1) == goal).sum().item()
            count += goal.numel()
    return Score(total / count, correct / count, int(count))
