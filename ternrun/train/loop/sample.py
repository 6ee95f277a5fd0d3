"""A few tokens from the model in training, to see what it has learned; the runtime is what serves."""

from __future__ import annotations

import torch
from torch import Tensor

from ternrun.train.model.decoder import Decoder


@torch.no_grad()
def generate(
    model: Decoder, ids: list[int], count: int, dtype: torch.dtype, *, temperature: float = 0.0, seed: int = 0
) -> list[int]:
    """`count` tokens after `ids`; temperature 0 is greedy. The context slides where it is full."""
    generator = torch.Generator().manual_seed(seed)
    known = list(ids)
    device = model.token_embd.weight.device
    for _ in range(count):
        window = torch.tensor([known[-model.shape.context :]], device=device)
        last = model.hidden(window, dtype)[0, -1]
        logits: Tensor = (last @ model.head.to(dtype).t()).float().cpu()
        if temperature > 0:
            known.append(int(torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=generator)))
        else:
            known.append(int(logits.argmax()))
    return known[len(ids) :]
