"""The candidates of a draw, and the filters that remove some. No function changes its arguments."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ternrun.runtime.sampling.logprobs import exp_above, log_sum_exp, top_ids

Logits = NDArray[np.floating[Any]]


class Candidates(NamedTuple):
    """Tokens that may be drawn, with their logits."""

    ids: NDArray[Any]  # (n,)
    logits: Logits  # (n,)
    whole: bool = False  # ids are those of the vocabulary, in order

    def keep(self, chosen: NDArray[Any]) -> Candidates:
        """The candidates at the given indices, or where the given mask is true."""
        return Candidates(self.ids[chosen], self.logits[chosen])

    def find(self, tokens: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The indices of candidates among `tokens` (m,), and a mask (m,) of the tokens that are candidates."""
        if self.whole:
            return tokens, np.ones(tokens.size, np.bool_)
        order = np.argsort(self.ids, kind="stable")
        at = np.searchsorted(self.ids, tokens, sorter=order)
        at = order[np.minimum(at, order.size - 1)]
        there = self.ids[at] == tokens
        return at[there], there


def all_of(logits: Logits) -> Candidates:
    """All tokens of the vocabulary as candidates: logits (vocab_size,)."""
    return Candidates(_vocabulary(logits.size), logits, whole=True)


@lru_cache(4)
def _vocabulary(size: int) -> NDArray[np.int64]:
    ids = np.arange(size)
    ids.flags.writeable = False
    return ids


def top_k(c: Candidates, k: int) -> Candidates:
    """The k likeliest candidates."""
    return c.keep(top_ids(c.logits, k))


def top_n_sigma(c: Candidates, n: float) -> Candidates:
    """Candidates whose logit is within n standard deviations of the largest (arXiv 2411.07641), without bans."""
    logits = c.logits[c.logits > -math.inf].astype(np.float64)
    return c.keep(c.logits >= logits.max() - n * logits.std())


def typical(c: Candidates, mass: float, least: int = 0) -> Candidates:
    """The smallest set around the expected information that holds `mass` (locally typical, arXiv 2202.00666)."""
    information = -c.logits.astype(np.float64)
    information += log_sum_exp(c.logits)
    p = np.exp(-information)
    expected = np.minimum(information, 1e4)  # a token that cannot be carries none: 0 * inf is not 0
    expected *= p
    information -= expected.sum()
    return c.keep(nucleus(-np.abs(information), p, mass, least))


def top_p(c: Candidates, mass: float, least: int = 0) -> Candidates:
    """The smallest set of the likeliest candidates that holds `mass` (nucleus sampling, arXiv 1904.09751)."""
    return c.keep(nucleus(c.logits, exp_above(c.logits, log_sum_exp(c.logits)), mass, least))


def min_p(c: Candidates, ratio: float, least: int = 0) -> Candidates:
    """Candidates that are at least `ratio` times as likely as the likeliest (arXiv 2407.01082)."""
    kept = c.keep(c.logits >= c.logits.max() + np.float32(math.log(ratio)))
    return kept if kept.ids.size >= least else top_k(c, least)


def xtc(c: Candidates, threshold: float, least: int = 0) -> Candidates:
    """Drops the likeliest candidates: of those at least as probable as `threshold`, the least probable stays (XTC).

    Nothing is dropped if fewer than `least` candidates would remain.
    """
    above = np.flatnonzero(exp_above(c.logits, log_sum_exp(c.logits)) >= threshold)
    if above.size < 2 or c.ids.size - above.size + 1 < least:
        return c
    kept = np.ones(c.ids.size, np.bool_)
    kept[above[top_ids(c.logits[above], above.size)[:-1]]] = False
    return c.keep(kept)


def nucleus(score: NDArray[Any], p: NDArray[np.float64], mass: float, least: int = 0) -> NDArray[np.int64]:
    """Indices of the fewest best candidates whose probabilities reach `mass`, at least `least` of them, best first."""
    k = max(64, least)
    while True:
        best = top_ids(score, min(k, score.size))
        reached = np.cumsum(p[best])
        if reached[-1] >= mass or k >= score.size:
            return best[: max(int(np.searchsorted(reached, mass)) + 1, least)]
        k *= 8
