"""Mirostat (arXiv 2007.14966), versions 1 and 2: keeps the surprise of drawn tokens near a target."""

from __future__ import annotations

import math

import numpy as np

from ternrun.runtime.config import SamplingParams
from ternrun.runtime.sampling.filters import Candidates, top_k
from ternrun.runtime.sampling.logprobs import exp_above, log_sum_exp, top_ids

LIKELIEST = 100  # tokens whose probabilities version 1 measures the distribution by


class Mirostat:
    """The state of one sequence: `mu` is the largest surprise in bits that a token may have; draws update it."""

    def __init__(self, params: SamplingParams) -> None:
        self._params = params
        self.mu = 2 * params.mirostat_tau

    def truncated(self, c: Candidates) -> Candidates:
        """The candidates that may be drawn."""
        return self._likeliest(c) if self._params.mirostat == 1 else self._expected(c)

    def learn(self, probability: float) -> None:
        """Update `mu` after a token of this probability among the remaining candidates was drawn."""
        self.mu -= self._params.mirostat_eta * (-math.log2(probability) - self._params.mirostat_tau)

    def _expected(self, c: Candidates) -> Candidates:
        """Version 2: candidates of at most `mu` bits of surprise, at least one."""
        p = exp_above(c.logits, log_sum_exp(c.logits))
        kept = p >= 2.0 ** -min(max(self.mu, -1000.0), 1000.0)
        return c.keep(kept) if kept.any() else top_k(c, 1)

    def _likeliest(self, c: Candidates) -> Candidates:
        """Version 1: the k likeliest, with k from the exponent of the Zipf distribution that fits them."""
        best = c.logits[top_ids(c.logits, LIKELIEST)].astype(np.float64)
        best = best[best > -math.inf]
        ranks = np.arange(1, best.size + 1)
        steps = np.log(ranks[1:] / ranks[:-1])
        square = (steps * steps).sum()
        exponent = float((steps * (best[:-1] - best[1:])).sum() / square) if square else 0.0
        count = self._count(exponent, c.ids.size)
        return c if count >= c.ids.size else top_k(c, count)

    def _count(self, exponent: float, size: int) -> int:
        """How many of `size` tokens have at most `mu` bits of surprise if probabilities fall as rank ** -exponent."""
        if exponent <= 0:
            return size
        over = exponent - 1
        mass = -math.expm1(-over * math.log(size)) / over if over else math.log(size)
        count = (self.mu * math.log(2) - math.log(mass)) / exponent if mass else math.inf
        return size if count >= math.log(size) else max(1, int(math.exp(count)))
