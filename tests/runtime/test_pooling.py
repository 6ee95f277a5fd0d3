"""Embeddings in the engine: the same whatever the batch, the chunks and the cache; among requests that generate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ternrun.errors import ContextError, LoadError
from ternrun.runtime.backend.protocol import Batch
from ternrun.runtime.config import Pooling, SamplingParams
from ternrun.runtime.engine.engine import Engine
from ternrun.runtime.engine.request import Request, StepOutput
from tests.runtime.fake_model import FakeModel

DIM = 13  # of the fake's vocabulary: its logits serve as hidden states


class Embedder(FakeModel):
    def embed(self, batch: Batch) -> NDArray[np.float32]:
        return self.forward(batch)


def expected(model: FakeModel, ids: list[int], pooling: Pooling) -> NDArray[np.float32]:
    states = np.stack(model.reference(ids))
    if pooling == "mean":
        return states.mean(axis=0, dtype=np.float64).astype(np.float32)
    return {"none": states, "cls": states[0], "last": states[-1]}[pooling]


def run(engine: Engine, requests: list[Request]) -> list[StepOutput]:
    """The last output of each."""
    ids, last = [engine.add(request) for request in requests], {}
    while engine.has_work:
        for output in engine.step():
            last[output.id] = output
    return [last[i] for i in ids]


PROMPTS = st.lists(st.integers(0, 12), min_size=1, max_size=40)
ASKED = st.tuples(PROMPTS, st.sampled_from([None, "none", "mean", "cls", "last"]))


@given(st.lists(ASKED, min_size=1, max_size=6), st.sampled_from([1, 4, 8, 128]), st.sampled_from([1, 2, 4]))
@settings(deadline=None, max_examples=60)
def test_nothing_changes_the_result(asked: list[tuple[list[int], Any]], chunk: int, batch: int) -> None:
    model = Embedder(prefill_chunk=chunk, max_batch=batch, n_blocks=32)
    engine = Engine(model, frozenset())
    params = SamplingParams(max_tokens=20)
    requests = [Request(ids, params, pooling=pooling) for ids, pooling in asked]
    for _ in range(2):  # the second time, the cache knows them
        for request, output in zip(requests, run(engine, requests), strict=True):
            assert output.finish_reason == "length"
            if request.pooling:
                assert output.embedding is not None
                np.testing.assert_allclose(
                    output.embedding, expected(model, list(request.ids), request.pooling), rtol=1e-6
                )


def test_the_whole_context_may_be_embedded() -> None:
    engine = Engine(Embedder(context=16), frozenset())
    (output,) = run(engine, [Request([1] * 16, pooling="mean")])
    assert output.embedding is not None
    with pytest.raises(ContextError):
        engine.add(Request([1] * 17, pooling="mean"))


def test_damaged_states() -> None:
    class Damaged(Embedder):
        def embed(self, batch: Batch) -> NDArray[np.float32]:
            return self.forward(batch) * np.float32(np.nan)

    (output,) = run(Engine(Damaged(), frozenset()), [Request([1, 2], pooling="mean")])
    assert isinstance(output.error, LoadError)


def test_a_group_leaves_room_for_others() -> None:
    """One client with many prompts: whoever comes later starts at once, not when all of them are done."""
    engine = Engine(FakeModel(max_batch=4, n_blocks=64), frozenset())
    params, group = SamplingParams(max_tokens=8), object()
    many = [engine.add(Request([i % 13, 1], params, group=group)) for i in range(40)]
    for _ in range(3):
        engine.step()
    assert engine.load == (3, 37)
    late = engine.add(Request([5, 6], params))
    order, steps = [], 0
    while engine.has_work:
        steps += 1
        order += [(o.id, steps) for o in engine.step() if o.finish_reason]
    ended = dict(order)
    assert set(ended) == {late, *many}
    assert ended[late] <= 10


def test_groups_take_turns() -> None:
    engine = Engine(FakeModel(max_batch=4, n_blocks=64), frozenset())
    params = SamplingParams(max_tokens=30)
    first, second = object(), object()
    for i in range(20):
        engine.add(Request([i % 13], params, group=first))
    for i in range(20):
        engine.add(Request([i % 13], params, group=second))
    engine.step()
    groups = [s.request.group for s in engine._scheduler.running]
    assert groups.count(first) == groups.count(second) == 2
