"""Shuffled training windows over a token file: which windows make batch n depends on (seed, n) alone.

That makes the position in the data one integer, so a resumed run, or one spread over several ranks, sees exactly
the samples an unbroken run on one machine sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ternrun.errors import LoadError
from ternrun.train.data.fim import fill_in_middle
from ternrun.train.data.repetition import stutter
from ternrun.train.data.token_boundaries import seams

Batch = tuple[NDArray[np.int64], NDArray[np.int64]]


class Windows:
    """Windows of `context` + 1 tokens; each epoch visits all of them once, in a new order and from a new offset."""

    def __init__(
        self,
        tokens: NDArray[Any],
        context: int,
        seed: int,
        *,
        fim: float = 0.0,
        fim_ids: tuple[int, int, int, int] | None = None,
        stutter: float = 0.0,
        seams: float = 0.0,
        tokenizer: Tokenizer | None = None,
        line_ends: NDArray[np.int64] | None = None,
    ) -> None:
        if len(tokens) < context + 1:
            raise LoadError(f"{len(tokens)} tokens are too few for one window of {context} + 1")
        if fim and fim_ids is None:
            raise LoadError("data.fim needs a tokenizer with fill-in-the-middle tokens")
        self.tokens, self.context, self.seed = tokens, context, seed
        self.fim, self.fim_ids = fim, fim_ids
        if seams and tokenizer is None:
            raise LoadError("data.seams needs a tokenizer")
        self.stutter, self.seams, self.tokenizer = stutter, seams, tokenizer
        self.line_ends = np.zeros(0, np.int64) if line_ends is None else line_ends
        self.per_epoch = max(1, (len(tokens) - 1) // context - 1)
        self._epoch, self._order, self._offset = -1, np.zeros(0, np.int64), 0

    def window(self, sample: int) -> NDArray[np.int64]:
        """Tokens (context + 1,) of global sample number `sample`."""
        epoch, place = divmod(sample, self.per_epoch)
        if epoch != self._epoch:
            rng = np.random.default_rng((self.seed, epoch))
            self._order = rng.permutation(self.per_epoch)
            spare = len(self.tokens) - 1 - self.per_epoch * self.context
            self._epoch, self._offset = epoch, int(rng.integers(0, min(spare, self.context) + 1))
        start = self._offset + int(self._order[place]) * self.context
        return np.asarray(self.tokens[start : start + self.context + 1], np.int64)

    def pair(self, sample: int) -> Batch:
        """Inputs and targets (context,) of a sample; a target that is not to be learned is `IGNORED`."""
        window = self.window(sample)
        rng = np.random.default_rng((self.seed, sample, 1))
        if self.fim_ids is not None and rng.random() < self.fim:
            turned = fill_in_middle(window, self.fim_ids, rng)
            return turned[:-1], turned[1:]  # whole: repeats or cuts in it would part its marks from what they mark
        rng = np.random.default_rng((self.seed, sample, 2))
        chosen = rng.random()
        if chosen < self.stutter:
            return stutter(window, self.line_ends, rng)
        if self.tokenizer is not None and chosen < self.stutter + self.seams:
            return seams(window, self.tokenizer, self.line_ends, rng)
        return window[:-1], window[1:]


def scorable(tokens: NDArray[Any]) -> NDArray[Any]:
    """`tokens`. Raises LoadError where they are too few to predict one of them."""
    if len(tokens) < 2:
        raise LoadError(f"a part of {len(tokens)} token has none to predict; a larger --val-share keeps more")
    return tokens


def consecutive(tokens: NDArray[Any], context: int, size: int, limit: int = 0) -> Iterator[Batch]:
    """A part once, in order, `size` windows at a time: the first `limit` windows, or (0) all and the shorter rest.

    A part shorter than one window is all rest. Raises LoadError for less than two tokens.
    """
    full = (len(scorable(tokens)) - 1) // context
    taken = min(full, limit) if limit else full
    for i in range(0, taken, size):
        rows = range(i, min(i + size, taken))
        windows = np.stack([np.asarray(tokens[r * context : (r + 1) * context + 1], np.int64) for r in rows])
        yield windows[:, :-1], windows[:, 1:]
    rest = np.asarray(tokens[full * context :], np.int64)[None]
    if rest.shape[1] > 1 and (not limit or not full):
        yield rest[:, :-1], rest[:, 1:]
