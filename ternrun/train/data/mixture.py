"""Windows of several token files in fixed shares: which window of which file is sample n depends on n alone.

So the position in all of them stays one integer, as in one file (`windows.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ternrun.train.data.windows import Batch, Windows


class Mixture:
    """`rest`, and beside it `others`, each with its share of all samples (0 to 1, together less than 1)."""

    def __init__(self, rest: Windows, others: Sequence[tuple[Windows, float]] = ()) -> None:
        self.rest, self.others = rest, others

    def batch(self, first: int, count: int) -> Batch:
        """Inputs and targets (count, context) of samples first .. first + count - 1; a target that is not to be learned
        is `IGNORED`."""
        pairs = (self._pair(sample) for sample in range(first, first + count))
        ids, targets = zip(*pairs, strict=True)
        return np.stack(ids), np.stack(targets)

    def _pair(self, sample: int) -> Batch:
        """The first of `others` takes its share of all samples at even distances, the next its share of those left."""
        left = 1.0
        for windows, share in self.others:
            part = share / left
            before = int(sample * part)
            if int((sample + 1) * part) > before:
                return windows.pair(before)
            sample, left = sample - before, left - share
        return self.rest.pair(sample)
