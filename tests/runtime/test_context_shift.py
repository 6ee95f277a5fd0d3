"""Context shift against generation one by one without a cache, in which the ids are cut where they fill the context."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ternrun.runtime.config import SamplingParams
from ternrun.runtime.engine.context_shift import NEXT_SEED, ContextShift, shift_tokens
from ternrun.runtime.engine.engine import Engine
from ternrun.runtime.engine.request import Request
from ternrun.runtime.sampling.sampler import bias_of, sample
from tests.runtime.fake_model import FakeModel
from tests.runtime.test_engine import EOS, Result, drafter, guesses, run


@pytest.mark.parametrize(
    ("n", "prompt", "shift", "left"),
    [
        (10, 4, ContextShift(), [5, 6, 7, 8, 9]),
        (10, 4, ContextShift(keep=2), [0, 1, 6, 7, 8, 9]),
        (10, 4, ContextShift(keep=-1), [0, 1, 2, 3, 7, 8, 9]),
        (10, 4, ContextShift(keep=2, discard=1), [0, 1, 3, 4, 5, 6, 7, 8, 9]),
        (10, 4, ContextShift(keep=2, discard=99), [0, 1, 9]),
        (10, 9, ContextShift(keep=-1), [0, 1, 2, 3, 4, 5, 8, 9]),
        (10, 4, ContextShift(keep=99), [0, 1, 2, 3, 4, 5, 8, 9]),
        (2, 1, ContextShift(keep=1), [1]),
    ],
)
def test_what_is_dropped(n: int, prompt: int, shift: ContextShift, left: list[int]) -> None:
    assert shift_tokens(list(range(n)), prompt, shift) == left


def oracle(model: FakeModel, request: Request, context: int, eos: frozenset[int]) -> Result:
    result, params, ids, seed = Result(), request.params, list(request.ids), request.params.seed or 0
    while len(result.ids) < params.max_tokens:
        if len(ids) == context:
            assert request.shift is not None
            ids, seed = shift_tokens(ids, len(request.ids), request.shift), (seed + NEXT_SEED) % 2**64
        token = sample(model.reference(ids)[-1], params, ids, seed, bias_of(params, eos))
        if token in eos and not params.ignore_eos:
            result.reason = "stop"
            return result
        ids.append(token)
        result.ids.append(token)
    result.reason = "length"
    return result


shifting = st.builds(
    Request,
    ids=st.lists(st.integers(0, 1), min_size=1, max_size=14),
    params=st.builds(
        SamplingParams,
        max_tokens=st.integers(1, 60),
        temperature=st.sampled_from([0.0, 1.0]),
        repeat_penalty=st.sampled_from([1.0, 1.3]),
        seed=st.sampled_from([0, 2**64 - 1]),
        ignore_eos=st.booleans(),
    ),
    prompt_logprobs=st.sampled_from([None, None, 0]),
    shift=st.builds(ContextShift, st.integers(-1, 20), st.integers(0, 20)),
)

SCORED = Request(
    [1] * 13, SamplingParams(max_tokens=9, ignore_eos=True), prompt_logprobs=0, shift=ContextShift(keep=0, discard=8)
)
GREEDY = Request([1] * 8, SamplingParams(max_tokens=60), shift=ContextShift())


@settings(deadline=None)
@given(
    requests=st.lists(shifting, min_size=1, max_size=4),
    context=st.integers(16, 24),
    chunk=st.integers(1, 9),
    batch=st.integers(1, 4),
    spare=st.integers(0, 8),
    guess=guesses,
    eos=st.sampled_from([EOS, frozenset()]),  # without, greedy sequences make several tokens in a call
)
# several tokens in a call fill the context; after the shift, all is in the cache
@example(requests=[GREEDY], context=16, chunk=9, batch=1, spare=8, guess="none", eos=frozenset())
@example(requests=[SCORED], context=16, chunk=9, batch=1, spare=8, guess="none", eos=EOS)
def test_the_result_depends_on_the_ids_alone(
    requests: list[Request], context: int, chunk: int, batch: int, spare: int, guess: str, eos: frozenset[int]
) -> None:
    """Whatever the chunks, the batch, the room in the cache (preemption) and the guesses are."""
    model = FakeModel(n_blocks=-(-context // 4) + spare, context=context, prefill_chunk=chunk, max_batch=batch)
    model.ahead = not eos
    engine = Engine(model, eos, drafter(guess, model))
    twice = requests * 2  # the second time much is in the cache
    for request, result in zip(twice, run(engine, twice), strict=True):
        wanted = oracle(model, request, context, eos)
        assert (result.ids, result.reason) == (wanted.ids, wanted.reason)
        assert len(result.prompt) == (0 if request.prompt_logprobs is None else len(request.ids) - 1)
    assert engine.cache.available == model.n_blocks


@pytest.mark.parametrize("discard", [0, 1])
def test_an_answer_without_an_end_lets_others_come_to_theirs(discard: int) -> None:
    """There is room for one context only, of which the endless one takes all, again and again."""
    engine = Engine(FakeModel(n_blocks=6, context=24, prefill_chunk=8, max_batch=2))
    endless = SamplingParams(max_tokens=2**20, ignore_eos=True)
    first = engine.add(Request([1] * 4, endless, shift=ContextShift(discard=discard)))
    assert engine.step()
    asked = SamplingParams(max_tokens=16, ignore_eos=True)
    others = {engine.add(Request([i] * 4, asked)) for i in range(3)}
    made = 0
    for _ in range(1000):
        for output in engine.step():
            made += len(output.tokens) if output.id == first else 0
            others -= {output.id} if output.finish_reason else set()
        if not others:
            break
    assert not others
    before = made
    for _ in range(100):
        made += sum(len(output.tokens) for output in engine.step())
    assert made > before  # and then it goes on
