"""The engine against a model that shows every wrong cache block, and against one-by-one generation without a cache."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ternrun.errors import ConfigError, ContextError, LoadError, UsageError
from ternrun.runtime.config import SamplingParams
from ternrun.runtime.engine.engine import Engine
from ternrun.runtime.engine.multi_step import StepPacer
from ternrun.runtime.engine.request import Request, StepOutput
from ternrun.runtime.sampling.logprobs import TokenLogprobs, token_logprobs
from ternrun.runtime.sampling.mirostat import Mirostat
from ternrun.runtime.sampling.penalties import Breakers
from ternrun.runtime.sampling.sampler import bias_of, mask_of, sample
from tests.runtime.fake_model import FakeModel, mix

EOS = frozenset({5})
BREAKERS = Breakers(np.arange(13) == 7)


class Result:
    """All outputs of one request, joined."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.logprobs: list[TokenLogprobs] = []
        self.prompt: list[TokenLogprobs] = []
        self.reason: str | None = None
        self.cached = 0
        self.error: Exception | None = None

    def take(self, output: StepOutput) -> None:
        assert self.reason is None, "an output after the last one"
        self.ids += output.tokens
        self.logprobs += output.logprobs
        self.prompt += output.prompt_logprobs
        self.reason, self.cached, self.error = output.finish_reason, output.cached_tokens, output.error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Result) and self.key() == other.key()

    def key(self) -> tuple[Any, ...]:
        return self.ids, self.logprobs, self.prompt, self.reason

    def __repr__(self) -> str:
        return repr(self.key())


@pytest.fixture(autouse=True)
def _still_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps take no time here, so how many are joined does not depend on the machine."""
    monkeypatch.setattr("ternrun.runtime.engine.engine.StepPacer", partial(StepPacer, clock=lambda: 0.0))


def run(engine: Engine, requests: list[Request], stagger: int = 0) -> list[Result]:
    """Run the requests to their end, adding one every `stagger` steps (0: all at once)."""
    results: dict[int, Result] = {}
    queue = list(requests)
    steps = 0
    while queue or engine.has_work:
        while queue and (not stagger or steps % stagger == 0 or not engine.has_work):
            results[engine.add(queue.pop(0))] = Result()
            if stagger:
                break
        for output in engine.step():
            results[output.id].take(output)
        steps += 1
        assert steps < 5000, "the engine does not come to an end"
    return list(results.values())


def oracle(model: FakeModel, request: Request, context: int, eos: frozenset[int] = EOS) -> Result:
    """What the request must give: one token at a time, the whole prefix computed anew for each."""
    result, params, ids = Result(), request.params, list(request.ids)
    if request.prompt_logprobs is not None:
        rows = model.reference(ids)
        result.prompt = [token_logprobs(rows[i], ids[i + 1], request.prompt_logprobs) for i in range(len(ids) - 1)]
    stops = set(params.stop_ids) | (set() if params.ignore_eos else eos)
    allowed, mirostat = mask_of(params, model.config.vocab_size), Mirostat(params) if params.mirostat else None
    while len(result.ids) < params.max_tokens and len(ids) < context:
        row = model.reference(ids)[-1]
        bias = bias_of(params, eos, early=len(result.ids) < params.min_tokens)
        token = sample(row, params, ids, params.seed or 0, bias, allowed, BREAKERS, mirostat)
        if token in stops:
            result.reason = "stop"
            return result
        ids.append(token)
        result.ids.append(token)
        if params.logprobs is not None:
            result.logprobs.append(token_logprobs(row, token, params.logprobs))
    result.reason = "length"
    return result


params = st.builds(
    SamplingParams,
    max_tokens=st.integers(0, 12),
    temperature=st.sampled_from([0.0, 1.0]),
    top_k=st.sampled_from([0, 4]),
    repeat_penalty=st.sampled_from([1.0, 1.3, 0.7]),
    presence_penalty=st.sampled_from([0.0, 2.0]),
    repeat_last_n=st.sampled_from([-1, 0, 3, 64]),
    seed=st.integers(0, 3),
    stop_ids=st.sampled_from([(), (2,)]),
    ignore_eos=st.booleans(),
    logprobs=st.sampled_from([None, 0, 2]),
    min_tokens=st.sampled_from([0, 0, 4]),
    allowed_token_ids=st.sampled_from([(), (), (1, 3, 5, 9)]),
    xtc_probability=st.sampled_from([0.0, 0.0, 0.5]),
    dry_multiplier=st.sampled_from([0.0, 0.0, 3.0]),
    dry_allowed_length=st.integers(0, 2),
    top_n_sigma=st.sampled_from([0.0, 0.0, 1.0]),
    dynatemp_range=st.sampled_from([0.0, 0.0, 0.5]),
    samplers=st.sampled_from([(), (), ("top_k", "dry", "temperature"), ("temperature", "xtc", "penalties")]),
    mirostat=st.sampled_from([0, 0, 0, 1, 2]),
)
requests = st.builds(
    Request,
    # few tokens, so that prefixes are shared
    ids=st.lists(st.integers(0, 1), min_size=1, max_size=14),
    params=params,
    prompt_logprobs=st.sampled_from([None, None, 0, 2]),
)
guesses = st.sampled_from(["none", "right", "wrong", "half", "seldom"])


class Drafter:
    """Guesses that are all right (for greedy requests), all wrong, right for a while, or made now and then only."""

    def __init__(self, kind: str, model: FakeModel) -> None:
        self.kind, self.model, self.rest = kind, model, 3 if kind == "seldom" else 0

    def __call__(self, ids: list[int], most: int) -> list[int]:
        known, out = list(ids), []
        for i in range(0 if self.kind == "seldom" and len(ids) % 5 else 3):
            best = int(self.model.reference(known)[-1].argmax())
            out.append(best if self.kind in ("right", "seldom") or (self.kind == "half" and i < 1) else (best + 1) % 13)
            known.append(out[-1])
        return out


def drafter(kind: str, model: FakeModel) -> Any:
    return None if kind == "none" else lambda: Drafter(kind, model)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    asked=st.lists(requests, min_size=1, max_size=6),
    chunk=st.sampled_from([1, 2, 3, 8, 64]),
    max_batch=st.sampled_from([1, 2, 6]),
    n_blocks=st.sampled_from([8, 12, 40]),
    stagger=st.integers(0, 3),
    guess=guesses,
    ahead=st.booleans(),
)
def test_results_depend_on_the_request_alone(
    asked: list[Request], chunk: int, max_batch: int, n_blocks: int, stagger: int, guess: str, ahead: bool
) -> None:
    sizes = {"n_blocks": n_blocks, "block_size": 3, "context": 24}
    model = FakeModel(**sizes, ahead=ahead, max_batch=max_batch, prefill_chunk=chunk)
    engine = Engine(model, EOS, drafter(guess, model), lambda texts: BREAKERS)
    want = [oracle(model, request, 24) for request in asked]
    assert run(engine, asked, stagger) == want
    assert max(len(b.tokens) for b in model.batches) <= chunk + max_batch
    assert run(engine, asked) == want  # once more, with what the cache now holds
    assert engine.cache.available == n_blocks


def test_a_prefix_that_was_computed_is_not_computed_again() -> None:
    model = FakeModel(block_size=4)
    engine = Engine(model)
    ids = list(range(11))
    first, second = (run(engine, [Request(ids, SamplingParams(max_tokens=3))])[0] for _ in range(2))
    assert first.ids == second.ids
    assert (first.cached, second.cached) == (0, 8)
    follow_up = Request([*ids, *first.ids, 1, 2], SamplingParams(max_tokens=1))
    assert run(engine, [follow_up])[0].cached == 12  # the answer's own blocks are of use too


def test_a_long_prompt_does_not_stop_the_others() -> None:
    model = FakeModel(context=100, prefill_chunk=8)
    engine = Engine(model)
    short = engine.add(Request([1, 2, 3], SamplingParams(max_tokens=40, ignore_eos=True)))
    engine.step()
    engine.add(Request(list(range(10)) * 6, SamplingParams(max_tokens=1)))
    for _ in range(7):
        assert [o.id for o in engine.step()] == [short]
        assert len(model.batches[-1].tokens) == 9  # one chunk and the other's token
    assert len(engine.step()) == 2


def test_admission_is_first_come_first_served() -> None:
    model = FakeModel(max_batch=2, prefill_chunk=4)
    engine = Engine(model)
    ids = [engine.add(Request([i] * 6, SamplingParams(max_tokens=2, ignore_eos=True))) for i in range(5)]
    firsts: list[int] = []
    while engine.has_work:
        firsts += [o.id for o in engine.step() if o.id not in firsts]
    assert firsts == ids


def test_preempted_requests_come_back_with_the_same_tokens() -> None:
    asked = [Request([i, 1, 2, 3], SamplingParams(max_tokens=16, ignore_eos=True)) for i in range(4)]
    tight = FakeModel(n_blocks=6, block_size=4, context=24)
    want = [oracle(tight, request, 24, frozenset()) for request in asked]
    assert run(Engine(tight), asked) == want
    recomputed = sum(len(b.tokens) for b in tight.batches) > sum(
        len(r.ids) + len(w.ids) for r, w in zip(asked, want, strict=True)
    )
    assert recomputed, "the pool was meant to be too small for four"


def test_a_preempted_request_waits_before_those_that_came_later() -> None:
    engine = Engine(FakeModel(n_blocks=6, block_size=4, context=24, max_batch=2))
    for i in range(3):
        engine.add(Request([i] * 4, SamplingParams(max_tokens=15, ignore_eos=True)))
    preempted = False
    while engine.has_work:
        engine.step()
        running, waiting = engine._scheduler.running, list(engine._scheduler.waiting)
        assert [s.id for s in (*running, *waiting)] == sorted(s.id for s in (*running, *waiting))
        preempted |= any(len(s.ids) > 4 for s in waiting)
    assert preempted


def test_greedy_requests_take_several_steps_in_one_call() -> None:
    asked = [Request([i, 2, 3], SamplingParams(max_tokens=40)) for i in range(3)]
    model = FakeModel(ahead=True)
    engine = Engine(model, EOS)
    assert run(engine, asked) == [oracle(model, request, 128) for request in asked]
    assert max(model.calls) > 8
    assert engine.counters.steps == len(model.batches)


@pytest.mark.parametrize(
    "other",
    [
        {"temperature": 1.0}, {"logprobs": 0}, {"repeat_penalty": 1.1}, {"logit_bias": ((1, 1.0),)},
        {"dry_multiplier": 1.0}, {"xtc_probability": 1.0}, {"samplers": ("top_k",)}, {"dynatemp_range": 1.0},
        {"allowed_token_ids": (1, 2, 3)},
    ],
)  # fmt: skip
def test_one_that_wants_more_than_the_largest_logit_keeps_all_to_single_steps(other: dict[str, Any]) -> None:
    model = FakeModel(ahead=True)
    run(Engine(model), [Request([1, 2, 3], SamplingParams(max_tokens=9, **more)) for more in ({}, other)])
    assert not model.calls


@pytest.mark.parametrize("fields", [{}, {"stop_ids": (1, 2, 3, 4)}, {"ignore_eos": True}, {"temperature": 1.0}])
def test_a_text_has_its_least_length_and_then_goes_on_as_any_other(fields: dict[str, Any]) -> None:
    lengths = set()
    for start in range(13):
        params = SamplingParams(max_tokens=40, min_tokens=12, seed=3, **fields)
        model, request = FakeModel(ahead=True), Request([start], params)
        result = run(Engine(model, EOS), [request])[0]
        assert result == oracle(model, request, 128)
        assert len(result.ids) >= 12
        assert not {5, *params.stop_ids} & set(result.ids[:12]) or params.ignore_eos
        assert bool(model.calls) != bool(params.temperature)  # steps are joined behind the least length
        lengths.add(len(result.ids))
    assert len(lengths) > 3 or params.ignore_eos


def test_what_may_be_generated_is_all_that_is() -> None:
    params = SamplingParams(max_tokens=30, temperature=2.0, allowed_token_ids=(5, 7, 9), ignore_eos=True)
    assert set(run(Engine(FakeModel(), EOS), [Request([1], params)])[0].ids) == {7, 9}
    none = SamplingParams(allowed_token_ids=(5,), min_tokens=1)
    error = run(Engine(FakeModel(), EOS), [Request([1], none)])[0].error
    assert isinstance(error, UsageError)
    assert "leaves no token" in str(error)


def test_drawn_probabilities_are_told_of_what_mirostat_leaves() -> None:
    params = SamplingParams(max_tokens=30, temperature=1.0, mirostat=2, mirostat_tau=1.0, logprobs=13, seed=1)
    plain = run(Engine(FakeModel()), [Request([1], params)])[0]
    told = run(Engine(FakeModel()), [Request([1], replace(params, sampled_logprobs=True))])[0]
    assert told.ids == plain.ids
    sizes = {len(entry.top) for entry in told.logprobs}
    assert len(sizes) > 1
    assert all(sum(math.exp(best.logprob) for best in entry.top) == pytest.approx(1) for entry in told.logprobs)


def test_steps_are_joined_until_a_ban_is_met() -> None:
    free = run(Engine(FakeModel()), [Request([1, 2, 3], SamplingParams(max_tokens=40))])[0].ids
    places = set()
    for token in range(13):
        params = SamplingParams(max_tokens=40, ignore_eos=True, logit_bias=((token, -math.inf),))
        model, request = FakeModel(ahead=True), Request([1, 2, 3], params)
        assert run(Engine(model, EOS), [request]) == [oracle(model, request, 128)]
        met = next((i for i, best in enumerate(free) if best == token or best in EOS), 40)
        if met:  # the first token comes with the prompt
            assert sum(model.calls) == min(met, 39)
        places.add(met)
    assert len(places) > 3


def test_logits_that_are_not_numbers_end_the_request_that_has_them_within_a_call_too() -> None:
    model, states = FakeModel(ahead=True), []
    sound = model.logits

    def logits(state: int) -> NDArray[np.float32]:
        states.append(state)
        return sound(state) * np.float32(np.nan if states.index(state) == 20 else 1)

    model.logits = logits  # type: ignore[method-assign]
    result = run(Engine(model), [Request([1, 2, 3], SamplingParams(max_tokens=40))])[0]
    assert max(model.calls) > 2
    assert (len(result.ids), result.reason) == (20, "error")
    assert isinstance(result.error, LoadError)


def test_right_guesses_save_steps_and_wrong_ones_cost_none() -> None:
    asked = [Request([1, 2, 3], SamplingParams(max_tokens=20))]
    steps = {}
    for kind in ("none", "right", "wrong"):
        model = FakeModel()
        run(Engine(model, drafter=drafter(kind, model)), asked)
        steps[kind] = len(model.batches)
    assert steps == {"none": 20, "right": 6, "wrong": 20}  # 1 + 19 / 4: three guesses and the token after them


def test_abort_frees_everything_at_any_moment() -> None:
    model = FakeModel(max_batch=2, prefill_chunk=4, n_blocks=16)
    for steps in range(8):
        engine = Engine(model)
        ids = [engine.add(Request([i] * 9, SamplingParams(max_tokens=20))) for i in range(3)]
        for _ in range(steps):
            engine.step()
        for i in ids:
            engine.abort(i)
            engine.abort(i)
        assert not engine.has_work
        assert engine.step() == []
        assert engine.cache.available == 16


def test_score_reports_every_token_but_the_first() -> None:
    model = FakeModel(prefill_chunk=5)
    ids = list(np.random.default_rng(0).integers(0, 13, 50).tolist())
    request = Request(ids, SamplingParams(max_tokens=0), prompt_logprobs=3)
    got = run(Engine(model), [request])[0]
    assert len(got.prompt) == 49
    assert got == oracle(model, request, 128)
    assert math.isclose(sum(math.exp(t.logprob) for t in run(
        Engine(model), [replace(request, prompt_logprobs=13)])[0].prompt[0].top), 1)  # fmt: skip


def test_context_ends_a_request() -> None:
    model = FakeModel(context=10, n_blocks=3, block_size=4)
    result = run(Engine(model), [Request([1] * 7, SamplingParams(max_tokens=100, ignore_eos=True))])[0]
    assert len(result.ids) == 3
    assert result.reason == "length"


def test_damaged_weights_end_the_request_that_meets_them_and_no_other() -> None:
    class Damaged(FakeModel):
        def logits(self, state: int) -> Any:
            row = super().logits(state)
            return row * np.float32(math.nan) if state == bad else row

    model, bad = Damaged(), mix(7, 0, 0)
    one, two = run(Engine(model), [Request([7]), Request([3], SamplingParams(max_tokens=4))])
    assert one.reason == "error"
    assert isinstance(one.error, LoadError)
    assert two == oracle(model, Request([3], SamplingParams(max_tokens=4)), 128, frozenset())


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        (Request([]), UsageError, "empty"),
        (Request([1] * 24), ContextError, "24 tokens, but the context holds 24"),
        (Request([1] * 25, SamplingParams(max_tokens=0)), ContextError, "25 tokens"),
        (Request([13]), UsageError, "13 is not a token id"),
        (Request([-1]), UsageError, "-1 is not a token id"),
        (Request([1.0]), UsageError, "1.0 is not a token id"),  # type: ignore[list-item]
        (Request([True]), UsageError, "True is not a token id"),
        (Request([1], SamplingParams(stop_ids=(99,))), UsageError, "stop_ids: 99"),
        (Request([1], SamplingParams(allowed_token_ids=(1, 13))), ConfigError, "allowed_token_ids: 13"),
        (Request([1], SamplingParams(allowed_token_ids=(-1,))), ConfigError, "allowed_token_ids: -1"),
        (Request([1], SamplingParams(logit_bias=((99, 1.0),))), UsageError, "logit_bias: 99"),
        (Request([1], SamplingParams(logit_bias=((1, math.nan),))), UsageError, "nan"),
        (Request([1], SamplingParams(logit_bias=((1, math.inf),))), UsageError, "inf"),
        (Request([1], prompt_logprobs=-1), UsageError, "prompt_logprobs"),
        (Request([1], prompt_logprobs=10**9), UsageError, "prompt_logprobs"),
        (Request([1], prompt_logprobs=1.5), UsageError, "prompt_logprobs"),  # type: ignore[arg-type]
        (Request([1], prompt_logprobs="2"), UsageError, "prompt_logprobs"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_run_is_refused_by_name(request_: Request, error: type[Exception], words: str) -> None:
    engine = Engine(FakeModel(context=24))
    with pytest.raises(error, match=words):
        engine.add(request_)
    assert not engine.has_work


@pytest.mark.parametrize(
    "values",
    [{"max_tokens": 1.5}, {"max_tokens": True}, {"stop": "text"}, {"seed": -1}, {"top_p": math.nan},
     {"logit_bias": ((1,),)}, {"logit_bias": (1, 2.0)}, {"logit_bias": ((1, "a"),)}, {"logit_bias": ((1, None),)},
     {"ignore_eos": "no"}, {"sampled_logprobs": 1}],
)  # fmt: skip
def test_parameters_of_the_wrong_kind_are_refused_by_name(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        SamplingParams(**values)


def test_banning_every_token_is_the_callers_mistake() -> None:
    ban = SamplingParams(logit_bias=tuple((i, -math.inf) for i in range(13)))
    result = run(Engine(FakeModel()), [Request([1], ban)])[0]
    assert isinstance(result.error, UsageError)


def test_progress_of_a_prompt() -> None:
    """Every step of a prompt is told where that was asked for, also what is computed again after a preemption."""
    model = FakeModel(n_blocks=8, context=32, prefill_chunk=4, max_batch=2)
    engine = Engine(model, EOS)
    asked = Request([1] * 10, SamplingParams(max_tokens=2, ignore_eos=True), progress=True)
    silent = Request([2] * 10, SamplingParams(max_tokens=2, ignore_eos=True))
    ids = [engine.add(asked), engine.add(silent)]
    outputs = []
    while engine.has_work:
        outputs += engine.step()
    assert [o.processed for o in outputs if o.id == ids[0]] == [4, 8, 10, 10]
    assert [(o.processed, len(o.tokens)) for o in outputs if o.id == ids[1]] == [(0, 1), (0, 1)]
