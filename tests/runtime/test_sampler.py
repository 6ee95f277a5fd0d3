"""Samplers and log-probabilities against plain versions of the same definitions that sort everything."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ternrun.errors import LoadError, UsageError
from ternrun.runtime.config import SamplingParams
from ternrun.runtime.sampling.filters import all_of, min_p, top_k, top_p, typical
from ternrun.runtime.sampling.logprobs import log_sum_exp, token_logprobs, top_ids
from ternrun.runtime.sampling.sampler import Bias, bias_of, draw, logits_needed, sample, sampled, tempered, uniform

VOCAB = 128_256
# few distinct values, so that ties are common
rows = arrays(np.float32, st.integers(1, 90), elements=st.integers(-20, 20).map(lambda i: i / 4))
BIASES = ((2, 3.0), (0, -math.inf))
often = settings(max_examples=100, deadline=None, derandomize=True)


def softmax(x: Any) -> Any:
    e = np.exp(np.asarray(x, np.float64) - np.max(x))
    return e / e.sum()


def naive_mass(score: Any, p: Any, mass: float) -> set[int]:
    """Add the best-scored, lowest index first among equals, until `mass` is reached."""
    kept: list[int] = []
    total = 0.0
    for i in sorted(range(len(p)), key=lambda i: (-score[i], i)):
        kept.append(i)
        total += p[i]
        if total >= mass:
            break
    return set(kept)


class Largest:
    """A `protocol.SparseLogits` of the largest of some logits."""

    def __init__(self, x: Any, kept: int) -> None:
        self._x, self._ids = x, np.sort(np.argsort(-x, kind="stable")[:kept]).astype(np.int32)
        self.best = int(x.argmax()) if np.isfinite(x).all() else -1

    def read(self) -> Any:
        return self._ids, self._x[self._ids]

    def full_logits(self) -> Any:
        return np.where(np.isin(np.arange(self._x.size), self._ids), self._x, np.float32(-np.inf))


@often
@given(x=rows, k=st.integers(1, 320))
def test_top_ids_are_the_head_of_a_stable_sort(x: Any, k: int) -> None:
    assert top_ids(x, k).tolist() == sorted(range(len(x)), key=lambda i: (-x[i], i))[:k]


@pytest.mark.parametrize("k", [1, 5, 40, 1000, 3000, 50_000])
@pytest.mark.parametrize("n", [50_257, VOCAB])
def test_top_ids_of_a_whole_vocabulary(n: int, k: int) -> None:
    x = np.random.default_rng(k).normal(0, 3, n).astype(np.float32).round(2)
    assert top_ids(x, k).tolist() == np.argsort(-x, kind="stable")[:k].tolist()


@often
@given(x=rows, k=st.integers(1, 320))
def test_top_k(x: Any, k: int) -> None:
    assert set(top_k(all_of(x), k).ids.tolist()) == set(sorted(range(len(x)), key=lambda i: (-x[i], i))[:k])


@often
@given(x=rows, mass=st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.99]))
def test_top_p(x: Any, mass: float) -> None:
    assert set(top_p(all_of(x), mass).ids.tolist()) == naive_mass(x, softmax(x), mass)


@often
@given(x=rows, mass=st.sampled_from([0.05, 0.3, 0.73, 0.95]))
def test_typical(x: Any, mass: float) -> None:
    p = softmax(x)
    entropy = -(p * np.log(p)).sum()
    wanted = naive_mass(-np.abs(entropy + np.log(p)).round(9), p, mass)
    got = set(typical(all_of(x), mass).ids.tolist())
    # tokens equally far from the entropy, one likelier and one less, may stand in for each other by a rounding error
    score = np.abs(entropy + np.log(p)).round(6)
    assert sorted(score[list(got)]) == sorted(score[list(wanted)])


@often
@given(x=rows, ratio=st.sampled_from([0.01, 0.05, 0.3, 0.97]))
def test_min_p(x: Any, ratio: float) -> None:
    p = softmax(x)
    assert set(min_p(all_of(x), ratio).ids.tolist()) == {i for i in range(len(x)) if p[i] >= ratio * p.max()}


@often
@given(x=rows, u=st.floats(0, 1, exclude_max=True), temperature=st.sampled_from([0.1, 0.8, 1.0, 3.0]))
def test_draw_walks_the_cumulative_distribution(x: Any, u: float, temperature: float) -> None:
    reached = np.cumsum(softmax(np.asarray(x, np.float64) / temperature))
    i = draw(tempered(all_of(x), temperature), u)
    assert (reached[i - 1] if i else 0) <= u + 1e-12
    assert u - 1e-12 <= reached[i]


def test_draws_follow_the_distribution() -> None:
    x = np.array([2.0, 1.0, 0.0, -1.0, -30.0], np.float32)
    params = SamplingParams(temperature=1.5)
    n = 20_000
    counts = np.bincount([sample(x, params, range(i), 7) for i in range(n)], minlength=5)
    expected = softmax(x / 1.5) * n
    chi2 = ((counts[:4] - expected[:4]) ** 2 / expected[:4]).sum()
    assert chi2 < 16.3  # 0.1% of chances with 3 degrees of freedom
    assert counts[4] == 0


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"top_k": 3},
        {"top_p": 0.7},
        {"min_p": 0.2},
        {"repeat_penalty": 1.5},
        {"logit_bias": ((2, 3.0), (0, -math.inf))},
    ],
)
def test_the_probabilities_that_are_told_are_those_of_the_draws(fields: Any) -> None:
    x = np.array([2.0, 1.0, 0.5, -1.0, -2.0], np.float32)
    params = SamplingParams(temperature=1.5, logprobs=5, **fields)
    bias, n = bias_of(params, frozenset()), 4000
    history = [1, 2]
    drawn = [sample(x, params, history, seed, bias) for seed in range(n)]
    told = sampled(x, params, history, 0, bias)
    assert told.id == drawn[0]
    p = {best.id: math.exp(best.logprob) for best in told.top}
    assert math.exp(told.logprob) == p[drawn[0]]
    assert sum(p.values()) == pytest.approx(1)
    assert list(p.values()) == sorted(p.values(), reverse=True)
    for token in range(5):
        expected = p.get(token, 0)
        assert abs(drawn.count(token) / n - expected) <= 4.5 * math.sqrt(expected * (1 - expected) / n)


def test_the_greedy_choice_is_certain() -> None:
    told = sampled(np.zeros(3, np.float32), SamplingParams(logprobs=2), [], 0)
    assert (told.logprob, [(best.id, best.logprob) for best in told.top]) == (0, [(0, 0)])


def philox(seed: int, position: int) -> float:
    """The first double of Philox4x64-10 (Salmon et al. 2011) with this key; the first block counted is 1."""
    word = 2**64 - 1
    c, (k0, k1) = [1, 0, 0, 0], (seed, position)
    for _ in range(10):
        p0, p1 = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [p1 >> 64 ^ c[1] ^ k0, p1 & word, p0 >> 64 ^ c[3] ^ k1, p0 & word]
        k0, k1 = k0 + 0x9E3779B97F4A7C15 & word, k1 + 0xBB67AE8584CAA73B & word
    return (c[0] >> 11) * 2.0**-53


def test_the_draw_is_fixed_by_seed_and_position_alone() -> None:
    for seed, position in ((0, 0), (0, 1), (1, 0), (12345, 678), (2**64 - 1, 5)):
        assert uniform(seed, position) == philox(seed, position)
    x = np.random.default_rng(0).normal(0, 1, 100).astype(np.float32)
    draws = {(s, n): sample(x, SamplingParams(temperature=1), [0] * n, s) for s in range(20) for n in range(20)}
    again = {(s, n): sample(x, SamplingParams(temperature=1), [5] * n, s) for s in range(20) for n in range(20)}
    assert draws == again
    assert len(set(draws.values())) > 50


def test_filters_come_in_llama_cpp_order_and_temperature_last() -> None:
    x = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    # top-p 0.7 of the untempered distribution keeps two; after a temperature of 100 it would keep three
    drawn = {sample(x, SamplingParams(temperature=100, top_p=0.7), range(i), 1) for i in range(200)}
    assert drawn == {0, 1}
    # after top-k the likeliest has 0.5 / 0.8 = 0.625 of what is left, enough for top-p 0.6; before it, 0.5 is not
    drawn = {sample(x, SamplingParams(temperature=1, top_k=2, top_p=0.6), range(i), 1) for i in range(200)}
    assert drawn == {0}
    drawn = {sample(x, SamplingParams(temperature=1, top_p=0.6), range(i), 1) for i in range(200)}
    assert drawn == {0, 1}


@often
@given(
    x=rows,
    history=st.lists(st.integers(0, 89), max_size=30),
    n=st.sampled_from([-1, 0, 3, 64]),
    repeat=st.sampled_from([1.0, 1.5, 0.7]),
    presence=st.sampled_from([0.0, 0.6, -1.0]),
    frequency=st.sampled_from([0.0, 0.4]),
)
def test_penalties(x: Any, history: list[int], n: int, repeat: float, presence: float, frequency: float) -> None:
    history = [h % len(x) for h in history]
    want = x.astype(np.float64)
    window = history if n == -1 else history[-n:] if n else []
    for token in set(window):
        want[token] = want[token] * repeat if want[token] <= 0 else want[token] / repeat
        want[token] -= presence + frequency * window.count(token)
    before = x.copy()
    params = SamplingParams(
        repeat_penalty=repeat, presence_penalty=presence, frequency_penalty=frequency, repeat_last_n=n
    )
    got = sample(x, params, history, 0)
    assert want[got] == pytest.approx(want.max(), abs=1e-5)
    assert (x == before).all(), "the row belongs to the model"


@settings(often, max_examples=1000)
@given(
    seed=st.integers(0, 2**32 - 1),
    temperature=st.sampled_from([0.0, 2.0]),
    top_k=st.sampled_from([0, 1, 5]),
    n=st.sampled_from([-1, 0, 2, 4]),
    penalties=st.sampled_from(
        [(1.0, 0.0, 0.0), (1.5, 0.0, 0.0), (0.6, 0.0, 0.0), (1.0, 3.0, 0.0), (1.2, 0.0, -2.0), (1.0, -4.0, 0.0)]
    ),
    bias=st.sampled_from([(), ((3, 2.0),)]),
    lowered=st.lists(st.tuples(st.integers(0, 12), st.sampled_from([-math.inf, -1.0, 0.0])), max_size=8),
)
def test_the_logits_that_are_needed_are_enough(
    seed: int, temperature: float, top_k: int, n: int, penalties: tuple[float, float, float], bias: Any,
    lowered: list[tuple[int, float]],
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 2, 60).astype(np.float32)
    bias += tuple((int(np.argsort(-x)[i]), value) for i, value in lowered)
    # penalties are to meet the likeliest, and others, which those that raise bring up
    history = rng.permutation(np.concatenate([np.argsort(-x)[:12], rng.integers(0, 60, 6)])).tolist()
    repeat, presence, frequency = penalties
    params = SamplingParams(
        temperature=temperature, top_k=top_k, repeat_penalty=repeat, presence_penalty=presence,
        frequency_penalty=frequency, repeat_last_n=n, logit_bias=bias,
    )  # fmt: skip
    table = bias_of(params, frozenset())
    needed = logits_needed(params, table)
    masked = x.copy()
    if needed:
        masked[np.argsort(-x)[needed:]] = -np.inf
    wanted = sample(x, params, history, seed, table)
    assert sample(masked, params, history, seed, table) == wanted
    assert sample(Largest(x, needed or 60), params, history, seed, table) == wanted


def test_greedy_and_top_k_need_few_logits_and_log_probabilities_all() -> None:
    assert [logits_needed(params, None) for params in (
        SamplingParams(), SamplingParams(temperature=1, top_k=40), SamplingParams(temperature=1),
        SamplingParams(logprobs=0), SamplingParams(repeat_penalty=1.1, repeat_last_n=64),
    )] == [1, 40, 0, 0, 65]  # fmt: skip
    params = SamplingParams(ignore_eos=True, logit_bias=((7, -2.0),))
    assert logits_needed(params, bias_of(params, frozenset({1, 2}))) == 4


@pytest.mark.parametrize("params", [SamplingParams(), SamplingParams(temperature=1, top_k=2)])
@pytest.mark.parametrize("kept", [0, 4])
def test_kept_logits_that_are_no_numbers_do_not_speak(kept: int, params: SamplingParams) -> None:
    with pytest.raises(LoadError, match="in place of logits"):
        sample(Largest(np.array([0, np.nan, 3, 1], np.float32), kept), params, [], 0)


def test_greedy_takes_the_lowest_id_among_equals() -> None:
    assert sample(np.array([0, 3, 3, 1], np.float32), SamplingParams(), [], 0) == 1


def test_a_bias_adds_and_bans() -> None:
    x = np.array([0, 3, 2, 1], np.float32)
    for params, want in (
        (SamplingParams(logit_bias=((3, 5.0),)), 3),
        (SamplingParams(logit_bias=((1, -math.inf),)), 2),
        (SamplingParams(ignore_eos=True), 2),
        (SamplingParams(ignore_eos=True, logit_bias=((1, 100.0),)), 2),
        (SamplingParams(logit_bias=((1, -math.inf),), temperature=0.01), 2),
    ):
        assert sample(x, params, [], 0, bias_of(params, frozenset({1}))) == want
    assert bias_of(SamplingParams(), frozenset({1})) is None


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-46, 1e-42, 1e-5])
def test_tiny_temperatures_are_greedy(temperature: float) -> None:
    x = np.array([1, 4, 2], np.float32)
    params = SamplingParams(temperature=temperature, logprobs=2, sampled_logprobs=True)
    assert sample(x, params, [1], 3) == 1
    told = sampled(x, params, [1], 3)
    assert (told.logprob, told.top[0].id, told.top[0].logprob) == (0.0, 1, 0.0)
    assert told.top[1].logprob < -1000


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(
    "params", [SamplingParams(), SamplingParams(temperature=1), SamplingParams(temperature=1, top_k=3)]
)
def test_logits_that_are_not_numbers_are_an_error(bad: float, params: SamplingParams) -> None:
    x = np.array([1, bad, 2, 0, 0], np.float32)
    for bias in (None, Bias(np.array([0]), np.array([1], np.float32))):
        with pytest.raises(LoadError, match="in place of logits"):
            sample(x, params, [], 0, bias)
    with pytest.raises(LoadError, match="in place of logits"):
        token_logprobs(x, 0, 1)


def test_a_bias_below_all_floats_is_a_ban() -> None:
    bias = bias_of(SamplingParams(logit_bias=((1, -1e300),)), frozenset())
    assert bias is not None
    assert bias.values.tolist() == [-math.inf]
    assert sample(np.array([1, 4, 2], np.float32), SamplingParams(), [1], 3, bias) == 2


def test_a_bias_that_bans_everything_is_an_error() -> None:
    with pytest.raises(UsageError, match="no token"):
        sample(np.zeros(2, np.float32), SamplingParams(), [], 0, Bias(np.arange(2), np.full(2, -np.inf, np.float32)))


@often
@given(x=rows, data=st.data(), top=st.integers(0, 5))
def test_log_probabilities(x: Any, data: st.DataObject, top: int) -> None:
    token = data.draw(st.integers(0, len(x) - 1))
    entry = token_logprobs(x, token, top)
    want = np.log(softmax(x))
    assert entry.id == token
    assert entry.logprob == pytest.approx(want[token], abs=1e-12)
    order = sorted(range(len(x)), key=lambda i: (-x[i], i))[:top]
    assert [t.id for t in entry.top] == order
    assert [t.logprob for t in entry.top] == pytest.approx(want[order].tolist(), abs=1e-12)


def test_log_sum_exp_survives_large_and_masked_logits() -> None:
    x = np.array([-np.inf, 3e38, 3e38], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert log_sum_exp(x) == pytest.approx(float(np.float32(3e38)) + math.log(2))


def fastest(run: Callable[[], Any]) -> float:
    times = []
    for _ in range(30):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def test_no_step_sorts_the_vocabulary() -> None:
    x = np.random.default_rng(0).normal(0, 3, VOCAB).astype(np.float32)
    one_sort = fastest(lambda: np.sort(x))
    plain = SamplingParams()  # made once a request, not once a step
    greedy = fastest(lambda: sample(x, plain, [1, 2], 0))
    usual = SamplingParams(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)
    filtered = fastest(lambda: sample(x, usual, [1, 2], 0))
    assert greedy < one_sort / 20
    assert filtered < one_sort / 2
