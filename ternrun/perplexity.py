"""How well a model predicts a text: perplexity and bits per byte, in overlapping windows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from ternrun.errors import UsageError
from ternrun.loader.tokenizers.tokenizer import Tokenizer
from ternrun.runtime.backend.protocol import ProgressCallback
from ternrun.runtime.sampling.logprobs import TokenLogprobs


class ScoringModel(Protocol):
    """What a perplexity needs of a loaded model (`ternrun.api.Model`)."""

    context: int

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to token ids and back."""
        ...

    def score(self, ids: Iterable[int]) -> list[TokenLogprobs]:
        """Log-probabilities of all tokens but the first."""
        ...


@dataclass(frozen=True, slots=True)
class Perplexity:
    """exp of the mean negative log-probability per token, and the same sum in bits per byte of text."""

    perplexity: float
    bits_per_byte: float
    tokens: int  # scored; without a beginning-of-text token in the vocabulary the first cannot be
    bytes: int  # of the scored tokens


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens `start` to `end` of the text. Those before `scored` are context only."""

    start: int
    end: int
    scored: int


def windows(n: int, size: int) -> Iterator[Window]:
    """Windows over n tokens: each token is scored once, after at least half a window where the text has that much."""
    scored = 0
    while scored < n:
        start = max(0, scored - size // 2)
        end = min(start + size, n)
        yield Window(start, end, scored)
        scored = end


def perplexity(model: ScoringModel, text: str, window: int, progress: ProgressCallback | None = None) -> Perplexity:
    """Score the whole text in windows of `window` tokens. `progress` is called with scored tokens and their total.

    Raises UsageError if there is nothing to score.
    """
    if not isinstance(text, str) or not isinstance(window, int):
        raise UsageError(f"perplexity takes a text and a number of tokens, not {type(text).__name__}, {window!r}")
    tokenizer = model.tokenizer
    ids = tokenizer.encode(text, special=False, bos=False)
    head = [tokenizer.bos_id] if tokenizer.add_bos and tokenizer.bos_id is not None else []
    size = min(window, model.context) - len(head)
    if size < 2:
        raise UsageError(f"a window must hold at least {2 + len(head)} tokens, not {min(window, model.context)}")
    if len(ids) + len(head) < 2:
        raise UsageError("the text is too short: the first token has nothing to be predicted from")
    nats, tokens = 0.0, 0
    for part in windows(len(ids), size):
        scores = model.score([*head, *ids[part.start : part.end]])[part.scored - part.end :]
        nats -= math.fsum(score.logprob for score in scores)
        tokens += len(scores)
        if progress:
            progress(part.end, len(ids))
    n_bytes = len(text.encode(errors="replace")) - (0 if head else len(tokenizer.token_bytes(ids[0])))
    return Perplexity(math.exp(nats / tokens), nats / math.log(2) / max(n_bytes, 1), tokens, n_bytes)
