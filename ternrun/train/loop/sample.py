"""Text samples from the model in training, to see what it has learned."""

from __future__ import annotations

import torch
from torch import Tensor

from ternrun.train.data import tokenizer as tokenizers
from ternrun.train.loop.run import TrainingRun
from ternrun.train.model.decoder import Decoder

_SAMPLE_TOKENS, _TEMPERATURE = 96, 0.4


def log_sample(run: TrainingRun) -> None:
    """Generate a continuation of the configured prompt and log it."""
    tokenizer = run.corpus.tokenizer
    ids = tokenizer.encode(run.config.run.sample_prompt or "\n").ids
    if not ids:  # the vocabulary has no character of the prompt
        ids = tokenizers.with_bos(tokenizer).encode("").ids
    text = tokenizer.decode(ids + generate(run.model, ids, _SAMPLE_TOKENS, run.dtype, temperature=_TEMPERATURE))
    run.log.write(run.state.step, sample=text)
    run.log.say(text)


@torch.no_grad()
def generate(
    model: Decoder, ids: list[int], count: int, dtype: torch.dtype, *, temperature: float = 0.0, seed: int = 0
) -> list[int]:
    """Generate `count` tokens after `ids`, greedily at temperature 0. The model sees the last `context` tokens."""
    generator = torch.Generator().manual_seed(seed)
    tokens = list(ids)
    device = model.token_embd.weight.device
    for _ in range(count):
        window = torch.tensor([tokens[-model.config.context :]], device=device)
        last = model.hidden(window, dtype)[0, -1]
        logits: Tensor = (last @ model.head.to(dtype).t()).float().cpu()
        if temperature > 0:
            tokens.append(int(torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=generator)))
        else:
            tokens.append(int(logits.argmax()))
    return tokens[len(ids) :]
