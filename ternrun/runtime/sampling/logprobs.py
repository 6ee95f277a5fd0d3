"""Log-probabilities of the raw distribution, and the search for the largest logits.

Vocabularies are large (128k) and answers small, so no function here sorts a whole row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import LoadError

GROUP = 64  # elements that stand for one in the first pass of `top_ids`


@dataclass(frozen=True, slots=True)
class Logprob:
    """A token id and its natural-log probability."""

    id: int
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """A token, its natural-log probability, and the likeliest tokens at its position, best first."""

    id: int
    logprob: float
    top: tuple[Logprob, ...] = ()


def top_ids(values: NDArray[Any], k: int) -> NDArray[np.int64]:
    """Indices of the k largest of `values` (n,), best first, the lower index first among equals. No NaN allowed.

    The k-th largest of the maxima of disjoint groups is a floor that at least k elements reach: one pass finds the
    few that do, and only they are sorted.
    """
    n = values.size
    if k >= n:
        return np.argsort(-values, kind="stable")
    groups = n // GROUP
    heads = values[: groups * GROUP].reshape(GROUP, groups).max(axis=0) if k <= groups else values
    floor = np.partition(heads, heads.size - k)[heads.size - k]
    found = np.flatnonzero(values >= floor)
    return found[np.argsort(-values[found], kind="stable")[:k]]


def finite_max(logits: NDArray[np.floating[Any]]) -> float:
    """The largest logit. Raises LoadError if it is not finite, which damaged weights cause."""
    high = float(logits.max(initial=-math.inf))
    if not math.isfinite(high):
        raise LoadError(f"the model computed {high} in place of logits: its weights are damaged, or overflow")
    return high


def log_sum_exp(logits: NDArray[np.floating[Any]]) -> float:
    """log(sum(exp(logits))) in float64."""
    high = finite_max(logits)
    return high + math.log(exp_above(logits, high).sum())


def exp_above(logits: NDArray[np.floating[Any]], shift: float) -> NDArray[np.float64]:
    """exp(logits - shift) in float64, in place, because another megabyte of scratch costs more than the exp."""
    x = logits.astype(np.float64)
    x -= shift
    return np.exp(x, out=x)


def token_logprobs(logits: NDArray[np.floating[Any]], token: int, top: int) -> TokenLogprobs:
    """The log-softmax of logits (vocab_size,) at `token` and at the `top` likeliest ids."""
    norm = log_sum_exp(logits)
    best = top_ids(logits, min(top, logits.size)) if top else ()
    return TokenLogprobs(
        token, float(logits[token]) - norm, tuple(Logprob(int(i), float(logits[i]) - norm) for i in best)
    )
