"""The steps of sampling: against llama.cpp's own (tests/oracle/samplers.py), and in what they do to draws."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ternrun.errors import ConfigError
from ternrun.runtime.config import SamplingParams
from ternrun.runtime.sampling.filters import Candidates, all_of
from ternrun.runtime.sampling.mirostat import Mirostat
from ternrun.runtime.sampling.sampler import ORDER, STEPS, Draw, chance, mask_of, sample, sampled, uniform

LLAMA = json.loads((Path(__file__).parent.parent / "data/llama_samplers.json").read_text())


def ids(c: Candidates) -> set[int]:
    return {int(i) for i, x in zip(c.ids, c.logits, strict=True) if x > -math.inf}


@pytest.mark.parametrize("step", sorted({case["step"] for case in LLAMA["steps"]}))
def test_steps_leave_what_llama_cpp_s_leave(step: str) -> None:
    cases = [case for case in LLAMA["steps"] if case["step"] == step]
    assert len(cases) >= 10
    changed = 0
    for case in cases:
        logits, want = np.array(case["logits"], np.float32), {int(i): x for i, x in case["left"].items()}
        how = Draw(SamplingParams(**case["fields"]), case["history"], 0)
        got = STEPS[step].apply(all_of(logits), how)
        assert ids(got) == set(want), case
        # at a temperature, ours are less the largest
        best = max(want.values()) - float(got.logits.max()) if step == "temperature" else 0.0
        for i, x in zip(got.ids, got.logits, strict=True):
            if x > -math.inf:
                assert float(x) + best == pytest.approx(want[int(i)], rel=1e-3, abs=2e-3)
        changed += want != dict(enumerate(case["logits"]))
    assert changed >= 5


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_keeps_what_llama_cpp_s_keeps_and_learns_the_same(version: int) -> None:
    cases = [case for case in LLAMA["mirostat"] if case["fields"]["mirostat"] == version]
    sizes = set()
    for case in cases:
        mirostat = Mirostat(SamplingParams(**case["fields"]))
        for row in case["rows"]:
            kept = mirostat.truncated(all_of(np.array(row["logits"], np.float32)))
            assert ids(kept) == set(row["left"])
            p = np.exp(kept.logits.astype(np.float64))
            mirostat.learn(float(p[kept.ids == row["chosen"]][0] / p.sum()))
            sizes.add(len(kept.ids))
    assert len(sizes) > 5


def test_mirostat_holds_its_target() -> None:
    rng = np.random.default_rng(1)
    for version in (1, 2):
        params = SamplingParams(temperature=1, mirostat=version, mirostat_tau=3.0)
        mirostat, surprises = Mirostat(params), []
        for at in range(600):
            x = -1.1 * np.log(np.arange(1, 2001)) + rng.normal(0, 0.1, 2000)  # Zipf's distribution
            told = sampled(x.astype(np.float32), params, range(at), 5, mirostat=mirostat)
            surprises.append(-told.logprob / math.log(2))
        assert np.mean(surprises[100:]) == pytest.approx(3.0, abs=0.25)


@pytest.mark.parametrize("logits", [[0.0], [0.0, 0.0], [5.0] * 40, [0.0, -math.inf], [1000.0, -1000.0], [0.0, -1e-9]])
@pytest.mark.parametrize("fields", [{"mirostat_tau": 0.0}, {"mirostat_tau": 100.0, "mirostat_eta": 100.0}, {}])
@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_survives_any_distribution(version: int, fields: Any, logits: list[float]) -> None:
    params = SamplingParams(temperature=0.7, mirostat=version, **fields)
    mirostat = Mirostat(params)
    for at in range(30):
        token = sample(np.array(logits, np.float32), params, range(at), 2, mirostat=mirostat)
        assert logits[token] > -math.inf
        assert math.isfinite(mirostat.mu)


def test_xtc_comes_as_often_as_it_is_asked_to_and_draws_from_what_it_leaves() -> None:
    x = np.log(np.array([0.4, 0.3, 0.2, 0.1], np.float32))
    n = 4000
    for probability in (0.0, 0.3, 1.0):
        params = SamplingParams(temperature=1, xtc_probability=probability, xtc_threshold=0.15)
        drawn = np.bincount([sample(x, params, range(at), 9) for at in range(n)], minlength=4) / n
        # 0.4, 0.3 and 0.2 are above the threshold: XTC drops the first two, and 0.2 and 0.1 share what there is
        want = (1 - probability) * np.array([0.4, 0.3, 0.2, 0.1]) + probability * np.array([0, 0, 2 / 3, 1 / 3])
        assert np.abs(drawn - want).max() < 4.5 * 0.5 / math.sqrt(n)
        assert (drawn[:2] == 0).all() == (probability == 1)


def test_what_decides_on_xtc_is_independent_of_the_draw() -> None:
    a = np.array([uniform(3, at) for at in range(2000)])
    b = np.array([chance(3, at) for at in range(2000)])
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.1
    assert len({*a, *b}) == 4000


def test_xtc_changes_even_the_likeliest_and_other_filters_do_not() -> None:
    x = np.array([2.0, 1.9, 0.0], np.float32)
    assert sample(x, SamplingParams(xtc_probability=1.0), [], 1) == 1
    assert sample(x, SamplingParams(xtc_probability=1.0, xtc_threshold=0.6), [], 1) == 0
    assert sample(x, SamplingParams(top_n_sigma=0.1, top_p=0.1, typical_p=0.1), [], 1) == 0


def test_the_order_is_llama_cpp_s_and_samplers_change_it() -> None:
    assert " ".join(ORDER) == "penalties dry top_n_sigma top_k typical_p top_p min_p xtc temperature"
    x = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))

    def drawn(*samplers: str, **fields: Any) -> set[int]:
        return {sample(x, SamplingParams(samplers=samplers, **fields), range(at), 1) for at in range(300)}

    # after top-k 2 the likeliest has 0.625; before it, 0.5, which is not enough for top-p 0.6
    assert drawn("top_k", "top_p", top_k=2, top_p=0.6) == {0}
    assert drawn("top_p", "top_k", top_k=2, top_p=0.6) == {0, 1}
    # at temperature 100 all are nearly equal, and top-p 0.7 keeps three
    assert drawn("temperature", "top_p", temperature=100, top_p=0.7) == {0, 1, 2}
    assert drawn("nucleus", "temp", temperature=100, top_p=0.7) == {0, 1}
    # what is not named does not run, temperature included
    assert drawn("typ_p", temperature=0, top_k=1, min_p=0.9) == {0, 1, 2, 3}
    assert drawn("top_k", temperature=0, top_k=1) == {0}
    assert drawn("top_p", "temperature", temperature=0) == {0}
    # a penalty behind top-k meets what is left of it only: 1 is not penalized away in favour of 2
    behind = SamplingParams(samplers=("top_k", "penalties", "temperature"), top_k=2, presence_penalty=9)
    assert sample(x, behind, [0, 1, 1], 0) == 0
    assert sample(x, SamplingParams(presence_penalty=9), [0, 1, 1], 0) == 2


@pytest.mark.parametrize(
    ("fields", "want"),
    [
        ({"top_p": 0.1, "min_keep": 3}, {0, 1, 2}),
        ({"min_p": 0.9, "min_keep": 2}, {0, 1}),
        ({"top_p": 0.1}, {0}),
        ({"top_p": 0.1, "min_keep": 99}, {0, 1, 2, 3}),
    ],
)
def test_min_keep(fields: Any, want: set[int]) -> None:
    x = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    assert {sample(x, SamplingParams(temperature=1, **fields), range(at), 1) for at in range(300)} == want


def test_dynamic_temperature_goes_up_with_the_entropy() -> None:
    flat, steep = np.zeros(8, np.float32), np.array([30.0] + [0.0] * 7, np.float32)
    params = SamplingParams(temperature=0.5, dynatemp_range=0.5, logprobs=8, sampled_logprobs=True)
    assert sampled(flat, params, [], 0).logprob == pytest.approx(-math.log(8))
    assert sampled(steep, params, [], 0).logprob == 0
    # the temperature 0 may be the lowest of a range
    drawn = {sample(np.array([0.2, 0], np.float32), SamplingParams(dynatemp_range=2), range(at), 1) for at in range(50)}
    assert drawn == {0, 1}


def test_allowed_tokens() -> None:
    x = np.array([5.0, 4, 3, 2], np.float32)
    mask = mask_of(SamplingParams(allowed_token_ids=(2, 3)), 4)
    assert sample(x, SamplingParams(), [], 0, allowed=mask) == 2
    assert {sample(x, SamplingParams(temperature=9), range(at), 0, allowed=mask) for at in range(100)} == {2, 3}
    assert mask_of(SamplingParams(), 4) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"samplers": ("top_q",)}, {"samplers": (["top_k"],)}, {"samplers": ("top_k",) * 33}, {"samplers": "top_k"},
        {"xtc_probability": 1.5}, {"xtc_threshold": -0.1}, {"dry_multiplier": -1}, {"dry_multiplier": math.nan},
        {"dry_sequence_breakers": ("",)}, {"dry_sequence_breakers": ("a",) * 65}, {"dry_sequence_breakers": (1,)},
        {"dry_sequence_breakers": ("a" * 1025,)}, {"dry_allowed_length": 1.5}, {"mirostat": 3}, {"mirostat": True},
        {"mirostat_tau": math.inf}, {"mirostat_eta": -1}, {"min_tokens": -1}, {"min_keep": -1}, {"dynatemp_range": -1},
        {"dynatemp_exponent": 1000}, {"top_n_sigma": math.inf}, {"include_stop": 1}, {"allowed_token_ids": [1]},
        {"allowed_token_ids": (1,) * (2**18 + 1)},
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(fields: Any) -> None:
    with pytest.raises(ConfigError, match=next(iter(fields)).replace("dry_sequence_breakers", "sequence breaker")):
        SamplingParams(**fields)
