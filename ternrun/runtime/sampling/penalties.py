"""Penalties for tokens that occurred before, and for tokens that continue a repetition (DRY)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ternrun.runtime.config import SamplingParams
from ternrun.runtime.sampling.filters import Candidates

LOG_FLOAT_MAX = 88.7228391  # natural logarithm of the largest float32, as llama.cpp writes it
MOST = 1e30  # a larger penalty would make a logit infinite

Tails = Mapping[int, Any]  # token -> Tails; under END the bits of the texts that end there
END = -1
MAX_TAIL = 20  # tokens after the first of a text


class Breakers(NamedTuple):
    """DRY's sequence breakers as tokens: texts that no repetition crosses.

    `heads`: a token that ends with the beginning of a text -> the bits of what may follow it. `tails`: the tokens of
    all continuations, one below the other.
    """

    single: NDArray[np.bool_] = np.zeros(0, np.bool_)  # (vocab_size,)
    heads: Mapping[int, int] = MappingProxyType({})
    tails: Tails = MappingProxyType({})

    def holds(self, token: int) -> bool:
        """Whether this token contains a whole text."""
        return token < self.single.size and bool(self.single[token])

    def reach(self, latest: Sequence[int]) -> int:
        """The number of latest tokens after the last of these texts; all tokens if there is no text."""
        for i, token in enumerate(latest):
            longest = 0 if self.holds(token) else -1
            bits = self.heads.get(token, 0)
            node, depth = self.tails if bits else None, 0
            while node and depth < i:
                depth += 1
                node = node.get(latest[i - depth])
                if node and node.get(END, 0) & bits:
                    longest = depth
            if longest >= 0:
                return i - longest
        return len(latest)


NO_BREAKERS = Breakers()


def penalizes(params: SamplingParams) -> bool:
    """Whether a penalty changes any logit."""
    return params.repeat_penalty != 1 or bool(params.presence_penalty or params.frequency_penalty)


def penalized(c: Candidates, history: Sequence[int], params: SamplingParams) -> Candidates:
    """Logits with penalties for the tokens of the last `repeat_last_n`.

    Positive logits are divided by `repeat_penalty`, others are multiplied (arXiv 1909.05858, as in llama.cpp). Then
    `presence_penalty` and `frequency_penalty` times the count are subtracted (OpenAI's definition, over the window).
    """
    seen, counts = np.unique(np.array(_last(history, params.repeat_last_n), np.int64), return_counts=True)
    at, there = c.find(seen)
    out = c.logits.copy()
    x = out[at]
    x = np.where(x <= 0, x * np.float32(params.repeat_penalty), x / np.float32(params.repeat_penalty))
    out[at] = x - (params.frequency_penalty * counts[there] + params.presence_penalty).astype(np.float32)
    return c._replace(logits=out)


def dries(params: SamplingParams) -> bool:
    """Whether DRY is on."""
    return params.dry_multiplier > 0 and params.dry_base >= 1 and params.dry_penalty_last_n != 0


def dried(c: Candidates, history: Sequence[int], params: SamplingParams, breakers: Breakers) -> Candidates:
    """Logits with DRY's penalty for tokens that would continue a repetition, as in llama.cpp.

    The penalty is multiplier * base ** (length of the repetition - allowed length).
    """
    lengths = continued(history, params, breakers)
    if not lengths:
        return c
    most = LOG_FLOAT_MAX // math.log(params.dry_base) if params.dry_base > 1.000001 else math.inf
    excess = np.minimum(np.array(list(lengths.values()), np.float64) - params.dry_allowed_length, most)
    penalties = np.minimum(params.dry_multiplier * params.dry_base**excess, MOST)
    at, there = c.find(np.array(list(lengths), np.int64))
    out = c.logits.copy()
    out[at] -= penalties[there].astype(out.dtype)
    return c._replace(logits=out)


def continued(history: Sequence[int], params: SamplingParams, breakers: Breakers) -> dict[int, int]:
    """Tokens that followed earlier occurrences of the text's end -> the length of the longest repetition.

    Only lengths of at least `dry_allowed_length` count. The time is linear in the length of the history.
    """
    latest = list(reversed(_last(history, params.dry_penalty_last_n)))
    if len(latest) <= params.dry_allowed_length:
        return {}
    found = list(_matches(latest))
    reach = breakers.reach(latest[: max((n for _, n in found), default=0) + MAX_TAIL])
    lengths: dict[int, int] = {}
    if params.dry_allowed_length == 0:  # what repeats nothing yet would begin to
        lengths = {token: 0 for token in latest[:-1] if not breakers.holds(token)}
    for at, n in found:
        token, length = latest[at - 1], min(n, reach)
        if length >= params.dry_allowed_length and length > lengths.get(token, -1) and not breakers.holds(token):
            lengths[token] = length
    return lengths


def _last(history: Sequence[int], n: int) -> Sequence[int]:
    return history if n < 0 else history[len(history) - min(n, len(history)) :]


def _matches(latest: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(k, n) for each k > 0 where latest[k : k + n] equals latest[:n], n as large as can be, and not 0.

    This is the Z-algorithm, whose time is linear.
    """
    lengths = [0] * len(latest)
    left = right = 0  # the match that reaches furthest
    at = 0
    for _ in range(latest.count(latest[0]) - 1):
        at = latest.index(latest[0], at + 1)
        n = min(lengths[at - left], right - at) if at < right else 0
        if at + n >= right:
            while at + n < len(latest) and latest[n] == latest[at + n]:
                n += 1
            left, right = at, at + n
        lengths[at] = n
        yield at, n
