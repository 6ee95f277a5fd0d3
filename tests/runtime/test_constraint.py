"""Constraints in the engine: only allowed tokens come, and neither batch, guesses nor delays change which."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ternrun.errors import UsageError
from ternrun.runtime.config import SamplingParams
from ternrun.runtime.engine.engine import Engine
from ternrun.runtime.engine.request import Request
from ternrun.runtime.ngram_proposer import NgramProposer
from ternrun.runtime.sampling.logprobs import token_logprobs
from ternrun.runtime.sampling.sampler import logits_needed, sample
from tests.runtime.fake_model import FakeModel
from tests.runtime.test_engine import EOS, run

VOCAB = 13


def mask_after(tokens: tuple[int, ...]) -> NDArray[np.bool_]:
    """A rule that hangs on every token so far: few tokens, so that texts repeat and guesses come true."""
    rng = random.Random(hash(tokens[-2:]))
    mask = np.zeros(VOCAB, np.bool_)
    mask[rng.sample(range(VOCAB), 2)] = True
    return mask


class Rule:
    """A constraint that is ready only after being asked a few times, and ends after `length` tokens."""

    def __init__(self, length: int, delays: random.Random) -> None:
        self.length, self.delays = length, delays
        self.tokens: tuple[int, ...] = ()
        self.wait = delays.choice([0, 0, 1, 3])
        self.closed = False

    def ready(self, wait: float = 0.0) -> bool:
        assert not self.closed
        self.wait -= 1
        return self.wait < 0

    def allowed(self) -> NDArray[np.bool_] | None:
        assert self.wait < 0, "asked before it was ready"
        return None if len(self.tokens) == self.length else mask_after(self.tokens)

    def accept(self, token: int) -> None:
        assert mask_after(self.tokens)[token]
        self.tokens += (token,)
        self.wait = self.delays.choice([0, 0, 0, 1, 3])

    def close(self) -> None:
        self.closed = True


def expected(model: FakeModel, request: Request, length: int) -> tuple[list[int], str]:
    """One by one, without cache, batch or delay."""
    ids, params, out = list(request.ids), request.params, []
    while len(out) < params.max_tokens:
        if len(out) == length:
            return out, "stop"
        row = model.reference(ids)[-1]
        token = sample(row, params, ids, params.seed or 0, None, mask_after(tuple(out)))
        if token in EOS:
            return out, "stop"
        out.append(token)
        ids.append(token)
    return out, "length"


@given(st.randoms(use_true_random=False), st.integers(1, 4), st.sampled_from([None, partial(NgramProposer, 3)]))
@settings(deadline=None, max_examples=60)
def test_nothing_changes_what_comes(
    rng: random.Random, batch: int, drafter: Callable[[], NgramProposer] | None
) -> None:
    model = FakeModel(max_batch=batch, prefill_chunk=rng.choice([1, 4, 8]), n_blocks=32)
    rules: list[Rule] = []

    def rule(length: int) -> Rule:
        rules.append(Rule(length, rng))
        return rules[-1]

    requests, wanted = [], []
    for i in range(6):
        ids = [rng.randrange(VOCAB) for _ in range(rng.randint(1, 12))]
        params = SamplingParams(max_tokens=rng.randint(0, 20), temperature=rng.choice([0.0, 1.0]), seed=i, logprobs=1)
        length = rng.choice([5, 100])
        constrained = rng.random() < 0.8
        requests.append(Request(ids, params, None, (lambda n=length: rule(n)) if constrained else None))
        wanted.append(expected(model, requests[-1], length) if constrained else None)
    results = run(Engine(model, EOS, drafter), requests)
    for request, result, want in zip(requests, results, wanted, strict=True):
        if want is not None:
            assert (result.ids, result.reason) == want
        rows = model.reference([*request.ids, *result.ids])[len(request.ids) - 1 :]
        raw = [token_logprobs(row, token, 1) for row, token in zip(rows, result.ids, strict=False)]
        assert result.logprobs == raw, "log-probabilities are of the distribution before the constraint"
    assert all(rule.closed for rule in rules)


def test_a_sequence_that_waits_keeps_nobody_waiting() -> None:
    class Never(Rule):
        def ready(self, wait: float = 0.0) -> bool:
            return False

    model = FakeModel(max_batch=2)
    engine = Engine(model, frozenset())
    params = SamplingParams(max_tokens=5)
    stuck = engine.add(Request([1, 2], params, None, lambda: Never(9, random.Random())))
    free = engine.add(Request([1, 2, 3], params))
    outputs = [output for _ in range(8) for output in engine.step()]
    assert {o.id for o in outputs} == {free}
    assert outputs[-1].finish_reason == "length"
    engine.abort(stuck)
    assert not engine.has_work


def test_a_constraint_that_fails_ends_its_own_sequence_only() -> None:
    class Broken(Rule):
        def allowed(self) -> NDArray[np.bool_] | None:
            raise UsageError("no")

    engine = Engine(FakeModel(max_batch=2), frozenset())
    params = SamplingParams(max_tokens=5)
    broken, good = run(engine, [Request([1], params, None, lambda: Broken(1, random.Random())), Request([1], params)])
    assert isinstance(broken.error, UsageError)
    assert (good.reason, len(good.ids)) == ("length", 5)


def test_no_token_left() -> None:
    mask = np.zeros(4, np.bool_)
    with pytest.raises(UsageError, match="no token"):
        sample(np.ones(4, np.float32), SamplingParams(), [], 0, None, mask)


def test_a_constrained_row_needs_every_logit() -> None:
    assert logits_needed(SamplingParams(), None) == 1
    assert logits_needed(SamplingParams(), None, constrained=True) == 0
