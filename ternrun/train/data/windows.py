"""Training windows over a token file, in a shuffled order that depends on the seed and the sample number only.

The position in the data is therefore one integer. A resumed run, or one on several ranks, sees exactly the samples of
an uninterrupted run on one machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import LoadError
from ternrun.train.data.augmentation import Augmentation, Batch


class Windows:
    """Windows of `context` + 1 tokens. Each epoch visits all of them once, in a new order and from a new offset.

    Raises LoadError if there are too few tokens for one window.
    """

    def __init__(self, tokens: NDArray[Any], context: int, seed: int, augmentation: Augmentation | None = None) -> None:
        if len(tokens) < context + 1:
            raise LoadError(f"{len(tokens)} tokens are too few for one window of {context} + 1")
        self.tokens, self.context, self.seed = tokens, context, seed
        self.augmentation = augmentation or Augmentation()
        self.per_epoch = max(1, (len(tokens) - 1) // context - 1)
        self._epoch, self._order, self._offset = -1, np.zeros(0, np.int64), 0

    def window(self, sample: int) -> NDArray[np.int64]:
        """Tokens (context + 1,) of sample number `sample`, counted over all epochs."""
        epoch, place = divmod(sample, self.per_epoch)
        if epoch != self._epoch:
            rng = np.random.default_rng((self.seed, epoch))
            self._order = rng.permutation(self.per_epoch)
            spare = len(self.tokens) - 1 - self.per_epoch * self.context
            self._epoch, self._offset = epoch, int(rng.integers(0, min(spare, self.context) + 1))
        start = self._offset + int(self._order[place]) * self.context
        return np.asarray(self.tokens[start : start + self.context + 1], np.int64)

    def example(self, sample: int) -> Batch:
        """Inputs and targets (context,) of a sample, after augmentation."""
        return self.augmentation.apply(self.window(sample), self.seed, sample)


def check_scorable(tokens: NDArray[Any]) -> NDArray[Any]:
    """`tokens`. Raises LoadError if there are too few to predict one of them."""
    if len(tokens) < 2:
        raise LoadError(f"a part of {len(tokens)} token has none to predict; a larger --val-share keeps more")
    return tokens


def consecutive(tokens: NDArray[Any], context: int, size: int, limit: int = 0) -> Iterator[Batch]:
    """Batches of up to `size` windows that cover a part once, in order; each is inputs and targets (n, context).

    `limit` stops after that many windows; 0 reads everything, the shorter last window included. A part shorter than
    one window is one shorter window. Raises LoadError for fewer than two tokens.
    """
    full = (len(check_scorable(tokens)) - 1) // context
    count = min(full, limit) if limit else full
    for i in range(0, count, size):
        rows = range(i, min(i + size, count))
        windows = np.stack([np.asarray(tokens[r * context : (r + 1) * context + 1], np.int64) for r in rows])
        yield windows[:, :-1], windows[:, 1:]
    rest = np.asarray(tokens[full * context :], np.int64)[None]
    if rest.shape[1] > 1 and (not limit or not full):
        yield rest[:, :-1], rest[:, 1:]
