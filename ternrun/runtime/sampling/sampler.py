"""Turns one row of logits into one token id, by composed pure functions.

The order is llama.cpp's default: logit bias and allowed tokens, penalties, DRY, top-n-sigma, top-k, typical-p, top-p,
min-p, XTC, temperature, draw. The filters therefore see the distribution before temperature. `samplers` gives another
order. Mirostat replaces every step except bias and temperature. Temperature 0 takes the likeliest token that XTC
leaves.

A draw depends on the seed and the position alone (with mirostat also on earlier draws), never on the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import UsageError
from ternrun.runtime.backend.protocol import LogitsRow
from ternrun.runtime.config import SAMPLERS, SamplingParams
from ternrun.runtime.sampling.filters import Candidates, all_of, min_p, top_k, top_n_sigma, top_p, typical, xtc
from ternrun.runtime.sampling.logprobs import Logprob, TokenLogprobs, finite_max, log_sum_exp, token_logprobs
from ternrun.runtime.sampling.mirostat import Mirostat
from ternrun.runtime.sampling.penalties import NO_BREAKERS, Breakers, dried, dries, penalized, penalizes

Logits = NDArray[np.float32]


class Bias(NamedTuple):
    """Values added to some logits; -inf bans a token."""

    ids: NDArray[np.int64]  # (n,), each once
    values: Logits  # (n,)


class Draw(NamedTuple):
    """What a draw depends on beside the logits."""

    params: SamplingParams
    history: Sequence[int]  # prompt and output; its length is the position
    seed: int
    bias: Bias | None = None
    allowed: NDArray[np.bool_] | None = None  # (vocab_size,): no other token is taken
    breakers: Breakers = NO_BREAKERS
    mirostat: Mirostat | None = None  # it changes with every draw


def bias_of(params: SamplingParams, eos_ids: frozenset[int], *, early: bool = False) -> Bias | None:
    """The request's logit bias, or None. `ignore_eos` bans the end tokens, as in llama.cpp.

    `early`: the bias of a text with fewer than `min_tokens` tokens, which bans everything that would end it.
    """
    banned = eos_ids if params.ignore_eos or early else frozenset[int]()
    table = dict(params.logit_bias) | dict.fromkeys(banned, -math.inf)
    if early:
        table |= dict.fromkeys(params.stop_ids, -math.inf)
    if not table:
        return None
    with np.errstate(over="ignore"):  # what is below all float32 is as good as a ban
        return Bias(np.array(list(table), np.int64), np.array(list(table.values()), np.float32))


def mask_of(params: SamplingParams, vocab_size: int) -> NDArray[np.bool_] | None:
    """The mask (vocab_size,) of `allowed_token_ids`; None if all tokens are allowed."""
    if not params.allowed_token_ids:
        return None
    mask = np.zeros(vocab_size, np.bool_)
    mask[list(params.allowed_token_ids)] = True
    return mask


def logits_needed(params: SamplingParams, bias: Bias | None, *, constrained: bool = False) -> int:
    """How many of the largest logits can decide the next token; 0 means all.

    A penalty or ban only lowers a logit, so each of them adds one to the count.
    """
    kept = 1 if takes_best(params) else params.top_k
    raising = params.repeat_penalty < 1 or params.presence_penalty < 0 or params.frequency_penalty < 0
    another = params.samplers or params.mirostat or params.top_n_sigma > 0 or dries(params)
    if not kept or constrained or params.logprobs is not None or raising or another:
        return 0
    if bias is not None:
        if bias.values.max() > 0:
            return 0
        kept += bias.ids.size
    if not penalizes(params):
        return kept
    return kept + params.repeat_last_n if params.repeat_last_n >= 0 else 0


def takes_largest(params: SamplingParams, bias: Bias | None, *, constrained: bool = False) -> bool:
    """Whether the next token is that of the largest logit that `bias` does not ban, with no other output."""
    plain = takes_best(params) and params.logprobs is None and not (penalizes(params) or dries(params) or constrained)
    return plain and (bias is None or bool((bias.values == -math.inf).all()))


def takes_best(params: SamplingParams) -> bool:
    """Whether the next token is the likeliest after bias and penalties, without a draw."""
    if params.temperature or params.samplers:
        return False
    return bool(params.mirostat) or not (params.dynatemp_range or drops_best(params))


def drops_best(params: SamplingParams) -> bool:
    """Whether XTC is on."""
    return params.xtc_probability > 0 and params.xtc_threshold <= 0.5


def sample(
    row: LogitsRow,
    params: SamplingParams,
    history: Sequence[int],
    seed: int,
    bias: Bias | None = None,
    allowed: NDArray[np.bool_] | None = None,
    breakers: Breakers = NO_BREAKERS,
    mirostat: Mirostat | None = None,
) -> int:
    """The next token id for a row of logits; see `Draw`.

    Raises LoadError if logits are not finite, UsageError if bias and `allowed` leave no token.
    """
    best = takes_best(params)
    if best and bias is None and allowed is None and _unpenalized(params):
        return greedy(row)  # the usual case, in as little time as it takes
    how = Draw(params, history, seed, bias, allowed, breakers, mirostat)
    if best:
        return _best(row, how)
    c, at = _drawn(row, how)
    return int(c.ids[at])


def sampled(
    row: LogitsRow,
    params: SamplingParams,
    history: Sequence[int],
    seed: int,
    bias: Bias | None = None,
    allowed: NDArray[np.bool_] | None = None,
    breakers: Breakers = NO_BREAKERS,
    mirostat: Mirostat | None = None,
) -> TokenLogprobs:
    """As `sample`, with the log-probabilities of the distribution that the token is drawn from."""
    how, top = Draw(params, history, seed, bias, allowed, breakers, mirostat), params.logprobs or 0
    if takes_best(params):
        c, at = Candidates(np.array([_best(row, how)]), np.zeros(1, np.float32)), 0
    else:
        c, at = _drawn(row, how)
    told = token_logprobs(c.logits, at, top)
    return TokenLogprobs(
        int(c.ids[at]), told.logprob, tuple(Logprob(int(c.ids[best.id]), best.logprob) for best in told.top)
    )


def _unpenalized(params: SamplingParams) -> bool:
    """Whether no penalty applies. Mirostat replaces the penalties."""
    return bool(params.mirostat) or not (penalizes(params) or dries(params))


def _best(row: LogitsRow, how: Draw) -> int:
    row = _restricted(row, how)
    if _unpenalized(how.params):
        return greedy(row)
    c = _candidates(row)
    for name in ("penalties", "dry"):
        if STEPS[name].on(how.params):
            c = STEPS[name].apply(c, how)
    return int(c.ids[greedy(c.logits)])


def _drawn(row: LogitsRow, how: Draw) -> tuple[Candidates, int]:
    """The candidates at their temperature, and the index of the drawn one."""
    c, params = _candidates(_restricted(row, how)), how.params
    finite_max(c.logits)
    for name in _order(params):
        step = STEPS[name]
        if step.on(params):
            c = step.apply(c, how)
    if how.mirostat is None:
        return c, draw(c, uniform(how.seed, len(how.history)))
    c = how.mirostat.truncated(c)
    at = draw(c, uniform(how.seed, len(how.history)))
    how.mirostat.learn(math.exp(float(c.logits[at]) - log_sum_exp(c.logits)))
    return c, at


def _order(params: SamplingParams) -> Sequence[str]:
    if params.mirostat:
        return ("temperature",)
    return [SAMPLERS[name] for name in params.samplers] if params.samplers else ORDER


def full_logits(row: LogitsRow) -> Logits:
    """All logits of a row (vocab_size,)."""
    return row if isinstance(row, np.ndarray) else row.full_logits()


def _candidates(row: LogitsRow) -> Candidates:
    return all_of(row) if isinstance(row, np.ndarray) else Candidates(*row.read())


def _restricted(row: LogitsRow, how: Draw) -> LogitsRow:
    """A copy with the bias added and -inf for tokens that are not allowed; the row itself if neither applies."""
    bias, allowed = how.bias, how.allowed
    if bias is None and allowed is None:
        return row
    logits = full_logits(row)
    out = logits.copy() if allowed is None else np.where(allowed, logits, np.float32(-np.inf))
    if bias is not None:
        out[bias.ids] += bias.values
    if out.max() == -math.inf:
        finite_max(logits)
        who = "the logit bias" if allowed is None else "what is allowed, or the logit bias beside it,"
        raise UsageError(f"{who} leaves no token that could be chosen")
    return out


def greedy(row: LogitsRow) -> int:
    """The likeliest token; the lowest id among equals."""
    if not isinstance(row, np.ndarray):
        if row.best < 0:
            finite_max(row.read()[1])
        return row.best
    best = int(row.argmax())
    if not math.isfinite(row[best]):  # argmax stops at a NaN, so looking at the winner is enough
        finite_max(row[best : best + 1])
    return best


def draw(c: Candidates, u: float) -> int:
    """The index of the candidate at fraction `u` of the cumulative distribution."""
    x = np.subtract(c.logits, c.logits.max(), dtype=np.float64)
    reached = np.exp(x, out=x).cumsum(out=x)
    at = int(np.searchsorted(reached, u * reached[-1], side="right"))
    return min(at, c.ids.size - 1)


def tempered(c: Candidates, temperature: float) -> Candidates:
    """Logits divided by the temperature, minus the largest; at 0 the likeliest alone.

    Computed in float64, because a small temperature is 0 in float32.
    """
    if not temperature:
        return c.keep(np.array([greedy(c.logits)]))
    x = np.subtract(c.logits, c.logits.max(), dtype=np.float64)
    with np.errstate(over="ignore"):  # a tiny temperature sends all but the best to -inf, which is right
        x /= temperature
    return c._replace(logits=x)


def entropic(c: Candidates, params: SamplingParams) -> float:
    """The temperature between `temperature` - and + `dynatemp_range` for the entropy of this distribution.

    A uniform distribution gets the highest temperature (llama.cpp's dynamic temperature).
    """
    if c.ids.size < 2:
        return params.temperature
    norm = log_sum_exp(c.logits)
    p = np.exp(c.logits - norm)
    there = p > 0
    entropy = max(0.0, float((p[there] * (norm - c.logits[there])).sum())) / math.log(c.ids.size)
    low = max(0.0, params.temperature - params.dynatemp_range)
    high = params.temperature + params.dynatemp_range
    return float(low + (high - low) * min(entropy, 1.0) ** params.dynatemp_exponent)


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) for this seed and position (Philox4x64, Salmon et al. 2011)."""
    return float(_generator(seed, position).random())


def chance(seed: int, position: int) -> float:
    """As `uniform`, but independent of it: decides whether XTC applies."""
    return float(_generator(seed, position).random(2)[1])


def _generator(seed: int, position: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([seed, position], np.uint64)))


class Step(NamedTuple):
    """One of the steps that `samplers` names."""

    on: Callable[[SamplingParams], bool]
    apply: Callable[[Candidates, Draw], Candidates]


def _xtc(c: Candidates, how: Draw) -> Candidates:
    p = how.params
    comes = chance(how.seed, len(how.history)) < p.xtc_probability
    return xtc(c, p.xtc_threshold, p.min_keep) if comes else c


def _temperature(c: Candidates, how: Draw) -> Candidates:
    p = how.params
    return tempered(c, entropic(c, p) if p.dynatemp_range and not p.mirostat else p.temperature)


STEPS = {  # in the order in which they are applied where `samplers` does not say
    "penalties": Step(penalizes, lambda c, how: penalized(c, how.history, how.params)),
    "dry": Step(dries, lambda c, how: dried(c, how.history, how.params, how.breakers)),
    "top_n_sigma": Step(lambda p: p.top_n_sigma > 0, lambda c, how: top_n_sigma(c, how.params.top_n_sigma)),
    "top_k": Step(lambda p: p.top_k > 0, lambda c, how: top_k(c, how.params.top_k)),
    "typical_p": Step(lambda p: p.typical_p < 1, lambda c, how: typical(c, how.params.typical_p, how.params.min_keep)),
    "top_p": Step(lambda p: p.top_p < 1, lambda c, how: top_p(c, how.params.top_p, how.params.min_keep)),
    "min_p": Step(lambda p: p.min_p > 0, lambda c, how: min_p(c, how.params.min_p, how.params.min_keep)),
    "xtc": Step(drops_best, _xtc),
    "temperature": Step(lambda p: True, _temperature),
}
ORDER = tuple(STEPS)
