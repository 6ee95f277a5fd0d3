"""The augmentations of training windows: which window gets which one depends on the seed and sample number only."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ternrun.errors import LoadError
from ternrun.train.data.fim import fill_in_middle
from ternrun.train.data.repetition import repetition_augment
from ternrun.train.data.token_boundaries import token_boundary_augment

Ids = NDArray[np.int64]
Batch = tuple[Ids, Ids]  # inputs and targets; a target that is not learned is IGNORE_INDEX


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """The shares of windows (0 to 1) with each augmentation, and what it needs to know about the tokenizer.

    Raises LoadError if a share is set and the tokenizer lacks what it needs.
    """

    fim: float = 0.0
    repetition: float = 0.0
    token_boundaries: float = 0.0
    fim_ids: tuple[int, int, int, int] | None = None
    line_ends: Ids = field(default_factory=lambda: np.zeros(0, np.int64))
    tokenizer: Tokenizer | None = None

    def __post_init__(self) -> None:
        if self.fim and self.fim_ids is None:
            raise LoadError("data.fim needs a tokenizer with fill-in-the-middle tokens")
        if self.token_boundaries and self.tokenizer is None:
            raise LoadError("data.seams needs a tokenizer")

    def apply(self, window: Ids, seed: int, sample: int) -> Batch:
        """Inputs and targets (n - 1,) of the window (n,) of a sample."""
        rng = np.random.default_rng((seed, sample, 1))
        if self.fim_ids is not None and rng.random() < self.fim:
            rearranged = fill_in_middle(window, self.fim_ids, rng)
            return rearranged[:-1], rearranged[1:]  # no other augmentation: it could separate the marker tokens
        rng = np.random.default_rng((seed, sample, 2))
        chosen = rng.random()
        if chosen < self.repetition:
            return repetition_augment(window, self.line_ends, rng)
        if self.tokenizer is not None and chosen < self.repetition + self.token_boundaries:
            return token_boundary_augment(window, self.tokenizer, self.line_ends, rng)
        return window[:-1], window[1:]
