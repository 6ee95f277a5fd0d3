"""Windows of several token files in fixed shares. Which window is sample n depends on n only, as for one file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ternrun.train.data.augmentation import Batch
from ternrun.train.data.windows import Windows


class Mixture:
    """The windows `others`, each with its share of all samples (together less than 1), and `rest` for all others."""

    def __init__(self, rest: Windows, others: Sequence[tuple[Windows, float]] = ()) -> None:
        self.rest, self.others = rest, others

    def batch(self, first: int, count: int) -> Batch:
        """Inputs and targets (count, context) of samples first .. first + count - 1."""
        examples = (self._example(sample) for sample in range(first, first + count))
        ids, targets = zip(*examples, strict=True)
        return np.stack(ids), np.stack(targets)

    def _example(self, sample: int) -> Batch:
        """Example number `sample`: each of `others` takes its share of the remaining samples at even distances."""
        left = 1.0
        for windows, share in self.others:
            part = share / left
            before = int(sample * part)
            if int((sample + 1) * part) > before:
                return windows.example(before)
            sample, left = sample - before, left - share
        return self.rest.example(sample)
