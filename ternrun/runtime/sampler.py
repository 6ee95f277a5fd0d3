"""From one row of logits to one token id: composed pure functions, none of which changes what it is given.

The order is llama.cpp's default: logit bias (and which tokens are allowed), penalties, top-k, typical-p, top-p, min-p,
temperature, draw. So top-p, typical-p and min-p look at the distribution before temperature. Temperature 0 is the
argmax after bias and penalties.

The draw at a position depends on the seed and the position alone, never on what else is in the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import UsageError
from ternrun.runtime.backend import Row
from ternrun.runtime.config import SamplingParams
from ternrun.runtime.logprobs import (
    Logprob,
    TokenLogprobs,
    exp_above,
    finite_max,
    log_sum_exp,
    token_logprobs,
    top_ids,
)

Logits = NDArray[np.float32]


class Candidates(NamedTuple):
    """Tokens that may still be drawn."""

    ids: NDArray[Any]  # (n,)
    logits: Logits  # (n,)

    def keep(self, chosen: NDArray[Any]) -> Candidates:
        """Those at the given indices, or where the given mask is true."""
        return Candidates(self.ids[chosen], self.logits[chosen])


class Bias(NamedTuple):
    """What is added to some logits; -inf bans a token."""

    ids: NDArray[np.int64]  # (n,), each once
    values: Logits  # (n,)


def bias_of(params: SamplingParams, eos_ids: frozenset[int]) -> Bias | None:
    """The request's logit bias; `ignore_eos` bans the end tokens, as in llama.cpp. None where nothing is biased."""
    table = dict(params.logit_bias) | (dict.fromkeys(eos_ids, -math.inf) if params.ignore_eos else {})
    if not table:
        return None
    with np.errstate(over="ignore"):  # what is below all float32 is as good as a ban
        return Bias(np.array(list(table), np.int64), np.array(list(table.values()), np.float32))


def logits_needed(params: SamplingParams, bias: Bias | None, *, constrained: bool = False) -> int:
    """How many of the largest logits decide the next token; 0: all of them may.

    A penalty or a ban can only push a token down, so as many more are enough to fill their places.
    """
    kept = 1 if params.temperature == 0 else params.top_k
    raising = params.repeat_penalty < 1 or params.presence_penalty < 0 or params.frequency_penalty < 0
    if not kept or constrained or params.logprobs is not None or raising:
        return 0
    if bias is not None:
        if bias.values.max() > 0:
            return 0
        kept += bias.ids.size
    if not _penalized(params):
        return kept
    return kept + params.repeat_last_n if params.repeat_last_n >= 0 else 0


def takes_largest(params: SamplingParams, bias: Bias | None, *, constrained: bool = False) -> bool:
    """Whether the next token is that of the largest logit unless `bias` bans it, and nothing else is asked about it."""
    plain = params.temperature == 0 and params.logprobs is None and not _penalized(params) and not constrained
    return plain and (bias is None or bool((bias.values == -math.inf).all()))


def _penalized(params: SamplingParams) -> bool:
    return params.repeat_penalty != 1 or bool(params.presence_penalty or params.frequency_penalty)


def sample(
    row: Row,
    params: SamplingParams,
    history: Sequence[int],
    seed: int,
    bias: Bias | None = None,
    allowed: NDArray[np.bool_] | None = None,
) -> int:
    """The next token id for a row of logits after `history` (prompt and output; its length is the position).

    `allowed` (vocab_size,): no other token is taken. Raises LoadError where the logits are not numbers, UsageError
    where bias and `allowed` leave none.
    """
    row = adjusted(row, params, history, bias, allowed)
    if params.temperature == 0:
        return greedy(row)
    return draw(filtered(row, params), params.temperature, uniform(seed, len(history)))


def sampled_logprobs(
    logits: Logits,
    params: SamplingParams,
    history: Sequence[int],
    token: int,
    bias: Bias | None = None,
    allowed: NDArray[np.bool_] | None = None,
) -> TokenLogprobs:
    """As `token_logprobs`, but of the distribution that `sample` draws `token` from. Raises as `sample` does."""
    if params.temperature == 0:
        return TokenLogprobs(token, 0.0, (Logprob(token, 0.0),) if params.logprobs else ())
    c = filtered(adjusted(logits, params, history, bias, allowed), params)
    x = tempered(c, params.temperature)
    at = int(np.flatnonzero(c.ids == token)[0])
    told = token_logprobs(x, at, params.logprobs or 0)
    return TokenLogprobs(token, told.logprob, tuple(Logprob(int(c.ids[best.id]), best.logprob) for best in told.top))


def adjusted(
    row: Row,
    params: SamplingParams,
    history: Sequence[int],
    bias: Bias | None,
    allowed: NDArray[np.bool_] | None,
) -> Row:
    """The logits after bias, what is allowed, and penalties; the very same row where none of them is asked for."""
    if bias is not None or allowed is not None:
        row = restricted(whole(row), bias, allowed)
    if params.repeat_penalty != 1 or params.presence_penalty or params.frequency_penalty:
        row = penalized(whole(row), history, params)
    return row


def whole(row: Row) -> Logits:
    """All logits of a row (vocab_size,)."""
    return row if isinstance(row, np.ndarray) else row.whole()


def filtered(row: Row, params: SamplingParams) -> Candidates:
    """What the filters leave. Raises LoadError where the logits are not numbers."""
    candidates = Candidates(np.arange(row.size), row) if isinstance(row, np.ndarray) else Candidates(*row.read())
    finite_max(candidates.logits)
    for name, off, keep in FILTERS:
        value = getattr(params, name)
        if value != off:
            candidates = keep(candidates, value)
    return candidates


def restricted(logits: Logits, bias: Bias | None, allowed: NDArray[np.bool_] | None) -> Logits:
    """A copy with the bias added, and -inf where a token is not allowed."""
    out = logits.copy() if allowed is None else np.where(allowed, logits, np.float32(-np.inf))
    if bias is not None:
        out[bias.ids] += bias.values
    if out.max() == -math.inf:
        finite_max(logits)
        who = "the logit bias" if allowed is None else "the grammar, or the logit bias beside it,"
        raise UsageError(f"{who} leaves no token that could be chosen")
    return out


def penalized(logits: Logits, history: Sequence[int], params: SamplingParams) -> Logits:
    """A copy with the tokens of the last `repeat_last_n` made less likely.

    Positive logits are divided by `repeat_penalty` and others multiplied (arXiv 1909.05858, as llama.cpp has it), then
    `presence_penalty` and `frequency_penalty` times the count are taken away (OpenAI's definition, over the window).
    """
    n = params.repeat_last_n
    window = history if n < 0 else history[len(history) - min(n, len(history)) :]
    seen, counts = np.unique(np.array(window, np.int64), return_counts=True)
    out = logits.copy()
    x = out[seen]
    x = np.where(x <= 0, x * np.float32(params.repeat_penalty), x / np.float32(params.repeat_penalty))
    out[seen] = x - (params.frequency_penalty * counts + params.presence_penalty).astype(np.float32)
    return out


def greedy(row: Row) -> int:
    """The likeliest token, the lowest id among equals."""
    if not isinstance(row, np.ndarray):
        if row.best < 0:
            finite_max(row.read()[1])
        return row.best
    best = int(row.argmax())
    if not math.isfinite(row[best]):  # argmax stops at a NaN, so looking at the winner is enough
        finite_max(row[best : best + 1])
    return best


def top_k(c: Candidates, k: int) -> Candidates:
    """The k likeliest."""
    return c.keep(top_ids(c.logits, k))


def typical(c: Candidates, mass: float) -> Candidates:
    """The least set around the expected information that holds `mass` (locally typical sampling, arXiv 2202.00666)."""
    information = -c.logits.astype(np.float64)
    information += log_sum_exp(c.logits)
    p = np.exp(-information)
    expected = np.minimum(information, 1e4)  # a token that cannot be carries none: 0 * inf is not 0
    expected *= p
    information -= expected.sum()
    return c.keep(nucleus(-np.abs(information), p, mass))


def top_p(c: Candidates, mass: float) -> Candidates:
    """The least set of the likeliest that holds `mass` (nucleus sampling, arXiv 1904.09751)."""
    return c.keep(nucleus(c.logits, exp_above(c.logits, log_sum_exp(c.logits)), mass))


def min_p(c: Candidates, ratio: float) -> Candidates:
    """Those at least `ratio` times as likely as the likeliest (arXiv 2407.01082)."""
    return c.keep(c.logits >= c.logits.max() + np.float32(math.log(ratio)))


def nucleus(score: NDArray[Any], p: NDArray[np.float64], mass: float) -> NDArray[np.int64]:
    """Indices of the fewest of highest score whose probabilities reach `mass`, at least one; highest score first."""
    k = 64
    while True:
        best = top_ids(score, min(k, score.size))
        reached = np.cumsum(p[best])
        if reached[-1] >= mass or k >= score.size:
            return best[: int(np.searchsorted(reached, mass)) + 1]
        k *= 8


def draw(c: Candidates, temperature: float, u: float) -> int:
    """The candidate at fraction `u` of the cumulative distribution at this temperature."""
    x = tempered(c, temperature)
    reached = np.exp(x, out=x).cumsum(out=x)
    at = int(np.searchsorted(reached, u * reached[-1], side="right"))
    return int(c.ids[min(at, c.ids.size - 1)])


def tempered(c: Candidates, temperature: float) -> NDArray[np.float64]:
    """Logits at this temperature, less the largest. In float64: as a float32 the temperature itself may be 0."""
    x = c.logits.astype(np.float64)
    x -= x.max()
    with np.errstate(over="ignore"):  # a tiny temperature sends all but the best to -inf, which is right
        x /= temperature
    return x


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) for this seed and position (Philox4x64, Salmon et al. 2011, keyed by the two)."""
    key = np.array([seed, position], np.uint64)
    return float(np.random.Generator(np.random.Philox(key=key)).random())


Filter = Callable[[Candidates, Any], Candidates]
FILTERS: tuple[tuple[str, float, Filter], ...] = (  # parameter, value that turns it off, function; applied in order
    ("top_k", 0, top_k),
    ("typical_p", 1, typical),
    ("top_p", 1, top_p),
    ("min_p", 0, min_p),
)
