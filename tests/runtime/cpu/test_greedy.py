"""Several greedy steps in one call: the tokens that single steps choose, and an end where it is due."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ternrun.runtime.backend.protocol import Batch
from ternrun.runtime.cpu import layout
from ternrun.runtime.cpu.memory import address
from ternrun.runtime.cpu.model import CpuModel
from tests.fakes import fake_weights
from tests.runtime.cpu.harness import ISAS, Machine, copy_of
from tests.runtime.cpu.models import batch_of, forward, loaded

SIZES = {"dim": 64, "ffn_dim": 128, "n_heads": 4, "n_kv_heads": 2, "head_dim": 16}
SMALL = fake_weights("llama", "Q2_0", vocab_size=50, **SIZES)
SCREENED = fake_weights("llama", "Q2_0", head="F16", vocab_size=4111, **SIZES)
STEPS, NONE = 30, frozenset[int]()


def begun(model: CpuModel) -> Batch:
    """The next step of two sequences that have a past, and whose copy of the head is made."""
    model.forward(batch_of([3, 1, 4], blocks=np.arange(4), top_logits=[1, 1, 1]))
    model.forward(batch_of([2, 7], blocks=np.arange(4, 8), top_logits=[1, 1]))
    tables = [np.arange(4), np.arange(4, 8)]
    return batch_of([5, 9], positions=[3, 2], slots=[0, 1], block_tables=tables, outputs=[0, 1], top_logits=[1, 1])


def one_by_one(model: CpuModel, batch: Batch, steps: int) -> list[list[int]]:
    """Each sequence's tokens, chosen in steps of their own."""
    chosen = []
    for _ in range(steps):
        chosen.append(forward(model, batch).argmax(axis=1).tolist())
        batch = batch._replace(tokens=chosen[-1], positions=[p + 1 for p in batch.positions])
    return [list(tokens) for tokens in zip(*chosen, strict=True)]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("weights", [SMALL, SCREENED], ids=["small", "screened"])
@pytest.mark.parametrize("threads", [1, 3])
def test_steps_in_one_call_choose_what_single_steps_choose(weights: Any, isa: str, threads: int) -> None:
    with loaded(weights, isa, threads=threads, kv_tokens=128) as model:
        wanted = one_by_one(model, begun(model), STEPS)
        assert model.decode(begun(model), STEPS, NONE) == wanted
        assert len({*wanted[0], *wanted[1]}) > 4  # else this tests little
        stop = wanted[1][11]
        end = 1 + min(tokens.index(stop) for tokens in wanted if stop in tokens)
        assert model.decode(begun(model), STEPS, frozenset({stop})) == [tokens[:end] for tokens in wanted]
        assert one_by_one(model, begun(model), 2) == [tokens[:2] for tokens in wanted]  # nothing is left of it


def test_nothing_is_decoded_before_the_head_s_copy_is_made() -> None:
    with loaded(SCREENED, kv_tokens=128) as model:
        batch = batch_of([5], top_logits=[1])
        if model.screen:
            assert not model.decode(batch, STEPS, NONE)
        for _ in range(2):
            model.forward(batch)
        assert len(model.decode(batch, STEPS, NONE)[0]) == STEPS


def test_refuses_to_leave_the_table_and_results_that_are_not_wanted() -> None:
    with loaded(SMALL, kv_tokens=128) as model:
        assert len(model.decode(batch_of([1], 34), 30, NONE)[0]) == 30
        with pytest.raises(ValueError, match="position"):
            model.decode(batch_of([1], 35), 30, NONE)
        with pytest.raises(ValueError, match="2 tokens that wants 1"):
            model.decode(batch_of([1, 2], outputs=[1]), 2, NONE)


@pytest.mark.parametrize("n", [7, 16, 50])
def test_the_best_is_the_largest_the_lowest_among_equals(machine: Machine, n: int) -> None:
    logits = np.random.default_rng(n).normal(-3, 1, (6, 64)).astype(np.float32)
    logits[1, [n - 1, n // 2]] = 9
    logits[2, 0], logits[3, n - 1], logits[4, n // 2] = np.nan, np.inf, -np.inf
    logits[:, n:] = 100  # not looked at
    best, held = copy_of(np.full((6, 2), 77), np.int64), copy_of(logits)
    state = copy_of(np.zeros(layout.STATE_BYTES // 8), np.int64)
    state[layout.STATE["tokens"] // 8] = 6
    args = {
        "state": address(state), "logits": address(held), "ldl": 64, "n": n, "best": address(best), "best_stride": 16,
    }  # fmt: skip
    machine.call("greedy.best", threads=2, **args)
    assert (best == 77).all()  # no step is left that would want it
    state[layout.STATE["steps_left"] // 8] = 1
    machine.call("greedy.best", threads=2, **args)
    usual = [int(row[:n].argmax()) for row in logits]
    assert best[:, 0].tolist() == [usual[0], n // 2, -1, -1, -1, usual[5]]


def test_a_row_without_a_best_token_ends_the_call_and_is_not_told(machine: Machine) -> None:
    best, told = copy_of(np.array([4, -1]), np.int64), copy_of(np.array([8, 8]), np.int32)
    ids, positions = copy_of(np.array([1, 2]), np.int32), copy_of(np.array([5, 6]), np.int32)
    state = copy_of(np.zeros(layout.STATE_BYTES // 8), np.int64)
    for name, value in (("tokens", 2), ("steps_left", 9), ("ids", address(ids)), ("positions", address(positions)),
                        ("generated", address(told))):  # fmt: skip
        state[layout.STATE[name] // 8] = value
    machine.call("greedy.feed", state=address(state), best=address(best), best_stride=8, threads=2)
    assert state[layout.STATE["steps_left"] // 8] == 0
    assert state[layout.STATE["generated"] // 8] == address(told)
    assert (ids.tolist(), positions.tolist(), told.tolist()) == ([1, 2], [5, 6], [8, 8])
